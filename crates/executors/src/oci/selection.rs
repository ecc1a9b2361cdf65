//! Which engine makes a container: the one that was named, or the first that can do all that is asked of it.

use std::sync::Arc;

use super::direct::can_become;
use super::engine::{ContainerEngine, ContainerError, Image};
use super::host::OciHost;
use super::options::{Network, Pull, RegistryLogin};

/// What is asked of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// What the settings say of it: a word, or an address.
    pub(super) engine: Option<&'a str>,
    /// What containers are made of; `None` is this machine's own files.
    pub(super) image: Option<&'a str>,
    pub(super) pull: Pull,
    pub(super) network: Network,
    /// As whom steps run, where that was said.
    pub(super) user: Option<&'a str>,
    /// Who one is at the image's registry, where that was said.
    pub(super) login: Option<&'a RegistryLogin>,
    /// A bound that processes of this machine can't have, and why.
    pub(super) refused_limit: Option<String>,
}

/// An engine, and the image as it has it.
pub(super) struct Chosen {
    pub(super) engine: Arc<dyn ContainerEngine>,
    pub(super) image: Image,
}

/// What the settings' `engine` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice<'a> {
    Auto,
    Direct,
    /// The first socket with this in its name.
    Named(&'a str),
    At(&'a str),
}

impl<'a> Choice<'a> {
    fn of(text: Option<&'a str>) -> Self {
        match text {
            None | Some("" | "auto") => Self::Auto,
            Some("direct") => Self::Direct,
            Some(name @ ("docker" | "podman")) => Self::Named(name),
            Some(address) => Self::At(address),
        }
    }
}

/// Whether `engine` leaves to the worker which of its own engines is used, rather than naming another.
#[must_use]
pub fn is_own_engine(engine: Option<&str>) -> bool {
    !matches!(Choice::of(engine), Choice::At(_))
}

impl Wanted<'_> {
    /// What of this no container without a daemon has; `None` when it has everything.
    fn beyond_direct(&self) -> Option<String> {
        if self.network == Network::Bridge && self.image.is_some() {
            return Some(
                "`network: bridge` takes a daemon; say `none` or `host` for containers without one".to_owned(),
            );
        }
        if self.login.is_some() {
            return Some("variables of `registry` take an engine of a socket".to_owned());
        }
        if let Some(reason) = &self.refused_limit {
            return Some(reason.clone());
        }
        can_become(self.user.unwrap_or_default()).err().map(|error| error.to_string())
    }
}

impl OciHost {
    /// The engine for a container, with its image.
    pub(super) async fn choose(&self, wanted: &Wanted<'_>) -> Result<Chosen, ContainerError> {
        match Choice::of(wanted.engine) {
            Choice::At(address) => with_image(self.engine(Some(address)).await?, wanted).await,
            Choice::Named(name) => with_image(self.engine_of(name).await?, wanted).await,
            Choice::Direct => match wanted.beyond_direct() {
                Some(reason) => Err(ContainerError::Settings(format!("`engine: direct` can't do it: {reason}"))),
                None => with_image(self.direct().await?, wanted).await,
            },
            Choice::Auto => self.first(wanted).await,
        }
    }

    /// Direct, Docker, Podman: the first that can.
    async fn first(&self, wanted: &Wanted<'_>) -> Result<Chosen, ContainerError> {
        // Somebody has said which engine this machine's is.
        let named = self.options.address.as_deref().is_some_and(|address| !address.is_empty());
        let mut lacking = if named { Some("DOCKER_HOST names another".to_owned()) } else { wanted.beyond_direct() };
        let mut first_error = None;
        if lacking.is_none() {
            let tried = match self.direct().await {
                Ok(engine) => with_image(engine, wanted).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(chosen) => {
                    tracing::info!(engine = "direct", image = wanted.image, "chose the engine of a container");
                    return Ok(chosen);
                }
                Err(error) => {
                    lacking = Some(error.to_string());
                    first_error = Some(error);
                }
            }
        }
        let chosen = match self.engine(None).await {
            Ok(engine) => with_image(engine, wanted).await,
            Err(error) => Err(error),
        };
        match (chosen, first_error) {
            (Ok(chosen), _) => {
                tracing::info!(
                    engine = "of a socket",
                    not_direct = lacking.unwrap_or_default(),
                    image = wanted.image,
                    "chose the engine of a container"
                );
                Ok(chosen)
            }
            // Where there is no engine besides, what it lacks helps nobody.
            (Err(ContainerError::NoEngine { .. } | ContainerError::NotBuilt), Some(error)) => Err(error),
            (Err(ContainerError::NoEngine { tried }), None) => Err(ContainerError::NoEngine {
                tried: match lacking {
                    Some(reason) => format!("{tried}; and {reason}"),
                    None => tried,
                },
            }),
            (Err(error), _) => Err(error),
        }
    }
}

async fn with_image(engine: Arc<dyn ContainerEngine>, wanted: &Wanted<'_>) -> Result<Chosen, ContainerError> {
    let image = match wanted.image {
        Some(name) => engine.image_for(name, wanted.pull, wanted.login).await?,
        None => Image::default(),
    };
    Ok(Chosen { engine, image })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Wanted<'_> = Wanted {
        engine: None,
        image: Some("i"),
        pull: Pull::Missing,
        network: Network::None,
        user: None,
        login: None,
        refused_limit: None,
    };

    #[test]
    fn words_and_addresses_are_told_apart() {
        for own in [None, Some(""), Some("auto"), Some("direct"), Some("docker"), Some("podman")] {
            assert!(is_own_engine(own), "{own:?}");
        }
        for other in ["unix:///x.sock", "/x.sock", "tcp://h:1", "Docker"] {
            assert!(!is_own_engine(Some(other)), "{other}");
        }
    }

    #[test]
    fn what_takes_a_daemon_is_named() {
        assert_eq!(PLAIN.beyond_direct(), None);
        let bridge = Wanted { network: Network::Bridge, ..PLAIN };
        assert!(bridge.beyond_direct().unwrap().contains("bridge"));
        let bounded = Wanted { refused_limit: Some("no memory limit".to_owned()), ..PLAIN };
        assert_eq!(bounded.beyond_direct().unwrap(), "no memory limit");
    }
}
