//! Consoles: commands that people run in the sandboxes of running attempts.
//!
//! An attempt says where it is ([`Here`]) while it is there; [`session`] is one console, from the order to its end. The two know of
//! each other only what is in a [`Spot`]: a console has no part in what its job comes to, and when the job leaves its
//! sandbox every console in it is ended first.

mod session;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use executr_api::WorkerApi;
use executr_api::console::{ConsoleId, ConsoleOrder};
use executr_executors::contract;
use executr_spec::JobId;
use tokio::sync::watch;

/// How many may be open in one job.
const MOST: usize = 8;
/// How many orders are remembered, so that one that comes twice is served once.
const REMEMBERED: usize = 256;
/// How long the end of consoles may take before their job leaves without them. Their trees are killed, which takes
/// milliseconds.
const GOODBYE: Duration = Duration::from_secs(5);

/// The consoles of a worker. Clones are the same.
#[derive(Clone, Default)]
pub struct Consoles(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Counts attempts that came.
    came: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    spots: HashMap<JobId, Arc<Spot>>,
    orders: VecDeque<ConsoleId>,
}

/// Where an attempt is, as far as it is known.
struct Spot {
    place: watch::Sender<Place>,
    /// How many consoles there are.
    open: watch::Sender<usize>,
}

/// A sandbox that consoles can be opened in.
#[derive(Clone)]
enum Place {
    /// Nothing runs there yet.
    NotYet,
    There(Arc<There>),
    /// The attempt leaves it.
    Over,
}

struct There {
    /// `None` where there can be none.
    consoles: Option<Arc<dyn contract::Consoles>>,
    /// What the current step has, or had the last one.
    env: Vec<Bytes>,
    workdir: Option<PathBuf>,
}

/// An attempt that is here. Dropped, it is over.
pub(crate) struct Here {
    all: Consoles,
    job: JobId,
    spot: Arc<Spot>,
    consoles: Option<Arc<dyn contract::Consoles>>,
}

impl Consoles {
    /// Serves a console that somebody wants, whatever comes of it.
    pub fn serve(&self, api: &Arc<dyn WorkerApi>, order: ConsoleOrder) {
        let mut state = self.state();
        if state.orders.contains(&order.console) {
            return;
        }
        if state.orders.len() >= REMEMBERED {
            state.orders.pop_front();
        }
        state.orders.push_back(order.console);
        drop(state);
        tokio::spawn(session::serve(self.clone(), Arc::clone(api), order));
    }

    /// An attempt of the job begins.
    pub(crate) fn enter(&self, job: JobId) -> Here {
        let spot = Arc::new(Spot { place: watch::Sender::new(Place::NotYet), open: watch::Sender::new(0) });
        self.state().spots.insert(job, Arc::clone(&spot));
        self.0.came.send_modify(|count| *count += 1);
        Here { all: self.clone(), job, spot, consoles: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spot(&self, job: JobId) -> Option<Arc<Spot>> {
        self.state().spots.get(&job).cloned()
    }
}

impl Here {
    /// What opens consoles in the sandbox that the attempt got.
    pub(crate) fn in_sandbox(&mut self, consoles: Option<Arc<dyn contract::Consoles>>) {
        self.consoles = consoles;
    }

    /// A step runs there now, with this.
    pub(crate) fn runs(&self, env: Vec<Bytes>, workdir: Option<PathBuf>) {
        self.spot.place.send_replace(Place::There(Arc::new(There { consoles: self.consoles.clone(), env, workdir })));
    }

    /// What the current step has as environment, or the last one had; `None` before the first, and afterwards.
    pub(crate) fn environment(&self) -> Option<Vec<Bytes>> {
        match &*self.spot.place.borrow() {
            Place::There(there) => Some(there.env.clone()),
            Place::NotYet | Place::Over => None,
        }
    }

    /// The attempt leaves its sandbox: returns when no console is left in there.
    pub(crate) async fn over(&self) {
        self.spot.place.send_replace(Place::Over);
        if *self.spot.open.borrow() == 0 {
            return;
        }
        let gone = async {
            // The sender lives as long as this.
            let _ = self.spot.open.subscribe().wait_for(|open| *open == 0).await;
        };
        if tokio::time::timeout(GOODBYE, gone).await.is_err() {
            tracing::warn!(job = %self.job, "a console doesn't end; its job goes on without it");
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.spot.place.send_replace(Place::Over);
        let mut state = self.all.state();
        if state.spots.get(&self.job).is_some_and(|spot| Arc::ptr_eq(spot, &self.spot)) {
            state.spots.remove(&self.job);
        }
    }
}

/// One of the consoles in a spot, until it is dropped.
struct Room(Arc<Spot>);

impl Room {
    /// `None` when there are as many as may be.
    fn take(spot: &Arc<Spot>) -> Option<Self> {
        let taken = spot.open.send_if_modified(|open| {
            let fits = *open < MOST;
            *open += usize::from(fits);
            fits
        });
        taken.then(|| Self(Arc::clone(spot)))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests;
