//! Servers and executors apart: what one of them does when another goes away.

use std::fs;

use executr_tests::background::Background;
use executr_tests::postgres;
use serde_json::Value;

use crate::system::{System, eventually, is_alive, line_in, spawn, succeed, text};

/// A script that writes its process id to a file of its own and waits for a gate to open.
fn gated(system: &System, name: &str) -> (String, std::path::PathBuf, std::path::PathBuf) {
    let (pid, gate) = (system.home.path().join(format!("{name}.pid")), system.home.path().join(format!("{name}.gate")));
    let script = format!(
        "echo $$ > {}; echo run >> {}; while [ ! -e {} ]; do sleep 0.02; done; echo {name} done",
        pid.display(),
        system.home.path().join(format!("{name}.runs")).display(),
        gate.display()
    );
    (script, pid, gate)
}

fn runs(system: &System, name: &str) -> usize {
    let runs = fs::read_to_string(system.home.path().join(format!("{name}.runs")));
    runs.map(|runs| runs.lines().count()).unwrap_or_default()
}

#[test]
fn a_killed_executors_jobs_end_and_another_takes_them() {
    let system = System::server(&["--heartbeat-timeout", "1s"]);
    let mut first = system.executor("first", &[]);
    let pid_file = system.home.path().join("pid");
    // On the first executor it stays; anywhere else it ends.
    let script = format!(
        "case $PWD in *work-first*) trap '' TERM; setsid sleep 1000 & echo $! > {}; wait;; *) echo elsewhere;; esac",
        pid_file.display()
    );
    let id = system.submit(&["--run", &script]);
    let process = line_in(&pid_file);
    first.kill();
    eventually("the end of the job's processes", || (!is_alive(&process)).then_some(()));
    let _second = system.executor("second", &[]);
    let job = system.wait_final(&id);
    assert_eq!((&job["status"], &job["stdout"]), (&"completed".into(), &"elsewhere\n".into()), "{job}");
    assert_eq!((&job["lost_leases"], &job["retry_count"]), (&1.into(), &0.into()));
}

#[test]
fn sigterm_finishes_running_jobs_and_takes_no_more() {
    let system = System::server(&[]);
    let mut executor = system.executor("w", &[]);
    let (script, pid, gate) = gated(&system, "running");
    let running = system.submit(&["--run", &script]);
    line_in(&pid);
    executor.terminate();
    eventually("the executor drains", || {
        succeed(&mut system.executr(&["executors"])).contains("draining").then_some(())
    });
    let waiting = system.submit(&["--", "true"]);
    fs::write(gate, "").unwrap();
    let status = executor.wait().expect("an end");
    assert!(status.success(), "{status}: {}", executor.output());
    assert_eq!(system.wait_final(&running)["status"], "completed");
    assert_eq!(system.job(&waiting)["status"], "pending");
}

#[test]
fn an_executor_ends_by_itself_after_so_many_jobs() {
    let system = System::server(&[]);
    let mut executor = system.executor("w", &["--max-total-jobs", "2"]);
    let ids = [(); 3].map(|()| system.submit(&["--", "true"]));
    assert!(executor.wait().expect("an end").success(), "{}", executor.output());
    let completed = ids.iter().filter(|id| system.job(id)["status"] == "completed").count();
    assert_eq!(completed, 2);
}

#[test]
fn an_executor_ends_by_itself_after_so_long() {
    let system = System::server(&[]);
    let mut executor = system.executor("w", &["--max-active-time", "50ms"]);
    assert!(executor.wait().expect("an end").success(), "{}", executor.output());
}

