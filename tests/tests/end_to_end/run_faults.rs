//! Servers and executors that die at moments nobody chose while a workflow of several layers runs: the run comes to the same
//! end as without that, and its events tell of each thing once. With its server no job runs twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use executr_tests::postgres;
use serde_json::{Value, json};

use crate::choosing::file;
use crate::http;
use crate::system::{System, eventually, succeed};

/// How often the server is killed, over as many runs as that takes.
const KILLS: u32 = 20;
/// The first layer's jobs, as many as the second's.
const WIDE: usize = 6;

/// What decides the moments. A test that fails tells it; `EXECUTR_TEST_SEED` has the moments back.
struct Moments {
    seed: u64,
    state: u64,
}

impl Moments {
    fn new() -> Self {
        let given = std::env::var("EXECUTR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
        Self { seed, state: seed ^ 0x9E37_79B9_7F4A_7C15 }
    }

    /// Below `most`.
    fn next(&mut self, most: Duration) -> Duration {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((self.state >> 33) % most.as_micros() as u64)
    }
}

impl Drop for Moments {
    #[expect(clippy::print_stderr, reason = "without it the failure can't be had again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with EXECUTR_TEST_SEED={}", self.seed);
        }
    }
}

/// Five layers: many jobs that hand results and artifacts on, many that take them, then decisions of each kind. Each job
/// writes down that it ran, as `run job`.
fn layers(system: &System) -> PathBuf {
    let ran = system.home.path().join("ran").display().to_string();
    let note = format!("echo \"$EXECUTR_RUN_ID $EXECUTR_JOB_NAME\" >> {ran}");
    let mut content = String::from("fail_fast: false\njobs:\n");
    for n in 0..WIDE {
        content += &format!(
            "
  make-{n}:
    steps: ['{note}; echo made-{n} > file; echo number={n} >> \"$STEP_OUTPUT\"']
    outputs: {{ made-{n}: file }}
  use-{n}:
    needs: [make-{n}, make-{other}]
    inputs: [{{ name: made-{n}, path: one }}, {{ name: made-{other}, path: two }}]
    env: {{ NUMBER: '${{{{ needs.make-{n}.outputs.number }}}}' }}
    steps: ['{note}; test \"$(cat one/file two/file)\" = \"$(echo made-{n}; echo made-{other})\"; test $NUMBER = {n}']
",
            other = (n + 1) % WIDE
        );
    }
    let all = (0..WIDE).map(|n| format!("use-{n}")).collect::<Vec<_>>().join(", ");
    content += &format!(
        "
  join: {{ needs: [{all}], steps: ['{note}'] }}
  broken: {{ needs: join, continue_on_error: true, steps: ['{note}; exit 7'] }}
  skipped: {{ needs: join, if: \"${{{{ needs.join.result != 'success' }}}}\", steps: ['{note}'] }}
  asked: {{ needs: join, if: \"${{{{ needs.join.result == 'success' }}}}\", steps: ['{note}'] }}
  tell: {{ needs: [broken, skipped, asked], if: always(), steps: ['{note}'] }}
"
    );
    file(&system.home, &content)
}

/// How each job of such a run has to end.
fn ends() -> BTreeMap<String, &'static str> {
    let layers = (0..WIDE).flat_map(|n| [format!("make-{n}"), format!("use-{n}")]);
    let mut ends: BTreeMap<String, &str> = layers.map(|name| (name, "completed")).collect();
    for (name, end) in [
        ("join", "completed"),
        ("broken", "failed"),
        ("skipped", "skipped"),
        ("asked", "completed"),
        ("tell", "completed"),
    ] {
        ends.insert(name.to_owned(), end);
    }
    ends
}

/// The run, once it is over.
fn ended(system: &System, id: &str) -> Option<Value> {
    let answer = http::try_get(&system.url, &format!("/runs/{id}")).filter(|answer| answer.status == 200)?;
    let run = answer.json();
    run["completed_at"].is_string().then_some(run)
}

/// All that has to be true of a run that is over. Jobs whose executor died may have run `most` times.
fn check(system: &System, id: &str, run: &Value, most: u32) {
    let jobs = http::get(&system.url, &format!("/runs/{id}/jobs")).json();
    assert_eq!(run["state"], "completed", "{run}\n{jobs:#}");
    let states: BTreeMap<String, String> = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (job["name"].as_str().unwrap().to_owned(), job["state"].as_str().unwrap().to_owned()))
        .collect();
    let ends = ends();
    assert!(states.iter().map(|(name, state)| (name.clone(), state.as_str())).eq(ends.clone()), "{states:#?}");

    let ran = fs::read_to_string(system.home.path().join("ran")).unwrap();
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, job) in ran.lines().filter_map(|line| line.split_once(' ')).filter(|(of, _)| *of == id) {
        *times.entry(job).or_default() += 1;
    }
    assert!(times.keys().eq(ends.iter().filter(|(_, end)| **end != "skipped").map(|(name, _)| name)), "{times:?}");
    assert!(times.values().all(|times| *times <= most), "{times:?}");

    let events = http::get(&system.url, &format!("/runs/{id}/events")).json();
    let events = events.as_array().unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=run["last_event"].as_u64().unwrap()).collect::<Vec<_>>());
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert_eq!(of("job_ended"), ends.len(), "each job ends once: {events:#?}");
    assert_eq!((of("run_ended"), events.last().map(|event| &event["event"])), (1, Some(&json!("run_ended"))));
}

