//! The keys of a workflow file. `docs/workflows.md` shows each by example.

use super::Shape::{Amount, Count, List, Map, Nothing, ObjectOr, OneOf, Scalar, Switch, Text, Word};
use super::{Key, Object, Others, Shape};

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, required: false, about }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, required: true, about }
}

const fn object(name: &'static str, keys: &'static [Key]) -> Object {
    Object { name, keys, one_of: &[], others: Others::Refused, foreign: &[] }
}

const SPAN: Shape =
    Amount { like: "10m", pattern: r"^([0-9]{1,6}(\.[0-9]+)?|([0-9]{1,6}(\.[0-9]+)?(us|ms|s|m|h|d)){1,6})$" };
const VARIABLES: Shape = Map(&Scalar);
const TEXTS: Shape = List(&Text);
const NAMES: Shape = OneOf(&[Text, TEXTS]);
const CONDITION: Shape = OneOf(&[Text, Switch]);
const BACKOFF: Shape = Word(&["exponential", "linear", "constant"]);
const PROVIDERS: Shape = List(&Shape::Object(&PROVIDER));
const RETRY: Shape = OneOf(&[Nothing, Count(1, 1_000), Shape::Object(&TRIES)]);
const JOB_RETRY: Shape = OneOf(&[Nothing, Count(0, 1_000), Shape::Object(&ATTEMPTS)]);
const LABELS: Shape = Map(&Scalar);
const CPU: Shape = Amount { like: "500m", pattern: r"^([0-9]{1,6}(\.[0-9]+)?|[0-9]{1,9}m)$" };
const MEMORY: Shape = Amount { like: "512Mi", pattern: "^[0-9]{1,12}([KMGT]i?B?|kB?|B)?$" };

const PACKAGES: &str = "packages arrive with a later executor; until then use what is on the worker's PATH";
const SCRIPT: &str = "write `run`";

/// The whole file.
pub(in crate::workflow) const WORKFLOW: Object = Object {
    others: Others::Own,
    foreign: &[
        ("extensions", "functions have no place in a file; put what jobs share into `defaults`"),
        ("on", "a file doesn't say what starts it; `executr run` and `executr submit` do"),
        ("deps", PACKAGES),
        ("stages", "write `needs` in each job"),
        ("version", "leave it out"),
    ],
    ..object(
        "a workflow",
        &[
            key("name", Text, "What the workflow is called; `workflow` by default."),
            key("env", VARIABLES, "Variables of all steps of all jobs."),
            key("env_from", PROVIDERS, "Sources of more variables, below `env`; of two, the later one wins."),
            key("secrets", TEXTS, "Names of secrets that all jobs get as variables. Workers have the values."),
            key("retry", RETRY, "How often each step is tried, unless its job or itself says otherwise."),
            key("timeout", SPAN, "After this long the run is cancelled."),
            key("fail_fast", Switch, "Whether the first failure stops what has not started; true by default."),
            key("defaults", Shape::Object(&DEFAULTS), "What stands in every job that doesn't say otherwise."),
            key("executors", Map(&Shape::Object(&EXECUTOR)), "Where jobs can run, by name."),
            required("jobs", Map(&Shape::Object(&JOB)), "The jobs, by name."),
        ],
    )
};

const DEFAULTS: Object = object(
    "`defaults`",
    &[
        key("executor", EXECUTOR_CHOICE, "Where jobs run: a name of `executors`, or an executor in place."),
        key("env", VARIABLES, "Variables of each job, below its own `env`."),
        key("retry", RETRY, "How often each step is tried."),
        key("job_retry", JOB_RETRY, "How often a failed job is repeated."),
        key("timeout", SPAN, "How long each job may take."),
        key("inherit", TEXTS, "Names of the worker's own variables that each job gets; `*` is all."),
        key(
            "copy_repo",
            Switch,
            "Whether each job starts from a copy of the repository; what its executor says by default.",
        ),
        key("queue", Text, "In which queue jobs wait."),
        key("labels", LABELS, "Labels a worker must bear, besides the job's own."),
        key("resources", Shape::Object(&RESOURCES), "Bounds within which each job is kept."),
        key("priority", PRIORITY, "Who goes first."),
    ],
);

const EXECUTOR_CHOICE: Shape = OneOf(&[Text, Shape::Object(&EXECUTOR)]);
const PRIORITY: Shape = Word(&["foreground", "background", "best_effort"]);

