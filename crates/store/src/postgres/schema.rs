//! The schema and how it grows.
//!
//! Everything stands in a schema of its own, `executr`, so that the database may be shared. Migrations are numbered files,
//! each applied in its own transaction under a lock, and recorded with the oldest program that still works on what it
//! leaves. A release only adds (expand); what it no longer needs is removed one minor version later (contract), so that
//! servers of two neighbouring versions work on one database.

use executr_api::Version;
use tokio_postgres::Client;

use super::fault::Fault;
use crate::StoreError;

/// One step of the schema.
struct Migration {
    number: i32,
    name: &'static str,
    /// The oldest program that works on the schema after this step.
    serves: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 2] = [
    Migration { number: 1, name: "queue", serves: "0.1.0", sql: include_str!("migrations/0001_queue.sql") },
    Migration { number: 2, name: "runs", serves: "0.1.0", sql: include_str!("migrations/0002_runs.sql") },
];

/// The lock under which one process at a time migrates.
const LOCK: i64 = super::registry::BUCKET_LOCK + 2;

/// Brings the schema up to this program's version. Returns the names of the migrations that were applied.
pub(super) async fn migrate(client: &Client) -> Result<Vec<&'static str>, Fault> {
    client.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let applied = migrate_locked(client).await;
    // The lock goes with the session if this fails.
    drop(client.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})")).await);
    applied
}

async fn migrate_locked(client: &Client) -> Result<Vec<&'static str>, Fault> {
    let there = client.query_one("SELECT to_regclass('executr.migration') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        // Not `CREATE SCHEMA IF NOT EXISTS` alone: that asks for the right to create even when it is there.
        let schema = client.query_one("SELECT to_regnamespace('executr') IS NOT NULL", &[]).await?;
        if !schema.get::<_, bool>(0) {
            client.batch_execute("CREATE SCHEMA executr").await?;
        }
        client
            .batch_execute(
                "CREATE TABLE executr.migration (
                     number integer PRIMARY KEY, name text NOT NULL, serves text NOT NULL,
                     applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
    }
    let newest =
        client.query_opt("SELECT number, serves FROM executr.migration ORDER BY number DESC LIMIT 1", &[]).await?;
    let found: i32 = newest.as_ref().map_or(0, |row| row.get(0));
    if let Some(row) = newest {
        check(found, row.get(1), Version::current())?;
    }
    let mut applied = Vec::new();
    for step in MIGRATIONS.iter().filter(|step| step.number > found) {
        let Migration { number, name, serves, sql } = step;
        client
            .batch_execute(&format!(
                "BEGIN; {sql}; INSERT INTO executr.migration (number, name, serves)
                 VALUES ({number}, '{name}', '{serves}'); COMMIT"
            ))
            .await?;
        applied.push(*name);
    }
    Ok(applied)
}

/// Refuses a schema that this program is too old for.
fn check(found: i32, serves: &str, this: Version) -> Result<(), StoreError> {
    let known = MIGRATIONS.last().map_or(0, |step| step.number);
    let oldest = serves.parse::<Version>();
    if found > known && oldest.is_ok_and(|oldest| oldest > this) {
        return Err(StoreError::TooNew {
            found: u32::try_from(found).unwrap_or(0),
            needs: serves.to_owned(),
            this: this.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps_and_name_real_versions() {
        for (index, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(step.number as usize, index + 1, "{}", step.name);
            assert!(step.serves.parse::<Version>().expect("a version") <= Version::current());
        }
    }

    #[test]
    fn only_a_newer_schema_that_says_so_is_refused() {
        let this: Version = "0.3.1".parse().expect("a version");
        assert!(check(1, "0.1.0", this).is_ok());
        assert!(check(9, "0.3.0", this).is_ok());
        let error = check(9, "0.4.0", this).expect_err("too new").to_string();
        assert!(error.contains("schema 9") && error.contains("0.4.0 or later") && error.contains("0.3.1"), "{error}");
    }
}
