//! Consoles: connections that carry frames once they were upgraded, between whoever asked for one and the job's worker.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};
use executr_api::console::{CONSOLE_PROTOCOL, ConsoleEnd, ConsoleFrame, ConsoleId, ConsoleLine, Passed, linger, pass};
use executr_api::{ApiError, ErrorCode, WorkerApi};
use executr_spec::JobId;
use futures_util::SinkExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::access::{Execute, May, Submit};
use crate::app::Shared;
use crate::failure::{Answer, Failure};
use crate::input::Segment;

/// How long a caller may take to take the last word.
const GOODBYE: Duration = Duration::from_secs(2);

/// Open a console in a running job
///
/// A command beside the job's steps, in its directory and environment: as HTTP/1.1 with `Upgrade: executr-console-1`.
/// After the answer the connection carries frames in both directions; the first asks for the command.
#[utoipa::path(get, path = "/jobs/{id}/console", tag = "jobs", params(("id" = JobId, Path)),
    responses(
        (status = 101, description = "The job's executor is at the other end."),
        (status = 404, description = "There is no such job.", body = ApiError),
        (status = 409, description = "The job isn't running.", body = ApiError),
        (status = 429, description = "Too many consoles are open.", body = ApiError),
    ))]
pub(crate) async fn open(
    State(app): State<Shared>,
    caller: May<Submit>,
    Segment(id): Segment<JobId>,
    upgrade: Upgrade,
) -> Answer<Response<Body>> {
    let host = app.coordinator.console(id, caller.who()).await?;
    let idle = app.limits.console_idle;
    Ok(upgrade.then(&app, move |caller, stopping| relay(host, caller, idle, stopping)))
}

/// Take the executor's end of a console
#[utoipa::path(get, path = "/worker/consoles/{id}", tag = "worker", params(("id" = ConsoleId, Path)),
    responses(
        (status = 101, description = "Whoever asked for the console is at the other end."),
        (status = 404, description = "Nobody waits for it any more.", body = ApiError),
    ))]
pub(crate) async fn join(
    State(app): State<Shared>,
    _caller: May<Execute>,
    Segment(id): Segment<ConsoleId>,
    upgrade: Upgrade,
) -> Answer<Response<Body>> {
    let caller = app.coordinator.join_console(id).await?;
    // How long it may be idle is watched at the caller's connection.
    Ok(upgrade.then(&app, move |host, stopping| relay(host, caller, Duration::MAX, stopping)))
}

/// A request that wants to go on as a console.
pub(crate) struct Upgrade(OnUpgrade);

impl FromRequestParts<Shared> for Upgrade {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _app: &Shared) -> Answer<Self> {
        let wants = parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes() == CONSOLE_PROTOCOL.as_bytes());
        match parts.extensions.remove::<OnUpgrade>() {
            Some(upgrade) if wants => Ok(Self(upgrade)),
            _ => Err(Failure::new(
                ErrorCode::BadRequest,
                format!(
                    "a console needs HTTP/1.1 with `Connection: upgrade` and `Upgrade: {CONSOLE_PROTOCOL}`; a proxy between may take that away"
                ),
            )),
        }
    }
}

impl Upgrade {
    /// The answer that switches over. What the connection is then used for is `serve`'s.
    fn then<F: Future<Output = ()> + Send>(
        self,
        app: &Shared,
        serve: impl FnOnce(ConsoleLine, CancellationToken) -> F + Send + 'static,
    ) -> Response<Body> {
        let stopping = app.stopping.clone();
        app.tracker.spawn(async move {
            let upgraded = match self.0.await {
                Ok(upgraded) => upgraded,
                Err(error) => return tracing::debug!(%error, "a console's connection was gone before it began"),
            };
            serve(ConsoleLine::over(TokioIo::new(upgraded)), stopping).await;
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL));
        response
    }
}

/// Passes frames on between the two ends until one of them is done.
async fn relay(host: ConsoleLine, caller: ConsoleLine, idle: Duration, stopping: CancellationToken) {
    let moved = Mutex::new(Instant::now());
    let moves = || *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    let ConsoleLine { sink: mut to_caller, frames: mut from_caller } = caller;
    let ConsoleLine { sink: mut to_host, frames: mut from_host } = host;
    let why = tokio::select! {
        passed = pass(&mut from_host, &mut to_caller, moves) => match passed {
            Passed::End => None,
            Passed::Gone => Some("the connection to the job's executor was lost; the command was ended"),
        },
        // It is told by what is dropped here.
        _ = pass(&mut from_caller, &mut to_host, moves) => return,
        () = stopping.cancelled() => Some("the server is stopping; the command was ended"),
        () = still(&moved, idle) => Some("nothing was typed or written for too long; the command was ended"),
    };
    let goodbye = async {
        if let Some(why) = why {
            to_caller.send(ConsoleFrame::End(ConsoleEnd::because(why))).await?;
        }
        linger(&mut from_caller).await;
        Ok::<(), ApiError>(())
    };
    // Nobody may be there to be told, or to take it.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Returns when nothing has moved for so long.
async fn still(moved: &Mutex<Instant>, idle: Duration) {
    loop {
        let last = *moved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = last.checked_add(idle) else { return std::future::pending().await };
        if Instant::now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}
