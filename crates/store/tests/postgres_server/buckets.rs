//! Buckets that fall out of use, and those that only a newer program understands.

use executr_spec::{Offers, Requirements};
use executr_tests::postgres::Database;

use super::*;

/// A store that retires buckets as soon as it can.
async fn open_eager(database: &Database) -> Arc<PostgresStore> {
    let options = PostgresOptions { retire_every: Duration::from_millis(2), ..PostgresOptions::new(database.url()) };
    Arc::new(PostgresStore::connect(options).await.expect("a database of this test's own"))
}

fn job_for(label: &str) -> NewJob {
    let labels = [("run".to_owned(), label.to_owned())].into();
    NewJob { class: Requirements { labels, ..Requirements::default() }.class(), ..job() }
}

/// Claims everything that a worker with this label can run, and ends it.
async fn finish_all(store: &PostgresStore, label: &str) -> Vec<JobId> {
    let mut wish = wish("w", 100);
    let labels = [("run".to_owned(), label.to_owned())].into();
    wish[0].offers = Arc::new(Offers { labels, ..(*wish[0].offers).clone() });
    let leases = store.claim(wish).await.expect("claimed").remove(0).leases;
    let results: Vec<Finish> = leases.iter().map(|lease| success(lease.fence)).collect();
    for answer in store.finish(results).await.expect("finished") {
        assert!(matches!(answer, FinishAnswer::Taken(_)), "{answer:?}");
    }
    leases.iter().map(|lease| lease.fence.job).collect()
}

async fn until(database: &Database, sql: &str, wanted: &str) {
    let reached = async {
        while database.sql(sql).trim() != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{sql} is not {wanted} in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_out_of_use_are_retired_and_go_with_their_last_job() {
    let Some(database) = postgres::database() else { return };
    let (eager, other) = (open_eager(&database).await, open(database.url()).await);
    let first = job_for("one");
    other.submit(vec![first.clone()]).await.expect("submitted");
    assert_eq!(finish_all(&other, "one").await, [first.id]);
    let in_use = "SELECT count(*) FROM executr.bucket WHERE NOT retired";
    until(&database, in_use, "0").await;
    let shown = async |store: &PostgresStore, id: JobId| store.job(id).await.expect("found").map(|job| job.class);
    assert_eq!(shown(&eager, first.id).await, Some(first.class.clone()), "its jobs are shown as before");

    // The other store takes the bucket to be in use still.
    let second = job_for("one");
    other.submit(vec![second.clone()]).await.expect("submitted");
    assert_eq!(database.sql(in_use), "1\n");
    assert_eq!(finish_all(&eager, "one").await, [second.id]);
    assert_eq!(eager.stats().await.expect("stats").jobs_by_status["completed"], 2);

    until(&database, in_use, "0").await;
    // A bucket with a higher id, so that both of them may go.
    other.submit(vec![job()]).await.expect("submitted");
    let now = other.now().await.expect("a time");
    assert_eq!(other.delete_final(Timestamp(now.0 + 1), 10).await.expect("deleted"), 2);
    until(&database, "SELECT count(*) FROM executr.bucket", "1").await;
    let third = job_for("one");
    eager.submit(vec![third.clone()]).await.expect("submitted");
    assert_eq!(shown(&other, third.id).await, Some(third.class.clone()));
    assert_eq!(finish_all(&other, "one").await.len(), 2, "one with the label and one without");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_is_never_lost_in_a_bucket_that_is_being_retired() {
    let Some(database) = postgres::database() else { return };
    let stores = [open_eager(&database).await, open_eager(&database).await];
    let began = Instant::now();
    let happened = || database.sql("SELECT count(*) > 1 FROM executr.bucket WHERE retired") == "t\n";
    let mut round = 0;
    while round < 100 || round % 50 != 0 || !happened() {
        assert!(began.elapsed() < DEADLINE, "nothing is retired meanwhile");
        let label = ["a", "b"][round / 2 % 2];
        let new: Vec<NewJob> = (0..2).map(|_| job_for(label)).collect();
        let [one, other] = [0, 1].map(|number| stores[number].submit(vec![new[number].clone()]));
        let (one, other) = tokio::join!(one, other);
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let mut done: Vec<JobId> = finish_all(&stores[round % 2], label).await;
        done.sort_unstable();
        assert_eq!(done, new.iter().map(|job| job.id).collect::<Vec<_>>(), "round {round}");
        round += 1;
    }
    let stats = stores[0].stats().await.expect("stats");
    assert_eq!(stats.jobs_by_status["completed"], 2 * round as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_only_a_newer_program_understands_is_left_to_it() {
    let Some(database) = postgres::database() else { return };
    let newer = open(database.url()).await;
    newer.submit(vec![job()]).await.expect("submitted");
    database.sql("UPDATE executr.bucket SET class = 'moon +fly'");

    let store = open(database.url()).await;
    assert_eq!(claim(&store, "w", 10).await, [], "nobody knows what it needs");
    let known = job();
    store.submit(vec![known.clone()]).await.expect("submitted");
    let fences = claim(&store, "w", 10).await;
    assert_eq!(fences.iter().map(|fence| fence.job).collect::<Vec<_>>(), [known.id]);
    store.advance(true, 10).await.expect("time passes");
    let listed = store.jobs(&JobQuery::default()).await.expect("a list");
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [known.id]);
    assert_eq!(store.classes(&known.queue).await.expect("classes"), [(known.class, false)]);
    assert_eq!(store.stats().await.expect("stats").jobs_by_status["pending"], 1);
}
