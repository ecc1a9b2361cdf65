//! Random runs, and what is done with them.

use executr_api::{Artifact, RunCancel, RunQuery};
use executr_spec::{Digest, RunId, Tenant, WorkerId};
use executr_store::{Decision, Done, Gate, GateVerdict, Handed, NewJob, NewRun, NewRunJob, RunStore};
use proptest::prelude::*;
use uuid::Uuid;

use super::{Side, TICK, Wanted, wanted};

/// Something to do with runs. Numbers pick from what there is at that time.
#[derive(Clone, Debug)]
pub(super) enum RunCommand {
    Submit(WantedRun),
    Decide(Vec<(usize, u8)>),
    Cancel { run: usize, at_once: bool },
    Keep { job: usize, tree: u8 },
    DeleteArtifacts { ticks: u32, limit: u32 },
    Lose(Vec<u8>),
    Clean(u8),
}

#[derive(Clone, Debug)]
pub(super) struct WantedRun {
    jobs: Vec<WantedRunJob>,
    tenant: u8,
    fail_fast: bool,
    timeout: Option<u32>,
    once: Option<u8>,
}

#[derive(Clone, Debug)]
struct WantedRunJob {
    like: Wanted,
    /// Which of the jobs before it are needed, by the bits.
    needs: u16,
    gate: usize,
    continue_on_error: bool,
    pinned: Option<u8>,
    inputs: Vec<(usize, u8)>,
    done: Option<Vec<u8>>,
}

fn wanted_job() -> impl Strategy<Value = WantedRunJob> {
    let needs =
        prop_oneof![1 => Just(0), 3 => any::<u16>().prop_map(|bits| bits & bits.rotate_left(5)), 1 => Just(1 << 15)];
    let gate = prop_oneof![6 => Just(0_usize), 2 => 1..Gate::ALL.len()];
    let inputs = proptest::collection::vec((any::<usize>(), 0..3_u8), 0..2);
    let done = proptest::option::weighted(0.08, proptest::collection::vec(0..3_u8, 0..2));
    let pinned = proptest::option::weighted(0.3, 0..2_u8);
    (wanted(), needs, gate, proptest::bool::weighted(0.15), pinned, inputs, done).prop_map(
        |(like, needs, gate, continue_on_error, pinned, inputs, done)| WantedRunJob {
            like,
            needs,
            gate,
            continue_on_error,
            pinned,
            inputs,
            done,
        },
    )
}

pub(super) fn run_command() -> impl Strategy<Value = RunCommand> {
    use proptest::collection::vec;
    let run = (
        vec(wanted_job(), 0..9),
        0..3_u8,
        any::<bool>(),
        proptest::option::weighted(0.2, 1..6_u32),
        proptest::option::weighted(0.2, 0..3_u8),
    );
    let run =
        run.prop_map(|(jobs, tenant, fail_fast, timeout, once)| WantedRun { jobs, tenant, fail_fast, timeout, once });
    prop_oneof![
        8 => run.prop_map(RunCommand::Submit),
        4 => vec((any::<usize>(), 0..4_u8), 1..3).prop_map(RunCommand::Decide),
        1 => (any::<usize>(), proptest::bool::weighted(0.3)).prop_map(|(run, at_once)| RunCommand::Cancel { run, at_once }),
        2 => (any::<usize>(), 0..3_u8).prop_map(|(job, tree)| RunCommand::Keep { job, tree }),
        // None or all: which of those recorded in one command goes first is nobody's promise.
        1 => (0..4_u32, prop_oneof![1 => Just(0), 4 => Just(1_000)])
            .prop_map(|(ticks, limit)| RunCommand::DeleteArtifacts { ticks, limit }),
        1 => vec(0..3_u8, 1..3).prop_map(RunCommand::Lose),
        1 => (0..3_u8).prop_map(RunCommand::Clean),
    ]
}

/// One of three artifacts.
pub(super) fn artifact(number: u8) -> Artifact {
    let tree = Digest::of(&[number]);
    Artifact { name: format!("artifact-{}", number % 2), tree, size: u64::from(number), files: 1 }
}

fn worker(number: u8) -> WorkerId {
    WorkerId(format!("worker-{number}"))
}

impl WantedRunJob {
    fn job(&self, side: &mut Side, index: u32) -> NewRunJob {
        let like = &self.like;
        let wait = Wanted { later: None, once: None, ..like.clone() };
        let job = side.new_job(&wait);
        NewRunJob {
            job,
            name: format!("job-{index}"),
            needs: (0..index).filter(|need| self.needs >> (need % 16) & 1 == 1).collect(),
            gate: Gate::ALL[self.gate],
            continue_on_error: self.continue_on_error,
            pinned: self.pinned.map(|pinned| format!("vm-{pinned}")),
            inputs: self
                .inputs
                .iter()
                .filter_map(|(from, number)| Some((from.checked_rem(index as usize)? as u32, artifact(*number).name)))
                .collect(),
            done: self.done.as_ref().map(|made| Done {
                handed: Handed {
                    outputs: [("done".to_owned(), "yes".to_owned())].into(),
                    artifacts: made.iter().map(|number| artifact(*number)).collect(),
                },
                kept: made.iter().map(|number| (artifact(*number).tree, vec![Digest::of(b"a blob")])).collect(),
            }),
        }
    }
}

