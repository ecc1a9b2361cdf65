//! TLS to the database, as libpq's `sslmode` and `sslrootcert` ask for it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::StoreError;

/// What `sslrootcert` names when it is not a file: the authorities that this system trusts.
const SYSTEM: &str = "system";

/// How much a connection has to be protected: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// No TLS.
    Disable,
    /// TLS when the server speaks it, with whomever it is.
    #[default]
    Prefer,
    /// TLS with whomever it is.
    Require,
    /// TLS with a server whose certificate comes from a trusted authority.
    VerifyCa,
    /// The same, and the certificate is for the host that was asked for.
    VerifyFull,
}

impl FromStr for Mode {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(StoreError::Config(format!(
                    "sslmode `{text}` in the database URL; write disable, prefer, require, verify-ca or verify-full"
                )));
            }
        })
    }
}

impl From<Mode> for SslMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Disable => Self::Disable,
            Mode::Prefer => Self::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => Self::Require,
        }
    }
}

/// What speaks TLS with a server in this mode. `root` is `sslrootcert`: a PEM file, or `system`; without it the system's
/// authorities are trusted, where any are asked for.
pub(super) fn connector(mode: Mode, root: Option<&str>) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(ring::default_provider());
    let trust = match (mode, root) {
        (Mode::Disable | Mode::Prefer, _) | (Mode::Require, None) => Trust::Anyone,
        (Mode::VerifyFull, None | Some(SYSTEM)) => return system(provider),
        (Mode::Require | Mode::VerifyCa, Some(SYSTEM)) | (Mode::VerifyCa, None) => {
            return Err(StoreError::Config(
                "the database URL asks for any certificate of the system's authorities, which anybody can get; name the \
                 server's own authority with sslrootcert=FILE, or write sslmode=verify-full"
                    .to_owned(),
            ));
        }
        // As in libpq: whoever names an authority means it.
        (Mode::Require | Mode::VerifyCa, Some(file)) => Trust::Authority(Authority::read(Path::new(file))?),
        (Mode::VerifyFull, Some(file)) => Trust::AuthorityAndName(Authority::read(Path::new(file))?),
    };
    settings(provider.clone(), Arc::new(ByTrust { trust, provider }))
}

fn system(provider: Arc<CryptoProvider>) -> Result<MakeRustlsConnect, StoreError> {
    let verifier = Verifier::new(provider.clone()).map_err(|error| {
        StoreError::Config(format!(
            "this system's certificate authorities can't be read: {error}; install `ca-certificates` or name the \
             database's authority with sslrootcert=FILE"
        ))
    })?;
    settings(provider, Arc::new(verifier))
}

fn settings(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<MakeRustlsConnect, StoreError> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Config(format!("TLS can't be set up: {error}")))?;
    Ok(MakeRustlsConnect::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Whose certificates are good.
#[derive(Debug)]
enum Trust {
    Anyone,
    Authority(Authority),
    AuthorityAndName(Authority),
}

/// The certificates of a file.
struct Authority {
    roots: RootCertStore,
    /// One of these is good by itself: certificates made by hand are often their own authority, which webpki takes from
    /// no server.
    itself: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.itself.len()).finish()
    }
}

impl Authority {
    fn read(path: &Path) -> Result<Self, StoreError> {
        let wrong =
            |why: String| StoreError::Config(format!("sslrootcert in the database URL: {}: {why}", path.display()));
        let itself = CertificateDer::pem_file_iter(path)
            .map_err(|error| wrong(format!("can't be read: {error}")))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(format!("is not a PEM file: {error}")))?;
        let mut roots = RootCertStore::empty();
        for certificate in &itself {
            roots
                .add(certificate.clone())
                .map_err(|error| wrong(format!("holds a certificate that can't be used: {error}")))?;
        }
        if roots.is_empty() {
            return Err(wrong("holds no certificate; give a PEM file with `-----BEGIN CERTIFICATE-----`".to_owned()));
        }
        Ok(Self { roots, itself })
    }
}

#[derive(Debug)]
struct ByTrust {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (authority, with_name) = match &self.trust {
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
            Trust::Authority(authority) => (authority, false),
            Trust::AuthorityAndName(authority) => (authority, true),
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if !authority.itself.contains(end_entity) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, &authority.roots, intermediates, now, algorithms)?;
        }
        if with_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mode: Mode, root: Option<&str>) -> String {
        connector(mode, root).err().expect("it can't work").to_string()
    }

    #[test]
    fn what_would_protect_nobody_is_refused_with_a_remedy() {
        for (mode, root) in [(Mode::VerifyCa, None), (Mode::VerifyCa, Some(SYSTEM)), (Mode::Require, Some(SYSTEM))] {
            assert!(refused(mode, root).contains("write sslmode=verify-full"), "{mode:?}");
        }
        assert!(
            refused(Mode::VerifyFull, Some("/nonexistent/root.pem")).contains("/nonexistent/root.pem: can't be read")
        );
        assert!(refused(Mode::Require, Some("/dev/null")).contains("holds no certificate"));
        let error = "allow".parse::<Mode>().expect_err("no such mode").to_string();
        assert!(error.contains("`allow`") && error.contains("verify-full"), "{error}");
    }

    #[test]
    fn no_file_is_read_where_nobody_is_verified() {
        for mode in [Mode::Disable, Mode::Prefer] {
            assert!(connector(mode, Some("/nonexistent/root.pem")).is_ok(), "{mode:?}");
        }
    }
}
