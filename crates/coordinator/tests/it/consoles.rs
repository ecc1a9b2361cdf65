//! Consoles: who asks for one meets the worker that has the job, or is told why not.

use std::time::Duration;

use executr_api::console::{ConsoleAsk, ConsoleEnd, ConsoleFrame, ConsoleId, ConsoleLine};
use executr_api::{Client, ErrorCode, Outcome, WorkerApi};
use executr_spec::JobId;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{Worker, client, open, settle, start, store, submit_plain};

async fn said(line: &mut ConsoleLine) -> ConsoleFrame {
    line.frames.next().await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_two_ends_meet_and_each_sees_the_other_go() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&coordinator).await;
    let exchange = open(&coordinator, &mut worker).await;
    let asked = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { coordinator.console(id, "token `me`".to_owned()).await.unwrap() }
    });
    let orders = exchange.await.unwrap();
    let [order] = &orders.consoles[..] else { panic!("{orders:?}") };
    assert_eq!((order.job, order.by.as_str()), (id, "token `me`"));
    let mut host = coordinator.join_console(order.console).await.unwrap();
    let mut caller = asked.await.unwrap();
    assert_eq!(coordinator.join_console(order.console).await.unwrap_err().code, ErrorCode::NotFound, "taken twice");
    let ask = ConsoleFrame::Ask(ConsoleAsk { command: vec!["sh".to_owned()], terminal: None });
    caller.sink.send(ask.clone()).await.unwrap();
    assert_eq!(said(&mut host).await, ask);
    let end = ConsoleFrame::End(ConsoleEnd::Exited { code: 3 });
    host.sink.send(end.clone()).await.unwrap();
    drop(host);
    assert_eq!(said(&mut caller).await, end);
    assert!(caller.frames.next().await.is_none());
    assert_eq!(caller.sink.send(ConsoleFrame::Alive).await.unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_run_has_no_console() {
    let store = store();
    let coordinator = start(&store).await;
    let unknown = client(&coordinator).console(JobId(Uuid::nil())).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let id = submit_plain(&coordinator, 1).await[0];
    let waiting = client(&coordinator).console(id).await.unwrap_err();
    assert_eq!(waiting.code, ErrorCode::Conflict);
    assert!(waiting.message.contains("it is ready"), "{waiting}");
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    worker.end(worker.held[0], Outcome::Succeeded);
    worker.exchange(&coordinator).await;
    let over = client(&coordinator).console(id).await.unwrap_err();
    assert!(over.code == ErrorCode::Conflict && over.message.contains("is over: it is completed"), "{over}");
    let nobody = coordinator.join_console(ConsoleId(Uuid::nil())).await.unwrap_err();
    assert_eq!(nobody.code, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_worker_is_told_what_became_of_it() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&coordinator).await;
    let ask = || {
        let client = client(&coordinator);
        tokio::spawn(async move { client.console(id).await.unwrap_err() })
    };
    // It ends meanwhile.
    let exchange = open(&coordinator, &mut worker).await;
    let asked = ask();
    assert_eq!(exchange.await.unwrap().consoles.len(), 1);
    worker.end(worker.held[0], Outcome::Succeeded);
    worker.wait = Duration::ZERO;
    worker.exchange(&coordinator).await;
    let over = asked.await.unwrap();
    assert_eq!(over.code, ErrorCode::Conflict, "{over}");
    let told = worker.exchange(&coordinator).await;
    assert!(told.consoles.is_empty(), "nobody waits any more");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_gone_is_not_waited_for() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    Worker::new("w", 1).exchange(&coordinator).await;
    let begin = Instant::now();
    let asked = client(&coordinator).console(id).await.unwrap_err();
    assert_eq!(asked.code, ErrorCode::Unavailable);
    assert!(asked.message.contains("executor w") && asked.message.contains("heard of"), "{asked}");
    let first = begin.elapsed();
    let again = client(&coordinator).console(id).await.unwrap_err();
    assert_eq!((again.code, begin.elapsed()), (ErrorCode::Unavailable, first), "it is known by now");
    settle().await;
}
