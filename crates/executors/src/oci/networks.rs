//! Networks of runs. Containers of a run find each other by name there, and those of other runs aren't there at all.
//!
//! A network is made with the first container that wants it. It outlasts the last one by a while, since the next job of the
//! run may come: making and removing one costs about as much as starting a container.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Attached, ContainerEngine, ContainerError};
use super::owner::{OWNER, Owner};

/// How long a network stays that no container is on.
const LINGER: Duration = Duration::from_secs(10);
/// How long the last containers may take to leave when all is given up.
const GOODBYE: Duration = Duration::from_secs(5);
/// The pause between two looks whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// Networks this process has asked for.
static MADE: AtomicU64 = AtomicU64::new(1);

/// Which engine, by where it is in memory: it stays there as long as its host; and whose containers.
type Key = (usize, String);

/// The networks of one worker.
#[derive(Default)]
pub(super) struct Networks {
    known: Arc<Mutex<HashMap<Key, Arc<Network>>>>,
}

struct Network {
    key: Key,
    engine: Arc<dyn ContainerEngine>,
    /// Its name once it was made; locked by whoever makes or removes it.
    name: tokio::sync::Mutex<Option<String>>,
    /// Containers that are on it, or are about to be.
    users: AtomicUsize,
}

/// A container's place on a network. While it is held the network stays.
pub(super) struct Membership {
    network: Arc<Network>,
    known: Arc<Mutex<HashMap<Key, Arc<Network>>>>,
    /// What to call it for the engine; `None` where that has no such networks.
    pub(super) name: Option<String>,
}

impl Networks {
    /// A place on the network of `run`, which is made when there is none. `labels` say whose it is.
    ///
    /// # Errors
    /// When the engine can't make one.
    pub(super) async fn join(
        &self,
        engine: &Arc<dyn ContainerEngine>,
        run: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Membership, ContainerError> {
        let key = (Arc::as_ptr(engine).cast::<()>().addr(), run.to_owned());
        let network = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let network = known.entry(key.clone()).or_insert_with(|| {
                Arc::new(Network {
                    key,
                    engine: Arc::clone(engine),
                    name: tokio::sync::Mutex::default(),
                    users: AtomicUsize::new(0),
                })
            });
            network.users.fetch_add(1, Ordering::Relaxed);
            Arc::clone(network)
        };
        let mut member = Membership { network, known: Arc::clone(&self.known), name: None };
        // In a task of its own: whoever gives up waiting leaves none that nobody knows.
        let made = {
            let network = Arc::clone(&member.network);
            tokio::spawn(async move { network.made(labels).await })
        };
        let made = match made.await {
            Ok(Err(ContainerError::Refused { .. })) if self.remove_idle().await > 0 => {
                // There are only so many on a machine.
                member.network.made(BTreeMap::new()).await
            }
            Ok(made) => made,
            Err(broken) => Err(ContainerError::Refused { what: "make a network", message: broken.to_string() }),
        };
        member.name = made?;
        Ok(member)
    }

    /// Removes those that no container is on; how many those were.
    async fn remove_idle(&self) -> usize {
        let all: Vec<_> = self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut removed = 0;
        for network in all {
            removed += usize::from(remove_if_idle(&self.known, &network).await);
        }
        removed
    }

