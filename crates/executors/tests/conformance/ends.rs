//! How steps end.

use std::path::Path;
use std::time::{Duration, Instant};

use executr_executors::contract::{Event, Exit, StartPhase};

use super::rig::{Rig, argv, gather, plan, run, run_step, sh};

pub(crate) async fn exit_codes_are_told(rig: &Rig) {
    for code in [0, 1, 2, 126, 127, 128, 143, 255] {
        assert_eq!(run(rig, plan(), &format!("exit {code}")).await.exit, Some(Exit::Code(code)));
    }
}

pub(crate) async fn signals_are_told(rig: &Rig) {
    for signal in [1, 6, 9, 11, 15] {
        assert_eq!(run(rig, plan(), &format!("kill -{signal} $$")).await.exit, Some(Exit::Signal(signal)));
    }
}

pub(crate) async fn a_program_that_is_not_there_is_named(rig: &Rig) {
    for program in ["no-such-program", "/no/such/program"] {
        let failed = run_step(rig, plan(), argv(&[program.as_bytes()])).await.failed.unwrap();
        assert_eq!(failed.phase, StartPhase::Exec);
        assert!(failed.failure.message.contains(program), "{}", failed.failure.message);
    }
}

pub(crate) async fn a_directory_is_no_program(rig: &Rig) {
    let failed = run_step(rig, plan(), argv(&[b"/usr"])).await.failed.unwrap();
    assert!(failed.failure.message.contains("/usr"), "{}", failed.failure.message);
}

/// Runs a script until it has said `ready`, ends it with `grace`, and says how it ended.
async fn ended(rig: &Rig, script: &str, grace: Duration) -> (Option<Exit>, Vec<u8>) {
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let mut execution = sandbox.execute(sh(script)).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("ready") {
        match execution.next().await.unwrap() {
            Some(Event::Output { data, .. }) => said.extend_from_slice(&data),
            Some(Event::Started { .. }) => {}
            other => panic!("{other:?} before it was ready"),
        }
    }
    execution.end(grace).await.unwrap();
    let mut exit = None;
    while let Some(event) = execution.next().await.unwrap() {
        match event {
            Event::Output { data, .. } => said.extend_from_slice(&data),
            Event::Ended(ended) => exit = Some(ended.exit),
            Event::Started { .. } | Event::InputTaken { .. } | Event::StartFailed(_) => {}
        }
    }
    drop(execution);
    sandbox.cleanup().await.unwrap();
    (exit, said)
}

pub(crate) async fn ending_gives_time_and_then_takes_it(rig: &Rig) {
    let polite = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let (exit, said) = ended(rig, polite, Duration::from_secs(60)).await;
    // The shell may say as well, before or after, that its `sleep` was terminated.
    let said = String::from_utf8_lossy(&said);
    assert!(exit == Some(Exit::Code(5)) && said.lines().any(|line| line == "bye"), "{exit:?} {said:?}");
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    assert_eq!(ended(rig, deaf, Duration::from_millis(100)).await.0, Some(Exit::Signal(9)));
}

pub(crate) async fn ending_at_once_needs_no_consent(rig: &Rig) {
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    assert_eq!(ended(rig, deaf, Duration::ZERO).await.0, Some(Exit::Signal(9)));
}

pub(crate) async fn nothing_that_forked_away_survives_its_end(rig: &Rig) {
    let pid_file = rig.directory.path().join("forked");
    let script = format!(
        "(setsid sh -c 'trap \"\" TERM; (trap \"\" TERM; echo $$ > {0}.part; mv {0}.part {0}; exec sleep 1000) & sleep 1000' > /dev/null 2>&1 &)
         while ! [ -e {0} ]; do sleep 0.01; done; echo ready; sleep 1000",
        pid_file.display()
    );
    ended(rig, &script, Duration::from_millis(100)).await;
    assert!(pid_file.exists());
    assert_eq!(rig.processes(), [0_i32; 0], "something is left");
}

pub(crate) async fn a_step_is_over_when_its_last_process_is(rig: &Rig) {
    let outcome = run(rig, plan(), "(sleep 0.2; echo late) & exit 3").await;
    let first_ended = Some(Exit::Code(3));
    assert_eq!(outcome.exit, first_ended);
}

pub(crate) async fn a_dropped_step_is_ended(rig: &Rig) {
    let pid_file = rig.directory.path().join("dropped");
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let script = format!("trap '' TERM; echo $$ > {0}.part; mv {0}.part {0}; sleep 1000", pid_file.display());
    let mut execution = sandbox.execute(sh(&script)).await.unwrap();
    execution.next().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !pid_file.exists() {
        assert!(Instant::now() < deadline, "it never started");
        tokio::task::yield_now().await;
    }
    assert!(!rig.processes().is_empty(), "it can be seen while it runs");
    drop(execution);
    sandbox.cleanup().await.unwrap();
    drop(sandbox);
    // Whoever works here next finds it gone.
    run(rig, plan(), "true").await;
    assert_eq!(rig.processes(), [0_i32; 0], "something is left");
}

pub(crate) async fn steps_share_a_directory_that_goes_with_the_job(rig: &Rig) {
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let directory = sandbox.directory().to_owned();
    for (script, code, last) in [("echo kept > file", 0, false), ("cat file; exit 9", 9, true)] {
        let mut step = sh(script);
        step.last = last;
        let mut execution = sandbox.execute(step).await.unwrap();
        let outcome = gather(execution.as_mut()).await;
        assert_eq!(outcome.exit, Some(Exit::Code(code)));
        assert!(!last || outcome.stdout == b"kept\n");
    }
    sandbox.cleanup().await.unwrap();
    assert!(!directory.exists());
}

pub(crate) async fn cleanup_may_be_asked_for_twice(rig: &Rig) {
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let mut step = sh("mkdir -p a/b; ln -s /etc a/link; touch a/b/c");
    step.last = false;
    let mut execution = sandbox.execute(step).await.unwrap();
    gather(execution.as_mut()).await;
    drop(execution);
    for _ in 0..2 {
        sandbox.cleanup().await.unwrap();
    }
    assert!(!sandbox.directory().exists() && Path::new("/etc/passwd").exists());
}
