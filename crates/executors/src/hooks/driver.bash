# Runs one hook: `bash driver HOOK STATE`. STATE then tells its exit code, the line that failed, the directory it ended
# in, and what it exports, each ended by a NUL.
__executr_hook=$1 __executr_state=$2 __executr_line=0
shift 2
__executr_end() {
    local code=$? name IFS=$' \t\n'
    trap - EXIT ERR
    set +eux
    # What is exported may be a secret.
    umask 077
    {
        printf '%s\0' "$code" "$__executr_line" "$PWD"
        for name in $(compgen -e); do
            printf '%s=%s\0' "$name" "${!name}"
        done
    } > "$__executr_state.part"
    mv "$__executr_state.part" "$__executr_state"
    exit "$code"
}
trap __executr_end EXIT
# A command within a function fails before the call of the function does: the first line told is the innermost.
trap '[ "$__executr_line" != 0 ] || __executr_line=$LINENO' ERR
# Asked to end, what the hook runs is asked, too: its end is waited for, and told.
trap : TERM
set -eE -o pipefail
. "$__executr_hook"
