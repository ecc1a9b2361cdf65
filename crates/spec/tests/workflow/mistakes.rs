//! What is told about files that are written wrongly.

use super::wrong;

#[test]
fn a_mistake_is_told_with_file_line_column_key_and_what_was_meant() {
    let told = wrong("jobs:\n  build:\n    steps: [make]\n  test:\n    nedes: build\n    steps: [make test]\n");
    assert_eq!(told, "test.yaml:5:5: jobs.test.nedes: `nedes` is no key of a job; did you mean `needs`?");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let told = wrong(
        "nmae: x
jobs:
  a:
    steps:
      - bash: make
      - run: a
        timeout: soon
    needs: [b, a]
  b:
    needs: a
    steps: []
    inputs: [nothing]
",
    );
    let lines: Vec<_> = told.lines().collect();
    for (line, start) in lines.iter().zip([
        "test.yaml:1:1: nmae: `nmae` is no key of a workflow; did you mean `name`?",
        "test.yaml:3:3: jobs.a: waits for itself: a → b → a",
        "test.yaml:5:9: jobs.a.steps[0].bash: `bash` is no key of a step; write `run`",
        "test.yaml:7:18: jobs.a.steps[1].timeout: `soon` is not a duration",
        "test.yaml:8:16: jobs.a.needs[1]: `a` needs itself",
        "test.yaml:11:12: jobs.b.steps: is empty",
        "test.yaml:12:14: jobs.b.inputs[0]: no job makes `nothing`",
    ]) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
    assert_eq!(lines.len(), 7, "{told}");
}

