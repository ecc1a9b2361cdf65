//! Servers that die at the worst moments while a load runs: no acknowledged job is lost, none ends twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use executr_api::failpoint;
use executr_tests::background::Background;
use executr_tests::postgres::{self, Durability, Server, Stop};
use serde_json::{Value, json};

use crate::http::{self, send};
use crate::system::{System, eventually};

/// How many jobs may be under way before the load waits.
const UNDER_WAY: usize = 60;

/// Jobs that are submitted again until they are acknowledged, and a record of which of them ran.
struct Load {
    url: String,
    ran: PathBuf,
    /// By key, the id that was acknowledged.
    acknowledged: Mutex<BTreeMap<String, String>>,
}

impl Load {
    fn new(system: &System) -> Self {
        Self { url: system.url.clone(), ran: system.home.path().join("ran"), acknowledged: Mutex::default() }
    }

    /// Submits one job. True when it was acknowledged.
    fn submit(&self, key: &str) -> bool {
        let job = json!({
            "steps": [{"argv": ["/bin/sh", "-c", format!("echo {key} >> {}; echo {key}", self.ran.display())]}],
            "idempotency_key": key,
        });
        let answer = send(&self.url, "POST", "/jobs", None, Some(&job)).filter(|answer| answer.status < 500);
        let Some(answer) = answer else { return false };
        assert_eq!(answer.status, 201, "{}", answer.body);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let earlier = self.acknowledged.lock().unwrap().insert(key.to_owned(), id.clone());
        assert!(earlier.is_none_or(|earlier| earlier == id), "{key} became two jobs");
        true
    }

