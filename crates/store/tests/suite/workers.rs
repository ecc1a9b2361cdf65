//! The register of workers.

use std::time::Duration;

use executr_api::QueueWeight;
use executr_spec::Timestamp;
use executr_store::WorkerRecord;

use super::Harness;
use super::stage::{Stage, offering, worker};

pub(crate) fn record(name: &str) -> WorkerRecord {
    WorkerRecord {
        id: worker(&format!("{name}-1")),
        name: name.to_owned(),
        ip: Some("192.0.2.7".to_owned()),
        version: Some("0.1.0".to_owned()),
        slots: 4,
        queues: vec![QueueWeight { queue: "default".parse().expect("a queue"), weight: 3 }],
        offers: offering("a100"),
        draining: false,
        last_seen: Timestamp(0),
        jobs_completed: 0,
    }
}

pub(crate) async fn recorded_and_counted_up<H: Harness>(stage: Stage<H>) {
    let start = stage.now().await;
    let first = WorkerRecord { jobs_completed: 2, ..record("a") };
    stage.store.put_workers(vec![first.clone(), record("b")]).await.expect("recorded");
    let changed = WorkerRecord { draining: true, slots: 9, version: None, jobs_completed: 3, ..first };
    stage.store.put_workers(vec![changed.clone()]).await.expect("recorded");
    let listed = stage.store.workers(start).await.expect("listed");
    assert_eq!(listed.len(), 2);
    assert!(listed[0].last_seen >= start);
    assert_eq!(
        WorkerRecord { last_seen: Timestamp(0), ..listed[0].clone() },
        WorkerRecord { jobs_completed: 5, ..changed }
    );
    assert_eq!(WorkerRecord { last_seen: Timestamp(0), ..listed[1].clone() }, record("b"));
}

pub(crate) async fn only_those_heard_of<H: Harness>(stage: Stage<H>) {
    stage.store.put_workers(vec![record("a"), record("b")]).await.expect("recorded");
    stage.pass(Duration::from_secs(10)).await;
    let since = stage.now().await;
    stage.store.put_workers(vec![record("b")]).await.expect("recorded");
    let listed = stage.store.workers(since).await.expect("listed");
    assert_eq!(listed.iter().map(|worker| worker.name.as_str()).collect::<Vec<_>>(), ["b"]);
}