#[test]
fn keys_of_other_tools_are_told_what_to_write() {
    for (job, told) in [
        ("{steps: [{bash: make}]}", "write `run`"),
        ("{steps: [{run: make, deps: [gcc]}]}", "packages arrive with a later executor"),
        ("{steps: [x], continueOnError: true}", "write `continue_on_error`"),
        ("{steps: [x], envFrom: []}", "write `env_from`"),
        ("{steps: [x], continue-on-error: true}", "write `continue_on_error`"),
        ("{steps: [x], runs-on: linux}", "write `executor`"),
        ("{steps: [x], executor: {kind: local, copyRepo: false}}", "write `copy_repo`"),
        ("{steps: [x], executor: {kind: hooks, executeJob: x}}", "write `execute`"),
        ("{steps: [x], retry: {maxAttempts: 2}}", "write `max_attempts`"),
        ("{steps: [x], retry: {max_retries: 2}}", "write `max_attempts`"),
        ("{steps: [x], job_retry: {max_attempts: 2}}", "write `max_retries`"),
        ("{steps: [x], matrix: {a: [1], fail_fast: false}}", "top of the file"),
        ("{steps: [{uses: checkout}]}", "no ready-made steps"),
    ] {
        let found = wrong(&format!("jobs: {{a: {job}}}"));
        assert!(found.contains(told) && found.lines().count() <= 2, "{job}: {found}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_told_what_belongs_there() {
    for (job, told) in [
        ("[]", "a job as a map belongs here, not a list"),
        ("{steps: make}", "steps: a list belongs here, not a text"),
        ("{}", "a job needs `steps`"),
        ("{steps: [{}]}", "needs one of `run`, `argv` or `binary`"),
        ("{steps: [{run: a, argv: [a]}]}", "has only one of"),
        ("{steps: [x], timeout: [1]}", "an amount like 10m belongs here, not a list"),
        ("{steps: [x], timeout: 0}", "0 would end it at once"),
        ("{steps: [x], env: {A: null}}", "a text or a number belongs here, not nothing (null)"),
        ("{steps: [x], env: {A: [1]}}", "belongs here, not a list"),
        ("{steps: [x], env: {'A=B': x}}", "can't be a variable's name"),
        ("{steps: [x], retry: 0}", "a whole number from 1 to 1000"),
        ("{steps: [x], retry: {backoff: cubic}}", "write `exponential`, `linear` or `constant`"),
        ("{steps: [x], retry: {min_time: 2m, max_time: 1m}}", "longer than `max_time`"),
        ("{steps: [x], continue_on_error: 1}", "true or false belongs here, not a number"),
        ("{steps: [x], executor: {kind: docker}}", "write `local`, `oci`, `ssh`, `hooks` or `command`"),
        ("{steps: [x], executor: {kind: hooks}}", "needs `execute`"),
        ("{steps: [x], executor: {kind: local, execute: x}}", "for executors of kind `hooks`"),
        ("{steps: [x], executor: {kind: local, copy_repo: false, copy_git: true}}", "no copy to hold"),
        ("{steps: [x], executor: {kind: oci}}", "needs `image`"),
        ("{steps: [x], executor: {kind: oci, image: 'a b'}}", "no name of an image"),
        ("{steps: [x], executor: {kind: local, image: a}}", "for executors of kind `oci`"),
        ("{steps: [x], executor: {kind: oci, image: a, execute: x}}", "for executors of kind `hooks`"),
        ("{steps: [x], executor: {kind: oci, image: a, mode: both}}", "write `shared`, `isolated`"),
        ("{steps: [x], executor: {kind: oci, image: a, user: 'a:b:c'}}", "no user"),
        ("{steps: [x], executor: {kind: oci, image: a, mounts: ['a:/b']}}", "two absolute paths"),
        ("{steps: [x], executor: {kind: oci, image: a, tmpfs: [tmp]}}", "a path and mount options"),
        ("{steps: [x], executor: {kind: oci, image: a, memory: lots}}", "not an amount of memory"),
        ("{steps: [x], executor: {kind: local, network: none}}", "`network` is for executors of kind `oci`"),
        ("{steps: [x], executor: {kind: local, isolate: true, network: bridge}}", "`none` or `host`"),
        ("{steps: [x], executor: {kind: oci, image: a, isolate: true}}", "`isolate` is for executors of kind `local`"),
        ("{steps: [x], executor: {kind: oci, image: a, engine: 'tcp://h'}}", "a socket of the worker's machine"),
        ("{steps: [x], executor: {kind: oci, image: a}, resources: {pids: 9}}", "a container that others share"),
        ("{steps: [x], executor: {kind: oci, image: a, privileged: true}}", "no capabilities"),
        ("{steps: [{run: x, image: 'a b'}]}", "no name of an image"),
        ("{steps: [{run: x, image: [a]}]}", "belongs here"),
        ("{steps: [{run: x, image: {user: 1}}]}", "needs `name`"),
        ("{steps: [{run: x, image: {name: a, user: ':'}}]}", "no user"),
        ("{steps: [{run: x, image: {name: a, container_env: {'A=B': 1}}}]}", "no name of a variable"),
        ("{steps: [{run: x, image: '${{ env.A }}'}]}", "matrix"),
        ("{steps: [{run: x, image: a}], executor: {kind: hooks, execute: x}}", "jobs on `local` and `oci`"),
        ("{steps: [x], executor: {kind: ssh}}", "needs `host`"),
        ("{steps: [x], executor: {kind: ssh, host: a, hosts: [b]}}", "write only one of them"),
        ("{steps: [x], executor: {kind: ssh, hosts: [b]}}", "is for `mode: pool`"),
        ("{steps: [x], executor: {kind: ssh, mode: pool, host: a}}", "write `hosts`"),
        ("{steps: [x], executor: {kind: ssh, mode: pool, hosts: [a, a]}}", "stands there twice"),
        ("{steps: [x], executor: {kind: ssh, mode: isolated, host: a}}", "is for containers"),
        ("{steps: [x], executor: {kind: oci, image: a, mode: pool}}", "is for other hosts"),
        ("{steps: [x], executor: {kind: ssh, host: 'ann@a'}}", "write that as `user`"),
        ("{steps: [x], executor: {kind: ssh, host: -oProxyCommand=x}}", "is no name of a host"),
        ("{steps: [x], executor: {kind: ssh, host: a, identity_file: key}}", "begins with `~/`"),
        ("{steps: [x], executor: {kind: ssh, host: a, workspace_dir: '/a$(b)'}}", "of letters, digits"),
        ("{steps: [x], executor: {kind: ssh, host: a, port: 70000}}", "doesn't fit here"),
        ("{steps: [x], executor: {kind: ssh, host: a, image: b}}", "for executors of kind `oci`"),
        ("{steps: [x], executor: {kind: local, user: ann}}", "of kind `oci` and `ssh`"),
        ("{steps: [x], executor: {kind: command}}", "needs `argv`"),
        ("{steps: [x], executor: {kind: command, argv: []}}", "needs a program"),
        ("{steps: [x], executor: {kind: command, argv: ['']}}", "needs a program"),
        ("{steps: [x], executor: {kind: command, argv: [a, 1]}}", "a text belongs here"),
        ("{steps: [x], executor: {kind: command, argv: ['{agnet}']}}", "did you mean `agent`"),
        ("{steps: [x], executor: {kind: command, argv: ['{host}']}}", "there are `{agent}`, `{job_directory}`"),
        ("{steps: [x], executor: {kind: command, argv: ['${{ run.id }}']}}", "placeholders like `{job_id}`"),
        ("{steps: [x], executor: {kind: command, argv: [a], mode: shared}}", "for executors of kind `oci`"),
        ("{steps: [x], executor: {kind: local, argv: [a]}}", "for executors of kind `command`"),
        ("{steps: [x], priority: urgent}", "write `foreground`"),
        ("{steps: [x], queue: 'a b'}", "the queue name"),
        ("{steps: [x], resources: {memory: lots}}", "not an amount of memory"),
        ("{steps: [x], files: {a: {text: x, mode: '0999'}}}", "no file mode"),
        ("{steps: [x], files: {a: {base64: '***'}}}", "no base64"),
        ("{steps: [x], env_from: [{}]}", "needs one of `file`"),
        ("{steps: [x], matrix: {py: [3.10]}}", "if a text is meant, write '3.10'"),
        ("{steps: [x], matrix: {a: [1, 1]}}", "the value 1 already"),
        ("{steps: [x], matrix: {a: []}}", "no cell left"),
        ("{steps: [x], labels: {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1}}", "at most 8"),
        ("{steps: [x], concurrency_limit: 2}", "needs a `concurrency_key`"),
        ("{steps: [x], matrix: {a: [1], max_parallel: 1}, concurrency_key: x}", "exclude each other"),
        ("{steps: [{argv: []}]}", "needs a program"),
        ("{steps: ['']}", "empty script"),
        ("{steps: [{binary: {url: 'https://h', sha256: abc}}]}", "sha256"),
        ("{steps: [x], if: 3}", "a text, or true or false belongs here"),
        ("{steps: [x], if: a, condition: b}", "write one of the two"),
        ("{steps: [{name: s, run: x}, {name: s, run: x}]}", "another step `s`"),
    ] {
        let found = wrong(&format!("jobs: {{a: {job}}}"));
        assert!(found.contains(told), "{job}: {found}");
        assert_eq!(found.lines().count(), 1, "{job}: {found}");
    }
}

#[test]
fn names_that_can_not_be_paths_are_refused() {
    for name in ["a/b", "..", "-x", "'a b'", "''"] {
        let found = wrong(&format!("jobs: {{{name}: {{steps: [x]}}}}"));
        assert!(found.starts_with("test.yaml:1:8: jobs."), "{name}: {found}");
    }
    assert!(wrong("jobs: {a: {steps: [x], outputs: {'../x': x}}}").contains("use letters"));
    assert!(wrong("executors: {'a b': {kind: local}}\njobs: {a: {steps: [x]}}").contains("use letters"));
}

#[test]
fn a_file_without_jobs_is_refused() {
    assert!(wrong("name: x").contains("a workflow needs `jobs`"));
    assert!(wrong("jobs: {}").contains("at least one job"));
    assert!(wrong("- a\n").contains("a workflow is a map of keys and values, not a list"));
    assert!(wrong("").contains("is empty"));
}

#[test]
fn executors_of_one_name_are_the_same() {
    let two = "jobs:
  a: {steps: [x], executor: {kind: hooks, name: e, execute: one}}
  b: {steps: [x], executor: {kind: hooks, name: e, execute: two}}
";
    assert!(wrong(two).contains("another executor `e` stands in line 2"), "{}", wrong(two));
    let same = two.replace("two", "one");
    assert_eq!(super::plan(&same).jobs.len(), 2);
    assert!(wrong("jobs: {a: {steps: [x], executor: remote}}").contains("no executor `remote`; describe it"));
    assert!(
        wrong("executors: {remote: {kind: local}}\njobs: {a: {steps: [x], executor: remoet}}")
            .contains("did you mean `remote`")
    );
}
