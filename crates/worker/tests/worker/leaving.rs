//! How a worker ends, and what it leaves.

use std::time::Duration;

use executr_api::Outcome;

use crate::rig::{Rig, State};

/// A job that runs until the file `go` appears, and says when it has started.
fn until_go(here: &std::path::Path) -> String {
    let here = here.display();
    format!("echo $$ >> {here}/started; while ! [ -e {here}/go ]; do sleep 0.05; done")
}

async fn started(rig: &Rig, jobs: usize) -> Vec<String> {
    let path = rig.directory.path().join("started");
    rig.coordinator
        .until("jobs to start", |_| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            (text.lines().count() == jobs).then(|| text.lines().map(str::to_owned).collect())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_takes_nothing_new_and_finishes_what_runs() {
    let rig = Rig::start(|_| ()).await;
    let running = rig.coordinator.submit_run(&until_go(rig.directory.path()));
    started(&rig, 1).await;
    rig.shutdown.drain();
    rig.coordinator.until("to be told", |state| state.reports.iter().any(|report| report.draining).then_some(())).await;
    let waiting = rig.coordinator.submit_run("true");
    std::fs::write(rig.directory.path().join("go"), "").unwrap();
    let (summary, coordinator, directory) = rig.end().await;
    let summary = summary.unwrap();
    assert_eq!((summary.started, summary.succeeded, summary.undelivered), (1, 1, 0));
    let state = coordinator.state.lock().unwrap();
    assert_eq!(state.results[&running].outcome, Outcome::Succeeded);
    assert!(!state.results.contains_key(&waiting) && state.waiting.len() + state.returned.len() >= 1);
    assert_eq!(std::fs::read_dir(directory.path().join("jobs")).unwrap().count(), 0, "not even a board");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_signal_ends_the_jobs() {
    let rig = Rig::start(|_| ()).await;
    let fence = rig.coordinator.submit_run(&until_go(rig.directory.path()));
    let ids = started(&rig, 1).await;
    rig.shutdown.drain();
    rig.shutdown.end_jobs();
    let (summary, coordinator, _directory) = rig.end().await;
    assert_eq!(summary.unwrap().started, 1);
    for id in ids {
        assert!(!std::path::Path::new("/proc").join(&id).exists(), "process {id} is left");
    }
    assert!(!coordinator.state.lock().unwrap().results.contains_key(&fence), "its lease runs out, and it is run again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_as_many_jobs_as_it_may_take_it_ends() {
    let rig = Rig::start(|options| {
        options.slots = 2;
        options.max_total_jobs = Some(3);
    })
    .await;
    for _ in 0..10 {
        rig.coordinator.submit_run("true");
    }
    let (summary, coordinator, _directory) = rig.end().await;
    assert_eq!(summary.unwrap().succeeded, 3);
    let state = coordinator.state.lock().unwrap();
    assert_eq!((state.results.len(), state.leased.len()), (3, 0), "nothing is kept from others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_time_it_ends() {
    let rig = Rig::start(|options| options.max_active_time = Some(Duration::from_millis(200))).await;
    assert_eq!(rig.end().await.0.unwrap().started, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_can_ask_it_to_drain() {
    let rig = Rig::start(|_| ()).await;
    rig.coordinator.change(|state| state.drain = true);
    assert_eq!(rig.end().await.0.unwrap().started, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_lease_ends_its_job_and_nothing_is_reported() {
    let rig = Rig::start(|_| ()).await;
    let fence = rig.coordinator.submit_run(&until_go(rig.directory.path()));
    let ids = started(&rig, 1).await;
    rig.coordinator.change(|state| {
        state.leased.remove(&fence);
        state.releases.push(fence);
    });
    let gone = |id: &String| !std::path::Path::new("/proc").join(id).exists();
    rig.coordinator.until("its end", |_| ids.iter().all(gone).then_some(())).await;
    // The slot is free a moment after its processes are gone; what comes before that is given back.
    loop {
        let next = rig.coordinator.submit_run("true");
        let answered = |state: &mut State| {
            let given_back = state.returned.contains(&next).then_some(false);
            state.results.contains_key(&next).then_some(true).or(given_back)
        };
        if rig.coordinator.until("the next job", answered).await {
            break;
        }
    }
    assert!(!rig.coordinator.state.lock().unwrap().results.contains_key(&fence));
    rig.drain().await;
}
