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
    store: Arc<SqliteStore>,
    _directory: TempDir,
}

impl suite::Harness for Embedded {
    async fn open() -> Option<Self> {
        let directory = TempDir::new().expect("a directory");
        let clock = ManualClock::default();
        let options = SqliteOptions { clock: Arc::new(clock.clone()), ..SqliteOptions::new(directory.path()) };
        let store = Arc::new(SqliteStore::open(options).await.expect("opened"));
        Some(Self { clock, store, _directory: directory })
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }
}

contract_suite!(Embedded);
run_suite!(Embedded);

#[test]
fn random_commands_do_what_they_do_to_the_model() {
    property::random_commands::<Embedded>(100);
}
