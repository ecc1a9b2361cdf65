//! The commands of someone who uses a queue.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use executr_tests::background::{Background, Home};
use executr_tests::loopback;
use rustix::process::Signal;
use serde_json::Value;

use crate::system::{System, eventually, is_alive, line_in, signal, spawn, succeed, text};

const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[test]
fn a_job_is_submitted_waited_for_and_looked_at() {
    let system = System::up(&[]);
    let output = system.output(&["submit", "--wait", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(output.status.code(), Some(7));

    let id = system.submit(&["--type", "greeting", "--", "echo", "hello world"]);
    assert_eq!(system.wait_final(&id)["status"], "completed");
    assert_eq!(succeed(&mut system.executr(&["logs", &id])), "hello world\n");
    let waited = succeed(&mut system.executr(&["wait", &id]));
    assert_eq!(waited, format!("{id} completed\n"));
    let status = succeed(&mut system.executr(&["status", &id]));
    assert!(status.contains("greeting") && status.contains("echo 'hello world'"), "{status}");
    let job: Value = serde_json::from_str(&succeed(&mut system.executr(&["status", &id, "--output", "json"]))).unwrap();
    assert_eq!((&job["exit_code"], &job["stdout"]), (&0.into(), &"hello world\n".into()));
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1);

    let list = succeed(&mut system.executr(&["list"]));
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("ID") && lines[1].starts_with(&id) && lines.len() == 3, "the newest first: {list}");
    assert!(!list.contains('\x1b'), "no colours in a pipe");
    let failed = succeed(&mut system.executr(&["list", "--status", "failed", "--output", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&failed).unwrap().as_array().unwrap().len(), 1);
    let colours = succeed(system.executr(&["list"]).env("CLICOLOR_FORCE", "1"));
    assert!(colours.contains("\x1b[32mcompleted"), "{colours}");
}

#[test]
fn logs_follow_a_running_job() {
    let system = System::up(&[]);
    let gate = system.home.path().join("gate");
    let script = format!("echo first; while [ ! -e '{}' ]; do sleep 0.01; done; echo second >&2", gate.display());
    let id = system.submit(&["--run", &script]);
    let mut logs = spawn(&mut system.executr(&["logs", "-f", &id]));
    let mut first = [0; 6];
    logs.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    assert_eq!(system.job(&id)["status"], "running");
    fs::write(gate, "").unwrap();
    let output = logs.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), "second\n".to_owned()));
    let only = succeed(&mut system.executr(&["logs", "--stream", "stdout", &id]));
    assert_eq!(only, "first\n");
}

#[test]
fn cancel_returns_when_the_tree_is_gone() {
    let system = System::up(&[]);
    let pid_file = system.home.path().join("pid");
    // A double fork, a session of its own, deaf to what asks it to end.
    let script = format!(
        "(setsid sh -c 'trap \"\" TERM INT HUP; echo $$ > {}; while :; do sleep 1; done' &) ; sleep 1000",
        pid_file.display()
    );
    let id = system.submit(&["--run", &script]);
    let hidden = line_in(&pid_file);
    let output = system.output(&["cancel", &id]);
    assert!(!is_alive(&hidden), "it outlived its job");
    assert_eq!((text(&output.stdout), output.status.code()), (format!("{id} cancelled\n"), Some(0)));
    assert_eq!(system.job(&id)["status"], "cancelled");
    // Who waits for it learns that it did not end well, and once more is no error of the program.
    let wait = system.output(&["wait", &id]);
    assert_eq!(wait.status.code(), Some(1));
    assert_eq!(system.output(&["cancel", &id]).status.code(), Some(0));
}

#[test]
fn cancel_of_an_ended_job_says_so() {
    let system = System::up(&[]);
    let id = system.submit(&["--", "true"]);
    system.wait_final(&id);
    let output = system.output(&["cancel", &id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("had ended before"));
    assert_eq!(system.job(&id)["status"], "completed");
}

#[test]
fn ctrl_c_leaves_a_submitted_job_alone() {
    let system = System::up(&[]);
    let mut submit = system.executr(&["submit", "--wait", "--run", "echo begun; sleep 1000"]);
    let mut submit = submit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 6];
    submit.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    signal(&submit, Signal::INT);
    let output = submit.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let told = text(&output.stderr);
    let id = told.rsplit(' ').next().unwrap().trim();
    assert_eq!(system.job(id)["status"], "running", "{told}");
    succeed(&mut system.executr(&["cancel", id]));
}

