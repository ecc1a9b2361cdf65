//! What exchanges want of the store, carried out together, and what follows from it.
//!
//! What follows happens here and not where it was asked for: a request whose connection breaks is dropped, but what the
//! store did for it is done.

use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, Fence, Outcome};
use executr_spec::Offers;
use executr_store::{
    Claim, ClaimAnswer, Claimed, Finish, FinishAnswer, Finished, RenewAnswer, Renewal, Return, StoreError,
};
use futures_util::future::{OptionFuture, join4};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::core::Core;
use crate::ready::Moment;
use crate::refusal;
use crate::sessions::Slots;

/// The most commands that go as one batch, so that no one waits long for the many.
const MOST: usize = 4_096;

/// A store repeats a claim when the database was away before it answered; the first may have been committed, and the
/// answer doesn't say so. No claim takes so long otherwise, or so seldom that looking costs nothing.
const MAYBE_REPEATED: Duration = Duration::from_millis(500);

/// What one exchange wants.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) finish: Vec<Finish>,
    pub(crate) give_back: Vec<Return>,
    pub(crate) renew: Vec<Renewal>,
    pub(crate) claim: Option<Reserved>,
}

/// A claim, and the slots of a session that it may fill.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) claim: Claim,
    /// `None` for the original's executors, which have no session.
    pub(crate) slots: Option<Slots>,
    pub(crate) sent: Moment,
}

/// Wishes on their way.
#[derive(Debug)]
pub(crate) struct Wish {
    wishes: Wishes,
    answer: oneshot::Sender<Granted>,
}

/// What came of them, each kind in the order of the wishes.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) finish: Result<Vec<FinishAnswer>, ApiError>,
    pub(crate) give_back: Result<Vec<FinishAnswer>, ApiError>,
    pub(crate) renew: Result<Vec<RenewAnswer>, ApiError>,
    pub(crate) claim: Result<Vec<Claimed>, ApiError>,
}

impl Wishes {
    fn weight(&self) -> usize {
        let claim = self.claim.as_ref().map_or(0, |reserved| reserved.claim.limit as usize);
        self.finish.len() + self.give_back.len() + self.renew.len() + claim
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.weight() == 0
    }
}

impl Core {
    /// Carries out wishes with all others that are under way. They are under way when this returns, whether or not the
    /// answer is awaited.
    pub(crate) fn grant(self: &Arc<Self>, wishes: Wishes) -> impl Future<Output = Result<Granted, ApiError>> + use<> {
        let (answer, answered) = oneshot::channel();
        if self.wishes.push(Wish { wishes, answer }) {
            let core = Arc::clone(self);
            tokio::spawn(async move {
                let mut pilot = core.wishes.board();
                while let Some(batch) = pilot.next(MOST, |wish| wish.wishes.weight()) {
                    core.fly(batch).await;
                }
            });
        }
        async { answered.await.map_err(|_| refusal::broken()) }
    }

    async fn fly(self: &Arc<Self>, batch: Vec<Wish>) {
        let mut finish = Vec::new();
        let mut give_back = Vec::new();
        let mut renew = Vec::new();
        let mut claim = Vec::new();
        for Wish { wishes, .. } in &batch {
            finish.extend(wishes.finish.iter().cloned());
            give_back.extend(wishes.give_back.iter().copied());
            renew.extend(wishes.renew.iter().copied());
            claim.extend(wishes.claim.iter().map(|reserved| reserved.claim.clone()));
        }
        // Sent in this order within one poll: a store that commits what gathered commits all of it together, and slots,
        // keys and leases are free before the claim looks for them.
        let store = &self.store;
        let sent = Instant::now();
        let (finished, returned, renewed, claimed) = join4(
            OptionFuture::from((!finish.is_empty()).then(|| store.finish(finish))),
            OptionFuture::from((!give_back.is_empty()).then(|| store.give_back(give_back))),
            OptionFuture::from((!renew.is_empty()).then(|| store.renew(renew))),
            OptionFuture::from((!claim.is_empty()).then(|| store.claim(claim))),
        )
        .await;
        // One result that the store can't take must not keep all others out, now and each time it is sent again.
        let apart = batch.len() > 1 && matches!(&finished, Some(Err(error)) if !error.is_transient());
        let repeated = sent.elapsed() >= MAYBE_REPEATED;
        let mut finished = Shares::of(finished);
        let mut returned = Shares::of(returned);
        let mut renewed = Shares::of(renewed);
        let mut claimed = Shares::of(claimed);
        for Wish { wishes, answer } in batch {
            let mut finish = finished.next(wishes.finish.len());
            if apart && !wishes.finish.is_empty() {
                finish = store.finish(wishes.finish.clone()).await.map_err(refusal::store);
            }
            if let Ok(answers) = &finish {
                for (wish, answer) in wishes.finish.iter().zip(answers) {
                    self.after_finish(wish, answer);
                }
            }
            let give_back = returned.next(wishes.give_back.len());
            if let Ok(answers) = &give_back {
                for (wish, answer) in wishes.give_back.iter().zip(answers) {
                    self.after_return(wish, answer);
                }
            }
            let renew = renewed.next(wishes.renew.len());
            let claim = match wishes.claim {
                Some(reserved) => match claimed.next(1) {
                    Ok(answers) => self.after_claim(reserved, answers, repeated).await,
                    Err(error) => {
                        // It may have been committed all the same.
                        if let Some(slots) = reserved.slots {
                            slots.distrust();
                        }
                        Err(error)
                    }
                },
                None => Ok(Vec::new()),
            };
            // Nobody listens any more when the connection broke: the next report of the worker brings it up again.
            let _ = answer.send(Granted { finish, give_back, renew, claim });
        }
    }

