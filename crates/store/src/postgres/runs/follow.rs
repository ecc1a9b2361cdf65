//! What follows in a run from the end of one of its jobs.

use std::collections::BTreeSet;

use executr_api::{JobState, RunEventKind, RunState};
use executr_spec::Timestamp;

use super::locked::{Node, Runs, Stopped};
use super::work::Work;
use super::workspace;
use crate::lifecycle::graph::{
    Before, Stop, Turn, after_needs, counts_as_failure, end_of_run, first_failure, is_stopped, why_stopped,
};
use crate::postgres::change::{Counts, JobEnd, Place, readied};
use crate::postgres::coding::state;
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::session::Session;
use crate::{Handed, RunEnd, RunProgress};

/// How a job of a run ended.
pub(in crate::postgres) struct Ending {
    pub(in crate::postgres) state: JobState,
    pub(in crate::postgres) attempt: i32,
    pub(in crate::postgres) exit_code: ExitCode,
    pub(in crate::postgres) message: Option<String>,
}

/// The exit code that a job shows at its end.
#[derive(Clone, Copy)]
pub(in crate::postgres) enum ExitCode {
    /// This one.
    Is(Option<i32>),
    /// That of the last attempt that brought a result, which is written.
    OfBefore,
}

/// What followed from one item of a command.
#[derive(Default)]
pub(in crate::postgres) struct Followed {
    pub(in crate::postgres) progress: RunProgress,
    /// The buckets of jobs that became ready.
    pub(in crate::postgres) readied: Vec<i32>,
    /// The keys of which permits are to be given back, in the order of the ends.
    pub(in crate::postgres) freed: Vec<i64>,
    /// Keys for which jobs were put in line.
    blocked: Vec<i64>,
}

impl Followed {
    /// What followed after the end of a job that held this permit.
    pub(in crate::postgres) fn freeing(permit: Option<i64>) -> Self {
        Self { freed: permit.into_iter().collect(), ..Self::default() }
    }

    /// What followed, for a command that has no other place for what became ready.
    pub(in crate::postgres) fn alone(self, core: &Core) -> RunProgress {
        RunProgress { readied: readied(core, self.readied), ..self.progress }
    }

    /// Gives the permits back. The buckets of all that became ready are put together.
    pub(in crate::postgres) async fn give_back(&mut self, runs: &mut Runs, work: &mut Work<'_>) -> Result<(), Fault> {
        if !self.blocked.is_empty() {
            // Those who just got in line are to be seen there.
            runs.write(work).await?;
            work.permits.look_again(&std::mem::take(&mut self.blocked));
        }
        for permit in std::mem::take(&mut self.freed) {
            self.readied.extend(work.permits.give_back(work.core, work.session, work.change, permit).await?);
        }
        Ok(())
    }
}

impl Runs {
    /// The job ended; that is gathered in `work` already. Does what follows in its run, but for permits.
    pub(in crate::postgres) async fn ended(
        &mut self,
        work: &mut Work<'_>,
        job: i64,
        ending: &Ending,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let (run, place) = self.place_of(job)?;
        let mut queue = BTreeSet::new();
        self.tell_end(work, run, place, ending, followed).await?;
        self.hand_to_successors(work.session, run, place, ending.state, &mut queue).await?;
        self.settle(work, run, queue, followed).await
    }

    /// The job waits for its needs or for an answer no longer, if it is one of a run that does. Returns whether it did.
    pub(in crate::postgres) fn no_longer_waits(&mut self, job: i64) -> Result<bool, Fault> {
        let Ok((seq, place)) = self.place_of(job) else { return Ok(false) };
        let did = self.node(seq, place)?.wait.take().is_some();
        if did {
            let run = self.run(seq)?;
            run.waiting -= 1;
            run.changed = true;
            run.touched.insert(place);
        }
        Ok(did)
    }

    /// The job is about to fail, and so is its run, whatever either was told of failures.
    pub(in crate::postgres) async fn take_no_failure(&mut self, session: &mut Session, job: i64) -> Result<(), Fault> {
        let (seq, place) = self.place_of(job)?;
        self.node(seq, place)?.continue_on_error = false;
        let run = self.run(seq)?;
        if !std::mem::replace(&mut run.fail_fast, true) {
            // Failures before this one stopped nothing.
            run.stops_late = run.failures > 0;
        }
        session.run("UPDATE executr.run_job SET continue_on_error = false WHERE seq = $1", &[&job]).await?;
        session.run("UPDATE executr.run SET fail_fast = true WHERE seq = $1", &[&seq]).await.map(drop)
    }

