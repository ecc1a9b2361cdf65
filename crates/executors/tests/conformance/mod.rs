//! What every executor does alike. Each case is a function of a workspace; [`conformance!`](crate::conformance) makes
//! tests of all of them.
//!
//! - [`rig`]: runs a step and gathers what it came to;
//! - [`ends`]: exit codes, signals, programs that can't be started, ending a tree;
//! - [`bytes`]: output, environment, arguments, names.

pub(crate) mod bytes;
pub(crate) mod ends;
pub(crate) mod rig;

/// Makes a test of every case, with a rig made by `$rig` for each; none where it makes none, and says why.
#[macro_export]
macro_rules! conformance {
    ($rig:ident) => {
        $crate::conformance!($rig: ends:
            exit_codes_are_told,
            signals_are_told,
            a_program_that_is_not_there_is_named,
            a_directory_is_no_program,
            ending_gives_time_and_then_takes_it,
            ending_at_once_needs_no_consent,
            nothing_that_forked_away_survives_its_end,
            a_step_is_over_when_its_last_process_is,
            a_dropped_step_is_ended,
            steps_share_a_directory_that_goes_with_the_job,
            cleanup_may_be_asked_for_twice);
        $crate::conformance!($rig: bytes:
            no_output_is_none,
            output_is_exact,
            binary_output_is_exact,
            streams_are_told_apart,
            the_environment_is_exactly_what_is_given,
            arguments_are_passed_as_they_are,
            odd_names_are_made_and_removed,
            scripts_end_at_the_first_failure,
            long_scripts_run);
    };
    ($rig:ident: $module:ident: $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(rig) = Option::<$crate::conformance::rig::Rig>::from($rig().await) else { return };
                $crate::conformance::$module::$case(&rig).await;
                rig.end().await;
            }
        )+
    };
}
