//! The layout of artifacts, as a listing that nobody may change: workflows rely on it.

use executr_api::Outcome;
use executr_tree::{Kind, Manifest};

use crate::rig::Rig;
use crate::trees::{came_to, input, job, output, step, text};

const GOLDEN: &str = include_str!("layout.golden");

/// Makes what is saved.
const MAKE: &str = "umask 022; mkdir -p dist/lib dist/empty; echo program > dist/app; chmod 755 dist/app; \
    echo a > dist/lib/a; chmod 600 dist/lib/a; ln -s ../app dist/lib/link; echo notes > notes.txt";
/// What stands where inputs were restored: path, kind, a file's mode, a link's target.
const LIST: &str = r"find . -mindepth 1 \( -type l -printf '%P link %l\n' -o -type d -printf '%P d\n' -o -printf '%P %y %m\n' \) |
    LC_ALL=C sort";

/// What is in an artifact, in the order of its manifest.
fn listed(rig: &Rig, tree: executr_spec::Digest) -> String {
    let bytes = rig.coordinator.change(|state| state.blobs[&tree].clone());
    let manifest = Manifest::parse(&bytes).unwrap();
    let line = |entry: &executr_tree::Entry| {
        let path = entry.path.display();
        match &entry.kind {
            Kind::Directory { .. } => format!("{path} d\n"),
            Kind::File(file) => format!("{path} f {:o}\n", file.mode),
            Kind::Symlink { target } => format!("{path} link {}\n", target.display()),
        }
    };
    manifest.entries().iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_are_laid_out_as_ever() {
    let rig = Rig::start(|_| ()).await;
    let outputs =
        [("file", "dist/app"), ("directory", "dist"), ("deep", "dist/lib/"), ("link", "dist/lib/link"), ("all", ".")];
    let spec = job(vec![step(MAKE)], |job| {
        job.outputs = outputs.iter().map(|(name, path)| output(name, path)).collect();
    });
    let (_, made) = came_to(&rig, &spec, vec![]).await;
    assert_eq!(made.outcome, Outcome::Succeeded, "{made:?}");
    let mut found = String::new();
    for (artifact, (name, path)) in made.artifacts.iter().zip(outputs) {
        found.push_str(&format!("== output {name}: {path}\n-- in the artifact\n{}", listed(&rig, artifact.tree)));
        for into in ["", "lib", "deep/down"] {
            let restoring = job(vec![step(LIST)], |job| job.inputs = vec![input(name, into)]);
            let (fence, result) = came_to(&rig, &restoring, made.artifacts.clone()).await;
            assert_eq!(result.outcome, Outcome::Succeeded, "{name}, {into}: {result:?}");
            let place = if into.is_empty() { "restored".to_owned() } else { format!("restored with path: {into}") };
            found.push_str(&format!("-- {place}\n{}", text(&rig, fence)));
        }
    }
    assert_eq!(found, GOLDEN, "found:\n{found}");
    rig.drain().await;
}
