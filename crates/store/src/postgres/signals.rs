//! What coordinators on one database let each other know: LISTEN and NOTIFY, outside of write transactions.
//!
//! NOTIFY takes a lock that all committing notifiers share, so it never rides on a transaction of the queue. What is
//! published while a NOTIFY is under way goes with the next one. Nothing is sent while no other coordinator listens.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use executr_api::RunCancel;
use executr_spec::{JobId, RunId, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};
use uuid::Uuid;

use super::address::Address;
use super::fault::Fault;
use crate::Signal;

const CHANNEL: &str = "executr_signals";
/// Every listener holds this lock, shared: so they can be counted.
const PRESENCE: i32 = 0x6578_6563;
/// The most bytes of a payload; PostgreSQL takes less than 8000.
const MOST_BYTES: usize = 7_900;
/// The most signals that are kept for sending; with more, the others are told that anything may have happened.
const MOST_WAITING: usize = 20_000;
/// So many signals wait for a slow receiver.
const CAPACITY: usize = 1_024;
/// How long it is believed that somebody listens, and that nobody does.
const BELIEVED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(200));
/// How long after a failure the next attempt is made.
const RETRY: Duration = Duration::from_millis(250);

/// A signal as it is sent.
#[derive(Serialize, Deserialize)]
enum Sent {
    #[serde(rename = "r")]
    Ready(String, String),
    #[serde(rename = "c")]
    Cancelling(Uuid, String),
    #[serde(rename = "k")]
    CancellingAtOnce(Uuid, String),
    #[serde(rename = "x")]
    Changed(Uuid),
    #[serde(rename = "o")]
    Output(Uuid),
    #[serde(rename = "u")]
    Run(Uuid),
}

/// Who sends, and what; nothing stands for anything.
type Payload = (Uuid, Option<Vec<Sent>>);

impl Sent {
    /// The signal as it is sent, unless nothing in detail can be told.
    fn of(signal: &Signal) -> Option<Self> {
        Some(match signal {
            Signal::Ready(queue, class) => Self::Ready(queue.as_str().to_owned(), class.as_str().to_owned()),
            Signal::Cancelling(job, worker, RunCancel::InOrder) => Self::Cancelling(job.0, worker.0.clone()),
            Signal::Cancelling(job, worker, RunCancel::AtOnce) => Self::CancellingAtOnce(job.0, worker.0.clone()),
            Signal::Changed(job) => Self::Changed(job.0),
            Signal::Output(job) => Self::Output(job.0),
            Signal::Run(run) => Self::Run(run.0),
            Signal::Anything => return None,
        })
    }

    /// The signal, unless a newer program sent what this one does not know.
    fn signal(self) -> Option<Signal> {
        Some(match self {
            Self::Ready(queue, class) => Signal::Ready(queue.parse().ok()?, class.parse().ok()?),
            Self::Cancelling(job, worker) => Signal::Cancelling(JobId(job), WorkerId(worker), RunCancel::InOrder),
            Self::CancellingAtOnce(job, worker) => Signal::Cancelling(JobId(job), WorkerId(worker), RunCancel::AtOnce),
            Self::Changed(job) => Signal::Changed(JobId(job)),
            Self::Output(job) => Signal::Output(JobId(job)),
            Self::Run(run) => Signal::Run(RunId(run)),
        })
    }
}

#[derive(Default)]
struct Waiting {
    signals: HashSet<Signal>,
    overflow: bool,
}

struct Inner {
    id: Uuid,
    waiting: Mutex<Waiting>,
    wake: Notify,
    received: broadcast::Sender<Signal>,
}

/// Both directions of a store.
pub(super) struct Signals(Arc<Inner>);

