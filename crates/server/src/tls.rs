//! The server's side of TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::error::ServerError;
use crate::options::TlsFiles;

/// Reads certificate and key and makes what accepts connections with them.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServerError> {
    let certificates = certificates(&files.cert)?;
    let key = key(&files.key)?;
    let pair = |problem: String| ServerError::TlsPair { cert: files.cert.clone(), key: files.key.clone(), problem };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| pair(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                pair("the key is not that of the first certificate; give the pair that was made together".to_owned())
            }
            other => pair(other.to_string()),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let content = |problem: String| ServerError::TlsContent { path: path.to_owned(), problem };
    let certificates = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(format!("no valid PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(content("it holds no certificate; give a PEM file with `-----BEGIN CERTIFICATE-----`".to_owned()));
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, ServerError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| ServerError::TlsContent {
        path: path.to_owned(),
        problem: format!(
            "it holds no private key ({error}); give a PEM file with `-----BEGIN PRIVATE KEY-----`, without a passphrase"
        ),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ServerError> {
    fs::read(path).map_err(|source| ServerError::TlsFile { path: path.to_owned(), source })
}
