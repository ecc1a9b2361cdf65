//! Jobs start when their needs are met.

use executr_api::{JobState, Outcome, RunState};
use executr_store::{Done, Handed, NewJob, NewRun, NewRunJob};

use super::{artifact, run, step};
use crate::suite::Harness;
use crate::suite::stage::{Stage, keyed};

pub(crate) async fn roots_are_ready_at_once<H: Harness>(stage: Stage<H>) {
    let answer = stage.submit_run(run([step("a", &[]), step("b", &[]), step("c", &[0, 1])])).await;
    assert!(!answer.existing);
    assert_eq!(answer.progress.changed, [answer.id]);
    assert_eq!(answer.progress.readied.iter().map(|readied| readied.jobs).sum::<u32>(), 2);
    assert_eq!(stage.picture(answer.id).await, "a ready, b ready, c waiting");
    assert_eq!(stage.story(answer.id).await, "created");
}

pub(crate) async fn a_job_starts_when_its_needs_are_met<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0]), step("c", &[1])])).await;
    for name in ["a", "b", "c"] {
        assert_eq!(stage.run_state(id).await, RunState::Running);
        assert_eq!(stage.end_next(Outcome::Succeeded).await, name);
    }
    assert_eq!(stage.run_state(id).await, RunState::Completed);
    let told = "created, a started, a completed, b started, b completed, c started, c completed, ended completed";
    assert_eq!(stage.story(id).await, told);
    let run = stage.the_run(id).await;
    assert_eq!(run.last_event, 8);
    assert!(run.created_at <= run.started_at.expect("started"));
    assert!(run.started_at <= run.completed_at);
}

pub(crate) async fn the_end_of_a_run_is_told_once<H: Harness>(stage: Stage<H>) {
    let answer = stage.submit_run(run([step("a", &[]), step("b", &[0])])).await;
    assert!(answer.progress.over.is_empty());
    let (id, mut over) = (answer.id, vec![]);
    for _ in 0..2 {
        assert!(over.is_empty());
        stage.pass(std::time::Duration::from_secs(3)).await;
        let fence = *stage.take_all().await.values().next().expect("a job");
        over = stage.follow(fence, Outcome::Succeeded).await.over;
    }
    let record = stage.the_run(id).await;
    let [end] = over[..] else { panic!("one end: {over:?}") };
    assert_eq!((end.run, end.state, end.created_at), (id, RunState::Completed, record.created_at));
    assert_eq!(Some(end.completed_at), record.completed_at);
    assert!(stage.stop(id).await.over.is_empty(), "it is over");
    // By request, with nobody at work, and as it is taken in.
    let id = stage.start(run([step("a", &[])])).await;
    let ends = stage.stop(id).await.over;
    assert_eq!(ends.iter().map(|end| (end.run, end.state)).collect::<Vec<_>>(), [(id, RunState::Cancelled)]);
    let never = NewRunJob { gate: executr_store::Gate::Failure, ..step("a", &[]) };
    let answer = stage.submit_run(run([never])).await;
    let ends: Vec<_> = answer.progress.over.iter().map(|end| (end.run, end.state)).collect();
    assert_eq!(ends, [(answer.id, RunState::Completed)]);
}

pub(crate) async fn a_diamond_joins<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0]), step("c", &[0]), step("d", &[1, 2])])).await;
    stage.end_next(Outcome::Succeeded).await;
    let taken = stage.take_all().await;
    assert_eq!(taken.keys().collect::<Vec<_>>(), ["b", "c"]);
    let finished = stage.finish(taken["c"], Outcome::Succeeded).await;
    assert!(finished.readied.is_empty());
    assert_eq!(stage.picture(id).await, "a completed, b running, c completed, d waiting");
    let finished = stage.finish(taken["b"], Outcome::Succeeded).await;
    assert_eq!(finished.readied.len(), 1);
    assert_eq!(finished.run.changed, [id]);
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "d");
    assert_eq!(stage.run_state(id).await, RunState::Completed);
}

pub(crate) async fn a_lattice_goes_layer_by_layer<H: Harness>(stage: Stage<H>) {
    let layer = |layer: u32| (0..4).map(move |at| (layer, at));
    let jobs = (0..5).flat_map(layer).map(|(layer, at)| {
        let needs: Vec<u32> = if layer == 0 { vec![] } else { (0..4).map(|before| (layer - 1) * 4 + before).collect() };
        step(&format!("{layer}-{at}"), &needs)
    });
    let id = stage.start(run(jobs)).await;
    for layer in 0..5 {
        let taken = stage.take_all().await;
        assert_eq!(taken.len(), 4);
        for (name, fence) in taken {
            assert!(name.starts_with(&format!("{layer}-")), "{name} in layer {layer}");
            stage.succeed(fence).await;
        }
    }
    assert_eq!(stage.run_state(id).await, RunState::Completed);
}