impl Side {
    fn new_run(&mut self, wanted: &WantedRun) -> NewRun {
        let id = RunId(Uuid::from_u128((1 << 64) + self.runs.len() as u128));
        self.runs.push(id);
        let tenant: Tenant = format!("tenant-{}", wanted.tenant).parse().expect("a tenant");
        let mut jobs = vec![];
        for (index, job) in (0..).zip(&wanted.jobs) {
            let job = job.job(self, index);
            jobs.push(NewRunJob { job: NewJob { tenant: tenant.clone(), ..job.job }, ..job });
        }
        NewRun {
            id,
            tenant,
            name: "ci".to_owned(),
            fail_fast: wanted.fail_fast,
            timeout: wanted.timeout.map(|ticks| TICK * ticks),
            source: None,
            rerun_of: None,
            plan: format!("{} jobs", jobs.len()).into(),
            blobs: vec![Digest::of(b"source")],
            idempotency_key: wanted.once.map(|once| once.to_string()),
            jobs,
        }
    }

    /// Does it and says what the answer was.
    pub(super) async fn carry_out_in_runs(&mut self, command: &RunCommand) -> String {
        let store = self.store.clone();
        let Some(runs) = store.runs() else { return String::new() };
        match command {
            RunCommand::Submit(wanted) => {
                let run = self.new_run(wanted);
                self.plain(&runs.submit_run(run).await.expect("submitted"))
            }
            RunCommand::Decide(verdicts) => {
                let asked = runs.questions(u32::MAX).await.expect("read");
                let decision = |(number, verdict): &(usize, u8)| {
                    let question = asked.get(number.checked_rem(asked.len())?)?;
                    let verdict = match verdict {
                        0 => GateVerdict::Skip,
                        1 => GateVerdict::Fail("it can't be told".to_owned()),
                        _ => GateVerdict::Run,
                    };
                    // Some answer as if the run had been asked to stop, or not, since.
                    let run_cancelling = question.run_cancelling ^ (number % 8 == 7);
                    Some(Decision { job: question.job, run_cancelling, verdict })
                };
                let decisions = verdicts.iter().filter_map(decision).collect();
                self.plain(&runs.decide(decisions).await.expect("decided"))
            }
            RunCommand::Cancel { run: number, at_once } => {
                let how = if *at_once { RunCancel::AtOnce } else { RunCancel::InOrder };
                let run = number.checked_rem(self.runs.len()).and_then(|at| self.runs.get(at));
                let run = run.copied().unwrap_or(RunId(Uuid::nil()));
                self.plain(&runs.cancel_run(run, how, "enough").await.expect("cancelled"))
            }
            RunCommand::Keep { job, tree } => {
                let Some(job) = job.checked_rem(self.jobs.len()).map(|at| self.jobs[at]) else { return String::new() };
                let blobs = vec![Digest::of(b"a blob")];
                self.plain(&runs.keep_artifact(job, artifact(*tree).tree, blobs).await.expect("kept"))
            }
            RunCommand::DeleteArtifacts { ticks, limit } => {
                let before = self.now().minus(TICK * *ticks);
                self.plain(&runs.delete_artifacts(before, *limit).await.expect("deleted"))
            }
            RunCommand::Lose(workers) => {
                let workers = workers.iter().map(|number| worker(*number)).collect();
                self.plain(&runs.lose_workspaces(workers).await.expect("lost"))
            }
            RunCommand::Clean(number) => {
                let held = runs.workspaces_of(&worker(*number)).await.expect("read");
                let cleaned = held.into_iter().map(|record| record.id).collect();
                self.plain(&runs.cleaned(&worker(*number), cleaned).await.expect("cleaned"))
            }
        }
    }

    /// What can be seen of runs in lists.
    pub(super) async fn runs_overview(&self) -> String {
        let Some(runs) = self.store.runs() else { return String::new() };
        let listed = runs.runs(&RunQuery::default(), None).await.expect("listed");
        let questions = runs.questions(u32::MAX).await.expect("read");
        let mut workspaces = vec![];
        for number in 0..3 {
            workspaces.push(runs.workspaces_of(&worker(number)).await.expect("read"));
        }
        self.plain(&(listed, questions, workspaces))
    }

    /// What can be seen of each run.
    pub(super) async fn runs_details(&self, runs: &dyn RunStore) -> String {
        let mut all = vec![];
        for id in &self.runs {
            let jobs = runs.run_jobs(*id, 0, u32::MAX).await.expect("read");
            let events = runs.events(*id, 0, u32::MAX).await.expect("read");
            all.push((runs.run(*id).await.expect("read"), jobs, events, runs.run_plan(*id).await.expect("read")));
        }
        let mut named = vec![];
        for job in &self.jobs {
            named.push(runs.run_of(*job).await.expect("read"));
        }
        let claimed = runs.claimed_runs(&self.jobs).await.expect("read");
        let artifacts = runs.artifacts(None, None, u32::MAX).await.expect("read");
        let counts = runs.run_counts().await.expect("counted");
        self.plain(&(all, named, claimed, artifacts, counts))
    }
}
