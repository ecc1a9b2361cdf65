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

    /// Its number, and what tells it from another process that had the same one since the machine was started.
    pub(super) fn short(&self) -> String {
        format!("{}-{}", self.process, self.started)
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

/// Something a dead owner left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// A container, by its id.
    Container(String),
    /// A network, by its name.
    Network(String),
}

impl Left {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Container(_) => "container",
            Self::Network(_) => "container network",
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Container(name) | Self::Network(name) => name,
        }
    }

    pub(super) async fn remove(&self, engine: &dyn ContainerEngine) -> Result<(), ContainerError> {
        match self {
            Self::Container(id) => engine.remove(id).await,
            Self::Network(name) => engine.remove_network(name).await,
        }
    }
}

/// What dead owners left: containers, then the networks they are on.
///
/// # Errors
/// When the engine can't say what there is.
pub(super) async fn left_in(engine: &dyn ContainerEngine) -> Result<Vec<Left>, ContainerError> {
    let of_dead = |found: Vec<Owned>| {
        let dead = |left: &Owned| Owner::parse(&left.owner).is_some_and(|owner| owner.is_dead());
        found.into_iter().filter(dead).map(|left| left.id).collect::<Vec<_>>()
    };
    let containers = of_dead(engine.labelled(OWNER).await?).into_iter().map(Left::Container);
    let networks = of_dead(engine.labelled_networks(OWNER).await?).into_iter().map(Left::Network);
    Ok(containers.chain(networks).collect())
}

/// Removes what dead owners left; how much that was.
///
/// # Errors
/// When the engine can't say what there is.
pub(super) async fn sweep(engine: &dyn ContainerEngine) -> Result<usize, ContainerError> {
    let mut removed = 0;
    for left in left_in(engine).await? {
        let (kind, name) = (left.kind(), left.name());
        match left.remove(engine).await {
            Ok(()) => {
                tracing::info!(name, "removed a {kind} that a dead process left");
                removed += 1;
            }
            Err(error) => tracing::warn!(name, %error, "a {kind} that a dead process left stays"),
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
