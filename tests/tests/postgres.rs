//! The PostgreSQL that other tests rely on: databases of their own, and restarts.

use executr_tests::postgres::{self, Durability, Server, Stop};

#[test]
fn databases_of_one_run_are_separate() {
    let (Some(one), Some(two)) = (postgres::database(), postgres::database()) else {
        return;
    };
    one.sql("CREATE TABLE only_here (id int)");
    assert_eq!(two.sql("SELECT to_regclass('only_here') IS NULL"), "t\n");
    assert_ne!(one.name(), two.name());
}

#[test]
fn a_dropped_database_is_gone() {
    let (Some(one), Some(other)) = (postgres::database(), postgres::database()) else {
        return;
    };
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", one.name());
    assert_eq!(other.sql(&count), "1\n");
    drop(one);
    assert_eq!(other.sql(&count), "0\n");
}

#[test]
fn what_was_committed_survives_a_crash() {
    let Some(mut server) = Server::start(Durability::Synced) else {
        return;
    };
    let database = server.database();
    let url = database.url();
    database.sql("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)");
    server.stop(Stop::Crash);
    server.resume();
    assert_eq!(database.sql("SELECT id FROM kept"), "7\n");
    assert_eq!(database.url(), url, "a restart must not move the server");
    assert_eq!(database.sql("SHOW fsync"), "on\n");
}

#[test]
fn further_settings_reach_the_server() {
    let Some(server) = Server::start_with(Durability::Fast, &[("max_connections", "17")]) else {
        return;
    };
    assert_eq!(server.database().sql("SHOW max_connections"), "17\n");
}
