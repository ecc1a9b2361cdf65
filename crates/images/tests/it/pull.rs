//! Images pulled from a registry.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executr_images::{Access, Compression, ImageError, Platform, Progress, Pull, Refusal, StoreOptions};
use executr_tests::registry::{Registry, Setup};

use crate::rig::{Heard, Rig, files, reference, silent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_image_is_what_was_built() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let name = rig.filled(&registry, &format!("tool:{compression:?}").to_lowercase(), compression).await;
        let store = rig.other(&format!("{compression:?}"));
        let image = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap();
        assert_eq!(image.config.user, "1000:1000");
        assert_eq!(image.config.env, ["A=b c"]);
        assert_eq!(
            (image.config.workdir.as_str(), image.config.entrypoint.as_slice()),
            ("/opt/app", &["/bin/tool".to_owned()][..])
        );
        let [base, app] = &image.layers[..] else { panic!("{image:?}") };
        assert_eq!(fs::read_to_string(app.join("opt/app/run")).unwrap(), "one");
        let tool = fs::metadata(base.join("bin/tool")).unwrap();
        assert_eq!((tool.mode() & 0o7777, tool.nlink(), tool.mtime()), (0o4755, 2, 0));
        assert_eq!(fs::read_link(base.join("bin/link")).unwrap(), Path::new("tool"));
        assert!(base.join("long".repeat(30)).is_file());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_is_not_fetched_again() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let name = rig.filled(&registry, "tool:1", Compression::None).await;
    let store = rig.other("other");
    let error = store.pull(&name, &Access::default(), Pull::Never, &silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::NotHere { .. }), "{error}");
    let first = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap();
    let requests = registry.requests("/v2/");
    for pull in [Pull::Missing, Pull::Never] {
        let again = store.pull(&name, &Access::default(), pull, &silent()).await.unwrap();
        assert_eq!((again.digest, &again.layers), (first.digest, &first.layers));
    }
    assert_eq!(registry.requests("/v2/"), requests, "nobody was asked");
    let blobs = registry.requests("GET /v2/tool/blobs/");
    store.pull(&name, &Access::default(), Pull::Always, &silent()).await.unwrap();
    assert_eq!(registry.requests("GET /v2/tool/blobs/"), blobs, "only the manifest was asked for");
    let by_digest = name.at(first.digest);
    assert_eq!(
        store.pull(&by_digest, &Access::default(), Pull::Missing, &silent()).await.unwrap().digest,
        first.digest
    );

    // A tag that moves is seen only by who looks.
    rig.directory("app", &[("run", "two")]);
    rig.filled(&registry, "tool:1", Compression::None).await;
    assert_eq!(store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap().digest, first.digest);
    let moved = store.pull(&name, &Access::default(), Pull::Always, &silent()).await.unwrap();
    assert_eq!(fs::read_to_string(moved.layers[1].join("opt/app/run")).unwrap(), "two");
    assert_eq!(moved.layers[0], first.layers[0], "what is the same is there once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_says_where_and_what_to_do() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let name = reference(&registry, "nobody/has:this");
    let error = rig.store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap_err().to_string();
    assert!(error.contains(&registry.host()) && error.contains("nobody/has:this"), "{error}");
    assert!(error.contains("check the name"), "{error}");
    let nowhere = format!("127.0.0.1:{}/a", executr_tests::loopback::free_port()).parse().unwrap();
    let error = rig.store.pull(&nowhere, &Access::default(), Pull::Missing, &silent()).await.unwrap_err().to_string();
    assert!(error.contains("check that it can be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_bytes_are_refused_and_nothing_of_them_stays() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    for compression in [Compression::None, Compression::Gzip] {
        let name = rig.filled(&registry, &format!("tool:{compression:?}").to_lowercase(), compression).await;
        let store = rig.other(&format!("{compression:?}"));
        let image = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap();
        let layer = image.layers[1].parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let blob = registry.blob(&layer);
        let mut bytes = fs::read(&blob).unwrap();
        // Within padding that nobody would miss, or the checksum at the end.
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&blob, &bytes).unwrap();
        let store = rig.other(&format!("{compression:?}-changed"));
        let error = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap_err();
        let ImageError::Layer(refused) = &error else { panic!("{error}") };
        assert!(refused.layer.contains(&layer), "{error}");
        assert!(matches!(refused.why, Refusal::Digest { .. } | Refusal::Broken(_)), "{error}");
        assert!(!store.root().join("layers").join(&layer).exists());
        // The other layer may still be on its way, for a moment.
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read_dir(store.root().join("incoming")).unwrap().count() > 0 {
            assert!(Instant::now() < deadline, "something is left");
            tokio::task::yield_now().await;
        }

        bytes.truncate(last / 2);
        fs::write(&blob, &bytes).unwrap();
        let error = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap_err();
        assert!(matches!(error, ImageError::Registry(_)), "{error}");
        assert!(!store.root().join("layers").join(&layer).exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_for_others_says_for_whom() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let platform = Platform { os: "linux".to_owned(), architecture: "s390x".to_owned() };
    let rig = Rig::with(StoreOptions { platform, ..StoreOptions::default() });
    let name = rig.filled(&registry, "tool:1", Compression::None).await;
    let store = rig.other("other");
    let error = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap_err();
    let ImageError::Platform { offered, .. } = &error else { panic!("{error}") };
    assert_eq!(offered[..], ["linux/s390x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_given_up_leaves_nothing_half() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let rig = Rig::new();
    let big = "x".repeat(8 << 20);
    rig.directory("base", &[("big", &big)]);
    let name = rig.filled(&registry, "tool:1", Compression::None).await;
    let store = rig.other("other");
    let heard = Arc::new(Heard::default());
    let progress: Arc<dyn Progress> = Arc::clone(&heard) as _;
    let (store_there, name_there) = (store.clone(), name.clone());
    let pulling =
        tokio::spawn(async move { store_there.pull(&name_there, &Access::default(), Pull::Missing, &progress).await });
    while !heard.all().iter().any(|said| said.starts_with("Moved")) && !pulling.is_finished() {
        tokio::task::yield_now().await;
    }
    pulling.abort();
    drop(pulling.await);
    // Whatever is whole is whole; the rest is fetched, and nothing is left besides.
    let image = store.pull(&name, &Access::default(), Pull::Missing, &silent()).await.unwrap();
    assert_eq!(fs::read_to_string(image.layers[0].join("big")).unwrap(), big);
    let store = executr_images::ImageStore::open(store.root(), StoreOptions::default()).unwrap();
    assert_eq!(files(&store.root().join("incoming")), Vec::<std::path::PathBuf>::new());
}
