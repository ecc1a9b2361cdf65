//! A store that several share, and that has its bounds.

use std::fs;

use executr_images::{Access, Compression, ImageStore, Pull, Recipe, StoreOptions};
use executr_tests::registry::{Registry, Setup};

use crate::rig::{Rig, layer, reference, silent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pull_one_image_and_each_layer_comes_once() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let name = rig.filled(&registry, "tool:1", Compression::Gzip).await;
    // Each opens the store for itself, as processes do.
    let pulls = (0..6).map(|_| {
        let (root, name) = (rig.path("shared"), name.clone());
        tokio::spawn(async move {
            let store = ImageStore::open(root, StoreOptions::default()).unwrap();
            store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap().digest
        })
    });
    let mut digests = Vec::new();
    for pull in pulls.collect::<Vec<_>>() {
        digests.push(pull.await.unwrap());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    let layers = fs::read_dir(rig.path("shared/layers")).unwrap().map(|entry| entry.unwrap().file_name());
    for layer in layers {
        let asked = format!("GET /v2/tool/blobs/sha256:{}", layer.to_str().unwrap());
        assert_eq!(registry.requests(&asked), 1, "{asked}");
    }
    assert_eq!(fs::read_dir(rig.path("shared/incoming")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_longest_ago_goes_and_what_is_leased_stays() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let access = Access::default();
    let mut names = Vec::new();
    for number in 0..3 {
        let content = number.to_string().repeat(1 << 20);
        let directory = rig.directory(&format!("d{number}"), &[("content", &content)]);
        let name = reference(&registry, &format!("tool:{number}"));
        let recipe = Recipe { layers: vec![layer(&directory, "/")], ..Recipe::default() };
        rig.store.build(&name, &recipe, &access, &silent()).await.unwrap();
        rig.store.push(&name, &name, &access, &silent()).await.unwrap();
        names.push(name);
    }
    let options = StoreOptions { max_bytes: 5 << 19, ..StoreOptions::default() };
    let store = ImageStore::open(rig.path("small"), options).unwrap();
    let first = store.pull(&names[0], &access, Pull::Missing, &silent()).await.unwrap();
    let second = store.pull(&names[1], &access, Pull::Missing, &silent()).await.unwrap().layers;
    let third = store.pull(&names[2], &access, Pull::Missing, &silent()).await.unwrap();
    assert!(first.layers[0].is_dir(), "leased, however long ago it was used");
    assert!(!second[0].exists());
    assert!(third.layers[0].is_dir());
    let gone = first.layers[0].clone();
    drop(first);
    assert!(store.collect().unwrap() <= 5 << 19);
    // What was collected comes back.
    store.pull(&names[1], &access, Pull::Missing, &silent()).await.unwrap();
    assert!(!gone.exists());
    store.pull(&names[0], &access, Pull::Missing, &silent()).await.unwrap();
    assert!(gone.is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_built_here_stays_until_its_name_goes() {
    let rig = Rig::with(StoreOptions { max_bytes: 1, ..StoreOptions::default() });
    let access = Access::default();
    let [one, two] = ["tool:1", "tool:2"].map(|name| name.parse().unwrap());
    rig.store.build(&one, &rig.recipe(), &access, &silent()).await.unwrap();
    rig.store.build(&two, &rig.recipe(), &access, &silent()).await.unwrap();
    rig.store.collect().unwrap();
    let listed = rig.store.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|image| image.is_whole && image.is_built && image.layers == 2), "{listed:?}");
    let held = rig.store.pull(&one, &access, Pull::Never, &silent()).await.unwrap();
    let removed = rig.store.remove(&two).unwrap().unwrap();
    assert_eq!(removed.blobs, 0, "the other name needs them");
    assert!(rig.store.remove(&one).unwrap().unwrap().is_used);
    assert!(held.layers.iter().all(|layer| layer.is_dir()));
    assert_eq!(rig.store.remove(&one).unwrap(), None);
    drop(held);
    assert_eq!(rig.store.collect().unwrap(), 0);
    assert_eq!(fs::read_dir(rig.path("store/layers")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_on_the_disk_after_a_crash_is_fetched_again() {
    let rig = Rig::new();
    let name = "tool:1".parse().unwrap();
    let access = Access::default();
    rig.store.build(&name, &rig.recipe(), &access, &silent()).await.unwrap();
    let image = rig.store.pull(&name, &access, Pull::Missing, &silent()).await.unwrap();
    let facts = image.layers[0].parent().unwrap().join("facts");
    let settled = fs::read_to_string(&facts).unwrap();
    assert!(!settled.contains("boot"), "{settled}");
    // As the machine's sudden end leaves it: unpacked in another boot, and nobody waited for the disk.
    fs::write(&facts, settled.replace('}', r#","boot":"another"}"#)).unwrap();
    fs::remove_file(image.layers[0].join("etc/passwd")).unwrap();
    let again = rig.store.pull(&name, &access, Pull::Missing, &silent()).await.unwrap();
    assert!(again.layers[0].join("etc/passwd").is_file());
    assert_eq!(fs::read_to_string(&facts).unwrap(), settled);
}