/// What only the executor `command` has.
pub(in crate::workflow) const COMMAND: [&str; 2] = ["argv", "directory"];

/// What only the executor `oci` has.
pub(in crate::workflow) const CONTAINER: [&str; 14] = [
    "image",
    "mode",
    "pull",
    "engine",
    "user",
    "network",
    "cpus",
    "memory",
    "pids",
    "read_only",
    "tmpfs",
    "mounts",
    "container_env",
    "registry",
];

/// What only the executor `ssh` has, but for `mode` and `user`, which mean something of `oci`, too.
pub(in crate::workflow) const HOSTS: [&str; 9] =
    ["host", "hosts", "user", "port", "identity_file", "config_file", "mode", "workspace_dir", "max_jobs"];

/// The scripts of the executor `hooks`, in the order in which they run.
pub(in crate::workflow) const HOOKS: [&str; 7] = [
    "setup_workspace",
    "setup_job",
    "restore_artifact",
    "execute",
    "save_artifact",
    "cleanup_job",
    "cleanup_workspace",
];

const EXECUTOR: Object = Object {
    foreign: &[
        ("execute_job", "write `execute`; it runs once per step, with the step in `$EXECUTR_STEP`"),
        ("executeJob", "write `execute`; it runs once per step, with the step in `$EXECUTR_STEP`"),
        ("extra_mounts", "write `mounts`"),
        ("extraMounts", "write `mounts`"),
        ("containerEnv", "write `container_env`"),
        ("privileged", "steps in containers have no capabilities; that can't be switched off"),
        ("volumes", "write `mounts`"),
        ("extra_packages", PACKAGES),
        ("extraPackages", PACKAGES),
    ],
    ..object(
        "an executor",
        &[
            required(
                "kind",
                Word(&["local", "oci", "ssh", "hooks", "command"]),
                "`local`: a directory a job. `oci`: containers. `ssh`: other hosts. `hooks`: your own scripts. `command`: \
                 behind a command of your own.",
            ),
            key(
                "name",
                Text,
                "Of an executor in place: jobs with the same one share a workspace. Its kind by default.",
            ),
            key("copy_repo", Switch, "Whether each job starts from a copy of the repository; true by default."),
            key("copy_git", Switch, "Whether the copy has `.git`; false by default."),
            key(
                "isolate",
                Switch,
                "Of `local`: whether jobs are kept from the machine: its files read-only, homes, processes and other jobs unseen; \
                 false by default.",
            ),
            key("image", Text, "Of `oci`: what containers are made of."),
            key(
                "mode",
                Word(&["shared", "isolated", "dedicated", "pool"]),
                "Of `oci`: `shared`, one container for all its jobs in a run, a directory for each, as by default; or \
                 `isolated`, one for each job. Of `ssh`: `shared`, one connection for all jobs, as by default; `dedicated`, one \
                 for each; or `pool`, several `hosts` in turn.",
            ),
            key(
                "pull",
                Word(&["missing", "always", "never"]),
                "Of `oci`: when the image is fetched; when the engine doesn't have it by default.",
            ),
            key(
                "engine",
                Text,
                "Of `oci`: what makes the containers: `direct` (no daemon), `docker`, `podman`, or an engine's socket, `unix:///PATH`. `auto`, the default: the first of these that can.",
            ),
            key(
                "user",
                OneOf(&[Text, Count(0, u32::MAX)]),
                "Of `oci`: as whom steps run, `USER` or `USER:GROUP`, numbers or names of the image; its own user by default. \
                 Of `ssh`: as whom to log in; what the worker's configuration of ssh says by default.",
            ),
            key(
                "network",
                Word(&["none", "bridge", "host"]),
                "Of `oci`: what network containers have; `bridge`, one of their run, by default. Of `local` with `isolate`: `none`, as by \
                 default, or `host`.",
            ),
            key("cpus", CPU, "Of `oci`: processor time per time of a whole container."),
            key("memory", MEMORY, "Of `oci`: memory of a whole container."),
            key("pids", Count(1, u32::MAX), "Of `oci`: processes and threads of a whole container."),
            key("read_only", Switch, "Of `oci`: whether the image's own files can't be written; false by default."),
            key("tmpfs", TEXTS, "Of `oci`: directories in memory, each `PATH` or `PATH:OPTIONS`."),
            key(
                "mounts",
                TEXTS,
                "Of `oci`: directories of the worker's machine, each `SOURCE:TARGET` or `SOURCE:TARGET:ro`.",
            ),
            key("container_env", VARIABLES, "Of `oci`: variables below all others but the image's own."),
            key(
                "registry",
                Shape::Object(&REGISTRY),
                "Of `oci`: which variables of the worker say who one is at the image's registry.",
            ),
            key(
                "argv",
                TEXTS,
                "Of `command`: the program that starts the agent of a job, `{agent}`, and its arguments.",
            ),
            key(
                "directory",
                Text,
                "Of `command`: where the agent has its jobs, where it is, with nothing shared; a directory that both see by \
                 default.",
            ),
            key(
                "host",
                Text,
                "Of `ssh`: the host, as `ssh` is told: a name of its configuration or of DNS, or an address.",
            ),
            key("hosts", TEXTS, "Of `ssh` with `mode: pool`: the hosts, which take jobs in turn."),
            key(
                "port",
                Count(1, 65_535),
                "Of `ssh`: the port; what the worker's configuration of ssh says by default, or 22.",
            ),
            key(
                "identity_file",
                Text,
                "Of `ssh`: a private key of the worker's machine, besides those of its configuration.",
            ),
            key("config_file", Text, "Of `ssh`: a configuration of the worker's machine instead of its usual ones."),
            key(
                "workspace_dir",
                Text,
                "Of `ssh`: where jobs have their directories there; `~/.cache/executr` by default.",
            ),
            key("max_jobs", Count(1, u32::MAX), "Of `ssh`: how many jobs of one worker a host has at a time."),
            key("setup_workspace", Text, "Of `hooks`: the script that sets up what all jobs of the run share."),
            key("setup_job", Text, "Of `hooks`: the script that makes a job's place."),
            key("restore_artifact", Text, "Of `hooks`: the script that brings an artifact into the job's place."),
            key("execute", Text, "Of `hooks`: the script that runs one step; it is in `$EXECUTR_STEP`."),
            key("save_artifact", Text, "Of `hooks`: the script that takes an artifact out of the job's place."),
            key("cleanup_job", Text, "Of `hooks`: the script that removes a job's place."),
            key("cleanup_workspace", Text, "Of `hooks`: the script that removes what all jobs shared."),
        ],
    )
};

