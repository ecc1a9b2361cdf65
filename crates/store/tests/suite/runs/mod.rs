//! Runs: what every store of runs has to do, case by case. `run_suite!(MyHarness)` makes each case a test of its own.

use std::collections::BTreeMap;

use executr_api::{Artifact, AttemptResult, Fence, JobState, Outcome, RunCancel, RunEventKind, RunState};
use executr_spec::{Digest, RunId};
use executr_store::{
    Claimed, Decision, FinishAnswer, Gate, GateVerdict, NewRun, NewRunJob, RunAnswer, RunProgress, RunRecord, RunStore,
};
use uuid::Uuid;

use super::Harness;
use super::stage::{Stage, job, result, wish};

pub(crate) mod artifacts;
pub(crate) mod asking;
pub(crate) mod attempts;
pub(crate) mod cancelling_runs;
pub(crate) mod conditions;
pub(crate) mod deleting_runs;
pub(crate) mod graph;
pub(crate) mod looking;
pub(crate) mod stopping;
pub(crate) mod workspaces;

/// Makes a test of each case about runs for the harness type of this name in the current module.
macro_rules! run_suite {
    ($harness:ident) => {
        run_suite! { @ $harness;
            graph: roots_are_ready_at_once, a_job_starts_when_its_needs_are_met, the_end_of_a_run_is_told_once, a_diamond_joins, a_lattice_goes_layer_by_layer,
                numbers_follow_the_plan, keys_hold_jobs_of_runs_too, a_run_without_jobs_is_done, the_earlier_run_is_the_answer,
                a_done_job_is_handed_over, a_wide_run;
            conditions: success_skips_after_a_failure, failure_runs_after_a_failure_however_far, always_runs,
                a_skipped_job_counts_as_fine, all_skipped_is_completed, a_failure_that_may_be_counts_as_success,
                a_worker_may_skip, a_cancelled_job_is_no_success, what_fails_behind_a_cancelled_job_counts, roots_have_conditions_too;
            stopping: the_first_failure_stops_what_has_not_started, what_was_handed_out_goes_on, waiting_jobs_when_their_turn_comes,
                without_fail_fast_the_others_go_on, a_failure_of_the_run_is_taken_by_nobody, only_a_failure_can_be_the_runs, a_retry_is_no_failure, a_lost_job_stops_its_run;
            cancelling_runs: everything_stops_but_what_wants_to_go_on, a_running_job_is_asked_to_stop, waiting_jobs_follow, twice_and_final, at_once_nothing_goes_on, at_once_after_in_order,
                the_time_is_over, a_retry_that_waits_is_cancelled, one_job_alone;
            asking: a_question_waits_for_its_answer, after_success_only_then, no_is_skipped, a_condition_that_fails, an_old_answer_is_passed_over,
                an_answer_from_before_a_cancel_is_asked_again, asked_unless_cancelled,
                what_a_question_tells, a_stopped_run_takes_its_questions_back;
            attempts: needs_come_with_the_lease, retries_are_told, a_lease_given_back_is_told, a_lost_lease_is_told, a_story_in_order;
            artifacts: inputs_come_with_the_lease, listed, only_of_the_attempt_that_counts, blobs_are_kept, unnamed_blobs_are_let_go,
                they_outlive_their_run, a_runs_own_blobs;
            workspaces: the_first_claim_makes_the_holder, others_wait_for_the_holder, released_at_the_end, a_lost_holder, a_lease_that_ran_out,
                a_retry_stays;
            looking: newest_first, filtered, counted, jobs_in_pages, unknown_runs, leases_tell_again;
            deleting_runs: whole_and_hidden, only_final_ones, a_large_run;
        }
    };
    (@ $harness:ident; $($area:ident: $($case:ident),+;)+) => {
        $(mod $area {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $case() {
                if let Some(harness) = <super::$harness as crate::suite::Harness>::open().await {
                    crate::suite::runs::$area::$case(crate::suite::stage::Stage::new(harness)).await;
                }
            })+
        })+
    };
}

/// A run of these jobs that stops at the first failure.
pub(crate) fn run(jobs: impl IntoIterator<Item = NewRunJob>) -> NewRun {
    NewRun {
        id: RunId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        name: "ci".to_owned(),
        fail_fast: true,
        timeout: None,
        source: None,
        rerun_of: None,
        plan: "{}".into(),
        blobs: vec![],
        idempotency_key: None,
        jobs: jobs.into_iter().collect(),
    }
}

/// A job of a run, after those at these places.
pub(crate) fn step(name: &str, needs: &[u32]) -> NewRunJob {
    NewRunJob {
        job: job(),
        name: name.to_owned(),
        needs: needs.to_vec(),
        gate: Gate::Success,
        continue_on_error: false,
        pinned: None,
        inputs: vec![],
        done: None,
    }
}

pub(crate) fn gated(name: &str, needs: &[u32], gate: Gate) -> NewRunJob {
    NewRunJob { gate, ..step(name, needs) }
}

/// An artifact of this name whose tree is made of `bytes`.
pub(crate) fn artifact(name: &str, bytes: &[u8]) -> Artifact {
    Artifact { name: name.to_owned(), tree: Digest::of(bytes), size: bytes.len() as u64, files: 1 }
}

impl<H: Harness> Stage<H> {
    pub(crate) fn runs(&self) -> &dyn RunStore {
        self.store.runs().expect("a store of runs")
    }

