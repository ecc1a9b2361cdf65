//! Images built: the same each time, and no more than is new.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use executr_images::{Access, Compression, ImageError, LayerRecipe, Part, Pull, Recipe};

use crate::rig::{Rig, layer, silent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_files_give_the_same_digest_anywhere() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut digests = Vec::new();
        for number in 0..2 {
            // Other directories, other times, another store, written in another order.
            let rig = Rig::new();
            let mut files = [("b", "two"), ("a/c", "one"), ("z", "three")];
            if number == 1 {
                files.reverse();
            }
            let directory = rig.directory("d", &files);
            let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 * number);
            fs::File::open(directory.join("b")).unwrap().set_modified(past).unwrap();
            let recipe = Recipe { layers: vec![layer(&directory, "/opt")], compression, ..rig.recipe() };
            let name = "tool:1".parse().unwrap();
            digests.push(rig.store.build(&name, &recipe, &Access::default(), &silent()).await.unwrap());
        }
        assert_eq!(digests[0], digests[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_have_not_changed_are_taken_as_they_are() {
    let rig = Rig::new();
    let name = "tool:1".parse().unwrap();
    let access = Access::default();
    let recipe = rig.recipe();
    // Until the files' times are old enough to be believed every layer is made anew; none of it changes the digest.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let settled = loop {
        let built = rig.store.build(&name, &recipe, &access, &silent()).await.unwrap();
        if built.reused == 2 {
            break built;
        }
        assert!(std::time::Instant::now() < deadline);
    };
    fs::write(rig.path("app/run"), "two").unwrap();
    let changed = rig.store.build(&name, &recipe, &access, &silent()).await.unwrap();
    assert_eq!(changed.reused, 1);
    assert_ne!(changed.digest, settled.digest);
    fs::write(rig.path("app/run"), "one").unwrap();
    let back = rig.store.build(&name, &recipe, &access, &silent()).await.unwrap();
    assert_eq!(back.digest, settled.digest);
    fs::set_permissions(rig.path("app/run"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(rig.store.build(&name, &recipe, &access, &silent()).await.unwrap().digest, settled.digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_built_can_be_run_without_a_registry() {
    let rig = Rig::new();
    let name = "nowhere.invalid/tool:1".parse().unwrap();
    let mut recipe = rig.recipe();
    let file = rig.path("app/run");
    recipe
        .layers
        .push(LayerRecipe { parts: vec![Part::File { from: file, to: "/usr/bin/run".to_owned(), mode: Some(0o755) }] });
    let built = rig.store.build(&name, &recipe, &Access::default(), &silent()).await.unwrap();
    let image = rig.store.pull(&name, &Access::default(), Pull::Never, &silent()).await.unwrap();
    assert_eq!((image.digest, image.layers.len()), (built.digest, 3));
    let run = fs::metadata(image.layers[2].join("usr/bin/run")).unwrap();
    assert_eq!(run.permissions().mode() & 0o777, 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_in_an_image_is_named() {
    let rig = Rig::new();
    let name = "tool:1".parse().unwrap();
    let of = async |part: Part| {
        let recipe = Recipe { layers: vec![LayerRecipe { parts: vec![part] }], ..Recipe::default() };
        let error = rig.store.build(&name, &recipe, &Access::default(), &silent()).await.unwrap_err();
        assert!(matches!(error, ImageError::Build(_)), "{error}");
        error.to_string()
    };
    let missing = of(Part::Directory { from: "/nonexistent".into(), to: "/".to_owned() }).await;
    assert!(missing.contains("/nonexistent"), "{missing}");
    let script = rig.directory("s", &[("script", "#!/bin/sh\n")]).join("script");
    let program = of(Part::Program { from: script, to: "/bin/s".to_owned() }).await;
    assert!(program.contains("no program"), "{program}");
    let whiteout = rig.directory("w", &[(".wh.etc", "")]);
    let whiteout = of(Part::Directory { from: whiteout, to: "/".to_owned() }).await;
    assert!(whiteout.contains("removal of another"), "{whiteout}");
}
