//! Images pushed: only what is missing travels.

use executr_images::{Access, Compression, Pull, Recipe};
use executr_tests::registry::{Registry, Setup};

use crate::rig::{Rig, layer, reference, silent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_registry_lacks_is_sent() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let access = Access::default();
    let name = reference(&registry, "team/tool:1");
    rig.store.build(&name, &rig.recipe(), &access, &silent()).await.unwrap();
    let sent = rig.store.push(&name, &name, &access, &silent()).await.unwrap();
    assert_eq!((sent.blobs, sent.mounted), (3, 0), "two layers and the configuration");
    let sent = rig.store.push(&name, &name, &access, &silent()).await.unwrap();
    assert_eq!((sent.blobs, sent.bytes), (0, 0));
    rig.directory("app", &[("run", "two")]);
    rig.store.build(&name, &rig.recipe(), &access, &silent()).await.unwrap();
    let sent = rig.store.push(&name, &name, &access, &silent()).await.unwrap();
    assert_eq!(sent.blobs, 2, "one layer and the configuration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_is_mounted_where_it_is_and_fetched_where_it_is_not() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let Some(other) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let access = Access::default();
    let base = rig.filled(&registry, "team/base:1", Compression::Gzip).await;
    // One who has only the base's description builds upon it.
    let store = rig.other("builder");
    let more = rig.directory("more", &[("opt/more", "more")]);
    let recipe = Recipe { base: Some(base.clone()), layers: vec![layer(&more, "/")], ..Recipe::default() };
    let name = reference(&registry, "team/app:1");
    let built = store.build(&name, &recipe, &access, &silent()).await.unwrap();
    assert_eq!(built.layers, 3);
    assert_eq!(registry.requests("GET /v2/team/base/blobs/"), 1, "its configuration");
    let sent = store.push(&name, &name, &access, &silent()).await.unwrap();
    assert_eq!((sent.mounted, sent.blobs), (2, 2), "a layer and the configuration are new");
    assert_eq!(registry.requests("GET /v2/team/base/blobs/"), 1);

    let elsewhere = reference(&other, "copy:1");
    let sent = store.push(&name, &elsewhere, &access, &silent()).await.unwrap();
    assert_eq!((sent.mounted, sent.blobs), (0, 4));
    let image = rig.other("end").pull(&elsewhere, &access, Pull::Missing, &silent()).await.unwrap();
    assert_eq!(image.digest, built.digest);
    assert_eq!(image.config.user, "1000:1000", "as its base says");
    assert!(image.layers[2].join("opt/more").is_file());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pulled_can_be_pushed_elsewhere() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let Some(other) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let name = rig.filled(&registry, "team/tool:1", Compression::Zstd).await;
    let store = rig.other("other");
    let pulled = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap();
    let sent = store.push(&name, &reference(&other, "tool:2"), &Access::default(), &silent()).await.unwrap();
    assert_eq!((sent.digest, sent.blobs), (pulled.digest, 3));
}