const JOB: Object = Object {
    foreign: &[
        ("deps", PACKAGES),
        ("runs-on", "write `executor` for where it runs, `labels` for which workers may"),
        ("depends_on", "write `needs`"),
        ("environment", "write `env`"),
        ("artifacts", "write `outputs` for what it makes, `inputs` for what it gets"),
        ("strategy", "write `matrix`"),
        ("when", "write `if`"),
        ("script", "write `steps`, a list with a `run` each"),
        ("run", "write `steps: [{run: …}]`"),
    ],
    ..object(
        "a job",
        &[
            key("executor", EXECUTOR_CHOICE, "Where it runs: a name of `executors`, or an executor in place."),
            key("needs", NAMES, "Jobs that have to be over before it starts."),
            key(
                "if",
                CONDITION,
                "When it runs: `success()` by default, `${{ … }}`, or a script whose exit code says it.",
            ),
            key("condition", CONDITION, "The same as `if`."),
            required("steps", List(&OneOf(&[Text, Shape::Object(&STEP)])), "What it runs, one after another."),
            key("env", VARIABLES, "Variables of its steps, above the workflow's."),
            key("env_from", PROVIDERS, "Sources of more variables, below its `env`."),
            key("inherit", TEXTS, "Names of the worker's own variables that its steps get; `*` is all."),
            key("secrets", TEXTS, "Names of secrets that it gets as variables, besides the workflow's."),
            key("inputs", List(&OneOf(&[Text, Shape::Object(&INPUT)])), "Artifacts it gets before its steps."),
            key("outputs", Map(&Text), "Artifacts it makes: their names, and where in the job directory they are."),
            key("retry", RETRY, "How often each of its steps is tried; `null` stops what the workflow says."),
            key("job_retry", JOB_RETRY, "How often the whole job is repeated in a fresh place when it failed."),
            key("timeout", SPAN, "After this long the attempt is ended, and failed."),
            key("continue_on_error", Switch, "Whether its failure counts as success for the run and its successors."),
            key("matrix", Shape::Object(&MATRIX), "Makes one job for each combination of values."),
            key(
                "files",
                FILES,
                "What of the repository goes into the job directory, instead of all of it; and files with contents of their \
                 own, by path.",
            ),
            key(
                "modified",
                OneOf(&[Text, Shape::Object(&MODIFIED)]),
                "Files that its steps added, changed or deleted come back, into this directory.",
            ),
            key("queue", Text, "In which queue it waits."),
            key("labels", LABELS, "Labels a worker must bear to run it."),
            key("resources", Shape::Object(&RESOURCES), "Bounds within which it is kept."),
            key("priority", PRIORITY, "Who goes first."),
            key("concurrency_key", Text, "Of the jobs with the same key only `concurrency_limit` run at a time."),
            key("concurrency_limit", Count(1, 1_000_000), "See `concurrency_key`; 1 by default."),
            key("exclusive", Switch, "Whether a worker ends it when it hasn't heard from the server for too long."),
            key(
                "copy_repo",
                Switch,
                "Whether it starts from a copy of the repository; what its executor says by default.",
            ),
        ],
    )
};

