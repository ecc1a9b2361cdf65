//! What only a database server can do to a store: be shared, restart, refuse, be newer.

mod buckets;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use executr_api::{AttemptResult, Fence, JobQuery, JobState, Outcome, RunCancel};
use executr_spec::{Backoff, ExecutorKind, JobId, JobSpec, Offers, SpecJson, Step, StepCommand, Timestamp, WorkerId};
use executr_store::postgres::{PostgresOptions, PostgresStore};
use executr_store::{Claim, Finish, FinishAnswer, NewJob, Signal, Store, StoreError};
use executr_tests::postgres::{self, Durability, Server, Stop};
use uuid::Uuid;

/// Long enough for a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(60);

async fn open(url: String) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect(PostgresOptions::new(url)).await.expect("a database of this test's own"))
}

fn job() -> NewJob {
    let spec = JobSpec::new(vec![Step::new(StepCommand::Argv(vec!["true".to_owned()]))]);
    NewJob {
        id: JobId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        job_type: "command".parse().expect("a type"),
        queue: "default".parse().expect("a queue"),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: None,
        max_retries: 0,
        backoff: Backoff::default(),
        idempotency_key: None,
        concurrency: None,
        blobs: vec![],
        spec: SpecJson::write(&spec).expect("a small job"),
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

fn wish(name: &str, limit: u32) -> Vec<Claim> {
    let offers = Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() };
    vec![Claim {
        worker: worker(name),
        ip: None,
        limit,
        queues: vec!["default".parse().expect("a queue")],
        offers: Arc::new(offers),
        lease: Duration::from_secs(600),
    }]
}

async fn claim(store: &PostgresStore, name: &str, limit: u32) -> Vec<Fence> {
    let answers = store.claim(wish(name, limit)).await.expect("claimed");
    answers.into_iter().flat_map(|answer| answer.leases).map(|lease| lease.fence).collect()
}

fn success(fence: Fence) -> Finish {
    Finish {
        result: AttemptResult {
            fence,
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            error_message: None,
            retryable: true,
            fails_run: false,
            usage: None,
            steps: vec![],
            output: None,
            output_bytes: 0,
            duration_us: 0,
            outputs: BTreeMap::new(),
            artifacts: Vec::new(),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_never_lease_a_job_twice() {
    let Some(database) = postgres::database() else { return };
    let stores = [open(database.url()).await, open(database.url()).await];
    let mut submitted = BTreeSet::new();
    for store in &stores {
        for _ in 0..3 {
            let jobs: Vec<NewJob> = (0..100).map(|_| job()).collect();
            submitted.extend(jobs.iter().map(|job| job.id));
            store.submit(jobs).await.expect("submitted");
        }
    }
    let takers = stores.iter().enumerate().flat_map(|(number, store)| {
        (0..2).map(move |taker| {
            let (store, name) = (store.clone(), format!("w{number}{taker}"));
            tokio::spawn(async move {
                let mut taken = Vec::new();
                // Nothing may only mean that the other one holds the last of them now.
                while store.stats().await.expect("stats").jobs_by_state["ready"] > 0 {
                    taken.extend(claim(&store, &name, 7).await);
                }
                taken
            })
        })
    });
    let mut leased = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        leased.extend(taker.await.expect("a taker"));
    }
    let distinct: BTreeSet<JobId> = leased.iter().map(|fence| fence.job).collect();
    assert_eq!(leased.len(), distinct.len(), "a job was leased twice");
    assert_eq!(distinct, submitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_store_makes_the_other_finds() {
    let Some(database) = postgres::database() else { return };
    let (one, other) = (open(database.url()).await, open(database.url()).await);
    // Buckets that the other one has not heard of, one after another.
    for queue in ["default", "gpu"] {
        let new = NewJob { queue: queue.parse().expect("a queue"), ..job() };
        one.submit(vec![new.clone()]).await.expect("submitted");
        let mut wish = wish("w", 1);
        wish[0].queues = vec![new.queue.clone()];
        let leases = other.claim(wish).await.expect("claimed").remove(0).leases;
        assert_eq!(leases.iter().map(|lease| lease.fence.job).collect::<Vec<_>>(), [new.id]);
        let taken = one.finish(vec![success(leases[0].fence)]).await.expect("finished");
        assert!(matches!(taken[0], FinishAnswer::Taken(_)));
        let before = other.finish(vec![success(leases[0].fence)]).await.expect("finished");
        assert_eq!(before, [FinishAnswer::Before(JobState::Completed)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_the_others_and_not_oneself() {
    let Some(database) = postgres::database() else { return };
    let (one, other) = (open(database.url()).await, open(database.url()).await);
    let (mut own, mut others) = (one.subscribe(), other.subscribe());
    let new = job();
    let signal = Signal::Ready(new.queue.clone(), new.class.clone());
    // Whether the other one listens already is found out now and then, so this is said until it is heard.
    let heard = async {
        loop {
            one.publish(signal.clone());
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(50), others.recv()).await {
                return heard;
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, heard).await.expect("in time"), Ok(signal));
    // The other's answer arrives, and nothing of its own before.
    let answer = Signal::Cancelling(new.id, worker("w"), RunCancel::AtOnce);
    let heard = async {
        loop {
            other.publish(answer.clone());
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(50), own.recv()).await {
                return heard;
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, heard).await.expect("in time"), Ok(answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_could_not_listen_is_told_so() {
    let Some(mut server) = Server::start(Durability::Fast) else { return };
    let database = server.database();
    let store = open(database.url()).await;
    let mut signals = store.subscribe();
    tokio::task::block_in_place(|| {
        server.stop(Stop::Fast);
        server.resume();
    });
    let told = async { while signals.recv().await.expect("a signal") != Signal::Anything {} };
    tokio::time::timeout(DEADLINE, told).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_told_of() {
    let Some(server) = Server::start(Durability::Fast) else { return };
    let database = server.database();
    let (store, other) = (open(database.url()).await, open(database.url()).await);
    let (mut own, mut others) = (store.subscribe(), other.subscribe());
    // A commit waits for a standby that isn't there, with the job already on the disk.
    database.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    database.sql("SELECT pg_reload_conf()");
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let began = Instant::now();
    let mut submitted = Vec::new();
    loop {
        // The setting takes a moment to be heard of.
        assert!(began.elapsed() < DEADLINE, "no commit waits");
        let new = job();
        submitted.push(new.id);
        let submitting = tokio::spawn({
            let store = store.clone();
            async move { store.submit(vec![new]).await.expect("submitted") }
        });
        while !submitting.is_finished() {
            database.sql(cut);
        }
        let answer = submitting.await.expect("an answer");
        assert!(!answer.jobs[0].existing);
        if answer.readied.is_empty() {
            // It was there already, and who was to be told was not known any more.
            break;
        }
    }
    for signals in [&mut own, &mut others] {
        let told = async { while signals.recv().await.expect("a signal") != Signal::Anything {} };
        tokio::time::timeout(DEADLINE, told).await.expect("in time");
    }
    database.sql("ALTER SYSTEM RESET synchronous_standby_names");
    database.sql("SELECT pg_reload_conf()");
    let taken = tokio::time::timeout(DEADLINE, claim(&store, "w", 1_000)).await.expect("in time");
    assert_eq!(taken.iter().map(|fence| fence.job).collect::<Vec<_>>(), submitted);
}

/// Works at the queue until it is told to stop and nothing is left; whatever happens to the database, no call may fail.
async fn work(store: Arc<PostgresStore>, name: &'static str, stop: Arc<AtomicBool>) -> BTreeMap<JobId, u32> {
    let mut done = BTreeMap::new();
    loop {
        let last = stop.load(Ordering::SeqCst);
        let mut fences = claim(&store, name, 20).await;
        // An answer that was lost on the way left leases behind.
        let held = store.leases_of(&worker(name)).await.expect("leases");
        fences.extend(held.iter().map(|lease| lease.fence));
        fences.sort_unstable();
        fences.dedup();
        if fences.is_empty() && last {
            return done;
        }
        let results: Vec<Finish> = fences.iter().copied().map(success).collect();
        let answers = store.finish(results).await.expect("finished");
        for (fence, answer) in fences.iter().zip(answers) {
            // Taken by a first try whose answer was lost: that counts as well.
            assert!(matches!(answer, FinishAnswer::Taken(_) | FinishAnswer::Before(JobState::Completed)), "{answer:?}");
            *done.entry(fence.job).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_loses_nothing_and_fails_nobody() {
    let Some(mut server) = Server::start(Durability::Synced) else { return };
    let database = server.database();
    let store = open(database.url()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (acknowledged, counted) = tokio::sync::watch::channel(0_usize);
    let acknowledged = Arc::new(acknowledged);
    let submitters: Vec<_> = (0..3)
        .map(|_| {
            let (store, stop, acknowledged) = (store.clone(), stop.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let jobs: Vec<NewJob> = (0..5).map(|_| job()).collect();
                    let answer = store.submit(jobs).await.expect("submitted");
                    assert!(answer.jobs.iter().all(|job| !job.existing));
                    ids.extend(answer.jobs.iter().map(|job| job.id));
                    acknowledged.send_modify(|count| *count += 5);
                }
                ids
            })
        })
        .collect();
    let workers = ["w1", "w2"].map(|name| tokio::spawn(work(store.clone(), name, stop.clone())));
    for how in [Stop::Crash, Stop::Fast, Stop::Crash] {
        // Work has to go on before, and again after.
        let mut counted = counted.clone();
        let goal = *counted.borrow() + 100;
        tokio::time::timeout(DEADLINE, counted.wait_for(|count| *count >= goal)).await.expect("in time").expect("open");
        tokio::task::block_in_place(|| {
            server.stop(how);
            server.resume();
        });
    }
    stop.store(true, Ordering::SeqCst);
    let mut submitted = BTreeSet::new();
    for submitter in submitters {
        submitted.extend(submitter.await.expect("a submitter"));
    }
    let mut done = BTreeSet::new();
    for worker in workers {
        done.extend(worker.await.expect("a worker").into_keys());
    }
    // A submitter may have been the last.
    done.extend(work(store.clone(), "w3", stop).await.into_keys());
    assert_eq!(done, submitted);
    let stats = store.stats().await.expect("stats");
    assert_eq!(stats.jobs_by_status["completed"], submitted.len() as u64);
    assert_eq!(stats.jobs_by_status.values().sum::<u64>(), submitted.len() as u64);
    assert_eq!(store.counters().errors, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_database_that_stays_away_is_told_after_a_while() {
    let Some(mut server) = Server::start(Durability::Fast) else { return };
    let database = server.database();
    let options = PostgresOptions { patience: Duration::from_millis(300), ..PostgresOptions::new(database.url()) };
    let store = PostgresStore::connect(options).await.expect("connected");
    tokio::task::block_in_place(|| server.stop(Stop::Fast));
    let error = store.submit(vec![job()]).await.expect_err("nobody is there");
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", server.port())), "{error}");
    tokio::task::block_in_place(|| server.resume());
    // Nothing is broken by it.
    let began = Instant::now();
    while store.submit(vec![job()]).await.is_err() {
        assert!(began.elapsed() < DEADLINE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_hang_hold_up_no_work() {
    let Some(database) = postgres::database() else { return };
    let store = open(database.url()).await;
    store.submit(vec![job()]).await.expect("submitted");
    // A list looks for attempts, the queue's work does not.
    let (blocker, line) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(line);
    let lock = "BEGIN; LOCK TABLE executr.attempt IN ACCESS EXCLUSIVE MODE";
    blocker.batch_execute(lock).await.expect("locked");
    let lists: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.jobs(&JobQuery::default()).await.expect("a list").len() })
        })
        .collect();
    let hanging = "SELECT count(*) > 1 FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while database.sql(hanging) != "t\n" {
        tokio::task::yield_now().await;
    }
    let work = async {
        store.submit(vec![job()]).await.expect("submitted");
        assert_eq!(claim(&store, "w", 10).await.len(), 2);
        store.advance(true, 10).await.expect("time passes");
    };
    tokio::time::timeout(DEADLINE, work).await.expect("nothing waits for the lists");
    assert!(lists.iter().all(|list| !list.is_finished()));
    blocker.batch_execute("ROLLBACK").await.expect("unlocked");
    for list in lists {
        assert!((1..=2).contains(&list.await.expect("a list")));
    }
}

#[tokio::test]
async fn migrations_run_once_and_newer_databases_are_refused() {
    let Some(database) = postgres::database() else { return };
    let options = PostgresOptions::new(database.url());
    assert_eq!(PostgresStore::migrate(&options).await.expect("migrated"), ["queue", "runs"]);
    assert!(PostgresStore::migrate(&options).await.expect("migrated").is_empty());
    // Newer, but it serves this program.
    database.sql("INSERT INTO executr.migration (number, name, serves) VALUES (998, 'expand', '0.1.0')");
    drop(PostgresStore::connect(options.clone()).await.expect("served"));
    database.sql("INSERT INTO executr.migration (number, name, serves) VALUES (999, 'contract', '99.1.0')");
    let error = PostgresStore::connect(options).await.expect_err("too new");
    assert!(matches!(&error, StoreError::TooNew { found: 999, needs, .. } if needs == "99.1.0"), "{error}");
}

#[tokio::test]
async fn several_processes_migrate_one_database() {
    let Some(database) = postgres::database() else { return };
    let options = PostgresOptions::new(database.url());
    let all = (0..4).map(|_| {
        let options = options.clone();
        tokio::spawn(async move { PostgresStore::migrate(&options).await.expect("migrated").len() })
    });
    let mut applied = 0;
    for one in all.collect::<Vec<_>>() {
        applied += one.await.expect("a process");
    }
    assert_eq!(applied, 2);
}

#[tokio::test]
async fn what_cannot_work_is_told_with_a_remedy() {
    let Some(database) = postgres::database() else { return };
    let url = database.url();
    let told = async |url: String| {
        let options = PostgresOptions { patience: Duration::ZERO, ..PostgresOptions::new(url) };
        PostgresStore::connect(options).await.expect_err("it can't work").to_string()
    };
    let (head, tail) = url.split_once('@').expect("user and place");
    let wrong = told(format!("{head}x@{tail}")).await;
    assert!(wrong.contains("refuses the user `postgres`") && wrong.contains("check user and password"), "{wrong}");
    let missing = told(format!("{url}_missing")).await;
    assert!(missing.contains(&format!("createdb {}_missing", database.name())), "{missing}");
    let nobody = told("postgres://me@127.0.0.1:1/jobs".to_owned()).await;
    assert!(nobody.contains("127.0.0.1:1") && nobody.contains("check that it runs"), "{nobody}");
}

/// A result with a word of output.
fn success_that_says_hello(fence: Fence) -> Finish {
    let mut writer = executr_api::output::RecordWriter::default();
    writer.push(executr_api::output::Stream::Stdout, b"hello");
    let mut finish = success(fence);
    finish.result.output = Some(executr_api::output::OutputChunk { offset: 0, records: writer.take() });
    finish
}

#[tokio::test]
async fn a_day_whose_table_is_gone_gets_a_new_one() {
    let Some(database) = postgres::database() else { return };
    let store = open(database.url()).await;
    store.submit(vec![job(), job()]).await.expect("submitted");
    let fences = claim(&store, "w", 2).await;
    store.finish(vec![success_that_says_hello(fences[0])]).await.expect("finished");
    // As seen by a process that had not yet made it, or had it removed by another one.
    let table = database.sql("SELECT 'output_' || day FROM executr.output_day");
    database.sql(&format!("DROP TABLE executr.{}; DELETE FROM executr.output_day", table.trim()));
    let answers = store.finish(vec![success_that_says_hello(fences[1])]).await.expect("finished");
    assert!(matches!(answers[0], FinishAnswer::Taken(_)), "{answers:?}");
    let told = store.output(fences[1].job, 1, 0, 100).await.expect("read").expect("an attempt");
    assert_eq!(told.records.span(), 5);
}

#[tokio::test]
async fn output_of_days_of_which_no_job_is_left_is_removed_with_its_table() {
    let Some(database) = postgres::database() else { return };
    let options = PostgresOptions::new(database.url());
    let offset = options.clock_offset.clone();
    let store = PostgresStore::connect(options).await.expect("connected");
    let tables = || {
        database
            .sql("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'output\\_1%' OR tablename LIKE 'output\\_2%'")
    };
    store.submit(vec![job()]).await.expect("submitted");
    let fence = claim(&store, "w", 1).await.remove(0);
    store.finish(vec![success_that_says_hello(fence)]).await.expect("finished");
    assert_eq!(tables(), "1\n");
    let now = store.now().await.expect("a time");
    assert_eq!(store.delete_final(Timestamp(now.0 + 1), 10).await.expect("deleted"), 1);
    assert_eq!(tables(), "1\n", "the day is not over");
    offset.fetch_add(3 * 86_400_000_000, Ordering::SeqCst);
    assert_eq!(store.delete_final(now, 10).await.expect("deleted"), 0);
    assert_eq!(tables(), "0\n");
}
