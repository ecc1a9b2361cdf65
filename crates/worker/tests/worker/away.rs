//! The server can't be reached, or doesn't want us.

use std::sync::Arc;
use std::time::Duration;

use executr_api::{ErrorCode, Outcome};
use executr_worker::WorkerError;

use crate::rig::{Rig, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_go_on_while_the_server_is_away_and_their_results_arrive_later() {
    let rig = Rig::start(|options| options.slots = 2).await;
    let here = rig.directory.path().display().to_string();
    let script = format!(
        "echo started >> {here}/log; while ! [ -e {here}/go ]; do sleep 0.05; done; echo ended >> {here}/log; echo text"
    );
    let fences = [rig.coordinator.submit_run(&script), rig.coordinator.submit_run(&script)];
    let log = || std::fs::read_to_string(format!("{here}/log")).unwrap_or_default();
    rig.coordinator.until("both to start", |_| (log().lines().count() == 2).then_some(())).await;
    rig.coordinator.change(|state| state.away = true);
    std::fs::write(format!("{here}/go"), "").unwrap();
    let saved = || {
        let folders = std::fs::read_dir(format!("{here}/spool/results")).unwrap().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json")).count()
    };
    rig.coordinator.until("both results on disk", |_| (saved() == 2).then_some(())).await;
    rig.coordinator.change(|state| state.away = false);
    for fence in fences {
        assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
        assert_eq!(rig.coordinator.text(fence), "text\n");
    }
    assert_eq!(log().lines().filter(|line| *line == "ended").count(), 2, "none was ended, none ran twice");
    let (coordinator, directory) = (Arc::clone(&rig.coordinator), rig.directory.path().to_owned());
    assert_eq!(rig.drain().await.undelivered, 0);
    assert_eq!(coordinator.state.lock().unwrap().results.len(), 2);
    assert!(!directory.join("spool/results").exists() || saved() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_could_not_deliver_the_next_one_delivers() {
    let rig = Rig::start(|options| options.network_timeout = Duration::from_millis(300)).await;
    let here = rig.directory.path().display().to_string();
    let script = format!(
        "touch {here}/started; while ! [ -e {here}/go ]; do sleep 0.05; done; head -c 300000 /dev/zero | tr '\\0' x; echo; echo last"
    );
    let fence = rig.coordinator.submit_run(&script);
    rig.coordinator.until("its start", |_| std::fs::exists(format!("{here}/started")).unwrap().then_some(())).await;
    rig.coordinator.change(|state| state.away = true);
    std::fs::write(format!("{here}/go"), "").unwrap();
    rig.shutdown.drain();
    let (ended, coordinator, directory) = rig.end().await;
    assert_eq!(ended.unwrap().undelivered, 1);

    coordinator.change(|state| state.away = false);
    let next = Rig::start_in(directory, coordinator, |_| ()).await;
    assert_eq!(next.coordinator.result(fence).await.outcome, Outcome::Succeeded);
    assert_eq!(next.coordinator.text(fence), format!("{}\nlast\n", "x".repeat(300_000)));
    next.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusive_job_whose_lease_is_not_renewed_is_ended_and_left_to_be_repeated() {
    let rig = Rig::start(|_| ()).await;
    rig.coordinator.change(|state| state.lease_ms = 1_000);
    let mut spec = run("sleep 60");
    spec.exclusive = true;
    let (exclusive, here) = (rig.coordinator.submit(&spec), rig.directory.path().join("jobs"));
    let running = |fence: executr_api::Fence| here.join(fence.job.to_string()).exists().then_some(());
    rig.coordinator.until("its start", |_| running(exclusive)).await;
    rig.coordinator.change(|state| state.away = true);
    rig.coordinator.until("its end", |_| running(exclusive).is_none().then_some(())).await;
    rig.coordinator.change(|state| {
        state.away = false;
        state.leased.remove(&exclusive);
    });
    let next = rig.coordinator.submit_run("true");
    assert_eq!(rig.coordinator.result(next).await.outcome, Outcome::Succeeded);
    let coordinator = Arc::clone(&rig.coordinator);
    assert_eq!(rig.drain().await.undelivered, 0);
    let state = coordinator.state.lock().unwrap();
    assert!(!state.results.contains_key(&exclusive), "a failure would count");
    assert!(!state.reports.last().unwrap().held.contains(&exclusive), "its lease would never run out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_worker_ends_and_says_why() {
    let coordinator = Arc::<crate::rig::FakeCoordinator>::default();
    coordinator.change(|state| state.refuses = Some(ErrorCode::Unauthorized));
    let rig = Rig::start_in(tempfile::tempdir().unwrap(), coordinator, |_| ()).await;
    let ended = rig.end().await.0;
    assert!(matches!(ended, Err(WorkerError::Refused(error)) if error.code == ErrorCode::Unauthorized));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_waited_for() {
    let coordinator = Arc::<crate::rig::FakeCoordinator>::default();
    coordinator.change(|state| state.away = true);
    let rig = Rig::start_in(tempfile::tempdir().unwrap(), coordinator, |_| ()).await;
    let fence = rig.coordinator.submit_run("true");
    rig.coordinator.change(|state| state.away = false);
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
    rig.drain().await;
}