    /// Submits jobs, each until it is acknowledged, as long as `going_on`.
    fn run(&self, going_on: &AtomicBool) {
        for number in 0.. {
            let key = format!("job-{number}");
            while !self.submit(&key) {
                if !going_on.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            while going_on.load(Ordering::Relaxed) && number + 1 > self.runs().len() + UNDER_WAY {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !going_on.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn runs(&self) -> Vec<String> {
        let ran = fs::read_to_string(&self.ran).unwrap_or_default();
        ran.lines().map(str::to_owned).collect()
    }

    /// Every acknowledged job has ended well, and ran once.
    #[track_caller]
    fn check(&self, system: &System) {
        let acknowledged = self.acknowledged.lock().unwrap();
        for (key, id) in acknowledged.iter() {
            let job = system.wait_final(id);
            assert_eq!((&job["status"], &job["stdout"]), (&"completed".into(), &format!("{key}\n").into()), "{job}");
        }
        let mut times = BTreeMap::new();
        for key in self.runs() {
            *times.entry(key).or_insert(0) += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        assert!(acknowledged.keys().all(|key| times.contains_key(key)));
        eventually("no job is left unfinished", || {
            let stats = http::get(&system.url, "/admin/stats").json();
            ["pending", "running"].iter().all(|status| stats["jobs_by_status"][status] == 0).then_some(())
        });
        assert!(acknowledged.len() > 10, "there was a load: {}", acknowledged.len());
    }
}

/// All that passes every failpoint sooner or later: jobs of all kinds, cancelled and long ones among them.
fn everything_that_can_happen(load: &Load, round: &str, system: &System) {
    for number in 0..4 {
        load.submit(&format!("{round}-{number}"));
    }
    let slow = json!({"steps": [{"run": "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"}]});
    let endless = json!({"steps": [{"argv": ["sleep", "1000"]}]});
    send(&system.url, "POST", "/jobs", None, Some(&slow));
    if let Some(answer) = send(&system.url, "POST", "/jobs", None, Some(&endless)).filter(|answer| answer.status == 201)
    {
        let job: Value = answer.json();
        let cancel = format!("/jobs/{}/cancel", job["id"].as_str().unwrap());
        // Until it is taken: a server that died in between forgot the request, not the job.
        eventually("the cancellation is heard", || {
            let answer = send(&system.url, "POST", &cancel, None, None);
            (answer.is_some_and(|answer| answer.status < 300) || !answers(system)).then_some(())
        });
    }
}

fn answers(system: &System) -> bool {
    http::try_get(&system.url, "/health").is_some()
}

/// Cancels what a dead server left uncancelled.
fn cancel_the_endless(system: &System) {
    let jobs = http::get(&system.url, "/jobs?limit=1000").json();
    for job in jobs.as_array().unwrap() {
        if job["spec"]["steps"][0]["argv"][0] == "sleep" && job["completed_at"].is_null() {
            send(&system.url, "POST", &format!("/jobs/{}/cancel", job["id"].as_str().unwrap()), None, None);
        }
    }
}

#[test]
fn a_server_that_dies_at_any_named_point_loses_nothing() {
    let flags = ["--heartbeat-timeout", "600ms"];
    let mut system = System::server(&flags);
    let _executor = system.executor("w", &["--max-jobs", "4", "--heartbeat-interval", "100ms"]);
    let load = Load::new(&system);
    for (index, point) in failpoint::POINTS.iter().enumerate() {
        system.server.kill();
        // Not always the first passing.
        let armed = format!("{point}@{}", index % 3 + 1);
        let mut round = 0;
        let begun = system.start_server(&flags, &[("EXECUTR_FAILPOINT", &armed)]);
        eventually(&format!("the server dies at {armed}"), || {
            everything_that_can_happen(&load, &format!("{point}-{round}"), &system);
            round += 1;
            (!begun || !answers(&system)).then_some(())
        });
        system.server.kill();
        system.restart_server(&flags);
        // Submitted again, each is still one job.
        for number in 0..4 {
            assert!(load.submit(&format!("{point}-{}-{number}", round - 1)));
        }
        cancel_the_endless(&system);
    }
    load.check(&system);
}

/// Kills the server again and again at moments nobody chose.
fn kill_at_random_moments(system: &mut System, flags: &[&str], kills: u32) {
    let load = Load::new(system);
    let going_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| load.run(&going_on));
        let mut random = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(std::process::id());
        for _ in 0..kills {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let moment = Instant::now() + Duration::from_micros((random >> 33) % 60_000);
            while Instant::now() < moment {
                std::thread::sleep(Duration::from_micros(200));
            }
            system.server.kill();
            system.restart_server(flags);
        }
        going_on.store(false, Ordering::Relaxed);
    });
    load.check(system);
}

#[test]
fn a_server_killed_at_random_moments_loses_nothing() {
    let mut system = System::server(&[]);
    let _executor = system.executor("w", &["--max-jobs", "4"]);
    kill_at_random_moments(&mut system, &[], 120);
}

#[test]
fn a_server_on_postgresql_killed_at_random_moments_loses_nothing() {
    let Some(database) = postgres::database() else { return };
    let flags = ["--db-url", &database.url()];
    let mut system = System::server(&flags);
    let _executor = system.executor("w", &["--max-jobs", "4"]);
    kill_at_random_moments(&mut system, &flags, 80);
}

#[test]
fn a_database_that_restarts_under_load_loses_nothing() {
    let Some(mut server) = Server::start(Durability::Synced) else { return };
    let database = server.database();
    let flags = ["--db-url", &database.url()];
    let system = System::server(&flags);
    let mut executor = system.executor("w", &["--max-jobs", "4"]);
    let load = Load::new(&system);
    let going_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| load.run(&going_on));
        for (restart, how) in [Stop::Fast, Stop::Crash, Stop::Fast, Stop::Crash].into_iter().enumerate() {
            eventually("the load is on", || (load.runs().len() > 20 * (restart + 1)).then_some(()));
            server.stop(how);
            server.resume();
        }
        going_on.store(false, Ordering::Relaxed);
    });
    load.check(&system);
    assert!(is_running(&system.server) && is_running(&executor), "no process of ours was restarted");
    executor.terminate();
    assert!(executor.wait().is_some_and(|status| status.success()));
}

fn is_running(process: &Background) -> bool {
    crate::system::is_alive(&process.process().to_string())
}