const STEP: Object = Object {
    one_of: &["run", "argv", "binary"],
    foreign: &[
        ("bash", SCRIPT),
        ("script", SCRIPT),
        ("command", "write `run` for a script, `argv` for a program and its arguments"),
        ("deps", PACKAGES),
        ("uses", "there are no ready-made steps; write `run`"),
        ("working-directory", "write `workdir`"),
        ("container", "write `image`"),
        ("shell", "begin the script with a line like `#!/usr/bin/env python3`"),
    ],
    ..object(
        "a step",
        &[
            key("name", Text, "What it is called; `steps.<name>` in expressions."),
            key(
                "run",
                Text,
                "A script for `/bin/sh -e`, which ends at the first command that fails, or for what its `#!` line names.",
            ),
            key("argv", List(&Scalar), "A program and its arguments, without a shell."),
            key("binary", Shape::Object(&BINARY), "A program that is fetched, checked and kept."),
            key("env", VARIABLES, "Its variables, above the job's."),
            key("env_from", PROVIDERS, "Sources of more variables, below its `env`."),
            key("workdir", Text, "Where it starts, from the job directory."),
            key(
                "image",
                OneOf(&[Text, Shape::Object(&STEP_IMAGE)]),
                "Runs it in a container of its own of this image, on the same job directory. For jobs on `local` and `oci`.",
            ),
            key(
                "if",
                CONDITION,
                "When it runs: `success()` by default, `${{ … }}`, or a script whose exit code says it.",
            ),
            key("condition", CONDITION, "The same as `if`."),
            key("retry", RETRY, "How often it is tried; `null` stops what the job or the workflow says."),
            key("timeout", SPAN, "After this long a try is ended, and failed."),
            key("continue_on_error", Switch, "Whether the job goes on, and may succeed, when it fails."),
        ],
    )
};

const REGISTRY: Object = object(
    "`registry`",
    &[
        required("username_env", Text, "The name of the secret with the user's name."),
        required("password_env", Text, "The name of the secret with the password or token."),
    ],
);

const STEP_IMAGE: Object = object(
    "an image",
    &[
        required("name", Text, "Its name, as the executor's `image` has it."),
        key(
            "user",
            OneOf(&[Text, Count(0, u32::MAX)]),
            "As whom the step runs, `USER` or `USER:GROUP`, numbers or names of the image; its own user by default.",
        ),
        key(
            "container_env",
            VARIABLES,
            "Variables above the image's own and the executor's `container_env`, below all others.",
        ),
    ],
);

const BINARY: Object = object(
    "a binary",
    &[
        required("url", Text, "http, https, file or `blob:<sha256>`."),
        required("sha256", Text, "What its bytes hash to, in hexadecimal."),
        key("args", List(&Scalar), "Its arguments."),
    ],
);

const TRIES: Object = Object {
    foreign: &[("max_retries", "that is for whole jobs; write `max_attempts`, which counts the first try too")],
    ..object(
        "`retry`",
        &[
            key("max_attempts", Count(1, 1_000), "All tries, the first one too; 1 by default."),
            key("backoff", BACKOFF, "How the wait between tries grows: twice as long, by the same, or not."),
            key("min_time", SPAN, "The first wait; 1s by default."),
            key("max_time", SPAN, "The longest wait; 60s by default."),
        ],
    )
};

const ATTEMPTS: Object = Object {
    foreign: &[("max_attempts", "that is for steps; write `max_retries`, which doesn't count the first attempt")],
    ..object(
        "`job_retry`",
        &[
            key("max_retries", Count(0, 1_000), "How often after the first attempt; 0 by default."),
            key("backoff", BACKOFF, "How the wait between attempts grows: twice as long, by the same, or not."),
            key("min_time", SPAN, "The first wait; 1s by default."),
            key("max_time", SPAN, "The longest wait; 60s by default."),
        ],
    )
};

