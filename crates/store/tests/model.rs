//! The model keeps the contract that it is the measure of.

use std::sync::Arc;
use std::time::Duration;

use executr_store::model::ModelStore;
use executr_store::{ManualClock, Store};

#[macro_use]
mod suite;

struct Model {
    clock: ManualClock,
    store: Arc<ModelStore>,
}

impl suite::Harness for Model {
    async fn open() -> Option<Self> {
        let clock = ManualClock::default();
        Some(Self { store: Arc::new(ModelStore::new(Arc::new(clock.clone()))), clock })
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }
}

contract_suite!(Model);
run_suite!(Model);
