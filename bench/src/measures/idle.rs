//! 1,000 idle workers holding their exchange open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use executr_api::{Report, Version, WorkerApi as _, WorkerCounters, WorkerHello};
use executr_spec::{Offers, WorkerId};

use super::Settings;
use crate::http;
use crate::program::Server;
use crate::report::{Row, Target};

const WORKERS: usize = 1_000;
const OBSERVED: Duration = Duration::from_secs(20);

/// The share of one core the server uses while they wait, defaults unchanged.
///
/// # Errors
/// When the program fails.
pub fn measure(_settings: &Settings) -> io::Result<Vec<Row>> {
    let server = Server::start(None, &[])?;
    let share = http::runtime()?.block_on(async {
        let client = Arc::new(http::client(&server.url)?);
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    let mut report = idle_report(number);
                    loop {
                        report.sequence += 1;
                        if client.exchange(report.clone()).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                })
            })
            .collect();
        http::wait_for_executors(&client, WORKERS).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = server.process.cpu()?;
        tokio::time::sleep(OBSERVED).await;
        let used = server.process.cpu()? - before;
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        io::Result::Ok(used.as_secs_f64() / OBSERVED.as_secs_f64())
    })?;
    Ok(vec![Row {
        measure: format!("server, {WORKERS} idle workers"),
        ours: share * 100.0,
        against: "one core".to_owned(),
        other: 100.0,
        unit: "%",
        target: Target::AtMost(0.05),
    }])
}

fn idle_report(number: usize) -> Report {
    Report {
        worker: WorkerHello {
            id: WorkerId(format!("idle-{number}")),
            name: "idle".to_owned(),
            ip: None,
            version: Version::current(),
            slots: 1,
            queues: vec![executr_api::QueueWeight { queue: executr_spec::QueueName::default(), weight: 1 }],
            offers: Offers { executors: [executr_spec::ExecutorKind::Local].into(), ..Offers::default() },
        },
        sequence: 0,
        held: vec![],
        finished: vec![],
        returned: vec![],
        cleaned: Vec::new(),
        draining: false,
        wait_ms: 60_000,
        counters: WorkerCounters::default(),
    }
}
