//! One exchange with a worker: results, beats, and the wait for something to do.

use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, ErrorCode, Fence, Orders, Report, ResultVerdict, Verdict};
use executr_spec::QueueName;
use executr_store::{Claim, Finish, FinishAnswer, LeaseRecord, RenewAnswer, Renewal, Return};
use tokio::time::{Instant, timeout_at};

use crate::bell::Bell;
use crate::core::Core;
use crate::flight::{Reserved, Wishes};
use crate::ready::{Entered, Waiting, Wake};
use crate::refusal;
use crate::sessions::{Listed, Opened, Session};

/// The most queues a worker may serve.
const MAX_QUEUES: usize = 100;
/// The most slots a worker may have.
const MAX_SLOTS: u32 = 100_000;
/// A worker's name, its address, and the names and values of its labels have at most so many bytes each.
const MAX_TEXT: usize = 256;
/// The most labels a worker may bear.
const MAX_LABELS: usize = 100;
/// A worker's id has at most so many bytes.
pub(crate) const MAX_WORKER_ID: usize = 256;

/// Takes a report and answers it when there is something to say, or the wait is over.
pub(crate) async fn exchange(core: &Arc<Core>, mut report: Report) -> Result<Orders, ApiError> {
    core.refuse_when_stopping()?;
    check(core, &report)?;
    // For jobs that are held to this worker.
    report.worker.offers.worker = Some(report.worker.id.clone());
    let session = core.sessions.of(&report.worker.id);
    let opened = session.open(&report);
    if opened.came {
        core.fleet.came();
    }
    core.observer.heartbeat();
    core.observer.worker_counted(&opened.counted);
    let open = Open { core, session: &session, bell: &opened.bell };

    let listed = Listed::of(&report);
    let mut finished = std::mem::take(&mut report.finished);
    for result in &mut finished {
        core.check_handed(result).await?;
    }
    if !report.cleaned.is_empty() {
        core.cleaned(&session, &report.cleaned).await?;
    }
    // What such a job lets go may be ready as soon as its result is taken, for which it needn't be told first.
    let leads_on = session.any_of_runs(finished.iter().map(|result| &result.fence));
    let results = Wishes {
        finish: finished.into_iter().map(|result| Finish { result }).collect(),
        give_back: report.returned.iter().map(|fence| Return { fence: *fence }).collect(),
        ..Wishes::default()
    };
    if opened.late {
        let verdicts = open.deliver(results, None).await?;
        return Ok(Orders { verdicts, ..open.nothing() });
    }
    let reloaded = reload(core, &session, &listed).await?;

    // After a silence its own leases may be up for reclaiming: they are made safe before it claims.
    let careful = reloaded || opened.silent.is_some_and(|silent| silent >= core.options.lease * 2 / 3);
    let mut wishes = results;
    wishes.renew = open.due(&listed);
    look_up_queues(core, &opened.queues).await?;
    if !careful && (leads_on || core.ready.fits(&opened.queues, &opened.offers)) {
        wishes.claim = open.reserve(&report, &opened, &listed);
    }
    let verdicts = open.deliver(wishes, Some(&report)).await?;

    let hold = Duration::from_millis(report.wait_ms).min(core.options.max_hold());
    let orders = open.wait(&report, &opened, &listed, !verdicts.is_empty(), Instant::now() + hold).await;
    match orders {
        Ok(Orders { leases, cancels, at_once, releases, workspaces, consoles, .. }) => {
            Ok(Orders { verdicts, leases, cancels, at_once, releases, workspaces, consoles, ..open.nothing() })
        }
        // The verdicts are worth more than the error, which the next exchange meets as well.
        Err(_) if !verdicts.is_empty() => Ok(Orders { verdicts, ..open.nothing() }),
        Err(error) => Err(error),
    }
}

/// An open exchange; closed when it is dropped, also half-way.
struct Open<'a> {
    core: &'a Arc<Core>,
    session: &'a Arc<Session>,
    bell: &'a Arc<Bell>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.session.close(self.bell);
    }
}

