//! What plans are made of files.

use std::collections::BTreeMap;
use std::time::Duration;

use executr_spec::workflow::{
    ArtifactInput, ArtifactOutput, FileContent, PlanOptions, PlannedJob, Provider, RepositoryCopy, RunPlan, WorkflowJob,
};
use executr_spec::{BackoffKind, Condition, Digest, ExecutorKind, Span, StepCommand};

use super::{parse, plan, plan_with};

fn job<'a>(plan: &'a RunPlan, name: &str) -> &'a PlannedJob {
    plan.jobs.iter().find(|job| job.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

fn of_workflow(job: &PlannedJob) -> &WorkflowJob {
    job.spec.workflow.as_deref().unwrap()
}

fn names(plan: &RunPlan) -> Vec<&str> {
    plan.jobs.iter().map(|job| job.name.as_str()).collect()
}

#[test]
fn the_smallest_file_is_a_run() {
    let plan = plan("jobs: {hello: {steps: [echo hello]}}");
    assert_eq!((plan.name.as_str(), plan.fail_fast, plan.timeout), ("workflow", true, None));
    let job = job(&plan, "hello");
    assert_eq!(job.spec.steps[0].command, StepCommand::Run("echo hello".to_owned()));
    assert_eq!((job.needs.as_slice(), &job.condition), (&[][..], &Condition::Success));
    let workflow = of_workflow(job);
    assert_eq!((workflow.name.as_str(), workflow.executor.name.as_str()), ("hello", "local"));
}

#[test]
fn json_makes_the_same_plan() {
    let yaml = "name: ci\njobs:\n  a:\n    steps:\n      - run: make\n        timeout: 90\n    env: {N: 1.10}\n";
    let json = r#"{"name": "ci", "jobs": {"a": {"steps": [{"run": "make", "timeout": "90s"}], "env": {"N": "1.10"}}}}"#;
    assert_eq!(plan(yaml), plan(json));
}

#[test]
fn a_plan_reads_back_from_what_it_is_written_as() {
    let plan = plan(EVERYTHING);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RunPlan>(&text).unwrap(), plan);
}

#[test]
fn files_are_selected_or_written() {
    let file = "jobs:
  one: {steps: [a], files: {from: src, to: lib, include: ['*.rs'], exclude: [old]}}
  many: {steps: [a], files: [src, {from: Cargo.toml}, {settings.ini: 'a=1', ./from: b}], copy_repo: true}
  named: {steps: [a], files: {./from: a, to: {text: b}, other: c}}
  bare: {steps: [a], executor: {kind: local, name: bare, copy_repo: false}, files: [src]}
";
    let source = Digest::of(b"tree");
    let options = PlanOptions { source: Some(source), ..PlanOptions::default() };
    let plan = plan_with(file, &options);
    let of = |name| of_workflow(job(&plan, name));
    let one = &of("one").selected[0];
    assert_eq!(
        (one.from.as_str(), one.to.as_deref(), one.include.len(), one.exclude.len()),
        ("src", Some("lib"), 1, 1)
    );
    let from: Vec<_> = of("many").selected.iter().map(|selected| selected.from.as_str()).collect();
    assert_eq!(from, ["src", "Cargo.toml"]);
    assert_eq!(of("many").files.keys().collect::<Vec<_>>(), ["./from", "settings.ini"]);
    assert_eq!(of("named").files.keys().collect::<Vec<_>>(), ["./from", "other", "to"]);
    assert!(of("named").selected.is_empty());
    assert_eq!(of("bare").source, Some(source), "who selects wants a copy");
}

#[test]
fn modified_files_are_artifacts_of_their_own_name() {
    let plan = plan(
        "jobs:
  a: {steps: [x], modified: out}
  b: {steps: [x], modified: {to: 'out/${{ matrix.os }}', name: changes, archive: tar.s2, include: ['*.o']}, matrix: {os: [x, y]}}
  c: {steps: [x], modified: {exclude: [target]}}
",
    );
    let of = |name| of_workflow(job(&plan, name)).modified.clone().unwrap();
    assert_eq!((of("a").file_name().as_str(), of("a").to.as_deref()), ("modified-a.tar.zst", Some("out")));
    assert_eq!((of("b-os-x").file_name().as_str(), of("b-os-x").to.as_deref()), ("changes-os-x.tar.s2", Some("out/x")));
    assert_eq!((of("c").to, of("c").exclude.len()), (None, 1));
    assert_eq!(of_workflow(job(&plan, "b-os-y")).artifacts().collect::<Vec<_>>(), ["changes-os-y"]);
}

