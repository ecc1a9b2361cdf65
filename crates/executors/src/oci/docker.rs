//! An engine that speaks Docker's API on a Unix socket: Docker itself, and Podman's service.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount as BindMount, MountType,
    NetworkCreateRequest, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use bytes::Bytes;
use executr_images::Access;
use futures_util::StreamExt;

use super::engine::{CAPABILITIES, ContainerEngine, ContainerError, ContainerPlan, Image, Mount, Owned};
use super::options::{Pull, RegistryLogin};
use super::registries::Fetching;

/// Seconds an answer may take to begin: a container of a busy machine takes a while to start.
const PATIENCE: u64 = 120;

/// The connection.
pub(super) struct Docker {
    pub(super) client: bollard::Docker,
    is_podman: bool,
    access: Access,
}

impl Docker {
    /// Connects, and agrees on the API's version. Registries are reached by `access`.
    pub(super) async fn connect(socket: &Path, access: Access) -> Result<Self, String> {
        let address = socket.to_str().ok_or("its path is no text")?;
        let client = bollard::Docker::connect_with_unix(address, PATIENCE, bollard::API_DEFAULT_VERSION);
        let client = client.map_err(|error| error.to_string())?;
        let client = client.negotiate_version().await.map_err(|error| said(&error))?;
        let version = client.version().await.map_err(|error| said(&error))?;
        let is_podman = version.components.unwrap_or_default().iter().any(|part| part.name.contains("Podman"));
        Ok(Self { client, is_podman, access })
    }

    async fn inspect(&self, name: &str) -> Result<Option<Image>, ContainerError> {
        match self.client.inspect_image(name).await {
            Ok(found) => {
                let config = found.config.unwrap_or_default();
                let env = config.env.unwrap_or_default().into_iter().map(Bytes::from).collect();
                Ok(Some(Image { user: config.user.unwrap_or_default(), env, called: None }))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(ContainerError::Image { image: name.to_owned(), message: said(&error) }),
        }
    }
}

#[async_trait]
impl ContainerEngine for Docker {
    async fn image(&self, name: &str, pull: Pull) -> Result<Image, ContainerError> {
        self.image_for(name, pull, None).await
    }

    async fn image_for(&self, name: &str, pull: Pull, login: Option<&RegistryLogin>) -> Result<Image, ContainerError> {
        if pull != Pull::Always
            && let Some(image) = self.inspect(name).await?
        {
            return Ok(image);
        }
        let missing = |message: &str| ContainerError::Image { image: name.to_owned(), message: message.to_owned() };
        if pull == Pull::Never {
            return Err(missing("the engine doesn't have it, and `pull: never` forbids to fetch it"));
        }
        let instead = self.fetch(&Fetching { name, access: &self.access, login }).await?;
        let found = self.inspect(instead.as_deref().unwrap_or(name)).await?;
        found.map(|image| Image { called: instead, ..image }).ok_or_else(|| missing("it was fetched, and isn't there"))
    }

    async fn start(&self, plan: ContainerPlan) -> Result<String, ContainerError> {
        let name = CreateContainerOptionsBuilder::new().name(&plan.name).build();
        let created = self.client.create_container(Some(name), body(plan)).await;
        let id = created.map_err(|error| refused("make the container", &error))?.id;
        match self.client.start_container(&id, None).await {
            Ok(()) => Ok(id),
            Err(error) => {
                // Whatever comes of this, the first error is the one to tell.
                if let Err(error) = self.remove(&id).await {
                    tracing::warn!(container = id, %error, "a container that can't be started stays");
                }
                Err(refused("start the container", &error))
            }
        }
    }

    async fn ended(&self, id: &str) -> Result<i64, ContainerError> {
        match self.client.wait_container(id, None).next().await {
            Some(Ok(ended)) => Ok(ended.status_code),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(refused("say how the container ended", &error)),
            None => {
                Err(ContainerError::Refused { what: "say how the container ended", message: "it broke off".to_owned() })
            }
        }
    }