    /// Removes all, once their last containers are gone.
    pub(super) async fn close(&self) {
        let deadline = Instant::now() + GOODBYE;
        loop {
            self.remove_idle().await;
            let left = self.known.lock().unwrap_or_else(PoisonError::into_inner).len();
            if left == 0 {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(networks = left, "networks of containers stay behind: containers are still on them");
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Network {
    async fn made(&self, mut labels: BTreeMap<String, String>) -> Result<Option<String>, ContainerError> {
        let mut name = self.name.lock().await;
        if name.is_none() {
            let owner = Owner::this();
            labels.extend(owner.as_ref().map(|owner| (OWNER.to_owned(), owner.mark())));
            let process = owner.map_or_else(|| std::process::id().to_string(), |owner| owner.short());
            let wanted = format!("executr-{process}-{}", MADE.fetch_add(1, Ordering::Relaxed));
            *name = self.engine.make_network(&wanted, labels).await?.then_some(wanted);
        }
        Ok(name.clone())
    }
}

impl Membership {
    /// What a container is told of it, whom others find there under `aliases`.
    pub(super) fn attached(&self, aliases: Vec<String>) -> Option<Attached> {
        self.name.clone().map(|network| Attached { network, aliases })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let is_last = self.network.users.fetch_sub(1, Ordering::Relaxed) == 1;
        if let (true, Ok(runtime)) = (is_last, tokio::runtime::Handle::try_current()) {
            let (known, network) = (Arc::clone(&self.known), Arc::clone(&self.network));
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                remove_if_idle(&known, &network).await;
            });
        }
    }
}

/// Whether it was removed, since no container is on it.
async fn remove_if_idle(known: &Mutex<HashMap<Key, Arc<Network>>>, network: &Arc<Network>) -> bool {
    let mut name = network.name.lock().await;
    {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = known.get(&network.key).is_some_and(|found| Arc::ptr_eq(found, network));
        if !is_known || network.users.load(Ordering::Relaxed) > 0 {
            return false;
        }
        // Whoever comes now makes another.
        known.remove(&network.key);
    }
    let Some(name) = name.take() else { return false };
    let deadline = Instant::now() + GOODBYE;
    loop {
        match network.engine.remove_network(&name).await {
            Ok(()) => return true,
            // An engine says that a container is gone before that has left its network.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Err(error) => {
                tracing::warn!(network = name, %error, "a network of containers stays behind");
                return false;
            }
        }
    }
}

/// Those of `names` that a container can be found under.
pub(super) fn aliases<'a>(names: impl IntoIterator<Item = Option<&'a String>>) -> Vec<String> {
    let fits = |name: &&String| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && name.len() <= 63
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let mut aliases: Vec<_> = names.into_iter().flatten().filter(fits).cloned().collect();
    aliases.sort();
    aliases.dedup();
    aliases
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::super::engine::{ContainerPlan, Image, Owned};
    use super::super::options::Pull;
    use super::*;

    /// An engine that has networks and nothing else, at most `most`.
    struct Counting {
        networks: Mutex<Vec<String>>,
        most: usize,
    }

    impl Counting {
        fn new(most: usize) -> (Arc<Self>, Arc<dyn ContainerEngine>) {
            let engine = Arc::new(Self { networks: Mutex::default(), most });
            (Arc::clone(&engine), engine)
        }

        fn count(&self) -> usize {
            self.networks.lock().expect("no panic").len()
        }
    }

    #[async_trait]
    impl ContainerEngine for Counting {
        async fn image(&self, _: &str, _: Pull) -> Result<Image, ContainerError> {
            Ok(Image::default())
        }

        async fn start(&self, _: ContainerPlan) -> Result<String, ContainerError> {
            Ok(String::new())
        }

        async fn ended(&self, _: &str) -> Result<i64, ContainerError> {
            Ok(0)
        }

        async fn remove(&self, _: &str) -> Result<(), ContainerError> {
            Ok(())
        }

        async fn labelled(&self, _: &str) -> Result<Vec<Owned>, ContainerError> {
            Ok(Vec::new())
        }

        async fn make_network(&self, name: &str, _: BTreeMap<String, String>) -> Result<bool, ContainerError> {
            let mut networks = self.networks.lock().expect("no panic");
            if networks.len() >= self.most {
                return Err(ContainerError::Refused {
                    what: "make a network",
                    message: "there are too many".to_owned(),
                });
            }
            networks.push(name.to_owned());
            Ok(true)
        }

        async fn remove_network(&self, name: &str) -> Result<(), ContainerError> {
            self.networks.lock().expect("no panic").retain(|found| found != name);
            Ok(())
        }
    }

    async fn join(networks: &Networks, engine: &Arc<dyn ContainerEngine>, run: &str) -> Membership {
        networks.join(engine, run, BTreeMap::new()).await.expect("a network")
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_has_one_network_and_another_run_another() {
        let (counting, engine) = Counting::new(9);
        let networks = Networks::default();
        let (a, b) = tokio::join!(join(&networks, &engine, "a"), join(&networks, &engine, "a"));
        let other = join(&networks, &engine, "b").await;
        assert!(a.name == b.name && a.name != other.name && a.name.is_some());
        assert_eq!(counting.count(), 2);
        drop((a, other));
        tokio::time::sleep(LINGER * 2).await;
        assert_eq!(counting.count(), 1, "one is still used");
        drop(b);
        networks.close().await;
        assert_eq!(counting.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_waits_for_the_next_job_and_makes_room_for_another_run() {
        let (counting, engine) = Counting::new(1);
        let networks = Networks::default();
        let first = join(&networks, &engine, "a").await.name.clone();
        let again = join(&networks, &engine, "a").await;
        assert_eq!(again.name, first, "it was there still");
        assert!(networks.join(&engine, "b", BTreeMap::new()).await.is_err(), "it is in use");
        drop(again);
        let other = join(&networks, &engine, "b").await;
        assert_ne!(other.name, first);
        assert_eq!(counting.count(), 1);
    }

    #[test]
    fn only_what_can_be_a_name_of_a_host_is_one() {
        let names = ["web", "a b", "", "-x", "web", "1.b_c"].map(str::to_owned);
        assert_eq!(aliases(names.iter().map(Some).chain([None])), ["1.b_c", "web"]);
    }
}