#[test]
fn a_file_of_jobs_is_submitted_whole_or_not_at_all() {
    let system = System::up(&[]);
    let file = system.home.path().join("jobs");
    let job = |n: u32| format!(r#"{{"steps": [{{"argv": ["echo", "{n}"]}}]}}"#);
    fs::write(&file, format!("[{}, {}]", job(1), job(2))).unwrap();
    let array = succeed(&mut system.executr(&["submit", "--file", "jobs", "--output", "json"]));
    let array: Value = serde_json::from_str(&array).unwrap();
    fs::write(&file, (3..=5).map(|n| job(n) + "\n").collect::<String>()).unwrap();
    let mut lines = system.executr(&["submit", "--file", "-"]);
    let lines = succeed(lines.stdin(fs::File::open(&file).unwrap()));
    let mut ids: Vec<_> = array.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    ids.extend(lines.lines());
    assert_eq!(ids.len(), 5);
    let waited = succeed(&mut system.executr(&[&["wait"], &ids[..]].concat()));
    assert_eq!(waited.lines().count(), 5);
    for (id, n) in ids.iter().zip(1..) {
        assert_eq!(succeed(&mut system.executr(&["logs", id])), format!("{n}\n"));
    }

    fs::write(&file, format!("{}\n{{\"steps\": []}}\n", job(6))).unwrap();
    let output = system.output(&["submit", "--file", "jobs"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("job 2 of the file"), "{}", text(&output.stderr));
    let all = succeed(&mut system.executr(&["list", "--output", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&all).unwrap().as_array().unwrap().len(), 5);
}

#[test]
fn priorities_and_queues_decide_who_goes_first() {
    let system = System::server(&[]);
    let order = system.home.path().join("order");
    let job = |name: &str, flags: &[&str]| {
        let script = format!("echo {name} >> {}", order.display());
        system.submit(&[flags, &["--run", &script]].concat())
    };
    let ids = [
        job("best-effort", &["--priority", "best_effort"]),
        job("background", &[]),
        job("foreground", &["--priority", "foreground"]),
    ];
    let elsewhere = job("elsewhere", &["--queue", "other"]);
    let _executor = system.executor("w", &["--queue", "default=2"]);
    for id in &ids {
        assert_eq!(system.wait_final(id)["status"], "completed");
    }
    assert_eq!(fs::read_to_string(&order).unwrap(), "foreground\nbackground\nbest-effort\n");
    let job = system.job(&elsewhere);
    assert_eq!(job["status"], "pending", "nobody serves its queue");
    let status = succeed(&mut system.executr(&["status", &elsewhere]));
    assert!(status.contains("waiting for"), "{status}");
}

#[test]
fn a_failed_job_is_repeated() {
    let system = System::up(&[]);
    let marker = system.home.path().join("marker");
    let script = format!("test -e {0} || {{ touch {0}; echo not yet >&2; exit 9; }}; echo now", marker.display());
    let output = system.output(&["submit", "--wait", "--max-retries", "2", "--backoff", "constant", "--run", &script]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "now\n".to_owned()));
    assert!(text(&output.stderr).contains("not yet"), "the first attempt was shown, too");
    let jobs = succeed(&mut system.executr(&["list", "--output", "json"]));
    let id = serde_json::from_str::<Value>(&jobs).unwrap()[0]["id"].as_str().unwrap().to_owned();
    let job = system.job(&id);
    assert_eq!((&job["retry_count"], job["attempts"].as_array().unwrap().len()), (&1.into(), 2));
    let first = succeed(&mut system.executr(&["status", &id]));
    assert!(first.contains("attempt 1") && first.contains("exit code 9"), "{first}");
}

#[test]
fn a_job_submitted_twice_with_one_key_is_one_job() {
    let system = System::server(&[]);
    let submit = || system.submit(&["--idempotency-key", "k", "--", "true"]);
    assert_eq!(submit(), submit());
}

#[test]
fn programs_are_told_what_went_wrong_by_the_exit_code() {
    let system = System::up(&[]);
    let code = |arguments: &[&str]| system.output(arguments).status.code();
    for command in ["status", "logs", "cancel", "wait"] {
        assert_eq!(code(&[command, UNKNOWN]), Some(3), "{command}");
    }
    assert_eq!(code(&["status", "17"]), Some(2));
    assert_eq!(code(&["submit", "--label", "a=b", "--type", "two words", "--", "true"]), Some(2));
    assert_eq!(code(&["list", "--limit", "1001"]), Some(2));
    let nobody = format!("http://127.0.0.1:{}", loopback::free_port());
    let output = system.output(&["list", "--server-url", &nobody]);
    assert_eq!(output.status.code(), Some(4));
    let told = text(&output.stderr);
    assert!(told.contains(&nobody) && told.contains("executr up"), "{told}");
    assert_eq!(code(&["submit", "--wait", "--server-url", &nobody, "--", "true"]), Some(125));
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let system = System::up(&[]);
    let id = system.submit(&["--run", "seq 1 300000"]);
    system.wait_final(&id);
    let mut logs = system.executr(&["logs", &id]);
    let mut logs = logs.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(logs.stdout.take());
    let output = logs.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn stats_and_executors_show_who_is_there() {
    let system = System::server(&[]);
    let _executor =
        system.executor("w1", &["--max-jobs", "3", "--label", "disk=fast", "--queue", "a=2", "--queue", "b"]);
    let executors = eventually("the executor is heard of", || {
        let executors = succeed(&mut system.executr(&["executors"]));
        executors.contains("w1-").then_some(executors)
    });
    for part in ["0/3", "disk=fast", "a=2 b=1", "idle"] {
        assert!(executors.contains(part), "{part}: {executors}");
    }
    system.submit(&["--queue", "c", "--", "true"]);
    let stats: Value = serde_json::from_str(&succeed(&mut system.executr(&["stats", "--output", "json"]))).unwrap();
    assert_eq!((&stats["jobs_by_status"]["pending"], &stats["active_executors"]), (&1.into(), &1.into()));
    assert!(succeed(&mut system.executr(&["stats"])).contains("pending"));
}

#[test]
fn a_port_or_a_directory_in_use_is_told_with_what_to_do() {
    let system = System::up(&[]);
    let port = crate::http::port_of(&system.url).to_string();
    let other = Home::new();
    let output = other.executr(&["up", "--port", &port]).output().unwrap();
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains("--port"), "{told}");
    let output = system.home.executr(&["server", "--port", "0"]).output().unwrap();
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains("--data-dir"), "{told}");
    assert!(told.contains(&system.server.process().to_string()), "it says who holds it: {told}");
}

#[test]
fn up_says_where_it_listens_and_what_to_try() {
    let system = System::up(&[]);
    let told = eventually("the greeting", || Some(system.server.output()).filter(|told| told.contains("submit")));
    assert!(told.contains(&system.url), "{told}");
}

#[test]
fn ctrl_c_in_a_terminal_lets_running_jobs_finish() {
    let home = Home::new();
    // A terminal tells all processes of the group, keepers too.
    let mut up = home.executr(&["up"]);
    let (server, url) = Background::serve_with(&home, "up", up.process_group(0));
    let mut system = System { home, url, server };
    let (pid, gate) = (system.home.path().join("pid"), system.home.path().join("gate"));
    let script =
        format!("echo $$ > {}; while [ ! -e {} ]; do sleep 0.02; done; echo finished", pid.display(), gate.display());
    let submit = spawn(&mut system.executr(&["submit", "--wait", "--run", &script]));
    line_in(&pid);
    let group = rustix::process::Pid::from_raw(system.server.process().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    eventually("it drains", || system.server.output().contains("once more to end them").then_some(()));
    fs::write(gate, "").unwrap();
    let output = submit.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), ("finished\n".to_owned(), Some(0)));
    assert!(system.server.wait().is_some_and(|status| status.success()), "{}", system.server.output());
}

#[test]
fn completions_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(&mut home.executr(&["completions", shell]));
        assert!(script.contains("submit") && script.contains("--idempotency-key".trim_start_matches('-')), "{shell}");
        assert!(!script.contains("keeper"), "{shell}");
    }
}