#[test]
fn jobs_come_after_those_they_need_otherwise_as_written() {
    let plan = plan(
        "jobs:
  report: {needs: [test, lint], steps: [a]}
  test: {needs: build, steps: [a]}
  lint: {steps: [a]}
  build: {steps: [a]}
",
    );
    assert_eq!(names(&plan), ["lint", "build", "test", "report"]);
    assert_eq!(job(&plan, "report").needs, [0, 2]);
    assert_eq!(
        of_workflow(job(&plan, "report")).needs,
        BTreeMap::from([("lint".into(), vec!["lint".into()]), ("test".into(), vec!["test".into()])])
    );
}

#[test]
fn retry_is_inherited_and_null_stops_it() {
    let plan = plan(
        "retry: {max_attempts: 4, backoff: linear, min_time: 100ms, max_time: 2s}
jobs:
  a: {steps: [x, {run: x, retry: null}, {run: x, retry: 2}]}
  b: {retry: null, steps: [x, {run: x, retry: 3}]}
  c: {retry: 5, job_retry: {max_retries: 2, backoff: constant, min_time: 3}, steps: [x]}
  d: {job_retry: 1, steps: [x]}
",
    );
    let tries = |name| {
        let steps = &job(&plan, name).spec.steps;
        steps.iter().map(|step| step.retry.map_or(1, |retry| retry.max_attempts)).collect::<Vec<_>>()
    };
    assert_eq!((tries("a"), tries("b"), tries("c")), (vec![4, 1, 2], vec![1, 3], vec![5]));
    let retry = job(&plan, "a").spec.steps[0].retry.unwrap();
    assert_eq!((retry.backoff, retry.min_time), (BackoffKind::Linear, Span(Duration::from_millis(100))));
    let c = &job(&plan, "c").spec;
    assert_eq!((c.max_retries, c.backoff.kind, c.backoff.delay(9)), (2, BackoffKind::Constant, Duration::from_secs(3)));
    assert_eq!((job(&plan, "a").spec.max_retries, job(&plan, "d").spec.max_retries), (0, 1));
}

