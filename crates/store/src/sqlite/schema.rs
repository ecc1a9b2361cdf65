//! The database's tables, as numbered migrations that are recorded when they are applied.
//!
//! A migration first only expands (an older program of the minor before still works), and contracts one minor later;
//! `needs` is the oldest program that its result serves.

use executr_api::Version;
use executr_spec::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::error::from_sqlite;
use crate::StoreError;

struct Migration {
    name: &'static str,
    /// The oldest program that the schema serves after it.
    needs: &'static str,
    sql: &'static str,
}

/// In order; the first has number 1.
const MIGRATIONS: [Migration; 2] = [
    Migration { name: "first", needs: "0.1.0", sql: include_str!("schema/0001_first.sql") },
    Migration { name: "runs", needs: "0.1.0", sql: include_str!("schema/0002_runs.sql") },
];

/// Brings the database to the newest schema.
pub(super) fn migrate(connection: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    apply(connection, &MIGRATIONS, env!("CARGO_PKG_VERSION"), now)
}

fn apply(connection: &mut Connection, migrations: &[Migration], this: &str, now: Timestamp) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS migration (
                 number INTEGER PRIMARY KEY, name TEXT NOT NULL, needs TEXT NOT NULL, applied_at INTEGER NOT NULL)",
        )
        .map_err(from_sqlite)?;
    let newest: Option<(u32, String)> = transaction
        .query_row("SELECT number, needs FROM migration ORDER BY number DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(from_sqlite)?;
    let (found, needs) = newest.unwrap_or_default();
    if found as usize > migrations.len() && !serves(&needs, this) {
        return Err(StoreError::TooNew { found, needs, this: this.to_owned() });
    }
    for (number, migration) in (1_u32..).zip(migrations).skip(found as usize) {
        transaction.execute_batch(migration.sql).map_err(from_sqlite)?;
        transaction
            .execute(
                "INSERT INTO migration (number, name, needs, applied_at) VALUES (?1, ?2, ?3, ?4)",
                params![number, migration.name, migration.needs, now.0],
            )
            .map_err(from_sqlite)?;
    }
    transaction.commit().map_err(from_sqlite)
}

/// Whether a schema that needs the program `needs` serves the program `this`.
fn serves(needs: &str, this: &str) -> bool {
    match (needs.parse::<Version>(), this.parse::<Version>()) {
        (Ok(needs), Ok(this)) => needs <= this,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(0);

    fn step(needs: &'static str) -> Migration {
        Migration { name: "later", needs, sql: "CREATE TABLE later (x)" }
    }

    #[test]
    fn migrations_run_once_each() {
        let mut connection = Connection::open_in_memory().expect("a database");
        for _ in 0..2 {
            migrate(&mut connection, NOW).expect("migrated");
        }
        let [first, second] = MIGRATIONS;
        apply(&mut connection, &[first, second, step("0.1.0")], "0.2.0", NOW).expect("migrated");
        let names: String =
            connection.query_row("SELECT group_concat(name) FROM migration", [], |row| row.get(0)).expect("a row");
        assert_eq!(names, "first,runs,later");
    }

    #[test]
    fn a_newer_schema_is_opened_only_by_programs_it_serves() {
        let mut connection = Connection::open_in_memory().expect("a database");
        let [first, second] = MIGRATIONS;
        apply(&mut connection, &[first, second, step("0.2.0")], "0.3.0", NOW).expect("migrated");
        assert!(apply(&mut connection, &MIGRATIONS, "0.2.5", NOW).is_ok());
        let refused = apply(&mut connection, &MIGRATIONS, "0.1.9", NOW).expect_err("too new");
        assert!(matches!(refused, StoreError::TooNew { found: 3, .. }));
        assert!(refused.to_string().contains("needs Executr 0.2.0 or later; this is 0.1.9"), "{refused}");
    }
}