#[test]
fn a_server_that_restarts_meets_all_results_and_no_job_runs_twice() {
    let mut system = System::server(&["--heartbeat-timeout", "1s"]);
    let _executor = system.executor("w", &["--max-jobs", "4"]);
    let jobs: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| {
            let (script, pid, gate) = gated(&system, name);
            let id = system.submit(&["--run", &script]);
            line_in(&pid);
            (name, id, gate)
        })
        .into();
    system.server.kill();
    // Two end while nobody listens, two after the leases have run out.
    for (_, _, gate) in &jobs[..2] {
        fs::write(gate, "").unwrap();
    }
    let away = std::time::Instant::now();
    eventually("the leases have run out", || (away.elapsed().as_millis() > 1_500).then_some(()));
    system.restart_server(&["--heartbeat-timeout", "1s"]);
    for (_, _, gate) in &jobs[2..] {
        fs::write(gate, "").unwrap();
    }
    for (name, id, _) in &jobs {
        let job = system.wait_final(id);
        assert_eq!((&job["status"], &job["stdout"]), (&"completed".into(), &format!("{name} done\n").into()), "{job}");
        assert_eq!((runs(&system, name), &job["attempt"]), (1, &1.into()));
    }
}

#[test]
fn two_servers_share_a_database() {
    let Some(database) = postgres::database() else { return };
    let system = System::server(&["--db-url", &database.url()]);
    let (_second, second_url) = Background::serve_with(
        &system.home,
        "second",
        &mut system.home.executr(&["server", "--db-url", &database.url()]),
    );
    let _executor = system.executor("w", &["--max-jobs", "2"]);
    let on_second = |arguments: &[&str]| {
        let mut command = system.executr(arguments);
        command.env("EXECUTR_SERVER_URL", &second_url);
        command
    };
    let output = on_second(&["submit", "--wait", "--", "sh", "-c", "echo across; exit 4"]).output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), ("across\n".to_owned(), Some(4)));

    let (script, pid, gate) = gated(&system, "live");
    let id = system.submit(&["--run", &script]);
    line_in(&pid);
    let logs = spawn(&mut on_second(&["logs", "-f", &id]));
    fs::write(gate, "").unwrap();
    assert_eq!(text(&logs.wait_with_output().unwrap().stdout), "live done\n");

    let (script, pid, _) = gated(&system, "endless");
    let id = system.submit(&["--run", &script]);
    let process = line_in(&pid);
    succeed(&mut on_second(&["cancel", &id]));
    assert!(!is_alive(&process));
}

#[test]
fn postgresql_is_migrated_beforehand() {
    let Some(database) = postgres::database() else { return };
    let home = executr_tests::background::Home::new();
    let migrate = || succeed(&mut home.executr(&["migrate", "--db-url", &database.url()]));
    assert!(migrate().starts_with("applied "));
    assert_eq!(migrate(), "the database is up to date\n");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    assert_ne!(database.sql(tables).trim(), "0");
    let output = home.executr(&["migrate", "--db-url", "postgres://nobody@127.0.0.1:1/none"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("panicked"));
}

#[test]
fn a_job_nobody_can_run_says_why() {
    let system = System::up(&[]);
    let id = system.submit(&["--label", "moon=full", "--", "true"]);
    let told = eventually("why it waits", || {
        let job = system.job(&id);
        job["waiting_for"].as_str().map(str::to_owned)
    });
    assert!(told.contains("moon"), "{told}");
    let job: Value = system.job(&id);
    assert_eq!(job["status"], "pending");
}

#[test]
fn servers_and_executors_may_open_what_their_owner_may_and_jobs_what_the_owner_has() {
    let home = executr_tests::background::Home::new();
    let with_less = |arguments: &str| {
        let mut command = home.command("sh");
        command.args(["-c", &format!("ulimit -Sn 500; exec executr {arguments}")]);
        command
    };
    let (server, url) = Background::serve_with(&home, "server", &mut with_less("server"));
    let mut executor = with_less("executor --name w");
    let executor = Background::start(&home, "w", executor.env("EXECUTR_SERVER_URL", &url));
    let system = System { home, url, server };
    let job = system.output(&["submit", "--wait", "--run", "ulimit -Sn; ulimit -Hn"]);
    let job = text(&job.stdout);
    let (soft, hard) = job.trim().split_once('\n').unwrap_or_else(|| panic!("{job}"));
    assert_eq!(soft, "500", "a job has what the owner has");
    for process in [&system.server, &executor] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.process())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let fields: Vec<_> = files.split_whitespace().collect();
        assert_eq!((fields[3], fields[4]), (hard, hard), "{files}");
    }
}