    /// There will be another attempt of the job.
    pub(in crate::postgres) fn retried(
        &mut self,
        job: i64,
        attempt: u32,
        message: Option<String>,
        now: Timestamp,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let (run, place) = self.place_of(job)?;
        let name = self.node(run, place)?.name.clone();
        self.tell(run, &RunEventKind::JobRetrying { job: name, attempt, message }, now, &mut followed.progress)
    }

    /// Takes over what a job handed on.
    pub(in crate::postgres) fn handed(&mut self, job: i64, handed: Handed) -> Result<(), Fault> {
        let (run, place) = self.place_of(job)?;
        self.hand_on(run, place, handed)
    }

    /// Where a job that goes back to the ready set stands there.
    pub(in crate::postgres) async fn enter(&mut self, work: &mut Work<'_>, place: Place) -> Result<Place, Fault> {
        let (run, index) = self.place_of(place.seq)?;
        let Some(workspace) = self.node(run, index)?.workspace else { return Ok(place) };
        workspace::enter(work.core, work.session, work.change, workspace, place, None).await
    }

    /// What the end of a job says in its run.
    async fn tell_end(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        place: i32,
        ending: &Ending,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let node = self.node(seq, place)?;
        node.end = Some(ending.state);
        let Node { seq: job, name, continue_on_error, workspace, .. } = node.clone();
        let exit_code = match ending.exit_code {
            ExitCode::Is(code) => code,
            ExitCode::OfBefore => exit_code(work.session, job).await?,
        };
        let run = self.run(seq)?;
        run.changed = true;
        match ending.state {
            JobState::Completed => run.completed += 1,
            JobState::Failed => run.failed += 1,
            JobState::Skipped => run.skipped += 1,
            _ => run.cancelled += 1,
        }
        let failed = counts_as_failure(ending.state, continue_on_error);
        if failed {
            run.failures += 1;
            if run.failures == 1 && run.state == RunState::Running {
                run.message = Some(first_failure(&name));
            }
        }
        let first = run.failures == 1 || std::mem::take(&mut run.stops_late);
        let stops = failed && first && run.stop() == Stop::AfterFailure;
        let attempt = u32::try_from(ending.attempt).unwrap_or(0);
        let message = ending.message.clone();
        let ended = RunEventKind::JobEnded { job: name, state: ending.state, attempt, exit_code, message };
        self.tell(seq, &ended, work.now, &mut followed.progress)?;
        if let Some(workspace) = workspace {
            let id = self.run(seq)?.id;
            followed.progress.released.extend(workspace::used_no_more(work.session, workspace, id).await?);
        }
        if stops {
            self.stop(work, seq).await?;
        }
        Ok(())
    }

    /// Tells those that need a job that it is final. Those whose turn that makes it get into `queue`.
    async fn hand_to_successors(
        &mut self,
        session: &mut Session,
        seq: i64,
        place: i32,
        state: JobState,
        queue: &mut BTreeSet<i32>,
    ) -> Result<(), Fault> {
        let Node { successors, before, continue_on_error, is_done, .. } = self.node(seq, place)?.clone();
        self.load(session, seq, &successors).await?;
        let before = if is_done { Before::default() } else { before };
        let handed = before.with(state, continue_on_error);
        let mut late = Vec::new();
        let run = self.run(seq)?;
        for successor in successors {
            let Some(node) = run.nodes.get_mut(&successor) else { continue };
            let Some(wait) = &mut node.wait else {
                late.push((successor, handed));
                continue;
            };
            wait.needs -= 1;
            node.before = node.before.and(handed);
            run.touched.insert(successor);
            if wait.needs == 0 {
                queue.insert(successor);
            }
        }
        self.hand_past(session, seq, late).await
    }