    fn after_finish(self: &Arc<Self>, wish: &Finish, answer: &FinishAnswer) {
        let FinishAnswer::Taken(finished) = answer else { return };
        let result = &wish.result;
        self.after_end(&result.fence, finished);
        if result.outcome == Outcome::Succeeded {
            if let Some(session) = self.sessions.get(&finished.worker) {
                session.completed();
            } else {
                self.fleet.completed(&finished.worker, 1);
            }
        }
        match finished.state.status() {
            executr_api::JobStatus::Completed => self.observer.completed(result.duration()),
            executr_api::JobStatus::Failed => self.observer.failed(Some(result.duration())),
            executr_api::JobStatus::Cancelled => self.observer.cancelled(1),
            executr_api::JobStatus::Pending | executr_api::JobStatus::Running => {}
        }
    }

    fn after_return(self: &Arc<Self>, wish: &Return, answer: &FinishAnswer) {
        let FinishAnswer::Taken(finished) = answer else { return };
        self.after_end(&wish.fence, finished);
        if finished.state.is_final() {
            self.observer.cancelled(1);
        }
    }

    fn after_end(self: &Arc<Self>, fence: &Fence, finished: &Finished) {
        if let Some(session) = self.sessions.get(&finished.worker) {
            session.ended(fence);
        }
        self.tokens.forget_job(fence.job);
        if let Some(due) = finished.next_at {
            self.alarm.set(self.clock.instant(due));
        }
        self.readied(&finished.readied);
        self.progressed(&finished.run);
        self.changed(fence.job);
    }

    async fn after_claim(
        self: &Arc<Self>,
        reserved: Reserved,
        answers: Vec<ClaimAnswer>,
        repeated: bool,
    ) -> Result<Vec<Claimed>, ApiError> {
        let ClaimAnswer { mut leases, revoked, run } = answers.into_iter().next().unwrap_or_default();
        let claimed: Vec<_> =
            leases.iter_mut().filter_map(|lease| Some((lease.fence.job, *lease.run.take()?))).collect();
        let (contexts, failed) = match self.contexts(claimed.into_iter()).await {
            Ok(contexts) => (Some(contexts), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(slots) = reserved.slots {
            // What a lease brings besides, and can't be read now, is read again with it.
            if repeated || failed.is_some() {
                slots.distrust();
            }
            if let Some(contexts) = contexts {
                slots.fill(&leases, contexts);
            }
        }
        for (fence, worker) in &revoked {
            tracing::warn!(%fence, %worker, "a lease was lost; another worker has the job");
            self.tokens.forget_job(fence.job);
            if let Some(session) = self.sessions.get(worker) {
                session.revoked(fence);
            }
        }
        if !revoked.is_empty() {
            self.observer.lease_lost(revoked.len() as u64);
        }
        if !leases.is_empty() {
            self.observer.claimed(leases.len() as u64);
        }
        for lease in &leases {
            if lease.fence.attempt == 1 {
                self.observer.waited(lease.started_at.since(lease.created_at));
            }
            self.began(lease.fence.job);
        }
        let filled = leases.len() >= reserved.claim.limit as usize;
        let offers: &Offers = &reserved.claim.offers;
        self.ready.claimed(&reserved.claim.queues, offers, reserved.sent, filled);
        self.progressed(&run);
        failed.map_or(Ok(leases), Err)
    }
}

/// The store's answers to a batch, dealt out to those who asked.
struct Shares<T>(Result<std::vec::IntoIter<T>, ApiError>);

impl<T> Shares<T> {
    fn of(answers: Option<Result<Vec<T>, StoreError>>) -> Self {
        Self(answers.unwrap_or_else(|| Ok(Vec::new())).map(Vec::into_iter).map_err(refusal::store))
    }

    fn next(&mut self, count: usize) -> Result<Vec<T>, ApiError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        match &mut self.0 {
            Ok(answers) => Ok(answers.by_ref().take(count).collect()),
            Err(error) => Err(error.clone()),
        }
    }
}
