//! What others think of our images: engines, skopeo and umoci.

use std::fs;
use std::path::Path;
use std::process::Command;

use executr_images::{Access, Compression, EngineAddress, LayerRecipe, Part, Pull, Recipe, Reference};
use executr_tests::component;
use executr_tests::docker::{Engine, engine, podman};
use executr_tests::registry::{Registry, Setup};

use crate::rig::{Rig, files, reference, silent};

/// An image that runs: busybox, statically linked, and nothing else.
fn runnable(rig: &Rig) -> Option<Recipe> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file()) else {
        component::missing("busybox", "there is no busybox");
        return None;
    };
    let program = Part::Program { from: busybox.into(), to: "/bin/busybox".to_owned() };
    let mut recipe = rig.recipe();
    recipe.layers.push(LayerRecipe { parts: vec![program] });
    recipe.changes.entrypoint = Some(["/bin/busybox", "cat", "run"].map(str::to_owned).to_vec());
    Some(recipe)
}

fn tool(name: &str) -> Option<Command> {
    let found =
        ["/usr/bin", "/usr/local/bin"].iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file());
    if found.is_none() {
        component::missing(name, &format!("there is no {name}"));
    }
    found.map(Command::new)
}

fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

async fn is_loaded_by(engine: &Engine) {
    let rig = Rig::new();
    let Some(recipe) = runnable(&rig) else { return };
    let address: EngineAddress = engine.address().parse().unwrap();
    for compression in [Compression::None, Compression::Gzip] {
        let tag = format!("{}-{}", format!("{compression:?}").to_lowercase(), std::process::id());
        let name: Reference = format!("localhost/executr-built:{tag}").parse().unwrap();
        let recipe = Recipe { compression, ..recipe.clone() };
        rig.store.build(&name, &recipe, &Access::default(), &silent()).await.unwrap();
        rig.store.load(&name, &address, &Access::default(), &silent()).await.unwrap();
        let inspected = engine.ask("GET", &format!("/images/localhost/executr-built:{tag}/json"));
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Config"]["User"], "1000:1000");
        assert_eq!(inspected["Config"]["Env"][0], "A=b c");
        assert_eq!(inspected["RootFS"]["Layers"].as_array().unwrap().len(), 3);
        drop(engine.ask("DELETE", &format!("/images/localhost/executr-built:{tag}?force=1")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_loads_them() {
    if let Some(engine) = engine() {
        is_loaded_by(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_loads_them() {
    if let Some(engine) = podman() {
        is_loaded_by(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_not_there_is_named() {
    let rig = Rig::new();
    let name = "tool:1".parse().unwrap();
    rig.store.build(&name, &rig.recipe(), &Access::default(), &silent()).await.unwrap();
    let address: EngineAddress = format!("unix://{}", rig.path("none.sock").display()).parse().unwrap();
    let error = rig.store.load(&name, &address, &Access::default(), &silent()).await.unwrap_err().to_string();
    assert!(error.contains("none.sock") && error.contains("--engine"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_and_umoci_take_the_layout() {
    let (Some(mut skopeo), Some(mut umoci)) = (tool("skopeo"), tool("umoci")) else { return };
    let rig = Rig::new();
    let name = "tool:1".parse().unwrap();
    let access = Access::default();
    for compression in [Compression::None, Compression::Gzip] {
        let recipe = Recipe { compression, ..rig.recipe() };
        let built = rig.store.build(&name, &recipe, &access, &silent()).await.unwrap();
        rig.store.write_layout(&name, &rig.path("layout"), &access, &silent()).await.unwrap();
        let other = "other:2".parse().unwrap();
        rig.store.build(&other, &recipe, &access, &silent()).await.unwrap();
        rig.store.write_layout(&other, &rig.path("layout"), &access, &silent()).await.unwrap();
        let from = format!("oci:{}:1", rig.path("layout").display());
        let inspected = ran(skopeo.args(["inspect", &from]));
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], format!("sha256:{}", built.digest));
        let bundle = rig.path(&format!("bundle-{compression:?}"));
        let image = format!("{}:1", rig.path("layout").display());
        let rootless: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--rootless"] };
        ran(umoci.arg("unpack").args(rootless).args(["--image", &image]).arg(&bundle));
        assert_eq!(fs::read_to_string(bundle.join("rootfs/opt/app/run")).unwrap(), "one");
        (skopeo, umoci) = (tool("skopeo").unwrap(), tool("umoci").unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_takes_the_archive_and_what_it_makes_is_taken_here() {
    let Some(mut skopeo) = tool("skopeo") else { return };
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let access = Access::default();
    let name = "tool:1".parse().unwrap();
    let recipe = rig.recipe();
    rig.store.build(&name, &recipe, &access, &silent()).await.unwrap();
    let archives = ["one.tar", "two.tar"].map(|name| rig.path(name));
    for archive in &archives {
        rig.store.write_docker_archive(&name, archive, &access, &silent()).await.unwrap();
    }
    assert_eq!(fs::read(&archives[0]).unwrap(), fs::read(&archives[1]).unwrap());
    // Another format of manifest, other compression, another program's push.
    let there = reference(&registry, "copied:1");
    let from = format!("docker-archive:{}", archives[0].display());
    let format = ["--dest-tls-verify=false", "--insecure-policy", "--format", "v2s2"];
    ran(skopeo.arg("copy").args(format).args([&from, &format!("docker://{there}")]));
    let store = rig.other("other");
    let copied = store.pull(&there, &access, Pull::Missing, &silent()).await.unwrap();
    let own = rig.store.pull(&name, &access, Pull::Never, &silent()).await.unwrap();
    assert_eq!(copied.config, own.config);
    for (copied, own) in copied.layers.iter().zip(&own.layers) {
        let relative = |root: &Path| {
            files(root).iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(relative(copied), relative(own));
    }
}
