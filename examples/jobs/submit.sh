#!/bin/sh
# Submits a file of this folder over HTTP and prints what the server answers.
#
#   examples/jobs/submit.sh examples/jobs/script.json
#
# A file that holds an array goes to the bulk route. EXECUTR_SERVER_URL and EXECUTR_TOKEN say where and as whom.
set -eu

file=$1
url=${EXECUTR_SERVER_URL:-http://127.0.0.1:8080}/api/v1/jobs
case $(head -c 1 "$file") in
    '[') url=$url/bulk ;;
esac
set -- --silent --show-error --fail-with-body --header 'Content-Type: application/json' --data-binary "@$file"
if [ -n "${EXECUTR_TOKEN-}" ]; then
    # Read from standard input, so that the token stands in no process list.
    printf 'header = "Authorization: Bearer %s"\n' "$EXECUTR_TOKEN" | curl --config - "$@" "$url"
else
    curl "$@" "$url"
fi
echo