const PROVIDER: Object = Object {
    one_of: &["file", "sops", "static", "required", "command"],
    foreign: &[("dotenv", "write `file`")],
    ..object(
        "a source of variables",
        &[
            key("file", OneOf(&[Text, Shape::Object(&ENV_FILE)]), "A file of `KEY=value` lines in the repository."),
            key(
                "sops",
                OneOf(&[Text, Shape::Object(&SOPS)]),
                "A file that the `sops` program decrypts; its values are secret.",
            ),
            key("static", VARIABLES, "These variables."),
            key("required", TEXTS, "No variables, but an error when one of these has no value."),
            key("command", List(&Scalar), "A program that prints `export KEY=\"value\"` lines; its values are secret."),
        ],
    )
};

const ENV_FILE: Object = object(
    "a file of variables",
    &[
        required("path", Text, "Its path, from the repository's root."),
        key("required", Switch, "Whether it has to be there; false by default."),
    ],
);

const SOPS: Object = object(
    "`sops`",
    &[
        required("file", Text, "Its path, from the repository's root."),
        key("format", Word(&["yaml", "json", "dotenv"]), "What is in it; `yaml` by default."),
        key("required", Switch, "Whether it has to be there; true by default."),
    ],
);

const INPUT: Object = object(
    "an input",
    &[
        required("name", Text, "The artifact."),
        key("path", Text, "Into which directory, from the job directory; itself by default."),
    ],
);

const MATRIX: Object = Object {
    others: Others::Named(&List(&Scalar)),
    foreign: &[
        ("fail_fast", "it stands at the top of the file"),
        ("fail-fast", "it stands at the top of the file, as `fail_fast`"),
    ],
    ..object(
        "`matrix`",
        &[
            key("include", List(&VARIABLES), "More values for cells that match, or more cells."),
            key("exclude", List(&VARIABLES), "Cells to leave out: those that match all values of an entry."),
            key("max_parallel", Count(1, 1_000_000), "How many of its jobs run at a time."),
        ],
    )
};

const FILE: Object = Object {
    one_of: &["text", "base64", "from"],
    ..object(
        "a file",
        &[
            key("text", Text, "What is in it; `${{ … }}` is evaluated."),
            key("base64", Text, "What is in it, in base64."),
            key("from", Text, "A file beside you when you start the run; its path from the repository's root."),
            key("mode", OneOf(&[Text, Count(0, 777)]), "Its permissions in octal; \"0444\" by default."),
        ],
    )
};

const WRITTEN_FILES: Shape = Map(&OneOf(&[Text, Shape::Object(&FILE)]));
const FILES: Shape = OneOf(&[List(&OneOf(&[Text, ONE_OF_FILES])), ONE_OF_FILES]);
const ONE_OF_FILES: Shape = ObjectOr(&SELECTION, &WRITTEN_FILES);

/// What selects from the repository. A file that is called as one of its keys is written with `./` before it.
pub(super) const SELECTION: Object = object(
    "a selection of files",
    &[
        key("from", Text, "A file or directory of the repository; all of it by default."),
        key("to", Text, "Where it comes to, from the job directory; where it is in the repository by default."),
        key("include", TEXTS, "Which of what is in it: patterns like `*.rs` or `src/**/*.rs`. All by default."),
        key("exclude", TEXTS, "And which not."),
    ],
);

const MODIFIED: Object = Object {
    foreign: &[("from", "write `include`, with patterns"), ("path", "write `to`")],
    ..object(
        "`modified`",
        &[
            key("to", Text, "Into which directory `executr run` puts them, from the current one; only stored without."),
            key(
                "name",
                Text,
                "What the artifact is called that holds them; `modified-` and the job's name by default.",
            ),
            key("archive", Word(&["tar.zst", "tar.s2"]), "What they are stored as; `tar.zst` by default."),
            key("include", TEXTS, "Which of them: patterns like `*.log` or `dist/**`. All by default."),
            key("exclude", TEXTS, "And which not."),
        ],
    )
};

const RESOURCES: Object = object(
    "`resources`",
    &[
        key("cpu", CPU, "Processor time per time."),
        key("memory", MEMORY, "Memory of all its processes."),
        key("pids", Count(1, u32::MAX), "Its processes and threads."),
    ],
);
