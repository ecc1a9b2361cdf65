//! A server on a port of its own, and requests to it.

use std::collections::BTreeMap;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executr_api::{JobView, Lease, Orders, Report, Version, WorkerHello};
use executr_coordinator::{Coordinator, Options};
use executr_server::{Limits, Metrics, ServerError, ServerOptions, serve};
use executr_spec::{ExecutorKind, Offers, QueueName, WorkerId};
use executr_store::model::ModelStore;
use executr_store::{Store, SystemClock};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How to start a server.
pub(crate) struct Setup {
    pub(crate) coordinator: Options,
    pub(crate) limits: Limits,
    pub(crate) allow_anonymous: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { coordinator: Options::default(), limits: Limits::default(), allow_anonymous: true }
    }
}

/// A running server. It ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ServerError>>,
    http: reqwest::Client,
    token: Mutex<Option<String>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        Self::on(Arc::new(ModelStore::new(Arc::new(SystemClock))), setup).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, setup: Setup) -> Self {
        let metrics = Arc::new(Metrics::new());
        let coordinator = Coordinator::start(store, setup.coordinator, metrics.clone()).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let options = ServerOptions {
            limits: setup.limits,
            allow_anonymous: setup.allow_anonymous,
            ..ServerOptions::new(listener)
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(coordinator, metrics, options, stop.clone().cancelled_owned()));
        Self { address, stop, task, http: plain_client(), token: Mutex::new(None) }
    }

    /// From now on the server is asked with this token.
    pub(crate) fn set_token(&self, token: Option<&str>) {
        *self.token.lock().unwrap() = token.map(str::to_owned);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, self.url(path)).timeout(PATIENCE);
        match &*self.token.lock().unwrap() {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        read(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, None).await
    }

    /// Submits a job with one script.
    pub(crate) async fn submit(&self) -> JobView {
        let (status, job) = self.post("/jobs", json!({"steps": [{"run": "true"}]})).await;
        assert_eq!(status, 201, "{job}");
        serde_json::from_value(job).unwrap()
    }

    /// Has a worker make one exchange.
    pub(crate) async fn exchange(&self, report: &Report) -> Orders {
        let (status, orders) = self.post("/worker/exchange", serde_json::to_value(report).unwrap()).await;
        assert_eq!(status, 200, "{orders}");
        serde_json::from_value(orders).unwrap()
    }

    /// Has a worker take one job.
    pub(crate) async fn take(&self, report: &mut Report) -> Lease {
        loop {
            report.sequence += 1;
            if let Some(lease) = self.exchange(report).await.leases.pop() {
                report.held.push(lease.fence);
                return lease;
            }
        }
    }

    /// All metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        self.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
    }
}

/// A client for plain HTTP.
pub(crate) fn plain_client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

pub(crate) async fn read(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    (status, value)
}

/// What a worker that does nothing yet reports.
pub(crate) fn report(name: &str) -> Report {
    Report {
        worker: WorkerHello {
            id: WorkerId(format!("{name}-1")),
            name: name.to_owned(),
            ip: None,
            version: Version::current(),
            slots: 4,
            queues: vec![executr_api::QueueWeight { queue: QueueName::default(), weight: 1 }],
            offers: Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() },
        },
        sequence: 0,
        held: vec![],
        finished: vec![],
        returned: vec![],
        cleaned: Vec::new(),
        draining: false,
        wait_ms: 1_000,
        counters: executr_api::WorkerCounters::default(),
    }
}

/// The result of an attempt that ended well.
pub(crate) fn success(lease: &Lease) -> executr_api::AttemptResult {
    executr_api::AttemptResult {
        fence: lease.fence,
        outcome: executr_api::Outcome::Succeeded,
        exit_code: Some(0),
        error_message: None,
        retryable: true,
        fails_run: false,
        usage: None,
        steps: vec![],
        output: None,
        output_bytes: 0,
        duration_us: 1_000,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}

/// Reports a result.
pub(crate) async fn finish(server: &Server, report: &mut Report, result: executr_api::AttemptResult) -> Orders {
    report.sequence += 1;
    report.held.retain(|fence| *fence != result.fence);
    report.finished = vec![result];
    report.wait_ms = 0;
    let orders = server.exchange(report).await;
    report.finished.clear();
    report.wait_ms = 1_000;
    orders
}
