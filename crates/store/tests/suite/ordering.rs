//! Who gets which job.

use std::sync::Arc;

use executr_spec::{Priority, QueueName};
use executr_store::{Claim, NewJob};

use super::Harness;
use super::stage::{Stage, job, labelled, of, offering, wish};

pub(crate) async fn oldest_first<H: Harness>(stage: Stage<H>) {
    let mut ids = stage.submit([job(), job()]).await;
    ids.push(stage.submit_one(job()).await);
    assert_eq!(stage.take(2).await, ids[..2]);
    assert_eq!(stage.take(2).await, ids[2..]);
    assert_eq!(stage.take(2).await, []);
}

pub(crate) async fn foreground_before_background_before_best_effort<H: Harness>(stage: Stage<H>) {
    let with = |priority| NewJob { priority, ..job() };
    let ids = stage.submit([with(Priority::BestEffort), with(Priority::Background), with(Priority::Foreground)]).await;
    assert_eq!(stage.take(9).await, [ids[2], ids[1], ids[0]]);
}

fn queue(name: &str) -> QueueName {
    name.parse().expect("a queue")
}

pub(crate) async fn queues_in_the_order_asked_for<H: Harness>(stage: Stage<H>) {
    let within = |name| NewJob { queue: queue(name), ..job() };
    let foreground = NewJob { priority: Priority::Foreground, ..within("a") };
    let ids = stage.submit([foreground, within("b"), within("c"), within("b")]).await;
    let claim = |names: &[&str]| Claim { queues: names.iter().map(|name| queue(name)).collect(), ..wish("w", 9) };
    let got = stage.claim_as(claim(&["b", "a"])).await;
    assert_eq!(got.iter().map(|lease| lease.fence.job).collect::<Vec<_>>(), [ids[1], ids[3], ids[0]]);
    assert_eq!(got[0].queue, queue("b"));
    assert_eq!(stage.claim_as(claim(&["b", "a"])).await, []);
    assert_eq!(stage.claim_as(claim(&["c"])).await.len(), 1);
}

pub(crate) async fn tenants_take_turns<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([of("a"), of("a"), of("a"), of("b"), of("b")]).await;
    assert_eq!(stage.take(9).await, [ids[0], ids[3], ids[1], ids[4], ids[2]]);
}

pub(crate) async fn a_tenant_never_served_comes_first<H: Harness>(stage: Stage<H>) {
    let served = stage.submit([of("a"), of("b")]).await;
    assert_eq!(stage.take(2).await, served);
    let ids = stage.submit([of("a"), of("b"), of("d"), of("c")]).await;
    // Never served, by name; then the one served longest ago.
    assert_eq!(stage.take(9).await, [ids[3], ids[2], ids[0], ids[1]]);
}

pub(crate) async fn turns_belong_to_queue_and_priority<H: Harness>(stage: Stage<H>) {
    let foreground = |tenant| NewJob { priority: Priority::Foreground, ..of(tenant) };
    stage.submit([foreground("a"), of("b")]).await;
    assert_eq!(stage.take(2).await.len(), 2);
    // In the background `b` was served last; in the foreground `a`.
    let ids = stage.submit([of("b"), of("a"), foreground("a"), foreground("b")]).await;
    assert_eq!(stage.take(9).await, [ids[3], ids[2], ids[1], ids[0]]);
}

pub(crate) async fn only_classes_the_worker_can_run<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([labelled("a100"), job(), labelled("h100")]).await;
    assert_eq!(stage.take(9).await, [ids[1]]);
    let got = stage.claim_as(Claim { offers: Arc::new(offering("h100")), ..wish("gpu", 9) }).await;
    assert_eq!(got.iter().map(|lease| lease.fence.job).collect::<Vec<_>>(), [ids[2]]);
}

pub(crate) async fn several_classes_of_a_tenant_by_age<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([labelled("a100"), job(), labelled("h100"), labelled("a100"), job()]).await;
    let got = stage.claim_as(Claim { offers: Arc::new(offering("a100")), ..wish("gpu", 9) }).await;
    assert_eq!(got.iter().map(|lease| lease.fence.job).collect::<Vec<_>>(), [ids[0], ids[1], ids[3], ids[4]]);
}

pub(crate) async fn a_tenant_with_several_classes_takes_one_turn<H: Harness>(stage: Stage<H>) {
    let several = |tenant| NewJob { tenant: of(tenant).tenant, ..labelled("a100") };
    let ids = stage.submit([several("a"), of("a"), of("b"), several("b"), of("c")]).await;
    // Few enough at a time that not all of the buckets are needed.
    for expected in [[ids[0], ids[2]], [ids[4], ids[1]]] {
        let got = stage.claim_as(Claim { offers: Arc::new(offering("a100")), ..wish("gpu", 2) }).await;
        assert_eq!(got.iter().map(|lease| lease.fence.job).collect::<Vec<_>>(), expected);
    }
}

pub(crate) async fn one_batch_of_claims_in_order<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([job(), job(), job()]).await;
    let answers = stage.store.claim(vec![wish("one", 1), wish("two", 1), wish("three", 5)]).await.expect("claimed");
    let got: Vec<_> = answers.iter().map(|answer| answer.leases[0].fence.job).collect();
    assert_eq!(got, ids);
    assert_eq!(stage.job(ids[1]).await.worker, Some(super::stage::worker("two")));
}

pub(crate) async fn a_limit_is_kept<H: Harness>(stage: Stage<H>) {
    stage.submit((0..300).map(|_| job())).await;
    assert_eq!(stage.take(0).await.len(), 0);
    assert_eq!(stage.take(200).await.len(), 200);
    assert_eq!(stage.take(200).await.len(), 100);
}

pub(crate) async fn a_job_handed_out_again_keeps_its_place<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([job(), job(), job()]).await;
    let fence = stage.claim_one().await;
    stage.give_back(fence).await;
    assert_eq!(stage.take(9).await, ids);
}
