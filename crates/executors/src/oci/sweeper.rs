//! Containers that dead processes left in this machine's own engine, or without one.

use std::sync::Arc;

use async_trait::async_trait;

use super::engine::{ContainerEngine, ContainerError, Owned};
use super::host::{OciHost, OciHostOptions};
use super::owner::left_in;
use crate::sweep::{Leftover, SweepError, Sweeper};

/// Finds containers that dead processes left.
pub struct OciSweeper(OciHost);

impl OciSweeper {
    /// One that looks where a worker with these options has its containers.
    #[must_use]
    pub fn new(options: OciHostOptions) -> Self {
        Self(OciHost::new(options))
    }
}

#[async_trait]
impl Sweeper for OciSweeper {
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError> {
        let mut found = Vec::new();
        for engine in [self.0.unswept().await, self.0.unswept_direct().await] {
            let engine = match engine {
                Ok(engine) => engine,
                // Where there is no engine we can use there is no container of ours.
                Err(
                    ContainerError::NoEngine { .. }
                    | ContainerError::Elsewhere { .. }
                    | ContainerError::NotBuilt
                    | ContainerError::NoAgent(_),
                ) => continue,
                Err(error) => return Err(asking(&error)),
            };
            let left = left_in(engine.as_ref()).await.map_err(|error| asking(&error))?;
            let held = |container| Box::new(Left { engine: Arc::clone(&engine), container }) as Box<dyn Leftover>;
            found.extend(left.into_iter().map(held));
        }
        Ok(found)
    }
}

fn asking(error: &ContainerError) -> SweepError {
    SweepError::Stays { name: "whatever is left in the container engine".to_owned(), problem: error.to_string() }
}

struct Left {
    engine: Arc<dyn ContainerEngine>,
    container: Owned,
}

#[async_trait]
impl Leftover for Left {
    fn kind(&self) -> &'static str {
        "container"
    }

    fn name(&self) -> String {
        self.container.id.clone()
    }

    fn bytes(&self) -> Option<u64> {
        None
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        let removed = self.engine.remove(&self.container.id).await;
        removed.map_err(|error| SweepError::Stays { name: self.name(), problem: error.to_string() })
    }
}
