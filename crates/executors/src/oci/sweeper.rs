//! Containers and their networks that dead processes left in this machine's own engine, or without one.

use std::sync::Arc;

use async_trait::async_trait;

use super::engine::{ContainerEngine, ContainerError};
use super::host::{OciHost, OciHostOptions};
use super::owner::{Left, left_in};
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
            let held = |left| Box::new(LeftHere { engine: Arc::clone(&engine), left }) as Box<dyn Leftover>;
            found.extend(left.into_iter().map(held));
        }
        Ok(found)
    }
}

fn asking(error: &ContainerError) -> SweepError {
    SweepError::Stays { name: "whatever is left in the container engine".to_owned(), problem: error.to_string() }
}

struct LeftHere {
    engine: Arc<dyn ContainerEngine>,
    left: Left,
}

#[async_trait]
impl Leftover for LeftHere {
    fn kind(&self) -> &'static str {
        self.left.kind()
    }

    fn name(&self) -> String {
        self.left.name().to_owned()
    }

    fn bytes(&self) -> Option<u64> {
        None
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        let removed = self.left.remove(self.engine.as_ref()).await;
        removed.map_err(|error| SweepError::Stays { name: self.name(), problem: error.to_string() })
    }
}
