//! Registries that want to know who asks, that have a certificate of their own, and what stands in for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use executr_images::{Access, Compression, CredentialSource, Mirror, Progress, Pull};
use executr_tests::registry::{PASSWORD, Registry, Setup, USER};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::rig::{Heard, Rig, reference, silent};

fn who(registry: &Registry, password: &str) -> Access {
    let values = [("U", USER), ("P", password)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let source = CredentialSource::Variables {
        registry: registry.host(),
        username: "U".to_owned(),
        password: "P".to_owned(),
        values: values.into(),
    };
    Access { credentials: vec![source], ..Access::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_knows_its_users_lets_in_only_them() {
    let Some(registry) = Registry::start(&Setup { knows_users: true, ..Setup::default() }) else { return };
    let rig = Rig::new();
    let name = reference(&registry, "team/tool:1");
    rig.store.build(&name, &rig.recipe(), &Access::default(), &silent()).await.unwrap();
    let ann = who(&registry, PASSWORD);
    rig.store.push(&name, &name, &ann, &silent()).await.unwrap();
    for stranger in [Access::default(), who(&registry, "wrong")] {
        let store = rig.other("strangers");
        let error = store.pull(&name, &stranger, Pull::Missing, &silent()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("docker login {}", registry.host())), "{error}");
        assert!(!error.contains("wrong"), "{error}");
        assert!(rig.store.push(&name, &name, &stranger, &silent()).await.is_err());
    }
    // The same by the file that `docker login` writes, and by a helper it names.
    let config = rig.path("config.json");
    let file = Access { credentials: vec![CredentialSource::File(config.clone())], ..Access::default() };
    // ann:secret
    let auths = format!(r#"{{"auths": {{"{}": {{"auth": "YW5uOnNlY3JldA=="}}}}}}"#, registry.host());
    fs::write(&config, auths).unwrap();
    rig.other("file").pull(&name, &file, Pull::Missing, &silent()).await.unwrap();
    let helper = format!(r#"{{"credHelpers": {{"{}": "executr-nobody-has-this"}}}}"#, registry.host());
    fs::write(&config, helper).unwrap();
    let error = rig.other("helper").pull(&name, &file, Pull::Missing, &silent()).await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-executr-nobody-has-this can't be run"), "{error}");
    assert!(error.contains("config.json"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_trusted_by_its_authority_only() {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let tls = Some((certificate.pem(), key.serialize_pem()));
    let Some(registry) = Registry::start(&Setup { tls, ..Setup::default() }) else { return };
    let rig = Rig::new();
    let name = reference(&registry, "team/tool:1");
    // On the loopback TLS is spoken only where that is said.
    let itself: Mirror = format!("{0}=https://{0}", registry.host()).parse().unwrap();
    let knowing = Access { mirrors: vec![itself], ..Access::default() };
    rig.store.build(&name, &rig.recipe(), &Access::default(), &silent()).await.unwrap();
    assert!(rig.store.push(&name, &name, &Access::default(), &silent()).await.is_err());
    let error = rig.store.push(&name, &name, &knowing, &silent()).await.unwrap_err().to_string();
    assert!(error.contains("--ca-cert"), "{error}");
    let file = rig.path("ca.pem");
    fs::write(&file, authority.pem()).unwrap();
    let trusting = Access { authorities: vec![file], ..knowing };
    rig.store.push(&name, &name, &trusting, &silent()).await.unwrap();
    rig.other("other").pull(&name, &trusting, Pull::Missing, &silent()).await.unwrap();
}

fn mirror(of: &str, registry: &Registry) -> Mirror {
    format!("{of}=http://{}", registry.host()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_asked_in_order_and_then_the_registry() {
    let Some(origin) = Registry::start(&Setup::default()) else { return };
    let Some(empty) = Registry::start(&Setup::default()) else { return };
    let proxy = Setup { proxy_of: Some(format!("http://{}", origin.host())), ..Setup::default() };
    let Some(proxy) = Registry::start(&proxy) else { return };
    let rig = Rig::new();
    let name = rig.filled(&origin, "team/tool:1", Compression::Gzip).await;
    let through = |mirrors: &[&Registry]| Access {
        mirrors: mirrors.iter().map(|registry| mirror(&origin.host(), registry)).collect(),
        ..Access::default()
    };

    let store = rig.other("proxy");
    store.pull(&name, &through(&[&proxy]), Pull::Missing, &silent()).await.unwrap();
    assert!(proxy.requests("GET /v2/team/tool/blobs/") >= 3, "{}", proxy.log());

    let heard = Arc::new(Heard::default());
    let progress: Arc<dyn Progress> = Arc::clone(&heard) as _;
    let before = origin.requests("GET /v2/team/tool/blobs/");
    rig.other("fallback").pull(&name, &through(&[&empty]), Pull::Missing, &progress).await.unwrap();
    assert!(origin.requests("GET /v2/team/tool/blobs/") > before);
    assert!(heard.all().iter().any(|said| said.contains(&empty.host())), "{:?}", heard.all());

    // Somebody else's name, that only a mirror has.
    let hub = "docker.io/team/tool:1".parse().unwrap();
    let access = Access { mirrors: vec![mirror("*", &empty), mirror("docker.io", &origin)], ..Access::default() };
    rig.other("hub").pull(&hub, &access, Pull::Missing, &silent()).await.unwrap();
    // Where none has it, all are told of.
    let nobody = reference(&origin, "team/other:1");
    let error = rig.store.pull(&nobody, &through(&[&empty]), Pull::Missing, &silent()).await.unwrap_err().to_string();
    assert!(error.contains(&origin.host()) && error.contains(&format!("mirror {}", empty.host())), "{error}");
}

#[test]
fn a_helper_answers_for_a_registry() {
    // Helpers are found by their names, so one is put where nobody else looks: beside a config that names it by a path is
    // not allowed.
    let rig = Rig::new();
    let config = rig.path("config.json");
    fs::write(&config, r#"{"credsStore": "../sh"}"#).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let access = Access { credentials: vec![CredentialSource::File(config)], ..Access::default() };
    let error = access.login("r.example", "a").unwrap_err().to_string();
    assert!(error.contains("is a path, not a name"), "{error}");
}
