//! Where an image may be had.

use std::time::Duration;

use bytes::Bytes;
use executr_spec::Digest;
use futures_util::StreamExt as _;
use oci_client::client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use tokio::sync::mpsc;

use super::failure::RegistryError;
use super::manifest::{Descriptor, media_type};
use crate::access::{Access, AccessError, Login};
use crate::error::ImageError;
use crate::progress::{Progress, Update};
use crate::reference::{Reference, oci_digest};

/// No manifest and no configuration is longer.
pub(crate) const MOST_DESCRIPTION: u64 = 8 << 20;

/// How long a registry may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECTING: Duration = Duration::from_secs(15);

/// How often one place is asked for one blob, when the connection breaks.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);

/// A repository at a registry, or at a mirror of it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) repository: oci_client::Reference,
    auth: RegistryAuth,
}

/// All places an image may be had from, in the order in which they are asked.
pub(crate) struct Sources {
    client: Client,
    places: Vec<Place>,
}

impl Sources {
    /// Of one image. Looks up credentials, which may wait for a helper.
    pub(crate) async fn of(reference: &Reference, access: &Access) -> Result<Self, ImageError> {
        let (reference, access) = (reference.clone(), access.clone());
        // A credential helper is a program, and certificates are files.
        let opened = tokio::task::spawn_blocking(move || Self::open(&reference, &access)).await;
        opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn open(reference: &Reference, access: &Access) -> Result<Self, ImageError> {
        let registry = reference.registry();
        let mut places = Vec::new();
        let mut plain = Vec::new();
        for mirror in access.mirrors_of(registry) {
            let repository = reference.elsewhere(&mirror.host, &mirror.prefix);
            let auth = auth(&access.login(&mirror.host, repository.repository())?, &mirror.host)?;
            if access.is_plain(&mirror.host) {
                plain.push(mirror.host.clone());
            }
            places.push(Place { host: mirror.host.clone(), repository, auth });
        }
        if access.is_plain(registry) {
            plain.push(registry.to_owned());
        }
        let auth = auth(&access.login(registry, reference.repository())?, registry)?;
        places.push(Place { host: registry.to_owned(), repository: reference.as_oci().clone(), auth });
        Ok(Self { client: client(access, plain)?, places })
    }

    /// The registry itself, for who writes to it.
    pub(crate) fn registry(&self) -> &Place {
        &self.places[self.places.len() - 1]
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Makes oneself known at a place.
    pub(crate) async fn log_in(&self, place: &Place, operation: RegistryOperation) -> Result<(), RegistryError> {
        let answer = self.client.auth(&place.repository, &place.auth, operation).await;
        answer.map(drop).map_err(|error| RegistryError::new(&place.host, "let us in", &error))
    }

    /// A manifest or an index, from the first place that gives it: its bytes and their digest.
    pub(crate) async fn manifest(
        &self,
        at: Option<Digest>,
        progress: &dyn Progress,
    ) -> Result<(Bytes, Digest), RegistryError> {
        let mut failed = Vec::new();
        for place in &self.places {
            match self.manifest_at(place, at).await {
                Ok(found) => return Ok(found),
                Err(error) => tell(progress, &mut failed, error),
            }
        }
        Err(last(failed))
    }

    async fn manifest_at(&self, place: &Place, at: Option<Digest>) -> Result<(Bytes, Digest), RegistryError> {
        let named = match at {
            Some(digest) => place.repository.clone_with_digest(oci_digest(digest)),
            None => place.repository.clone(),
        };
        let asked = format!("give the manifest of {}", named.whole());
        self.log_in(place, RegistryOperation::Pull).await?;
        let given = self.client.pull_manifest_raw(&named, &place.auth, &media_type::ALL).await;
        let (bytes, _) = given.map_err(|error| RegistryError::new(&place.host, &asked, &error))?;
        if bytes.len() as u64 > MOST_DESCRIPTION {
            let why = format!("it has {} bytes, more than {MOST_DESCRIPTION}", bytes.len());
            return Err(RegistryError::nonsense(&place.host, &asked, why));
        }
        let found = Digest::of(&bytes);
        let wanted = named.digest().and_then(crate::reference::parse_digest);
        if wanted.is_some_and(|wanted| wanted != found) {
            let why = format!("what it gives has the digest sha256:{found}");
            return Err(RegistryError::nonsense(&place.host, &asked, why));
        }
        Ok((bytes, found))
    }

    /// A small blob as a whole, verified.
    pub(crate) async fn description(&self, blob: &Descriptor, progress: &dyn Progress) -> Result<Bytes, RegistryError> {
        let asked = format!("give the blob {}", oci_digest(blob.digest));
        let host = &self.registry().host;
        if blob.size > MOST_DESCRIPTION {
            let why = format!("it has {} bytes, more than {MOST_DESCRIPTION}", blob.size);
            return Err(RegistryError::nonsense(host, &asked, why));
        }
        let (sender, mut receiver) = mpsc::channel(4);
        let mut bytes = Vec::new();
        let gather = async {
            while let Some(more) = receiver.recv().await {
                let more: Bytes = more;
                bytes.extend_from_slice(&more);
            }
        };
        let (brought, ()) = tokio::join!(self.blob(blob, sender, progress), gather);
        brought?;
        let found = Digest::of(&bytes);
        if found != blob.digest {
            let why = format!("what it gives has the digest sha256:{found}");
            return Err(RegistryError::nonsense(host, &asked, why));
        }
        Ok(bytes.into())
    }

    /// The bytes of a blob, in order, from the first place that gives them; when a connection breaks they go on where they
    /// were. They are not verified here, but never more than they should be. Ends early, and well, when nobody receives.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        into: mpsc::Sender<Bytes>,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let asked = format!("give the blob {}", oci_digest(blob.digest));
        let mut offset = 0;
        let mut failed = Vec::new();
        for place in &self.places {
            if let Err(error) = self.log_in(place, RegistryOperation::Pull).await {
                tell(progress, &mut failed, error);
                continue;
            }
            for again in 1..=TRIES {
                match self.blob_at(place, blob, &asked, &mut offset, &into, progress).await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        let is_passing = error.is_passing;
                        tell(progress, &mut failed, error);
                        if !is_passing {
                            break;
                        }
                        tokio::time::sleep(PAUSE * again).await;
                    }
                }
            }
        }
        Err(last(failed))
    }

    async fn blob_at(
        &self,
        place: &Place,
        blob: &Descriptor,
        asked: &str,
        offset: &mut u64,
        into: &mpsc::Sender<Bytes>,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let descriptor = OciDescriptor { digest: oci_digest(blob.digest), ..OciDescriptor::default() };
        let answer = self.client.pull_blob_stream_partial(&place.repository, &descriptor, *offset, None).await;
        let (mut stream, mut passed_over) =
            match answer.map_err(|error| RegistryError::new(&place.host, asked, &error))? {
                BlobResponse::Full(whole) => (whole.stream, *offset),
                BlobResponse::Partial(rest) => (rest.stream, 0),
            };
        while let Some(more) = stream.next().await {
            let mut more = more.map_err(|error| RegistryError::cut(&place.host, asked, &error))?;
            let over = passed_over.min(more.len() as u64);
            passed_over -= over;
            drop(more.split_to(usize::try_from(over).unwrap_or(more.len())));
            *offset += more.len() as u64;
            progress.update(Update::Moved { layer: blob.digest, bytes: more.len() as u64 });
            if *offset > blob.size {
                let why = format!("it gives more than the {} bytes it should have", blob.size);
                return Err(RegistryError::nonsense(&place.host, asked, why));
            }
            if !more.is_empty() && into.send(more).await.is_err() {
                return Ok(());
            }
        }
        if *offset < blob.size {
            let short = std::io::Error::other(format!("it ended after {offset} of {} bytes", blob.size));
            return Err(RegistryError::cut(&place.host, asked, &short));
        }
        Ok(())
    }
}