    /// Submits a run.
    pub(crate) async fn start(&self, run: NewRun) -> RunId {
        self.submit_run(run).await.id
    }

    pub(crate) async fn submit_run(&self, run: NewRun) -> RunAnswer {
        self.runs().submit_run(run).await.expect("submitted")
    }

    /// The name in its run of a job that was handed out.
    pub(crate) async fn name(&self, claimed: &Claimed) -> String {
        self.runs().run_of(claimed.fence.job).await.expect("read").expect("of a run").1
    }

    /// Takes everything there is for a worker, by name.
    pub(crate) async fn take_as(&self, worker: &str) -> BTreeMap<String, Fence> {
        let mut taken = BTreeMap::new();
        let mut claim = wish(worker, 1_000);
        let mut offers = (*claim.offers).clone();
        offers.worker = Some(claim.worker.clone());
        claim.offers = offers.into();
        for claimed in self.claim_as(claim).await {
            taken.insert(self.name(&claimed).await, claimed.fence);
        }
        taken
    }

    /// Takes everything there is, and tells what.
    pub(crate) async fn take_all(&self) -> BTreeMap<String, Fence> {
        self.take_as("w").await
    }

    /// Ends a job of a run, and tells what followed.
    pub(crate) async fn follow(&self, fence: Fence, outcome: Outcome) -> RunProgress {
        self.finish(fence, outcome).await.run
    }

    pub(crate) async fn follow_result(&self, result: AttemptResult) -> RunProgress {
        match self.end(result).await {
            FinishAnswer::Taken(finished) => finished.run,
            other => panic!("the result was not taken: {other:?}"),
        }
    }

    /// Takes and ends the only job there is.
    pub(crate) async fn end_next(&self, outcome: Outcome) -> String {
        let taken = self.take_all().await;
        assert_eq!(taken.len(), 1, "{taken:?}");
        let (name, fence) = taken.into_iter().next().expect("one");
        self.finish(fence, outcome).await;
        name
    }

    pub(crate) async fn the_run(&self, run: RunId) -> RunRecord {
        self.runs().run(run).await.expect("read").expect("there")
    }

    pub(crate) async fn run_state(&self, run: RunId) -> RunState {
        self.the_run(run).await.state
    }

    /// Each job and its state: `a completed, b waiting`. Looks besides whether the counts say the same.
    pub(crate) async fn picture(&self, run: RunId) -> String {
        let jobs = self.runs().run_jobs(run, 0, u32::MAX).await.expect("read");
        let mut counts: BTreeMap<JobState, u64> = BTreeMap::new();
        for job in &jobs {
            *counts.entry(job.job.state).or_default() += 1;
        }
        assert_eq!(self.the_run(run).await.jobs, counts);
        jobs.iter().map(|job| format!("{} {}", job.name, job.job.state)).collect::<Vec<_>>().join(", ")
    }

    /// What the events tell: `created, a started, a completed, ended completed`.
    pub(crate) async fn story(&self, run: RunId) -> String {
        let events = self.runs().events(run, 0, u32::MAX).await.expect("read");
        for (number, event) in (1..).zip(&events) {
            assert_eq!(event.number, number);
        }
        let told = events.into_iter().map(|event| match event.kind {
            RunEventKind::RunCreated => "created".to_owned(),
            RunEventKind::JobStarted { job, attempt: 1, .. } => format!("{job} started"),
            RunEventKind::JobStarted { job, attempt, .. } => format!("{job} started {attempt}"),
            RunEventKind::JobRetrying { job, attempt, message } => {
                format!("{job} retrying after {attempt} ({})", message.unwrap_or_default())
            }
            RunEventKind::JobEnded { job, state, .. } => format!("{job} {state}"),
            RunEventKind::RunCancelling { reason } => format!("cancelling ({reason})"),
            RunEventKind::RunEnded { state } => format!("ended {}", state.as_str()),
        });
        told.collect::<Vec<_>>().join(", ")
    }

    pub(crate) async fn stop(&self, run: RunId) -> RunProgress {
        self.stop_so(run, RunCancel::InOrder).await
    }

    pub(crate) async fn stop_so(&self, run: RunId, how: RunCancel) -> RunProgress {
        self.runs().cancel_run(run, how, "enough").await.expect("asked").expect("there").1
    }

    /// Answers the only question there is.
    pub(crate) async fn answer(&self, verdict: GateVerdict) -> RunProgress {
        let questions = self.runs().questions(10).await.expect("read");
        assert_eq!(questions.len(), 1, "{questions:?}");
        self.runs()
            .decide(vec![Decision { job: questions[0].job, run_cancelling: questions[0].run_cancelling, verdict }])
            .await
            .expect("decided")
    }

    /// Why the job of this name says it ended so.
    pub(crate) async fn why(&self, run: RunId, name: &str) -> String {
        let jobs = self.runs().run_jobs(run, 0, u32::MAX).await.expect("read");
        let job = jobs.into_iter().find(|job| job.name == name).expect("the job");
        job.job.error_message.unwrap_or_default()
    }
}

/// A success that hands something on.
pub(crate) fn handing_on(fence: Fence, outputs: &[(&str, &str)], artifacts: &[Artifact]) -> AttemptResult {
    AttemptResult {
        outputs: outputs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        artifacts: artifacts.to_vec(),
        ..result(fence, Outcome::Succeeded)
    }
}
