//! Fetching images by Docker's API.

use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use executr_images::Login;
use futures_util::StreamExt;

use super::docker::{Docker, said};
use super::engine::ContainerError;
use super::registries::{Fetching, Source, explained, login, sources};

impl Docker {
    /// Fetches an image from the first place that gives it, and has it under the name it was asked for; what it is to be
    /// called instead where it can't have that.
    pub(super) async fn fetch(&self, how: &Fetching<'_>) -> Result<Option<String>, ContainerError> {
        let failed = |message| ContainerError::Image { image: how.name.to_owned(), message };
        let mut refusals = Vec::new();
        for source in sources(how.name, how.access)? {
            let who = match login(how, &source).await {
                Ok(who) => who,
                Err(problem) => {
                    refusals.push(problem);
                    continue;
                }
            };
            match self.fetch_from(&source, &who).await {
                Ok(()) if source.is_mirror && source.is_digest() => return Ok(Some(source.exact())),
                Ok(()) if source.is_mirror => {
                    self.rename(&source, how.name).await?;
                    return Ok(None);
                }
                Ok(()) => return Ok(None),
                Err(problem) => {
                    if source.is_mirror {
                        tracing::warn!(image = how.name, problem, "a mirror doesn't have an image");
                    }
                    refusals.push(explained(&source, &who, &problem));
                }
            }
        }
        Err(failed(refusals.join("; ")))
    }

    async fn fetch_from(&self, source: &Source, who: &Login) -> Result<(), String> {
        // What no registry stands before is Docker's own; Podman may look for short names elsewhere.
        let options = CreateImageOptionsBuilder::new().from_image(&source.name()).tag(&source.version);
        let mut told = self.client.create_image(Some(options.build()), None, credentials(source, who));
        while let Some(told) = told.next().await {
            let told = told.map_err(|error| said(&error))?;
            if let Some(problem) = told.error_detail.and_then(|detail| detail.message) {
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Gives what came from a mirror the name it was asked for by.
    async fn rename(&self, source: &Source, name: &str) -> Result<(), ContainerError> {
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (name, "latest"),
        };
        let from = source.exact();
        let as_asked = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        let tagged = self.client.tag_image(&from, Some(as_asked)).await;
        tagged.map_err(|error| ContainerError::Image { image: name.to_owned(), message: said(&error) })?;
        // The name only: the image has another now.
        let only_the_name = RemoveImageOptionsBuilder::new().noprune(true).build();
        if let Err(error) = self.client.remove_image(&from, Some(only_the_name), None).await {
            tracing::debug!(image = from, %error, "the name of a mirror stays");
        }
        Ok(())
    }
}

fn credentials(source: &Source, who: &Login) -> Option<DockerCredentials> {
    // What Docker calls its own registry.
    let address = if source.host == "docker.io" { "https://index.docker.io/v1/" } else { &source.host };
    let known = DockerCredentials { serveraddress: Some(address.to_owned()), ..DockerCredentials::default() };
    match who {
        Login::Anonymous => None,
        Login::Password { username, password } => {
            Some(DockerCredentials { username: Some(username.clone()), password: Some(password.clone()), ..known })
        }
        Login::IdentityToken(token) => Some(DockerCredentials { identitytoken: Some(token.clone()), ..known }),
    }
}
