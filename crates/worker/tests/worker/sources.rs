//! Where sources of variables find their files: in the tree that the run starts from, whatever jobs do to their copies.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use executr_api::{AttemptResult, Fence, Outcome, RunContext};
use executr_spec::workflow::Provider;
use executr_spec::{Condition, Digest, JobSpec, RunId, Step, StepCommand};
use executr_worker::Policy;
use uuid::Uuid;

use crate::rig::Rig;
use crate::trees::{job, keep, text};

fn step(script: &str, env_from: &[Provider]) -> Step {
    Step { env_from: env_from.to_vec(), ..Step::new(StepCommand::Run(script.to_owned())) }
}

fn file(path: &str) -> Provider {
    Provider::File { path: path.to_owned(), required: true }
}

async fn came_to(rig: &Rig, run: u128, spec: &JobSpec) -> (Fence, AttemptResult) {
    let run = RunId(Uuid::from_u128(run));
    let run = RunContext { run, needs: BTreeMap::new(), artifacts: vec![], workspace: None };
    let fence = rig.coordinator.submit_in(spec, Some(run));
    (fence, rig.coordinator.result(fence).await)
}

/// A repository with variables in a file and in a program.
fn repository(rig: &Rig) -> Digest {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("settings.env"), "REGION=source-file\n").unwrap();
    let program = place.path().join("variables");
    fs::write(&program, "#!/bin/sh\necho more >> asked\necho \"export ASKED=times-$(grep -c more asked)\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    keep(rig, place.path())
}

async fn rig() -> Rig {
    Rig::start(|options| options.policy = Policy { providers: true, ..Policy::default() }).await
}

/// Tells a value in a way that no mask knows.
const TELL: &str = "echo \"$REGION $ASKED\" | tr a-z A-Z";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_cannot_give_variables_to_itself_or_to_others() {
    let rig = rig().await;
    let source = Some(repository(&rig));
    let plant = "echo REGION=planted > settings.env; printf '#!/bin/sh\\necho export ASKED=planted' > variables";
    let sources = [file("settings.env"), Provider::Command(vec!["./variables".to_owned()])];
    let planting =
        job(vec![step(plant, &[]), step(TELL, &sources)], |job| (job.source, job.env_source) = (source, source));
    let (fence, result) = came_to(&rig, 1, &planting).await;
    assert_eq!(
        (result.outcome, text(&rig, fence).as_str()),
        (Outcome::Succeeded, "SOURCE-FILE TIMES-1\n"),
        "{result:?}"
    );
    // Without a copy of its own, and asked for the whole job.
    let without_copy = job(vec![step(TELL, &[])], |job| {
        job.env_source = source;
        job.env_from = sources.to_vec();
    });
    for run in [1, 2] {
        let (fence, result) = came_to(&rig, run, &without_copy).await;
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(text(&rig, fence), "SOURCE-FILE TIMES-1\n", "each run starts from the same tree");
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_is_the_runs_failure_wherever_it_stands() {
    let rig = rig().await;
    let source = Some(repository(&rig));
    let mut taking = step("echo never", &[file("absent.env")]);
    taking.continue_on_error = true;
    let mut always = step("echo \"still $REGION\" | tr a-z A-Z", &[file("settings.env")]);
    always.condition = Condition::Always;
    let spec = job(vec![step("true", &[]), taking, always], |job| job.env_source = source);
    let (fence, result) = came_to(&rig, 1, &spec).await;
    assert_eq!((result.outcome, result.fails_run, result.retryable), (Outcome::Failed, true, false));
    assert!(result.error_message.is_some_and(|message| message.contains("file `absent.env`")));
    assert_eq!(text(&rig, fence), "STILL SOURCE-FILE\n");
    // After another failure, which is the one that is told.
    let mut late = step("echo never", &[Provider::Required(vec!["NOBODY_GIVES_IT".to_owned()])]);
    late.condition = Condition::Always;
    let (_, result) = came_to(&rig, 1, &job(vec![step("exit 3", &[]), late], |_| ())).await;
    assert_eq!((result.exit_code, result.fails_run), (Some(3), true));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tree_the_remedy_is_told_and_others_are_not_answered_so() {
    let rig = rig().await;
    let spec = job(vec![step(TELL, &[file("settings.env")])], |_| ());
    let (_, result) = came_to(&rig, 1, &spec).await;
    assert!(result.fails_run && result.error_message.is_some_and(|message| message.contains("executr submit")));
    let source = Some(repository(&rig));
    let spec = job(vec![step(TELL, &[file("settings.env")])], |job| job.env_source = source);
    let (fence, result) = came_to(&rig, 1, &spec).await;
    assert_eq!((result.outcome, text(&rig, fence).as_str()), (Outcome::Succeeded, "SOURCE-FILE \n"), "{result:?}");
    rig.drain().await;
}