pub(crate) async fn numbers_follow_the_plan<H: Harness>(stage: Stage<H>) {
    let before = stage.submit_one(crate::suite::stage::job()).await;
    stage.start(run([step("a", &[]), step("b", &[]), step("c", &[])])).await;
    let after = stage.submit_one(crate::suite::stage::job()).await;
    let taken = stage.take(10).await;
    assert_eq!((taken[0], taken[4]), (before, after));
    for (id, name) in taken[1..4].iter().zip(["a", "b", "c"]) {
        assert_eq!(stage.runs().run_of(*id).await.expect("read").expect("of a run").1, name);
    }
    assert_eq!(stage.runs().run_of(before).await.expect("read"), None);
}

pub(crate) async fn keys_hold_jobs_of_runs_too<H: Harness>(stage: Stage<H>) {
    let held = |name: &str, needs: &[u32]| {
        let NewRunJob { job, .. } = step(name, needs);
        NewRunJob { job: NewJob { concurrency: Some(("k".to_owned(), 1)), ..job }, ..step(name, needs) }
    };
    let id = stage.start(run([held("a", &[]), held("b", &[0]), held("c", &[])])).await;
    let plain = stage.submit_one(keyed("k", 1)).await;
    assert_eq!(stage.picture(id).await, "a ready, b waiting, c blocked");
    // `b` stands in line behind `a`'s end, but before what was submitted later.
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "a");
    assert_eq!(stage.picture(id).await, "a completed, b ready, c blocked");
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "b");
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "c");
    assert_eq!(stage.run_state(id).await, RunState::Completed);
    assert_eq!(stage.take(9).await, [plain]);
}

pub(crate) async fn a_run_without_jobs_is_done<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([])).await;
    assert_eq!(stage.story(id).await, "created, ended completed");
    let next = stage.start(run([step("a", &[])])).await;
    assert_eq!(stage.picture(next).await, "a ready");
    assert_eq!(stage.run_state(id).await, RunState::Completed);
}

pub(crate) async fn the_earlier_run_is_the_answer<H: Harness>(stage: Stage<H>) {
    let keyed = |tenant: &str| NewRun {
        idempotency_key: Some("once".to_owned()),
        tenant: tenant.parse().expect("a tenant"),
        ..run([step("a", &[])])
    };
    let first = stage.submit_run(keyed("one")).await;
    let again = stage.submit_run(keyed("one")).await;
    assert_eq!((again.id, again.existing, again.progress.changed.len()), (first.id, true, 0));
    assert!(!stage.submit_run(keyed("two")).await.existing);
    assert_eq!(stage.take(9).await.len(), 2);
}

pub(crate) async fn a_done_job_is_handed_over<H: Harness>(stage: Stage<H>) {
    let handed =
        Handed { outputs: [("version".to_owned(), "7".to_owned())].into(), artifacts: vec![artifact("site", b"site")] };
    let done = NewRunJob { done: Some(Done { handed: handed.clone(), kept: vec![] }), ..step("a", &[]) };
    let next = NewRunJob { inputs: vec![(0, "site".to_owned())], ..step("b", &[0]) };
    let answer = stage.submit_run(run([done, next])).await;
    let id = answer.id;
    assert_eq!(answer.progress.ended.iter().map(|(_, state)| *state).collect::<Vec<_>>(), [JobState::Completed]);
    assert_eq!(stage.story(id).await, "created, a completed");
    let claimed = stage.claim(9).await.remove(0);
    let context = claimed.run.expect("of a run");
    assert_eq!(context.needs["a"].outputs, handed.outputs);
    assert_eq!(context.artifacts, handed.artifacts);
    stage.succeed(claimed.fence).await;
    assert_eq!(stage.run_state(id).await, RunState::Completed);
    let jobs = stage.runs().run_jobs(id, 0, 9).await.expect("read");
    assert_eq!((&jobs[0].handed, jobs[0].job.attempt), (&handed, 0));
    assert!(jobs[0].job.completed_at.is_some());
}

pub(crate) async fn a_wide_run<H: Harness>(stage: Stage<H>) {
    let leaves = (0..300).map(|leaf| step(&format!("leaf-{leaf}"), &[0]));
    let last = step("last", &(1..=300).collect::<Vec<_>>());
    let id = stage.start(run([step("root", &[])].into_iter().chain(leaves).chain([last]))).await;
    stage.end_next(Outcome::Succeeded).await;
    let taken = stage.take_all().await;
    assert_eq!(taken.len(), 300);
    for fence in taken.values() {
        stage.succeed(*fence).await;
    }
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "last");
    let run = stage.the_run(id).await;
    assert_eq!((run.state, run.jobs[&JobState::Completed]), (RunState::Completed, 302));
}
