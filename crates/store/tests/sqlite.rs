//! The embedded store keeps the contract.

use std::sync::Arc;
use std::time::Duration;

use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_store::{ManualClock, Store};
use tempfile::TempDir;

#[macro_use]
mod suite;
mod property;

struct Embedded {
    clock: ManualClock,
    store: Option<Arc<SqliteStore>>,
    directory: TempDir,
}

impl suite::Harness for Embedded {
    async fn open() -> Option<Self> {
        let directory = TempDir::new().expect("a directory");
        let mut embedded = Self { clock: ManualClock::default(), store: None, directory };
        property::Reopen::reopen(&mut embedded).await;
        Some(embedded)
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("an open store")
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }
}

impl property::Reopen for Embedded {
    async fn reopen(&mut self) {
        drop(self.store.take());
        let options =
            SqliteOptions { clock: Arc::new(self.clock.clone()), ..SqliteOptions::new(self.directory.path()) };
        self.store = Some(Arc::new(SqliteStore::open(options).await.expect("opened")));
    }
}

contract_suite!(Embedded);
run_suite!(Embedded);

#[test]
fn random_commands_do_what_they_do_to_the_model() {
    property::random_commands::<Embedded>(100);
}