impl Open<'_> {
    fn nothing(&self) -> Orders {
        let lease_ms = u64::try_from(self.core.options.lease.as_millis()).unwrap_or(u64::MAX);
        Orders { lease_ms, ..Orders::default() }
    }

    fn waiting(&self, opened: &Opened, free: u32) -> Waiting {
        Waiting {
            queues: Arc::clone(&opened.queues),
            offers: Arc::clone(&opened.offers),
            free,
            bell: Arc::clone(self.bell),
        }
    }

    /// A claim for the slots that are free, if any.
    fn reserve(&self, report: &Report, opened: &Opened, listed: &Listed) -> Option<Reserved> {
        let slots = self.session.reserve(listed)?;
        Some(Reserved {
            claim: Claim {
                worker: report.worker.id.clone(),
                ip: report.worker.ip.clone(),
                limit: slots.count(),
                queues: self.core.draw.order(&report.worker.queues),
                offers: Arc::clone(&opened.offers),
                lease: self.core.options.lease,
            },
            slots: Some(slots),
            sent: self.core.ready.moment(),
        })
    }

    /// Carries out the first wishes of an exchange. Returns the verdicts.
    async fn deliver(&self, wishes: Wishes, report: Option<&Report>) -> Result<Vec<ResultVerdict>, ApiError> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let finished: Vec<Fence> = wishes.finish.iter().map(|finish| finish.result.fence).collect();
        let returned: Vec<Fence> = wishes.give_back.iter().map(|give_back| give_back.fence).collect();
        let renewed: Vec<Fence> = wishes.renew.iter().map(|renewal| renewal.fence).collect();
        let granted = self.core.grant(wishes).await?;
        let mut verdicts = Vec::with_capacity(finished.len() + returned.len());
        for (fence, answer) in
            finished.into_iter().zip(granted.finish?).chain(returned.into_iter().zip(granted.give_back?))
        {
            // Whatever came of it, the worker doesn't hold it any more. Of what was taken from it this is known already.
            if !matches!(&answer, FinishAnswer::Taken(finished) if finished.worker == self.session.id) {
                self.session.ended(&fence);
            }
            let verdict = match answer {
                FinishAnswer::Taken(_) | FinishAnswer::Before(_) => Verdict::Accepted,
                FinishAnswer::LeaseLost => Verdict::LeaseLost,
            };
            verdicts.push(ResultVerdict { fence, verdict });
        }
        self.renewed(renewed, granted.renew?);
        // A claim that failed alone is tried again while the exchange waits, or by the next one.
        if verdicts.is_empty() && report.is_some() {
            granted.claim?;
        }
        Ok(verdicts)
    }

    /// The renewals that are due.
    fn due(&self, listed: &Listed) -> Vec<Renewal> {
        let lease = self.core.options.lease;
        self.session.due(listed, lease / 3).into_iter().map(|fence| Renewal { fence, lease }).collect()
    }

    fn renewed(&self, fences: Vec<Fence>, answers: Vec<RenewAnswer>) {
        for (fence, answer) in fences.into_iter().zip(answers) {
            match answer {
                RenewAnswer::Renewed { cancelling, .. } => self.session.renewed(&fence, cancelling),
                RenewAnswer::LeaseLost => {
                    self.session.ended(&fence);
                }
            }
        }
    }

    /// Reads the leases again when they can't be relied on. What is old among them is renewed before it is told.
    async fn refresh(&self, listed: &Listed) -> Result<(), ApiError> {
        if self.session.take_doubt() {
            let looked_up = self.core.look_up_workspaces(self.session).await;
            looked_up.inspect_err(|_| self.session.doubt_workspaces(None))?;
        }
        if reload(self.core, self.session, listed).await? {
            let renew = self.due(listed);
            if renew.is_empty() {
                return Ok(());
            }
            let fences = renew.iter().map(|renewal| renewal.fence).collect();
            let granted = self.core.grant(Wishes { renew, ..Wishes::default() }).await?;
            self.renewed(fences, granted.renew?);
        }
        Ok(())
    }

    /// Waits until there is something to say; when there is already (`answered`), only looks whether a job can go along.
    async fn wait(
        &self,
        report: &Report,
        opened: &Opened,
        listed: &Listed,
        answered: bool,
        deadline: Instant,
    ) -> Result<Orders, ApiError> {
        let mut woken: Option<Wake> = None;
        let mut last_look = false;
        loop {
            if self.bell.is_superseded() || self.core.is_stopping() {
                return Ok(self.nothing());
            }
            self.refresh(listed).await?;
            look_up_queues(self.core, &opened.queues).await?;
            let orders = self.session.orders(listed);
            let free = self.session.free(listed);
            if !orders.is_empty() || (answered && (free == 0 || last_look)) {
                return Ok(orders);
            }
            if free == 0 {
                // A wake that can't be used goes to somebody else.
                woken = None;
                if timeout_at(deadline, self.bell.listen()).await.is_err() {
                    return Ok(orders);
                }
                continue;
            }
            match self.core.ready.enter(self.waiting(opened, free)) {
                Entered::Claim => {
                    let Some(reserved) = self.reserve(report, opened, listed) else { continue };
                    let granted = self.core.grant(Wishes { claim: Some(reserved), ..Wishes::default() });
                    if let Some(wake) = woken.take() {
                        wake.pay();
                    }
                    granted.await?.claim?;
                    last_look = true;
                }
                Entered::Wait(_) if answered => return Ok(orders),
                Entered::Wait(ticket) => {
                    let over = timeout_at(deadline, self.bell.listen()).await.is_err();
                    woken = ticket.leave();
                    if over && woken.is_none() {
                        return Ok(orders);
                    }
                }
            }
        }
    }
}

