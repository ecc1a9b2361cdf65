//! The queue in PostgreSQL keeps the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use executr_store::Store;
use executr_store::postgres::{PostgresOptions, PostgresStore};
use executr_tests::postgres;

#[macro_use]
mod suite;
mod property;

struct Postgres {
    store: Arc<PostgresStore>,
    offset: Arc<AtomicI64>,
    _database: postgres::Database,
}

impl suite::Harness for Postgres {
    async fn open() -> Option<Self> {
        let database = postgres::database()?;
        let mut options = PostgresOptions::new(database.url());
        options.connections = 3;
        let offset = options.clock_offset.clone();
        let store = PostgresStore::connect(options).await.expect("a database of this test's own");
        Some(Self { store: Arc::new(store), offset, _database: database })
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, span: Duration) {
        self.offset.fetch_add(span.as_micros().try_into().expect("a test's time"), Ordering::SeqCst);
    }
}

impl property::Reopen for Postgres {}

contract_suite!(Postgres);
run_suite!(Postgres);

#[test]
fn random_commands_do_what_they_do_to_the_model() {
    property::random_commands::<Postgres>(20);
}