fn tell(progress: &dyn Progress, failed: &mut Vec<RegistryError>, error: RegistryError) {
    progress.update(Update::Again { why: &error.to_string() });
    failed.push(error);
}

/// The failure of the registry itself, after those of its mirrors.
fn last(mut failed: Vec<RegistryError>) -> RegistryError {
    let last = failed
        .pop()
        .unwrap_or_else(|| RegistryError::nonsense("nobody", "answer", "there is no place to ask".to_owned()));
    failed.retain(|error| error.registry != last.registry);
    failed.dedup_by(|one, other| one.registry == other.registry);
    last.after(&failed)
}

fn auth(login: &Login, registry: &str) -> Result<RegistryAuth, AccessError> {
    match login {
        Login::Anonymous => Ok(RegistryAuth::Anonymous),
        Login::Password { username, password } => Ok(RegistryAuth::Basic(username.clone(), password.clone())),
        Login::IdentityToken(_) => Err(AccessError::IdentityToken { registry: registry.to_owned() }),
    }
}

fn client(access: &Access, plain: Vec<String>) -> Result<Client, AccessError> {
    // Whoever came first has chosen.
    drop(rustls::crypto::ring::default_provider().install_default());
    let authorities = access.certificates()?.into_iter();
    let config = ClientConfig {
        protocol: ClientProtocol::HttpsExcept(plain),
        use_monolithic_push: true,
        extra_root_certificates: authorities
            .map(|data| Certificate { encoding: CertificateEncoding::Der, data })
            .collect(),
        platform_resolver: None,
        read_timeout: Some(SILENCE),
        connect_timeout: Some(CONNECTING),
        user_agent: concat!("executr/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| AccessError::Tls { why: error.to_string() })
}