/// Reads the worker's live leases from the store when what is known here can't be relied on.
async fn reload(core: &Core, session: &Session, listed: &Listed) -> Result<bool, ApiError> {
    if session.stale().is_none() {
        return Ok(false);
    }
    let _loading = session.loading.lock().await;
    while let Some(epoch) = session.stale() {
        let leases = core.store.leases_of(&session.id).await.map_err(refusal::store)?;
        let (now, time) = (Instant::now(), core.clock.now());
        // What the worker has it was told all about.
        let unheard: Vec<&LeaseRecord> = leases.iter().filter(|lease| !listed.has(&lease.fence)).collect();
        let contexts = core.contexts_of(&unheard).await?;
        core.look_up_workspaces(session).await?;
        // What a lease lacks to its full length is how long ago it was renewed.
        let age = |lease: &LeaseRecord| core.options.lease.saturating_sub(lease.expires_at.since(time));
        session.adopt(epoch, leases, contexts, now, age);
    }
    Ok(true)
}

/// Looks up what is ready in queues that nobody asked for before.
pub(crate) async fn look_up_queues(core: &Core, queues: &[QueueName]) -> Result<(), ApiError> {
    let mut new = core.ready.track(queues);
    while let Some(queue) = new.next() {
        let classes = core.store.classes(queue).await.map_err(refusal::store)?;
        for (class, _) in classes.iter().filter(|(_, ready)| *ready) {
            core.ready.set(queue, class, 1);
        }
        new.looked_up();
    }
    Ok(())
}

fn check(core: &Core, report: &Report) -> Result<(), ApiError> {
    let worker = &report.worker;
    core.options.version.serves(worker.version).map_err(|error| {
        ApiError::new(ErrorCode::UpgradeRequired, error.to_string())
            .with("server_version", core.options.version)
            .with("executor_version", worker.version)
    })?;
    check_id(&worker.id.0)?;
    if worker.queues.is_empty() || worker.queues.len() > MAX_QUEUES {
        return Err(refusal::bad(format!("a worker serves between 1 and {MAX_QUEUES} queues")).with("field", "queues"));
    }
    for (field, text) in [("name", Some(&worker.name)), ("ip", worker.ip.as_ref())] {
        if text.is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(refusal::bad(format!("a worker's {field} has at most {MAX_TEXT} bytes")).with("field", field));
        }
    }
    let labels = &worker.offers.labels;
    if labels.len() > MAX_LABELS || labels.iter().any(|(name, value)| name.len().max(value.len()) > MAX_TEXT) {
        let text = format!("a worker bears at most {MAX_LABELS} labels of {MAX_TEXT} bytes for each name and value");
        return Err(refusal::bad(text).with("field", "labels"));
    }
    if worker.slots > MAX_SLOTS {
        return Err(refusal::bad(format!("a worker has at most {MAX_SLOTS} slots")).with("field", "slots"));
    }
    Ok(())
}

/// A worker's id has to fit everywhere it is written.
pub(crate) fn check_id(id: &str) -> Result<(), ApiError> {
    if id.is_empty() || id.len() > MAX_WORKER_ID || id.contains(char::is_control) {
        return Err(refusal::bad(format!(
            "`executor_id` has to be 1 to {MAX_WORKER_ID} bytes without control characters"
        ))
        .with("field", "executor_id"));
    }
    Ok(())
}