    /// Tells what happened before a job that didn't wait for it: one that was cancelled while it waited, or comes after such a
    /// one. What it told those after it they are told now.
    async fn hand_past(&mut self, session: &mut Session, seq: i64, mut late: Vec<(i32, Before)>) -> Result<(), Fault> {
        while let Some((place, handed)) = late.pop() {
            let Ok(node) = self.node(seq, place) else { continue };
            let before = node.before.and(handed);
            if before == node.before || node.is_done {
                continue;
            }
            let end = match node.end {
                None if node.wait.is_none() => how_it_ended(session, node.seq).await?,
                known => known.map(|state| (state, false)),
            };
            if let Some((_, true)) = end {
                // Whatever came before what was done in an earlier run, it is done.
                continue;
            }
            node.before = before;
            let (successors, continue_on_error) = (node.successors.clone(), node.continue_on_error);
            self.run(seq)?.touched.insert(place);
            if let Some((state, _)) = end {
                self.load(session, seq, &successors).await?;
                let handed = before.with(state, continue_on_error);
                late.extend(successors.into_iter().map(|successor| (successor, handed)));
            }
        }
        Ok(())
    }

    /// Does all that follows in a run, by the order of places, and ends it when nothing is left.
    pub(super) async fn settle(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        mut queue: BTreeSet<i32>,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        loop {
            // What was taken from where it stood waits for its end here.
            queue.append(&mut self.run(seq)?.stopped);
            let Some(place) = queue.pop_first() else { break };
            let run = self.run(seq)?;
            let stop = run.stop();
            let why = why_stopped(stop, run.message.as_deref());
            let node = self.node(seq, place)?;
            let (state, message) = match turn(node, stop) {
                None => continue,
                Some(Next::Done) => (JobState::Completed, None),
                Some(Next::Turn(Turn::Go)) => {
                    self.make_ready(work, seq, place, followed).await?;
                    continue;
                }
                Some(Next::Turn(Turn::Ask)) => {
                    node.wait.iter_mut().for_each(|wait| wait.asked = true);
                    followed.progress.asked.push(node.job);
                    self.run(seq)?.touched.insert(place);
                    continue;
                }
                Some(Next::Turn(Turn::Skip(why))) => (JobState::Skipped, Some(why.to_owned())),
                Some(Next::Turn(Turn::Cancel)) => (JobState::Cancelled, Some(why)),
            };
            self.end_unheld(work, seq, place, state, message, followed).await?;
            self.load_ahead(work.session, seq, place, &queue).await?;
            self.hand_to_successors(work.session, seq, place, state, &mut queue).await?;
        }
        let now = work.now;
        let run = self.run(seq)?;
        if run.is_over() && !run.state.is_final() {
            let (failures, cancelled) = (run.failures.unsigned_abs(), run.cancelled.unsigned_abs());
            run.state = end_of_run(run.state == RunState::Cancelling, failures, cancelled);
            run.completed_at = Some(now.0);
            let ended = RunEventKind::RunEnded { state: run.state };
            let over =
                RunEnd { run: run.id, state: run.state, created_at: Timestamp(run.created_at), completed_at: now };
            followed.progress.over.push(over);
            self.tell(seq, &ended, now, &mut followed.progress)?;
        }
        Ok(())
    }

    /// Ends a job that no worker has, and does what follows.
    pub(super) async fn end_alone(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        place: i32,
        state: JobState,
        message: Option<String>,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let mut queue = BTreeSet::new();
        self.end_unheld(work, seq, place, state, message, followed).await?;
        self.hand_to_successors(work.session, seq, place, state, &mut queue).await?;
        self.settle(work, seq, queue, followed).await
    }

    /// Ends a job that no worker has.
    async fn end_unheld(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        place: i32,
        state: JobState,
        message: Option<String>,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let node = self.node(seq, place)?;
        let waited = Stopped { from: JobState::Waiting, counts: Counts::default(), exit_code: None };
        let Stopped { from, counts, exit_code } = node.stopped.take().unwrap_or(waited);
        let was_waiting = node.wait.take().is_some();
        let (job, id, bucket, permit) = (node.seq, node.job, node.bucket, node.permit);
        work.change.count(work.core, bucket, Some(from), Some(state));
        work.change.ended(JobEnd { seq: job, state, counts, reason: message.clone(), last: None });
        if from == JobState::Ready {
            followed.freed.extend(permit.map(|(id, _)| id));
        }
        if was_waiting {
            let run = self.run(seq)?;
            run.waiting -= 1;
            run.touched.insert(place);
        }
        followed.progress.ended.push((id, state));
        let ending = Ending { state, attempt: counts.attempt, exit_code: ExitCode::Is(exit_code), message };
        self.tell_end(work, seq, place, &ending, followed).await
    }

