//! What jobs come to.

use std::time::Duration;

use executr_api::{Outcome, StepOutcome};
use executr_spec::{Bytes, JobSpec, Span, Step, StepCommand};
use executr_worker::{Inherit, Policy};

use crate::rig::{Rig, argv, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_and_its_output_comes_with_its_result() {
    let rig = Rig::start(|_| ()).await;
    let fence = rig.coordinator.submit_run("echo out; echo err >&2; pwd; echo $HOME; ls -A");
    let result = rig.coordinator.result(fence).await;
    assert_eq!((result.outcome, result.exit_code, result.error_message), (Outcome::Succeeded, Some(0), None));
    assert!(result.usage.is_some_and(|usage| usage.peak_memory_bytes > 0) && result.duration_us > 0);
    let directory = std::fs::canonicalize(rig.directory.path()).unwrap().join("jobs").join(fence.job.to_string());
    let directory = directory.display();
    let text = rig.coordinator.text(fence);
    assert!(text.contains("err\n"));
    assert_eq!(text.replace("err\n", ""), format!("out\n{directory}\n{directory}\n"), "each stream is exact");
    assert_eq!(result.output_bytes, result.output.unwrap().records.span());
    assert_eq!(rig.coordinator.state.lock().unwrap().appends, 0, "little output costs no call of its own");
    assert!(!std::path::Path::new(&directory.to_string()).exists());
    let summary = rig.drain().await;
    assert_eq!((summary.started, summary.succeeded), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_run_side_by_side_and_none_twice() {
    let rig = Rig::start(|options| options.slots = 4).await;
    rig.coordinator.change(|state| state.stutters = true);
    let directory = rig.directory.path().display().to_string();
    let fences: Vec<_> =
        (0..60).map(|n| rig.coordinator.submit(&run(&format!("echo {n} >> {directory}/done; echo {n}")))).collect();
    for (n, fence) in fences.into_iter().enumerate() {
        assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
        assert_eq!(rig.coordinator.text(fence), format!("{n}\n"));
    }
    let mut done: Vec<u32> = std::fs::read_to_string(rig.directory.path().join("done"))
        .unwrap()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    done.sort_unstable();
    assert_eq!(done, (0..60).collect::<Vec<_>>());
    assert!(rig.coordinator.state.lock().unwrap().most_open <= 2);
    assert_eq!(rig.drain().await.succeeded, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_say_what_failed() {
    let rig = Rig::start(|_| ()).await;
    let told = async |spec: JobSpec| {
        let result = rig.coordinator.result(rig.coordinator.submit(&spec)).await;
        assert_eq!(result.outcome, Outcome::Failed);
        (result.exit_code, result.error_message.unwrap(), result.retryable)
    };
    assert_eq!(told(run("exit 3")).await, (Some(3), "exit code 3".to_owned(), true));
    assert_eq!(told(run("kill -SEGV $$")).await, (Some(139), "killed by signal 11 (SIGSEGV)".to_owned(), true));
    let (code, message, retryable) = told(argv(&["no-such-program"])).await;
    assert!(code.is_none() && retryable && message.starts_with("no-such-program not found in PATH ("), "{message}");
    let mut late = run("sleep 60");
    late.timeout = Some(Span(Duration::from_millis(100)));
    assert_eq!(told(late).await, (Some(143), "timed out after 100ms".to_owned(), true));
    let mut elsewhere = run("true");
    elsewhere.directory = Some("/".to_owned());
    assert!(told(elsewhere).await.1.contains("--allow directory"));
    let mut curious = run("true");
    curious.inherit = vec!["PATH".to_owned()];
    assert!(told(curious).await.1.contains("--allow inherit"));
    assert_eq!(rig.drain().await.failed, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_run_one_after_another_in_one_place() {
    let rig = Rig::start(|_| ()).await;
    let step = |script: &str| Step::new(StepCommand::Run(script.to_owned()));
    let mut named = step("cat file; exit 4");
    named.name = Some("check".to_owned());
    let spec = JobSpec::new(vec![step("echo one | tee file"), named, step("echo never")]);
    let fence = rig.coordinator.submit(&spec);
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.error_message.as_deref(), Some("step 2 `check`: exit code 4"));
    let steps: Vec<_> = result.steps.iter().map(|step| (step.name.as_str(), step.outcome, step.exit_code)).collect();
    assert_eq!(
        steps,
        [
            ("1", StepOutcome::Succeeded, Some(0)),
            ("check", StepOutcome::Failed, Some(4)),
            ("3", StepOutcome::Skipped, None)
        ]
    );
    assert_eq!(rig.coordinator.text(fence), "one\none\n");
    let left: Vec<_> =
        std::fs::read_dir(rig.directory.path().join("jobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".executr-board-")), "{left:?}");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_run_by_what_their_first_line_names() {
    let rig = Rig::start(|_| ()).await;
    let fence = rig.coordinator.submit_run("#!/bin/cat\nthis text\n");
    rig.coordinator.result(fence).await;
    assert_eq!(rig.coordinator.text(fence), "#!/bin/cat\nthis text\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_ends_at_the_first_command_that_fails() {
    let rig = Rig::start(|_| ()).await;
    for (script, outcome, text) in [
        ("echo one\nfalse\necho two\n", Outcome::Failed, "one\n"),
        ("set +e\nfalse\necho two\n", Outcome::Succeeded, "two\n"),
        ("#!/bin/sh\nfalse\necho two\n", Outcome::Succeeded, "two\n"),
    ] {
        let fence = rig.coordinator.submit_run(script);
        assert_eq!(rig.coordinator.result(fence).await.outcome, outcome, "{script}");
        assert_eq!(rig.coordinator.text(fence), text);
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_may_run_in_a_directory_and_inherit_where_that_is_allowed() {
    let rig = Rig::start(|options| {
        options.policy = Policy { directory: true, inherit: Inherit::AllButOurs, ..Policy::default() };
        options.host.variables.insert("COLOUR".into(), "blue".into());
    })
    .await;
    let place = tempfile::tempdir().unwrap();
    let mut spec = run("echo $COLOUR > found; ls -A");
    spec.directory = Some(place.path().display().to_string());
    spec.inherit = vec!["*".to_owned()];
    let fence = rig.coordinator.submit(&spec);
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
    assert_eq!(rig.coordinator.text(fence), "found\n", "no script lies in somebody's directory");
    assert_eq!(std::fs::read_to_string(place.path().join("found")).unwrap(), "blue\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_ends_with_all_its_processes() {
    let rig = Rig::start(|_| ()).await;
    let pids = rig.directory.path().join("pids");
    let script = format!(
        "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' &) ; echo $$ >> {0}; while :; do sleep 1; done",
        pids.display()
    );
    let fence = rig.coordinator.submit_run(&script);
    let ids = rig
        .coordinator
        .until("both processes", |_| {
            let text = std::fs::read_to_string(&pids).unwrap_or_default();
            (text.lines().count() == 2).then(|| text.lines().map(str::to_owned).collect::<Vec<_>>())
        })
        .await;
    rig.coordinator.change(|state| state.cancels.push(fence));
    let result = rig.coordinator.result(fence).await;
    assert_eq!((result.outcome, result.error_message.as_deref()), (Outcome::Cancelled, Some("cancelled")));
    for id in ids {
        assert!(!std::path::Path::new("/proc").join(&id).exists(), "process {id} is left");
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_can_be_kept_is_kept_and_one_that_cannot_is_refused_by_name() {
    let rig = Rig::start(|_| ()).await;
    let mut greedy = argv(&["sh", "-c", "x=$(head -c 200M /dev/zero | tr '\\0' x); echo ${#x}"]);
    greedy.resources.memory = Some(Bytes(64 << 20));
    let result = rig.coordinator.result(rig.coordinator.submit(&greedy)).await;
    assert_eq!(result.outcome, Outcome::Failed);
    let message = result.error_message.unwrap();
    let offered = {
        let state = rig.coordinator.state.lock().unwrap();
        state.reports[0].worker.offers.capabilities.contains(&executr_spec::Capability::LimitMemory)
    };
    if offered {
        assert_eq!(message, "killed: out of memory (limit 64Mi)");
    } else {
        assert!(message.starts_with("the limit `memory` can't be kept here: "), "{message}");
    }
    rig.drain().await;
}
