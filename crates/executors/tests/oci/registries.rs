//! Images from real registries: who comes in, and what stands in for another.

use std::path::Path;

use executr_executors::contract::Workspace;
use executr_images::{Access, CredentialSource};
use executr_tests::docker::{Engine, IMAGE, engine};
use executr_tests::loopback;
use executr_tests::registry::{PASSWORD, Registry, Setup, USER};
use serde_json::{Value, json};

use super::conformance::rig::plan;
use super::{host_with, said, tag};

/// A registry where the engine finds it.
fn registry(engine: &Engine, knows_users: bool) -> Option<Registry> {
    Registry::start(&Setup { knows_users, beside: Some(engine.process()), ..Setup::default() })
}

/// What came of a container of the image: what it says of itself, or why there is none.
async fn tried(engine: &Engine, access: Access, image: &str, login: Option<[&str; 2]>) -> Result<String, String> {
    let temp = tempfile::tempdir().unwrap();
    let options: Value = json!({"image": image, "network": "none", "pull": "always"});
    let host = host_with(engine, access);
    let labels = [("executr.test".to_owned(), tag())].into();
    let opened = super::open_with(&host, temp.path(), options, labels, login).await;
    let both = opened.map_err(|error| error.to_string())?;
    let mut job = both.setup_job(plan()).await.unwrap();
    let found = said(job.as_mut(), "echo $PATH; ls /etc/passwd").await;
    job.cleanup().await.unwrap();
    both.cleanup().await;
    Ok(found)
}

fn file(at: &Path, registry: &str) -> Access {
    let path = at.join("config.json");
    // ann:secret
    let config = json!({"auths": {registry: {"auth": "YW5uOnNlY3JldA=="}}});
    std::fs::write(&path, config.to_string()).unwrap();
    Access { credentials: vec![CredentialSource::File(path)], ..Access::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_lets_in_whom_it_knows_and_says_who_it_does_not() {
    let Some(engine) = engine() else { return };
    let Some(registry) = registry(&engine, true) else { return };
    let (host, temp) = (registry.host(), tempfile::tempdir().unwrap());
    engine.push(IMAGE, &format!("{host}/team/tool"), "1");
    let image = format!("{host}/team/tool:1");

    let nobody = tried(&engine, Access::default(), &image, None).await.unwrap_err();
    assert!(nobody.contains(&format!("docker login {host}")) && nobody.contains(&image), "{nobody}");
    let wrong = tried(&engine, Access::default(), &image, Some([USER, "wrong-one"])).await.unwrap_err();
    assert!(wrong.contains(&format!("{host} doesn't take the login of `ann`")), "{wrong}");
    assert!(!wrong.contains("wrong-one"), "{wrong}");
    assert!(tried(&engine, file(temp.path(), &host), &image, None).await.is_ok());
    assert!(tried(&engine, Access::default(), &image, Some([USER, PASSWORD])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_tried_in_order_and_the_registry_last() {
    let Some(engine) = engine() else { return };
    let (Some(mirror), Some(origin)) = (registry(&engine, false), registry(&engine, false)) else { return };
    engine.push(IMAGE, &format!("{}/hub/team/tool", mirror.host()), "2");
    engine.push(IMAGE, &format!("{}/team/tool", origin.host()), "3");
    let nobody = format!("127.0.0.1:{}", loopback::free_port());
    let mirrors =
        [format!("{}=http://{nobody}", origin.host()), format!("{}=http://{}/hub", origin.host(), mirror.host())];
    let access = Access { mirrors: mirrors.iter().map(|text| text.parse().unwrap()).collect(), ..Access::default() };

    // Only the second mirror has the one, only the registry itself the other, and nobody the third.
    for version in ["2", "3"] {
        let image = format!("{}/team/tool:{version}", origin.host());
        tried(&engine, access.clone(), &image, None).await.unwrap_or_else(|error| panic!("{image}: {error}"));
        drop(engine.ask("GET", &format!("/images/{image}/json")));
    }
    assert_eq!(origin.requests("/v2/team/tool/manifests/2"), 0, "the mirror has it");
    let image = format!("{}/team/tool:4", origin.host());
    let error = tried(&engine, access, &image, None).await.unwrap_err();
    for host in [&nobody, &mirror.host(), &origin.host()] {
        assert!(error.contains(host.as_str()), "{host}: {error}");
    }
}
