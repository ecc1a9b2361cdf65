//! A worker that does what a test says.

use std::collections::BTreeMap;

use executr_api::output::{OutputChunk, RecordWriter, Stream};
use executr_api::{
    AttemptResult, Fence, Lease, Orders, Outcome, QueueWeight, Report, Version, WorkerApi, WorkerCounters, WorkerHello,
};
use executr_client::HttpClient;
use executr_spec::{ExecutorKind, Offers, QueueName, WorkerId};

pub(crate) struct Worker {
    pub(crate) client: HttpClient,
    pub(crate) report: Report,
}

impl Worker {
    pub(crate) fn new(client: HttpClient) -> Self {
        let worker = WorkerHello {
            id: WorkerId("w-1".to_owned()),
            name: "w".to_owned(),
            ip: None,
            version: Version::current(),
            slots: 2,
            queues: vec![QueueWeight { queue: QueueName::default(), weight: 1 }],
            offers: Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() },
        };
        let report = Report {
            worker,
            sequence: 0,
            held: vec![],
            finished: vec![],
            returned: vec![],
            cleaned: Vec::new(),
            draining: false,
            wait_ms: 1_000,
            counters: WorkerCounters::default(),
        };
        Self { client, report }
    }

    pub(crate) async fn exchange(&mut self) -> Orders {
        self.report.sequence += 1;
        self.client.exchange(self.report.clone()).await.unwrap()
    }

    /// Waits for a job.
    pub(crate) async fn take(&mut self) -> Lease {
        loop {
            if let Some(lease) = self.exchange().await.leases.pop() {
                self.report.held.push(lease.fence);
                return lease;
            }
        }
    }

    pub(crate) async fn append(&self, lease: &Lease, offset: u64, bytes: &[u8]) -> u64 {
        let mut writer = RecordWriter::default();
        writer.push(Stream::Stdout, bytes);
        let chunk = OutputChunk { offset, records: writer.take() };
        self.client.append_output(&lease.fence, &lease.token, chunk).await.unwrap()
    }

    pub(crate) async fn finish(&mut self, fence: Fence, outcome: Outcome, output_bytes: u64) -> Orders {
        self.report.held.retain(|held| *held != fence);
        self.report.finished = vec![AttemptResult {
            fence,
            outcome,
            exit_code: Some(0),
            error_message: None,
            retryable: true,
            fails_run: false,
            usage: None,
            steps: vec![],
            output: None,
            output_bytes,
            duration_us: 1,
            outputs: BTreeMap::new(),
            artifacts: Vec::new(),
        }];
        self.report.wait_ms = 0;
        let orders = self.exchange().await;
        self.report.finished.clear();
        self.report.wait_ms = 1_000;
        orders
    }
}