fn kill_during_runs(system: &mut System, flags: &[&str]) {
    let path = layers(system);
    let mut moments = Moments::new();
    let mut kills = 0;
    let mut killed_in_between = 0;
    while kills < KILLS {
        let id = succeed(&mut system.executr(&["submit", path.to_str().unwrap()])).trim().to_owned();
        while kills < KILLS && ended(system, &id).is_none() {
            let moment = Instant::now() + moments.next(Duration::from_millis(60));
            while Instant::now() < moment {
                std::thread::sleep(Duration::from_micros(200));
            }
            system.server.kill();
            kills += 1;
            system.restart_server(flags);
            killed_in_between += u32::from(ended(system, &id).is_none());
        }
        let run = eventually(&format!("the end of run {id}"), || ended(system, &id));
        check(system, &id, &run, 1);
    }
    assert!(killed_in_between > KILLS / 4, "runs were under way: {killed_in_between}");
}

#[test]
fn a_run_survives_its_servers_deaths() {
    let mut system = System::server(&[]);
    let _executors = ["one", "two"].map(|name| system.executor(name, &["--max-jobs", "3"]));
    kill_during_runs(&mut system, &[]);
}

#[test]
fn a_run_on_postgresql_survives_its_servers_deaths() {
    let Some(database) = postgres::database() else { return };
    let flags = ["--db-url", &database.url()];
    let mut system = System::server(&flags);
    let _executors = ["one", "two"].map(|name| system.executor(name, &["--max-jobs", "3"]));
    kill_during_runs(&mut system, &flags);
}

#[test]
fn a_run_survives_its_executors_deaths() {
    let system = System::server(&["--heartbeat-timeout", "600ms"]);
    let flags = ["--max-jobs", "3", "--heartbeat-interval", "100ms"];
    let mut executors = ["one", "two"].map(|name| system.executor(name, &flags));
    let path = layers(&system);
    let mut moments = Moments::new();
    // Of each run one executor dies once, so that no job loses more leases than it may.
    for round in 0..6 {
        let id = succeed(&mut system.executr(&["submit", path.to_str().unwrap()])).trim().to_owned();
        let moment = Instant::now() + moments.next(Duration::from_millis(150));
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_micros(200));
        }
        let (at, name) = [(0, "one"), (1, "two")][round % 2];
        executors[at].kill();
        executors[at] = system.executor(name, &flags);
        let run = eventually(&format!("the end of run {id}"), || ended(&system, &id));
        check(&system, &id, &run, 2);
    }
}
