//! TLS to the database: what each `sslmode` protects from, against a server that speaks it and one that doesn't.

use std::path::PathBuf;
use std::time::Duration;

use executr_store::postgres::{PostgresOptions, PostgresStore};
use executr_store::{Store, StoreError};
use executr_tests::postgres::{self, Database, Durability, Server};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// A database behind TLS, with files to trust and not to trust. Its certificate is for `localhost`, not for 127.0.0.1.
struct Encrypted {
    database: Database,
    _server: Server,
    files: TempDir,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

impl Encrypted {
    fn start() -> Option<Self> {
        let (own, other) = (authority("ours"), authority("another"));
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &own).expect("a certificate");
        let files = tempfile::tempdir().expect("a directory");
        std::fs::write(files.path().join("own.pem"), own.pem()).expect("written");
        std::fs::write(files.path().join("other.pem"), other.pem()).expect("written");
        let server = Server::start_with_tls(Durability::Fast, &certificate.pem(), &key.serialize_pem())?;
        Some(Self { database: server.database(), _server: server, files })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn url(&self, host: &str, settings: &str) -> String {
        format!("{}?{settings}", self.database.url().replace("127.0.0.1", host))
    }

    /// Whether this application's connections are encrypted: `t` or `f`.
    fn encrypted(&self, application: usize) -> String {
        let found = self.database.sql(&format!(
            "SELECT DISTINCT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
             WHERE a.application_name = 'mode{application}'"
        ));
        found.trim().to_owned()
    }
}

async fn open(url: String) -> Result<PostgresStore, StoreError> {
    PostgresStore::connect(PostgresOptions { patience: Duration::from_secs(30), ..PostgresOptions::new(url) }).await
}

#[track_caller]
fn told(opened: Result<PostgresStore, StoreError>) -> String {
    match opened.expect_err("it can't work") {
        StoreError::Config(told) => told,
        error => panic!("waiting does not help, so it is told at once: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_protects_as_it_says() {
    let Some(server) = Encrypted::start() else { return };
    let own = format!("sslrootcert={}", server.file("own.pem").display());
    let other = format!("sslrootcert={}", server.file("other.pem").display());
    let modes = [
        ("127.0.0.1", "connect_timeout=10".to_owned(), "t"),
        ("127.0.0.1", "sslmode=prefer".to_owned(), "t"),
        ("127.0.0.1", "sslmode=disable".to_owned(), "f"),
        ("127.0.0.1", "sslmode=require".to_owned(), "t"),
        ("127.0.0.1", format!("sslmode=verify-ca&{own}"), "t"),
        ("localhost", format!("sslmode=verify-full&{own}"), "t"),
    ];
    for (number, (host, settings, encrypted)) in modes.into_iter().enumerate() {
        let url = server.url(host, &format!("application_name=mode{number}&{settings}"));
        let store = open(url).await.unwrap_or_else(|error| panic!("{settings}: {error}"));
        store.ping().await.expect("it works");
        assert_eq!(server.encrypted(number), encrypted, "{settings}");
    }
    let full = told(open(server.url("127.0.0.1", &format!("sslmode=verify-full&{own}"))).await);
    assert!(full.contains("is not trusted") && full.contains("the host as the certificate does"), "{full}");
    for settings in [
        format!("sslmode=verify-full&{other}"),
        format!("sslmode=verify-ca&{other}"),
        // As in libpq: whoever names an authority means it.
        format!("sslmode=require&{other}"),
        "sslmode=verify-full".to_owned(),
    ] {
        let told = told(open(server.url("localhost", &settings)).await);
        assert!(told.contains("is not trusted") && told.contains("sslrootcert=FILE"), "{settings}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_its_own_authority_can_be_named() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    // What `openssl req -x509` makes.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), certificate.pem()).expect("written");
    let Some(server) = Server::start_with_tls(Durability::Fast, &certificate.pem(), &key.serialize_pem()) else {
        return;
    };
    let database = server.database();
    let url = |host: &str| {
        let url = database.url().replace("127.0.0.1", host);
        format!("{url}?sslmode=verify-full&sslrootcert={}", file.path().display())
    };
    open(url("localhost")).await.expect("trusted by itself").ping().await.expect("it works");
    assert!(told(open(url("127.0.0.1")).await).contains("is not trusted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_where_it_is_asked_for() {
    let Some(database) = postgres::database() else { return };
    let told = told(open(format!("{}?sslmode=require", database.url())).await);
    assert!(told.contains("does not speak TLS") && told.contains("ssl = on"), "{told}");
    open(format!("{}?sslmode=prefer", database.url())).await.expect("it does without");
}
