//! Which steps of a job run, how often, and where.

use std::time::Duration;

use executr_api::{Outcome, StepOutcome};
use executr_spec::{BackoffKind, Condition, JobSpec, Retry, Span, Step, StepCommand};

use crate::rig::Rig;

fn step(script: &str) -> Step {
    Step::new(StepCommand::Run(script.to_owned()))
}

fn when(condition: &str, script: &str) -> Step {
    Step { condition: Condition::parse(condition), ..step(script) }
}

fn retry(max_attempts: u32) -> Option<Retry> {
    let wait = Span(Duration::from_millis(1));
    Some(Retry { max_attempts, backoff: BackoffKind::Constant, min_time: wait, max_time: wait })
}

/// Runs a job; gives its outcome, its message, the outcomes of its steps, and its output.
async fn came_to(rig: &Rig, steps: Vec<Step>) -> (Outcome, Option<String>, Vec<StepOutcome>, String) {
    let fence = rig.coordinator.submit(&JobSpec::new(steps));
    let result = rig.coordinator.result(fence).await;
    let outcomes = result.steps.iter().map(|step| step.outcome).collect();
    (result.outcome, result.error_message, outcomes, rig.coordinator.text(fence))
}

use StepOutcome::{Failed, Skipped, Succeeded};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_only_those_run_that_are_there_for_it() {
    let rig = Rig::start(|_| ()).await;
    let steps = vec![
        step("echo a; exit 3"),
        step("echo b"),
        when("failure()", "echo c"),
        when("always()", "echo d; exit 4"),
        when("cancelled()", "echo e"),
        when("test 1 = 1", "echo f"),
    ];
    let (outcome, message, outcomes, text) = came_to(&rig, steps).await;
    assert_eq!((outcome, message.as_deref()), (Outcome::Failed, Some("step 1 `echo a; exit 3`: exit code 3")));
    assert_eq!(outcomes, [Failed, Skipped, Succeeded, Failed, Skipped, Skipped]);
    assert_eq!(text, "a\nc\nd\n");
    let (outcome, _, outcomes, text) = came_to(&rig, vec![step("echo a"), when("failure()", "echo b")]).await;
    assert_eq!((outcome, outcomes, text.as_str()), (Outcome::Succeeded, vec![Succeeded, Skipped], "a\n"));
    let (outcome, message, _, _) = came_to(&rig, vec![step("true"), when("always()", "exit 4")]).await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(message.is_some_and(|message| message.contains("exit code 4")));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_as_condition_runs_skips_or_fails() {
    let rig = Rig::start(|_| ()).await;
    let steps = vec![
        when("test -d /", "echo first; touch made"),
        when("test -e absent", "echo never"),
        when("test -e made", "echo third"),
    ];
    let (outcome, _, outcomes, text) = came_to(&rig, steps).await;
    assert_eq!((outcome, text.as_str()), (Outcome::Succeeded, "first\nthird\n"));
    assert_eq!(outcomes, [Succeeded, Skipped, Succeeded]);
    let (outcome, message, outcomes, _) = came_to(&rig, vec![when("exit 2", "echo never"), step("echo never")]).await;
    assert_eq!((outcome, outcomes), (Outcome::Failed, vec![Failed, Skipped]));
    assert!(message.is_some_and(|message| message.ends_with("its condition failed: exit code 2")));
    let (outcome, _, outcomes, _) = came_to(&rig, vec![when("exit 1", "exit 5")]).await;
    assert_eq!((outcome, outcomes), (Outcome::Succeeded, vec![Skipped]), "all skipped is a success");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_tried_until_it_ends_well() {
    let rig = Rig::start(|_| ()).await;
    let third = "echo x >> tries; test $(wc -l < tries) -ge 3";
    let tried = |script: &str, tries| Step { retry: retry(tries), ..step(script) };
    for (tries, last, outcome) in [(3, "cat tries", Outcome::Succeeded), (2, "cat tries", Outcome::Failed)] {
        let (came, _, _, text) = came_to(&rig, vec![tried(third, tries), when("always()", last)]).await;
        assert_eq!((came, text), (outcome, "x\n".repeat(tries as usize)));
    }
    // Also as the last step, whose end takes the directory with it.
    let (outcome, _, _, _) = came_to(&rig, vec![tried(third, 3)]).await;
    assert_eq!(outcome, Outcome::Succeeded);
    let slow = Step { timeout: Some(Span(Duration::from_millis(100))), ..tried("echo try; sleep 60", 2) };
    let (outcome, message, _, text) = came_to(&rig, vec![slow]).await;
    assert_eq!((outcome, text.as_str()), (Outcome::Failed, "try\ntry\n"), "the time is that of each try");
    assert_eq!(message.as_deref(), Some("timed out after 100ms"));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_between_tries_ends_with_the_jobs_time_and_with_its_cancellation() {
    let rig = Rig::start(|_| ()).await;
    let long = Span(Duration::from_secs(600));
    let forever = Retry { max_attempts: 9, backoff: BackoffKind::Constant, min_time: long, max_time: long };
    let waits = Step { retry: Some(forever), ..step("echo try; exit 1") };
    let mut spec = JobSpec::new(vec![waits.clone()]);
    spec.timeout = Some(Span(Duration::from_millis(200)));
    let result = rig.coordinator.result(rig.coordinator.submit(&spec)).await;
    assert_eq!(result.error_message.as_deref(), Some("timed out after 200ms"));
    let here = rig.directory.path().join("tried");
    let waits = Step { command: StepCommand::Run(format!("touch {}; exit 1", here.display())), ..waits };
    let fence = rig.coordinator.submit(&JobSpec::new(vec![waits]));
    rig.coordinator.until("the first try", |_| here.exists().then_some(())).await;
    rig.coordinator.change(|state| state.cancels.push(fence));
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Cancelled);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_may_fail_fails_nothing() {
    let rig = Rig::start(|_| ()).await;
    let may_fail = |script: &str| Step { continue_on_error: true, ..step(script) };
    let absent = Step { command: StepCommand::Argv(vec!["no-such-program".to_owned()]), ..may_fail("") };
    let steps = vec![may_fail("exit 3"), absent, step("echo on"), when("failure()", "echo never")];
    let (outcome, message, outcomes, text) = came_to(&rig, steps).await;
    assert_eq!((outcome, message, text.as_str()), (Outcome::Succeeded, None, "on\n"));
    assert_eq!(outcomes, [Failed, Failed, Succeeded, Skipped]);
    // The job's own time is nobody's to run over.
    let mut late = JobSpec::new(vec![may_fail("sleep 60")]);
    late.timeout = Some(Span(Duration::from_millis(100)));
    assert_eq!(rig.coordinator.result(rig.coordinator.submit(&late)).await.outcome, Outcome::Failed);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_starts_where_it_says() {
    let rig = Rig::start(|_| ()).await;
    let within = |workdir: &str, script: &str| Step { workdir: Some(workdir.to_owned()), ..step(script) };
    let steps = vec![step("mkdir -p a/b; pwd"), within("a/b", "pwd; touch file"), within("a", "ls b; cd $HOME; pwd")];
    let (outcome, _, _, text) = came_to(&rig, steps).await;
    assert_eq!(outcome, Outcome::Succeeded, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, [lines[0], &format!("{}/a/b", lines[0]), "file", lines[0]]);
    let (outcome, message, _, _) = came_to(&rig, vec![within("absent", "true")]).await;
    assert!(outcome == Outcome::Failed && message.is_some_and(|message| message.contains("absent")));
    let (outcome, message, _, _) = came_to(&rig, vec![within("../..", "pwd")]).await;
    assert!(outcome == Outcome::Failed && message.is_some_and(|message| message.contains("workdir")));
    let left: Vec<_> =
        std::fs::read_dir(rig.directory.path().join("jobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".executr-")), "{left:?}");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_ends_its_step_and_does_what_is_there_for_it() {
    let rig = Rig::start(|_| ()).await;
    let here = rig.directory.path().join("started");
    let steps = vec![
        step(&format!("touch {}; sleep 60", here.display())),
        step("echo never"),
        when("failure()", "echo never"),
        when("cancelled()", "echo cancelled"),
        when("always()", "echo always"),
    ];
    let fence = rig.coordinator.submit(&JobSpec::new(steps));
    rig.coordinator.until("the first step", |_| here.exists().then_some(())).await;
    rig.coordinator.change(|state| state.cancels.push(fence));
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.outcome, Outcome::Cancelled);
    let outcomes: Vec<_> = result.steps.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [StepOutcome::Cancelled, Skipped, Skipped, Succeeded, Succeeded]);
    assert_eq!(rig.coordinator.text(fence), "cancelled\nalways\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_after_a_cancellation_has_its_bound_and_ends_at_the_second_word() {
    let rig = Rig::start(|options| options.aftermath = Duration::from_millis(200)).await;
    let cancelled = async |rig: &Rig, after: &str| {
        let here = rig.directory.path().join(after.len().to_string());
        let first = step(&format!("touch {}; sleep 60", here.display()));
        let fence =
            rig.coordinator.submit(&JobSpec::new(vec![first, when("always()", after), when("always()", "echo x")]));
        rig.coordinator.until("the first step", |_| here.exists().then_some(())).await;
        rig.coordinator.change(|state| state.cancels.push(fence));
        fence
    };
    let fence = cancelled(&rig, "sleep 60").await;
    let result = rig.coordinator.result(fence).await;
    let outcomes: Vec<_> = result.steps.iter().map(|step| step.outcome).collect();
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_eq!(outcomes, [StepOutcome::Cancelled, StepOutcome::TimedOut, Skipped]);
    rig.drain().await;

    let rig = Rig::start(|_| ()).await;
    let here = rig.directory.path().join("after");
    let fence = cancelled(&rig, &format!("touch {}; sleep 60", here.display())).await;
    rig.coordinator.until("the second step", |_| here.exists().then_some(())).await;
    rig.shutdown.end_jobs();
    let (_, coordinator, _directory) = rig.end().await;
    let result = coordinator.state.lock().unwrap().results[&fence].clone();
    assert_eq!(result.outcome, Outcome::Cancelled, "it is told, because it was asked for");
    let outcomes: Vec<_> = result.steps.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [StepOutcome::Cancelled, StepOutcome::Cancelled, Skipped]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_jobs_time_is_over_its_last_steps_still_run() {
    let rig = Rig::start(|_| ()).await;
    let mut spec = JobSpec::new(vec![step("sleep 60"), step("echo never"), when("failure()", "echo failed")]);
    spec.timeout = Some(Span(Duration::from_millis(100)));
    let fence = rig.coordinator.submit(&spec);
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.error_message.as_deref(), Some("step 1 `sleep 60`: timed out: the job's 100ms are over"));
    assert_eq!(rig.coordinator.text(fence), "failed\n");
    rig.drain().await;
}