    /// Makes a job ready, or blocked when its key is taken.
    pub(super) async fn make_ready(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        place: i32,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let node = self.node(seq, place)?;
        node.wait = None;
        let (at, permit, workspace) = (Place { seq: node.seq, bucket: node.bucket }, node.permit, node.workspace);
        let run = self.run(seq)?;
        run.waiting -= 1;
        run.changed = true;
        run.touched.insert(place);
        let bucket = work.core.registry.bucket(work.session, at.bucket).await?;
        if let Some((id, limit)) = permit {
            work.permits.lock(work.session, [id]).await?;
            if !work.permits.take(id, limit) {
                let line = (id, limit, bucket.priority.rank());
                work.change.blocked_in_run(at, Counts::default(), line, workspace);
                work.change.count(work.core, at.bucket, Some(JobState::Waiting), Some(JobState::Blocked));
                followed.blocked.push(id);
                return Ok(());
            }
        }
        let entered = match workspace {
            Some(workspace) => workspace::enter(work.core, work.session, work.change, workspace, at, None).await?,
            None => at,
        };
        work.change.ready(entered, Counts::default());
        work.change.count(work.core, at.bucket, Some(JobState::Waiting), None);
        work.change.count(work.core, entered.bucket, None, Some(JobState::Ready));
        self.node(seq, place)?.bucket = entered.bucket;
        followed.readied.push(entered.bucket);
        Ok(())
    }

    /// Before the successors of `place` are told: reads them together with those of all others that end now.
    async fn load_ahead(
        &mut self,
        session: &mut Session,
        seq: i64,
        place: i32,
        queue: &BTreeSet<i32>,
    ) -> Result<(), Fault> {
        let run = self.run(seq)?;
        let own = run.nodes.get(&place).map_or(&[][..], |node| &node.successors);
        if run.is_new || own.iter().all(|successor| run.nodes.contains_key(successor)) {
            return Ok(());
        }
        let stop = run.stop();
        let ends =
            |node: &&Node| matches!(turn(node, stop), Some(Next::Done | Next::Turn(Turn::Skip(_) | Turn::Cancel)));
        let others = queue.iter().filter_map(|place| run.nodes.get(place)).filter(ends);
        let places: BTreeSet<i32> = others.flat_map(|node| &node.successors).chain(own).copied().collect();
        self.load(session, seq, &Vec::from_iter(places)).await
    }
}

/// What happens to a job by itself.
enum Next {
    /// It was done in an earlier run.
    Done,
    Turn(Turn),
}

fn turn(node: &Node, stop: Stop) -> Option<Next> {
    if node.stopped.is_some() {
        return Some(Next::Turn(Turn::Cancel));
    }
    let wait = node.wait?;
    if node.is_done {
        return Some(Next::Done);
    }
    if wait.needs > 0 && stop != Stop::AtOnce {
        return None;
    }
    if wait.asked {
        return is_stopped(node.gate, JobState::Waiting, 0, stop).then_some(Next::Turn(Turn::Cancel));
    }
    Some(Next::Turn(after_needs(node.gate, node.before, stop)))
}

/// How a job ended, if it did, and whether it was done in an earlier run.
async fn how_it_ended(session: &mut Session, job: i64) -> Result<Option<(JobState, bool)>, Fault> {
    let row = session.row("SELECT state, attempt FROM executr.ended WHERE seq = $1", &[&job]).await?;
    let read = |row: tokio_postgres::Row| {
        let ended = state(row.get(0))?;
        Ok((ended, ended == JobState::Completed && row.get::<_, i32>(1) == 0))
    };
    row.map(read).transpose()
}

/// That of the job's last attempt that brought a result.
async fn exit_code(session: &mut Session, job: i64) -> Result<Option<i32>, Fault> {
    let row = session
        .row(
            "SELECT exit_code FROM executr.all_attempts WHERE seq = $1 AND status BETWEEN 1 AND 3
             ORDER BY attempt DESC LIMIT 1",
            &[&job],
        )
        .await?;
    Ok(row.and_then(|row| row.get(0)))
}