    async fn remove(&self, id: &str) -> Result<(), ContainerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.client.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) || is_going(&error) => Ok(()),
            Err(error) => Err(refused("remove the container", &error)),
        }
    }

    async fn labelled(&self, label: &str) -> Result<Vec<Owned>, ContainerError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.client.list_containers(Some(options)).await;
        let found = found.map_err(|error| refused("list containers", &error))?;
        let owned = found.into_iter().filter_map(|mut found| {
            let owner = found.labels.as_mut()?.remove(label)?;
            Some(Owned { id: found.id?, owner })
        });
        Ok(owned.collect())
    }

    async fn make_network(&self, name: &str, labels: BTreeMap<String, String>) -> Result<bool, ContainerError> {
        let network = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.into_iter().collect()),
            // Docker keeps its networks apart in any case.
            options: self.is_podman.then(|| HashMap::from([("isolate".to_owned(), "true".to_owned())])),
            ..NetworkCreateRequest::default()
        };
        match self.client.create_network(network).await {
            Ok(_) => Ok(true),
            Err(error) => {
                let message = format!(
                    "{}; say `network: none` or `host` where jobs need none of their own, remove networks nobody uses \
                     (`docker network prune`), or give the engine more addresses (`default-address-pools`)",
                    said(&error)
                );
                Err(ContainerError::Refused { what: "make a network for the run", message })
            }
        }
    }

    async fn remove_network(&self, name: &str) -> Result<(), ContainerError> {
        match self.client.remove_network(name).await {
            Err(error) if !is_missing(&error) => Err(refused("remove the network", &error)),
            _ => Ok(()),
        }
    }

    async fn labelled_networks(&self, label: &str) -> Result<Vec<Owned>, ContainerError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self.client.list_networks(Some(options)).await;
        let found = found.map_err(|error| refused("list networks", &error))?;
        let owned = found.into_iter().filter_map(|mut found| {
            let owner = found.labels.as_mut()?.remove(label)?;
            Some(Owned { id: found.name?, owner })
        });
        Ok(owned.collect())
    }
}

fn body(plan: ContainerPlan) -> ContainerCreateBody {
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let bound = |bound: u64| (bound > 0).then(|| i64::try_from(bound).unwrap_or(i64::MAX));
    let network = plan.attached.as_ref().map_or_else(|| plan.network.as_str().to_owned(), |own| own.network.clone());
    let networking = plan.attached.map(|own| {
        let place = EndpointSettings { aliases: Some(own.aliases), ..EndpointSettings::default() };
        NetworkingConfig { endpoints_config: Some(HashMap::from([(own.network, place)])) }
    });
    let host = HostConfig {
        // It goes by itself once its agent has ended: what SIGKILL leaves of us doesn't stay for long.
        auto_remove: Some(true),
        cap_drop: words(&["ALL"]),
        cap_add: words(&CAPABILITIES),
        security_opt: words(&["no-new-privileges"]),
        mounts: Some(plan.mounts.into_iter().map(bind).collect()),
        tmpfs: Some(plan.tmpfs.into_iter().collect()),
        network_mode: Some(network),
        nano_cpus: bound(plan.nano_cpus),
        memory: bound(plan.memory),
        // Without it as much again could be swapped out.
        memory_swap: bound(plan.memory),
        pids_limit: bound(plan.pids.into()),
        readonly_rootfs: Some(plan.read_only),
        // Output goes through the agent, so what the engine would keep is nothing.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(plan.image),
        entrypoint: Some(plan.command),
        cmd: Some(Vec::new()),
        // The agent; who runs steps is its business.
        user: Some("0:0".to_owned()),
        working_dir: Some("/".to_owned()),
        labels: Some(plan.labels.into_iter().collect()),
        host_config: Some(host),
        networking_config: networking,
        ..ContainerCreateBody::default()
    }
}

fn bind(mount: Mount) -> BindMount {
    BindMount {
        source: Some(mount.source.display().to_string()),
        target: Some(mount.target.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        ..BindMount::default()
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

/// Somebody else removes it already: the engine itself, once its agent has ended.
fn is_going(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 409, message } if message.contains("in progress"))
}

/// What the engine said, without what the client puts around it.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(deeper) = cause {
                text = format!("{text}: {deeper}");
                cause = deeper.source();
            }
            text
        }
    }
}

fn refused(what: &'static str, error: &Error) -> ContainerError {
    ContainerError::Refused { what, message: said(error) }
}
