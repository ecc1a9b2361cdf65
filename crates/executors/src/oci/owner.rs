//! Whose a container is. Each bears its owner's mark: the process that had it made, told apart from every other one this
//! machine has ever had. What bears the mark of a process that is gone was left behind; nothing else is ever touched.

use std::fs;

use super::engine::{ContainerEngine, ContainerError, Owned};

/// The label with the mark.
pub(super) const OWNER: &str = "executr.owner";

/// A process, as a label tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The kernel's own name for the time since it was started.
    boot: String,
    /// The namespace its number counts in.
    namespace: String,
    process: u32,
    /// When it was started, in ticks since boot.
    started: u64,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> Option<Self> {
        let process = std::process::id();
        Some(Self { boot: boot()?, namespace: namespace()?, process, started: started(process)? })
    }

    pub(super) fn mark(&self) -> String {
        format!("{}.{}.{}.{}", self.boot, self.namespace, self.process, self.started)
    }

    fn parse(mark: &str) -> Option<Self> {
        let mut parts = mark.split('.');
        let owner = Self {
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.to_owned(),
            process: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    /// Whether it is known to be dead. One of another namespace can't be judged from here, unless it ran before the
    /// machine was started.
    fn is_dead(&self) -> bool {
        let Some((boot, namespace)) = boot().zip(namespace()) else { return false };
        self.boot != boot || (self.namespace == namespace && started(self.process) != Some(self.started))
    }
}

/// The containers of dead owners.
///
/// # Errors
/// When the engine can't say what there is.
pub(super) async fn left_in(engine: &dyn ContainerEngine) -> Result<Vec<Owned>, ContainerError> {
    let mut found = engine.labelled(OWNER).await?;
    found.retain(|left| Owner::parse(&left.owner).is_some_and(|owner| owner.is_dead()));
    Ok(found)
}

/// Removes the containers of dead owners; how many those were.
///
/// # Errors
/// When the engine can't say what there is.
pub(super) async fn sweep(engine: &dyn ContainerEngine) -> Result<usize, ContainerError> {
    let mut removed = 0;
    for left in left_in(engine).await? {
        match engine.remove(&left.id).await {
            Ok(()) => {
                tracing::info!(container = left.id, "removed a container that a dead process left");
                removed += 1;
            }
            Err(error) => tracing::warn!(container = left.id, %error, "a container that a dead process left stays"),
        }
    }
    Ok(removed)
}

fn boot() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn namespace() -> Option<String> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.to_owned())
}

/// Field 22 of /proc/PID/stat, counted behind the name in parentheses.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_a_process_for_good() {
        let this = Owner::this().expect("this process");
        assert_eq!(Owner::parse(&this.mark()), Some(this.clone()));
        assert!(!this.is_dead());
        assert!(Owner { started: this.started + 1, ..this.clone() }.is_dead());
        assert!(Owner { boot: "before".to_owned(), ..this.clone() }.is_dead());
        assert!(!Owner { namespace: "1".to_owned(), started: 0, ..this }.is_dead(), "can't be judged from here");
        for other in ["", "a.b.c.d", "a.b.1", "a.b.1.2.3"] {
            assert_eq!(Owner::parse(other), None, "{other}");
        }
    }
}
