//! What every store has to do, case by case. `contract_suite!(MyHarness)` makes each case a test of its own.
//!
//! Cases never look at the wall clock: a harness moves its store's clock, and times are compared with `store.now()`
//! before and after, because a database's clock goes on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use executr_store::Store;

pub(crate) mod blobs;
pub(crate) mod cancelling;
pub(crate) mod concurrency;
pub(crate) mod due;
pub(crate) mod fencing;
pub(crate) mod idempotency;
pub(crate) mod leases;
pub(crate) mod ordering;
pub(crate) mod output;
pub(crate) mod overview;
pub(crate) mod retention;
pub(crate) mod retries;
pub(crate) mod returning;
#[macro_use]
pub(crate) mod runs;
pub(crate) mod stage;
pub(crate) mod tokens;
pub(crate) mod workers;

/// A store to test, with a clock that can be moved.
pub(crate) trait Harness: Sized + Send + Sync {
    /// An empty store. `None` when a component is missing, which has been told then.
    fn open() -> impl Future<Output = Option<Self>> + Send;

    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Moves the store's clock on.
    fn advance(&self, span: Duration) -> impl Future<Output = ()> + Send;
}

/// Makes a test of each case for the harness type of this name in the current module.
macro_rules! contract_suite {
    ($harness:ident) => {
        contract_suite! { @ $harness;
            ordering: oldest_first, foreground_before_background_before_best_effort, queues_in_the_order_asked_for,
                tenants_take_turns, a_tenant_never_served_comes_first, turns_belong_to_queue_and_priority,
                only_classes_the_worker_can_run, several_classes_of_a_tenant_by_age,
                a_tenant_with_several_classes_takes_one_turn, one_batch_of_claims_in_order,
                a_limit_is_kept, a_job_handed_out_again_keeps_its_place;
            idempotency: the_earlier_job_is_the_answer, within_one_batch, keys_belong_to_their_tenant,
                a_final_jobs_key_still_counts, a_deleted_jobs_key_is_free;
            concurrency: one_at_a_time, up_to_the_limit, blocked_jobs_by_priority_then_age, keys_belong_to_their_tenant,
                released_when_cancelled, released_when_scheduled_again, kept_by_a_retry_without_wait, kept_when_given_back,
                each_jobs_own_limit_counts, a_due_job_may_be_blocked, released_by_a_job_that_is_lost_for_good;
            retries: a_failure_waits_for_its_backoff, retries_run_out, a_failure_nothing_can_help_is_final,
                success_forgets_the_error, a_cancelled_result_nobody_asked_for_is_a_failure, a_retry_without_wait_is_ready_at_once;
            fencing: a_result_is_taken_once, another_lease_id_is_refused, another_attempt_is_refused,
                a_zombies_result_changes_nothing, unknown_jobs_are_refused, twice_in_one_batch, renewing_after_the_end_is_refused;
            leases: renewing_prolongs, a_lease_that_ran_out_still_finishes, without_leave_nothing_is_reclaimed,
                reclaimable_jobs_are_handed_out_again, renewing_takes_the_job_back, the_same_worker_may_take_it_again,
                workers_lost_too_often_fail_the_job, the_last_lease_may_still_finish_a_while, the_next_time_is_told,
                a_limit_cuts_the_work_short, leases_are_listed;
            cancelling: waiting_jobs_at_once, a_running_job_is_asked_to_stop, success_wins, a_failure_becomes_cancelled,
                final_and_unknown_jobs_are_left_alone, pending_only_leaves_running_jobs_alone, the_first_reason_stays,
                a_reclaimable_job_leaves_the_ready_set, a_lost_lease_ends_it;
            returning: the_job_is_ready_again, nothing_is_counted, twice_is_told, a_finished_attempt_cant_be_given_back,
                a_cancelling_job_is_cancelled, a_reclaimable_job_stays_ready;
            due: a_scheduled_job_waits_for_its_time, a_past_time_is_now, in_the_order_of_their_times, cancelled_before_it_was_due;
            retention: oldest_first_and_not_more_than_asked, only_final_jobs, everything_of_a_job_goes, old_workers_are_forgotten;
            output: appended_and_read_from_anywhere, a_resend_changes_nothing, an_overlap_adds_what_is_new, a_gap_is_refused,
                not_without_the_lease, sealed_at_the_end, with_the_result, the_last_chunk_may_leave_a_gap, any_bytes_survive,
                gap_records_count, each_attempt_has_its_own, reading_in_small_pieces, no_output_and_no_attempt, large_output;
            blobs: uploaded_in_pieces, a_wrong_offset_is_refused, starting_anew, a_wrong_size_is_refused, an_existing_blob_stays,
                empty_blobs, deleted_when_old_and_unnamed, many_at_once_are_deleted, uploads_grow_old,
                dropped_uploads_are_gone;
            tokens: found_by_hash, expired_tokens_open_nothing, revoked_tokens_are_gone, listed_in_order;
            workers: recorded_and_counted_up, only_those_heard_of;
            overview: a_job_shows_what_was_asked, attempts_show_what_happened, listing_newest_first, filtered, pages,
                counted, live_classes, too_many_classes_record_nothing, unknown_things;
        }
    };
    (@ $harness:ident; $($area:ident: $($case:ident),+;)+) => {
        $(mod $area {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $case() {
                if let Some(harness) = <super::$harness as crate::suite::Harness>::open().await {
                    crate::suite::$area::$case(crate::suite::stage::Stage::new(harness)).await;
                }
            })+
        })+
    };
}
