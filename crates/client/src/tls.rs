//! Whom to trust.

use std::path::Path;
use std::sync::Arc;

use executr_api::{ApiError, ErrorCode};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// The TLS settings of a client. Where no TLS is spoken nothing is trusted, and so the system's authorities needn't be
/// there.
pub(crate) fn config(https: bool, ca_cert: Option<&Path>) -> Result<ClientConfig, ApiError> {
    let wrong = |why: String| ApiError::new(ErrorCode::BadRequest, why);
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("TLS can't be set up: {error}")))?;
    if let Some(path) = ca_cert {
        return Ok(builder.with_root_certificates(authorities(path)?).with_no_client_auth());
    }
    if !https {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let verifier = Verifier::new(provider).map_err(|error| {
        wrong(format!(
            "this system's certificate authorities can't be read: {error}; install `ca-certificates` or give the server's authority with --ca-cert"
        ))
    })?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn authorities(path: &Path) -> Result<RootCertStore, ApiError> {
    let wrong = |why: String| {
        ApiError::new(ErrorCode::BadRequest, format!("{}: {why}", path.display())).with("field", "ca_cert")
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(format!("can't be read: {error}")))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("is not a PEM file: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| wrong(format!("holds a certificate that can't be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate; give a PEM file with `-----BEGIN CERTIFICATE-----`".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_authority_file_is_named() {
        let error = config(true, Some(Path::new("/nonexistent/ca.pem"))).expect_err("no file");
        assert!(error.message.starts_with("/nonexistent/ca.pem: can't be read"), "{error}");
        let error = config(true, Some(Path::new("/dev/null"))).expect_err("empty");
        assert!(error.message.contains("holds no certificate"), "{error}");
        assert!(config(false, None).is_ok());
    }
}