#[test]
fn defaults_stand_in_every_job_that_says_nothing_else() {
    let plan = plan(
        "retry: 2
env: {LEVEL: workflow}
defaults:
  executor: scripts
  env: {LEVEL: default, OTHER: default}
  retry: 7
  job_retry: 1
  timeout: 10m
  queue: ci
  inherit: [LANG]
  labels: {os: linux, n: 1}
  resources: {memory: 1Gi}
  priority: foreground
executors:
  scripts: {kind: hooks, execute: sh -c \"$EXECUTR_STEP\", copy_repo: false}
jobs:
  a: {steps: [x]}
  b: {steps: [x], executor: local, timeout: 1h, env: {LEVEL: job}, labels: {os: mac}, queue: other, job_retry: null}
",
    );
    let (a, b) = (&job(&plan, "a").spec, &job(&plan, "b").spec);
    assert_eq!(
        (a.env["LEVEL"].as_str(), a.env["OTHER"].as_str(), b.env["LEVEL"].as_str()),
        ("default", "default", "job")
    );
    assert_eq!((a.timeout.unwrap().to_string(), b.timeout.unwrap().to_string()), ("10m".into(), "1h".into()));
    assert_eq!((a.queue.as_str(), b.queue.as_str()), ("ci", "other"));
    assert_eq!((a.labels["os"].as_str(), b.labels["os"].as_str(), b.labels["n"].as_str()), ("linux", "mac", "1"));
    assert_eq!((a.max_retries, b.max_retries, a.inherit.as_slice()), (1, 0, &["LANG".to_owned()][..]));
    // The workflow's own word is above its defaults.
    assert_eq!(a.steps[0].retry.unwrap().max_attempts, 2);
    assert_eq!((a.requirements().executor, b.requirements().executor), (ExecutorKind::Hooks, ExecutorKind::Local));
}

#[test]
fn a_matrix_makes_a_job_each() {
    let plan = plan(
        "jobs:
  test:
    matrix: {py: ['3.11', '3.12'], os: [linux, mac], exclude: [{os: mac, py: '3.11'}], max_parallel: 2}
    labels: {os: '${{ matrix.os }}'}
    steps: [{run: make, image: 'py:${{ matrix.py }}', workdir: 'src/${{ matrix.os }}', env: {PY: '${{ matrix.py }}'}}]
    outputs: {dist: out, 'log-${{ matrix.os }}-${{ matrix.py }}': 'log/${{ matrix.py }}.txt'}
  publish:
    needs: test
    steps: [x]
    inputs: [dist-os-linux-py-3.12, {name: log-mac-3.12, path: logs}]
",
    );
    assert_eq!(names(&plan), ["test-os-linux-py-3.11", "test-os-linux-py-3.12", "test-os-mac-py-3.12", "publish"]);
    let mac = job(&plan, "test-os-mac-py-3.12");
    assert_eq!(mac.spec.concurrency(), Some(("matrix:test", 2)));
    assert!(mac.spec.steps[0].image.as_ref().is_some_and(|image| image.name.starts_with("py:3")));
    assert_eq!((mac.spec.labels["os"].as_str(), mac.spec.steps[0].workdir.as_deref()), ("mac", Some("src/mac")));
    // What a worker evaluates is left to it.
    assert_eq!(mac.spec.steps[0].env["PY"], "${{ matrix.py }}");
    assert_eq!(of_workflow(mac).matrix["py"], "3.12");
    let output = |name: &str, path: &str| ArtifactOutput { name: name.into(), path: path.into() };
    assert_eq!(
        of_workflow(mac).outputs,
        [output("dist-os-mac-py-3.12", "out"), output("log-mac-3.12", "log/3.12.txt")]
    );
    let publish = job(&plan, "publish");
    assert_eq!(publish.needs, [0, 1, 2]);
    let input =
        |name: &str, from: &str, path: &str| ArtifactInput { name: name.into(), from: from.into(), path: path.into() };
    assert_eq!(
        of_workflow(publish).inputs,
        [
            input("dist-os-linux-py-3.12", "test-os-linux-py-3.12", ""),
            input("log-mac-3.12", "test-os-mac-py-3.12", "logs")
        ]
    );
}

const DIAMOND: &str = "jobs:
  a: {steps: [x], outputs: {made: x}}
  b: {needs: a, steps: [x]}
  c: {needs: a, steps: [x], matrix: {n: [1, 2]}}
  d: {needs: [b, c], steps: [x], inputs: [made], files: {here: {from: local.txt}}}
  e: {steps: [x], executor: {kind: local, name: deep, copy_git: true}}
";

#[test]
fn jobs_are_chosen_with_those_they_need() {
    let chosen = |jobs: &[&str]| {
        let jobs = jobs.iter().map(|name| (*name).to_owned()).collect();
        PlanOptions { jobs, ..PlanOptions::default() }
    };
    assert_eq!(names(&plan_with(DIAMOND, &chosen(&["b"]))), ["a", "b"]);
    assert_eq!(names(&plan_with(DIAMOND, &chosen(&["c-n-2"]))), ["a", "c-n-2"]);
    let alone = PlanOptions { without_needs: true, ..chosen(&["b", "c-n-1"]) };
    let plan = plan_with(DIAMOND, &alone);
    assert_eq!(names(&plan), ["b", "c-n-1"]);
    assert!(plan.jobs.iter().all(|job| job.needs.is_empty() && of_workflow(job).needs.is_empty()));

    let told = |options: &PlanOptions| parse(DIAMOND).plan(options).unwrap_err().to_string();
    assert!(told(&chosen(&["bb"])).contains("there is no job `bb`; did you mean `b`?"));
    let without = PlanOptions { without_needs: true, ..chosen(&["d"]) };
    assert!(told(&without).contains("`made` is made by `a`, which is not chosen"), "{}", told(&without));
}

#[test]
fn the_source_goes_to_those_who_want_a_copy() {
    let workflow = parse(DIAMOND);
    let mut options = PlanOptions { jobs: vec!["b".into()], ..PlanOptions::default() };
    assert_eq!(workflow.copies(&options).unwrap(), RepositoryCopy::Files);
    options.jobs = vec!["e".into(), "b".into()];
    assert_eq!(workflow.copies(&options).unwrap(), RepositoryCopy::FilesAndGit);
    options.source = Some(Digest::of(b"tree"));
    assert_eq!(workflow.plan(&options).unwrap().source, options.source);

    let file = "defaults: {copy_repo: false}\njobs: {a: {steps: [x]}, b: {steps: [x], copy_repo: true}}";
    let plan = plan_with(file, &PlanOptions { source: options.source, ..PlanOptions::default() });
    assert_eq!((&of_workflow(&plan.jobs[0]).source, &of_workflow(&plan.jobs[1]).source), (&None, &options.source));
    let none = parse("jobs: {a: {steps: [x], copy_repo: false}}");
    assert_eq!(none.copies(&PlanOptions::default()).unwrap(), RepositoryCopy::Nothing);
    assert_eq!(none.plan(&PlanOptions { source: options.source, ..PlanOptions::default() }).unwrap().source, None);
}

#[test]
fn local_files_are_asked_for_and_given() {
    let workflow = parse(DIAMOND);
    let mut options = PlanOptions { jobs: vec!["d".into()], ..PlanOptions::default() };
    assert_eq!(workflow.local_files(&options).unwrap().into_iter().collect::<Vec<_>>(), ["local.txt"]);
    assert!(workflow.plan(&options).unwrap_err().to_string().contains("`local.txt` is not given"));
    options.local_files.insert("local.txt".into(), FileContent::Base64("aGk=".into()));
    let plan = workflow.plan(&options).unwrap();
    assert_eq!(of_workflow(job(&plan, "d")).files["here"].content, FileContent::Base64("aGk=".into()));
    options.jobs = vec!["b".into()];
    assert!(workflow.local_files(&options).unwrap().is_empty());
}

#[test]
fn settings_of_containers_are_passed_on_as_they_mean() {
    let plan =
        plan("jobs: {a: {steps: [x], executor: {kind: oci, image: a, user: 1000, pids: 9, container_env: {A: 1}}}}");
    let executor = &of_workflow(&plan.jobs[0]).executor;
    assert_eq!(plan.jobs[0].spec.requirements().executor, ExecutorKind::Oci);
    let settings = serde_json::json!({"image": "a", "user": "1000", "pids": 9, "container_env": {"A": "1"}});
    assert_eq!((executor.name.as_str(), &executor.options), ("oci", &settings));
    let bounded = "jobs: {a: {steps: [x], resources: {pids: 9}, executor: {kind: oci, image: a, mode: isolated}}}";
    let asked = job(&self::plan(bounded), "a").spec.requirements();
    assert!(asked.capabilities.is_empty(), "its engine keeps the bounds, not its worker: {asked:?}");
}

#[test]
fn what_is_asked_for_besides_the_file_is_above_it() {
    let options = PlanOptions {
        env_file: BTreeMap::from([("A".into(), "file".into()), ("B".into(), "file".into())]),
        env: BTreeMap::from([("A".into(), "flag".into())]),
        secrets: vec!["TOKEN".into()],
        fail_fast: Some(false),
        ..PlanOptions::default()
    };
    let plan = plan_with("secrets: [KEY]\njobs: {a: {steps: [x], secrets: [OWN]}}", &options);
    let workflow = of_workflow(&plan.jobs[0]);
    assert_eq!(workflow.overrides, BTreeMap::from([("A".into(), "flag".into()), ("B".into(), "file".into())]));
    assert_eq!(workflow.secrets, ["KEY", "OWN", "TOKEN"]);
    assert!(!plan.fail_fast);
}

/// Every key once.
pub(crate) const EVERYTHING: &str = r#"
name: everything
env: {A: 1, B: true, C: "${{ run.id }}"}
env_from:
  - file: .env
  - file: {path: more.env, required: true}
  - sops: {file: secret.json, format: json, required: false}
  - static: {D: d}
  - required: [HOME_PAGE]
  - command: [./variables, --all]
secrets: [TOKEN]
retry: {max_attempts: 2, backoff: exponential, min_time: 1s, max_time: 1m}
timeout: 2h
fail_fast: false
defaults: {timeout: 20m}
x-own: {anything: [goes]}
executors:
  scripts:
    kind: hooks
    copy_repo: true
    copy_git: true
    setup_workspace: mkdir work
    setup_job: mkdir job
    restore_artifact: cp a b
    execute: "$EXECUTR_STEP"
    save_artifact: cp b a
    cleanup_job: rm -r job
    cleanup_workspace: rm -r work
  behind:
    kind: command
    argv: [ssh, host, agent, serve, --stdio]
    directory: /var/tmp/jobs
  far:
    kind: ssh
    host: build-1
    user: ci
    port: 2222
    identity_file: ~/.ssh/executr
    config_file: /etc/executr/ssh_config
    mode: dedicated
    workspace_dir: ~/ci
    max_jobs: 2
  farm: {kind: ssh, mode: pool, hosts: [build-1, build-2]}
  box:
    kind: oci
    image: debian:12
    mode: isolated
    pull: always
    engine: unix:///run/docker.sock
    user: "1000:1000"
    network: none
    cpus: 1.5
    memory: 1Gi
    pids: 100
    read_only: true
    tmpfs: ["/tmp:size=64m"]
    mounts: ["/srv/data:/data:ro"]
    container_env: {LEVEL: 3}
    registry: {username_env: REGISTRY_USER, password_env: REGISTRY_PASSWORD}
jobs:
  build:
    executor: scripts
    steps:
      - echo short
      - name: compile
        run: |
          make
        env: {X: y}
        env_from: [{static: {Z: z}}]
        workdir: src
        if: "${{ env.A == '1' }}"
        retry: null
        timeout: 5m
        continue_on_error: true
      - argv: [cc, -o, "${{ steps.compile.outputs.name }}", 1]
        condition: failure()
      - binary: {url: "https://h/b", sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, args: [x]}
        if: test -f x
    env: {E: e}
    env_from: [{file: job.env}]
    inherit: [LANG]
    secrets: [OTHER]
    outputs: {lib: target/lib, doc: target/doc}
    retry: 3
    job_retry: {max_retries: 1, backoff: linear, min_time: 1s, max_time: 10s}
    files:
      plain.txt: "run ${{ run.id }}"
      bin/tool: {text: "echo", mode: "0755"}
      data: {base64: aGVsbG8=, mode: 0600}
    queue: ci
    labels: {gpu: a100}
    resources: {cpu: 2, memory: 1Gi, pids: 100}
    priority: foreground
    concurrency_key: build
    concurrency_limit: 2
    exclusive: true
    copy_repo: true
  test:
    executor: {kind: local, name: tests, copy_repo: false, copy_git: false, isolate: true, network: none}
    needs: [build]
    if: "${{ needs.build.result == 'success' && matrix.os != 'mac' }}"
    matrix: {os: [linux, mac], include: [{os: bsd, old: true}], exclude: [{os: mac}], max_parallel: 1}
    steps: [{run: make test, image: {name: alpine, user: 1000, container_env: {LEVEL: 4}}}]
    inputs: [lib, {name: doc, path: "docs/${{ matrix.os }}"}]
    files: [Makefile, {from: src, to: lib, include: ["*.rs"], exclude: [old]}]
    modified: {to: "out/${{ matrix.os }}", name: changes, archive: tar.s2, include: [dist], exclude: ["*.o"]}
    timeout: 10m
    continue_on_error: true
"#;

#[test]
fn every_key_has_its_place_in_the_plan() {
    let plan = plan(EVERYTHING);
    let build = job(&plan, "build");
    let workflow = of_workflow(build);
    assert_eq!(plan.timeout, Some(Span(Duration::from_secs(7_200))));
    assert_eq!(workflow.workflow_env["B"], "true");
    assert_eq!(workflow.workflow_env_from.len(), 6);
    assert_eq!(workflow.workflow_env_from[0], Provider::File { path: ".env".into(), required: false });
    assert_eq!(workflow.executor.options["execute"], "$EXECUTR_STEP");
    assert_eq!(build.spec.steps.len(), 4);
    assert_eq!(build.spec.steps[1].condition, Condition::Expression("env.A == '1'".into()));
    assert_eq!(build.spec.steps[2].condition, Condition::Failure);
    assert_eq!(build.spec.steps[3].condition, Condition::Shell("test -f x".into()));
    assert_eq!(workflow.files["data"].mode.0, 0o600);
    assert_eq!(workflow.files["plain.txt"].mode.0, 0o444);
    assert_eq!(names(&plan), ["build", "test-os-linux", "test-old-true-os-bsd"]);
    let test = job(&plan, "test-old-true-os-bsd");
    assert_eq!((test.needs.as_slice(), test.continue_on_error), (&[0][..], true));
    assert_eq!(of_workflow(test).inputs[1].path, "docs/bsd");
    assert_eq!(of_workflow(test).selected[1].to.as_deref(), Some("lib"));
}

#[test]
fn a_shell_condition_of_a_job_is_its_attempts_first_act() {
    let plan = plan("jobs: {a: {steps: [x], if: test -f Makefile}, b: {steps: [x], if: true}}");
    assert_eq!(of_workflow(&plan.jobs[0]).condition.as_deref(), Some("test -f Makefile"));
    assert_eq!(plan.jobs[0].condition, Condition::Shell("test -f Makefile".into()));
    assert_eq!(plan.jobs[1].condition, Condition::Expression("true".into()));
}