impl Signals {
    /// Starts listening and sending. Both end with this value.
    ///
    /// `doubts` is notified when a command of this store may have done more than its answer tells, because an answer of
    /// the database was lost: then all are told that anything may have happened.
    pub(super) fn start(address: &Address, doubts: Arc<Notify>) -> Self {
        let inner = Arc::new(Inner {
            id: Uuid::new_v4(),
            waiting: Mutex::default(),
            wake: Notify::new(),
            received: broadcast::Sender::new(CAPACITY),
        });
        tokio::spawn(listen(Arc::downgrade(&inner), address.clone()));
        tokio::spawn(send(Arc::downgrade(&inner), address.clone()));
        tokio::spawn(tell_of_doubts(Arc::downgrade(&inner), doubts));
        Self(inner)
    }

    pub(super) fn publish(&self, signal: Signal) {
        self.0.publish(signal);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.0.received.subscribe()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The sending task holds nothing but a weak reference while it waits.
        self.0.wake.notify_one();
    }
}

impl Inner {
    fn publish(&self, signal: Signal) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.signals.len() < MOST_WAITING && signal != Signal::Anything {
            waiting.signals.insert(signal);
        } else {
            waiting.overflow = true;
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Tells receivers that anything may have happened.
    fn tell_of_a_gap(&self) {
        // Nobody may be listening.
        drop(self.received.send(Signal::Anything));
    }

    fn receive(&self, payload: &str) {
        match serde_json::from_str::<Payload>(payload) {
            Ok((from, _)) if from == self.id => {}
            Ok((_, Some(signals))) => {
                for signal in signals.into_iter().filter_map(Sent::signal) {
                    drop(self.received.send(signal));
                }
            }
            // Overflown there, or sent by a newer program.
            Ok((_, None)) | Err(_) => self.tell_of_a_gap(),
        }
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Listens until the store is gone, reconnecting when the database was away.
async fn listen(inner: Weak<Inner>, address: Address) {
    let mut first = true;
    loop {
        let ended = listen_once(&inner, &address, first).await;
        if inner.strong_count() == 0 {
            return;
        }
        if let Err(Fault::Lost(told) | Fault::Again(told)) = ended {
            tracing::debug!(error = %told, "not listening to other coordinators; trying again");
        }
        first = false;
        tokio::time::sleep(RETRY).await;
    }
}

async fn listen_once(inner: &Weak<Inner>, address: &Address, first: bool) -> Result<(), Fault> {
    let (client, mut connection) = address.connect().await?;
    let begin = format!("LISTEN {CHANNEL}; SELECT pg_advisory_lock_shared({PRESENCE}, 1)");
    let mut begun = Box::pin(client.batch_execute(&begin));
    let mut is_begun = false;
    // Woken now and then to see whether the store is still there.
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                Some(Ok(AsyncMessage::Notification(note))) => {
                    let Some(inner) = inner.upgrade() else { return Ok(()) };
                    inner.receive(note.payload());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Fault::Lost("the connection was closed".to_owned())),
            },
            done = &mut begun, if !is_begun => {
                done?;
                is_begun = true;
                let Some(inner) = inner.upgrade() else { return Ok(()) };
                if !first {
                    inner.tell_of_a_gap();
                }
            }
            _ = tick.tick() => if inner.strong_count() == 0 { return Ok(()) },
        }
    }
}

/// Tells of doubts until the store is gone; of many that arise together once.
async fn tell_of_doubts(inner: Weak<Inner>, doubts: Arc<Notify>) {
    loop {
        let is_told = timeout(Duration::from_secs(1), doubts.notified()).await.is_ok();
        let Some(inner) = inner.upgrade() else { return };
        if is_told {
            inner.tell_of_a_gap();
            inner.publish(Signal::Anything);
            drop(inner);
            tokio::time::sleep(BELIEVED.1).await;
        }
    }
}

