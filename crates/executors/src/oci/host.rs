//! What a worker says of containers: where its engine and its agent are. Its engines are connected to when they are first
//! needed, and rid then of what dead processes left in them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::direct::{Direct, DirectOptions};
use super::engine::{ContainerEngine, ContainerError};
use super::networks::Networks;
use super::owner;

/// How many containers may be on their way out before the next job waits for one of them.
const GOING: usize = 8;

/// Where things are on this machine.
#[derive(Clone, Debug, Default)]
pub struct OciHostOptions {
    /// The engine's address, `unix:///PATH`; `$DOCKER_HOST` as a rule.
    pub address: Option<String>,
    /// Sockets to try when there is none.
    pub sockets: Vec<PathBuf>,
    /// The agent.
    pub agent: AgentProgram,
    /// How engines that fetch images themselves reach registries.
    #[cfg(feature = "oci")]
    pub access: executr_images::Access,
    /// What containers without a daemon take; there are none without.
    pub direct: Option<DirectOptions>,
    /// More that every container can read, at the same path: where fetched programs are kept.
    pub programs: Option<PathBuf>,
}

/// The agent's program on this machine, unpacked or looked for when it is first needed.
#[derive(Clone)]
pub struct AgentProgram(Arc<Agent>);

type Find = dyn Fn() -> Result<PathBuf, String> + Send + Sync;

struct Agent {
    /// Once it was found: unpacking takes longer than starting a container.
    path: OnceLock<PathBuf>,
    find: Box<Find>,
}

impl AgentProgram {
    /// One that `find` finds, or says why not and what to do.
    pub fn new(find: impl Fn() -> Result<PathBuf, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Agent { path: OnceLock::new(), find: Box::new(find) }))
    }

    pub(super) fn path(&self) -> Result<PathBuf, ContainerError> {
        self.find().map_err(ContainerError::NoAgent)
    }

    /// Its path, or why there is none.
    pub(crate) fn find(&self) -> Result<PathBuf, String> {
        if let Some(path) = self.0.path.get() {
            return Ok(path.clone());
        }
        let path = (self.0.find)()?;
        Ok(self.0.path.get_or_init(|| path).clone())
    }
}

impl Default for AgentProgram {
    fn default() -> Self {
        Self::new(|| Err("nobody has said where it is".to_owned()))
    }
}

impl fmt::Debug for AgentProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentProgram")
    }
}

/// An engine, connected to by whoever needs it first. Another one doesn't wait for that.
type Connection = OnceCell<Arc<dyn ContainerEngine>>;

/// A worker's engines.
#[derive(Default)]
pub struct OciHost {
    pub(super) options: OciHostOptions,
    engines: Mutex<HashMap<Option<String>, Arc<Connection>>>,
    pub(super) networks: Networks,
    /// Containers on their way out.
    going: tokio::sync::Mutex<JoinSet<()>>,
}

impl OciHost {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(options: OciHostOptions) -> Self {
        Self { options, engines: Mutex::default(), networks: Networks::default(), going: tokio::sync::Mutex::default() }
    }

    /// Has something go on without anybody who waits for it, but for [`settle`](Self::settle).
    pub(super) async fn let_go(&self, going: impl Future<Output = ()> + Send + 'static) {
        let mut all = self.going.lock().await;
        while all.try_join_next().is_some() {}
        while all.len() >= GOING {
            all.join_next().await;
        }
        all.spawn(going);
    }

    /// Waits until all containers that were let go of are gone, and lets go of what they had together. None may be in use.
    pub async fn settle(&self) {
        {
            let mut all = self.going.lock().await;
            while all.join_next().await.is_some() {}
        }
        self.networks.close().await;
    }

