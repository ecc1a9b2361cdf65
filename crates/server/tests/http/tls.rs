//! HTTPS with a certificate made for the test.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use executr_coordinator::{Coordinator, Options};
use executr_server::{Metrics, ServerOptions, TlsFiles, serve};
use executr_store::SystemClock;
use executr_store::model::ModelStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;

/// Writes a certificate for `localhost` and its key.
fn pair(directory: &Path, name: &str) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
    fs::write(&files.cert, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

async fn start(tls: TlsFiles, stop: CancellationToken) -> (u16, tokio::task::JoinHandle<Result<(), String>>) {
    let metrics = Arc::new(Metrics::new());
    let store = Arc::new(ModelStore::new(Arc::new(SystemClock)));
    let coordinator = Coordinator::start(store, Options::default(), metrics.clone()).await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = ServerOptions { tls: Some(tls), ..ServerOptions::new(listener) };
    let serving = serve(coordinator, metrics, options, stop.cancelled_owned());
    (port, tokio::spawn(async move { serving.await.map_err(|error| error.to_string()) }))
}

fn client(authority: &Path, alpn: &[&[u8]]) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let files = pair(directory.path(), "server");
    let stop = CancellationToken::new();
    let (port, task) = start(files.clone(), stop.clone()).await;
    let url = format!("https://localhost:{port}/api/v1/health");
    for (alpn, version) in
        [(&[&b"http/1.1"[..]][..], reqwest::Version::HTTP_11), (&[&b"h2"[..], b"http/1.1"], reqwest::Version::HTTP_2)]
    {
        let response = client(&files.cert, alpn).get(&url).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    }
    let other = pair(directory.path(), "other");
    assert!(client(&other.cert, &[]).get(&url).send().await.is_err(), "another authority is not trusted");
    let plain = crate::running::plain_client().get(format!("http://localhost:{port}/livez"));
    assert!(plain.send().await.is_err(), "plain HTTP is not answered on a TLS port");
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (pair(directory.path(), "one"), pair(directory.path(), "other"));
    let missing = directory.path().join("missing.pem");
    for (cert, key, told) in [
        (&missing, &one.key, "missing.pem can't be read"),
        (&one.cert, &missing, "missing.pem can't be read"),
        (&one.key, &one.key, "holds no certificate"),
        (&one.cert, &one.cert, "holds no private key"),
        (&one.cert, &other.key, "the key is not that of the first certificate"),
    ] {
        let files = TlsFiles { cert: cert.clone(), key: key.clone() };
        let (_, task) = start(files, CancellationToken::new()).await;
        let error = task.await.unwrap().unwrap_err();
        assert!(error.contains(told), "{told}: {error}");
    }
}