/// Sends what is published until the store is gone.
async fn send(inner: Weak<Inner>, address: Address) {
    let mut client: Option<Client> = None;
    let mut peers: Option<(bool, Instant)> = None;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        tokio::select! {
            () = strong.wake.notified() => {}
            // Lets go of the store, in case this is the last reference.
            () = tokio::time::sleep(Duration::from_secs(1)) => continue,
        }
        if let Some((false, at)) = peers {
            tokio::time::sleep(BELIEVED.1.saturating_sub(at.elapsed())).await;
        }
        let waiting = strong.take();
        if waiting.signals.is_empty() && !waiting.overflow {
            continue;
        }
        let sent = send_once(&strong, &address, &mut client, &mut peers, &waiting).await;
        if let Err(error) = sent {
            tracing::debug!(?error, "other coordinators could not be told; they find out by themselves");
            client = None;
            peers = None;
            tokio::time::sleep(RETRY).await;
            // What was not sent is sent again; that something may be missing the others learn from their own connections.
            let mut again = strong.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            again.signals.extend(waiting.signals);
            again.overflow |= waiting.overflow;
            strong.wake.notify_one();
        }
    }
}

async fn send_once(
    inner: &Inner,
    address: &Address,
    client: &mut Option<Client>,
    peers: &mut Option<(bool, Instant)>,
    waiting: &Waiting,
) -> Result<(), Fault> {
    if client.as_ref().is_none_or(Client::is_closed) {
        *client = Some(address.client().await?);
    }
    let Some(client) = client else { return Ok(()) };
    let known = peers.filter(|(there, at)| at.elapsed() < if *there { BELIEVED.0 } else { BELIEVED.1 });
    let there = match known {
        Some((there, _)) => there,
        None => {
            let sql = "SELECT count(*) > 1 FROM pg_locks WHERE locktype = 'advisory' AND granted
                       AND classid = $1::bigint::oid AND objid = 1
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let row = client.query_one(sql, &[&i64::from(PRESENCE)]).await?;
            *peers = Some((row.get(0), Instant::now()));
            row.get(0)
        }
    };
    if there {
        for payload in payloads(inner.id, waiting) {
            client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload]).await?;
        }
    }
    Ok(())
}

/// The signals as texts that are short enough.
fn payloads(from: Uuid, waiting: &Waiting) -> Vec<String> {
    let whole = |signals: Option<Vec<Sent>>| serde_json::to_string::<Payload>(&(from, signals)).unwrap_or_default();
    if waiting.overflow {
        return vec![whole(None)];
    }
    let mut payloads = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for signal in &waiting.signals {
        let Some(sent) = Sent::of(signal) else { continue };
        let size = serde_json::to_string(&sent).map_or(0, |text| text.len()) + 1;
        if bytes + size > MOST_BYTES - 100 && !batch.is_empty() {
            payloads.push(whole(Some(std::mem::take(&mut batch))));
            bytes = 0;
        }
        if size > MOST_BYTES - 100 {
            // A class with long labels: rare enough to let the others look everywhere.
            return vec![whole(None)];
        }
        bytes += size;
        batch.push(sent);
    }
    payloads.push(whole(Some(batch)));
    payloads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_fit_and_bring_every_signal() {
        let mut waiting = Waiting::default();
        for _ in 0..1_000 {
            waiting.signals.insert(Signal::Changed(JobId(Uuid::new_v4())));
        }
        let payloads = payloads(Uuid::nil(), &waiting);
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() < 8_000));
        let mut read = HashSet::new();
        for payload in payloads {
            let (_, signals) = serde_json::from_str::<Payload>(&payload).expect("a payload");
            read.extend(signals.expect("signals").into_iter().filter_map(Sent::signal));
        }
        assert_eq!(read, waiting.signals);
    }

    #[test]
    fn too_much_is_told_as_anything() {
        let waiting = Waiting { overflow: true, ..Waiting::default() };
        let told = payloads(Uuid::nil(), &waiting);
        assert!(serde_json::from_str::<Payload>(&told[0]).expect("a payload").1.is_none());
    }
}