    /// The engine at `address`, or this machine's own.
    ///
    /// # Errors
    /// When none answers.
    pub async fn engine(&self, address: Option<&str>) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        self.connected(address, async { self.connect(&self.addresses(address)?).await }).await
    }

    /// The engine of this name, which `connecting` makes when it is first asked for, rid of what dead processes left in it.
    async fn connected(
        &self,
        name: Option<&str>,
        connecting: impl Future<Output = Result<Arc<dyn ContainerEngine>, ContainerError>>,
    ) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        let connection = {
            let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(engines.entry(name.map(str::to_owned)).or_default())
        };
        let connected = connection.get_or_try_init(|| async {
            let engine = connecting.await?;
            if let Err(error) = owner::sweep(engine.as_ref()).await {
                tracing::warn!(%error, "what dead processes left in the container engine stays there");
            }
            Ok(engine)
        });
        connected.await.map(Arc::clone)
    }

    /// The engine that is no daemon.
    ///
    /// # Errors
    /// When this machine lacks what it takes.
    pub async fn direct(&self) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        self.connected(Some("direct"), self.unswept_direct()).await
    }

    /// The same, with all that dead processes left.
    pub(super) async fn unswept_direct(&self) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        let options = self.options.direct.clone().ok_or_else(|| ContainerError::NoEngine {
            tried: "this worker has no place for containers without a daemon".to_owned(),
        })?;
        let engine = Direct::open(options, self.options.agent.path()?).await?;
        Ok(Arc::new(engine))
    }

    /// The engine at the first socket that bears this name.
    pub(super) async fn engine_of(&self, name: &str) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        let is_of = |socket: &&PathBuf| socket.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        let mut tried = Vec::new();
        for socket in self.options.sockets.iter().filter(is_of) {
            match self.engine(socket.to_str()).await {
                Err(ContainerError::NoEngine { tried: problem }) => tried.push(problem),
                engine => return engine,
            }
        }
        let tried = if tried.is_empty() { format!("there is no socket of {name} to try") } else { tried.join("; ") };
        Err(ContainerError::NoEngine { tried })
    }

    /// This machine's own engine, with all that dead processes left in it.
    pub(super) async fn unswept(&self) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        self.connect(&self.addresses(None)?).await
    }

    /// The sockets to try, in order.
    fn addresses(&self, address: Option<&str>) -> Result<Vec<PathBuf>, ContainerError> {
        match address.or(self.options.address.as_deref()).filter(|address| !address.is_empty()) {
            None => Ok(self.options.sockets.clone()),
            Some(address) => {
                let path = address.strip_prefix("unix://").unwrap_or(address);
                if !path.starts_with('/') {
                    return Err(ContainerError::Elsewhere { address: address.to_owned() });
                }
                Ok(vec![path.into()])
            }
        }
    }
}

impl OciHost {
    #[cfg(feature = "oci")]
    async fn connect(&self, sockets: &[PathBuf]) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        let mut tried = Vec::new();
        for socket in sockets {
            match super::docker::Docker::connect(socket, self.options.access.clone()).await {
                Ok(engine) => return Ok(Arc::new(engine)),
                Err(problem) => tried.push(format!("{}: {problem}", socket.display())),
            }
        }
        let tried = if tried.is_empty() { "there is no socket to try".to_owned() } else { tried.join("; ") };
        Err(ContainerError::NoEngine { tried })
    }

    #[cfg(not(feature = "oci"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    async fn connect(&self, _sockets: &[PathBuf]) -> Result<Arc<dyn ContainerEngine>, ContainerError> {
        Err(ContainerError::NotBuilt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "oci")]
    #[tokio::test]
    async fn an_engine_that_never_answers_holds_up_no_other() {
        let temp = tempfile::tempdir().expect("a directory");
        let silent = temp.path().join("silent.sock");
        let _listens = tokio::net::UnixListener::bind(&silent).expect("a socket");
        let host = Arc::new(OciHost::default());
        let asked = {
            let (host, silent) = (Arc::clone(&host), silent.display().to_string());
            tokio::spawn(async move { host.engine(Some(&silent)).await.map(|_| ()) })
        };
        // Whatever the silent one does, the answer of the other is there.
        let other = host.engine(Some("unix:///no/such.sock")).await.err().expect("there is none").to_string();
        assert!(other.contains("/no/such.sock"), "{other}");
        assert!(!asked.is_finished());
        asked.abort();
    }

    #[test]
    fn what_is_named_first_counts() {
        let options = OciHostOptions {
            address: Some("unix:///env.sock".to_owned()),
            sockets: vec!["/a.sock".into()],
            ..OciHostOptions::default()
        };
        let host = OciHost::new(options.clone());
        assert_eq!(host.addresses(Some("unix:///x.sock")).expect("here"), [PathBuf::from("/x.sock")]);
        assert_eq!(host.addresses(Some("/x.sock")).expect("here"), [PathBuf::from("/x.sock")]);
        assert_eq!(host.addresses(None).expect("here"), [PathBuf::from("/env.sock")]);
        let host = OciHost::new(OciHostOptions { address: None, ..options });
        assert_eq!(host.addresses(None).expect("here"), [PathBuf::from("/a.sock")]);
        for elsewhere in ["tcp://127.0.0.1:2375", "ssh://host", "x.sock"] {
            let error = host.addresses(Some(elsewhere)).expect_err(elsewhere).to_string();
            assert!(error.contains(elsewhere) && error.contains("unix://"), "{error}");
        }
    }
}
