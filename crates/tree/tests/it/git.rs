//! What git would take, compared with what git says.

use std::fs;
use std::path::Path;
use std::process::Command;

use executr_tree::{SnapshotOptions, snapshot};

use crate::directories::{Scene, paths};

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The files of a snapshot, without directories.
fn files(scene: &Scene, options: &SnapshotOptions) -> Vec<String> {
    let tree = snapshot(&scene.source(), options).unwrap();
    let mut files: Vec<String> = tree.manifest().files().map(|(path, _)| path.to_str().unwrap().to_owned()).collect();
    files.sort();
    files
}

fn as_git_lists(scene: &Scene) -> Vec<String> {
    let listed = git(&scene.source(), &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut files: Vec<String> = listed
        .split('\0')
        .filter(|path| !path.is_empty() && scene.source().join(path).exists())
        .map(str::to_owned)
        .collect();
    files.sort();
    files
}

fn repository() -> Scene {
    let scene = Scene::new();
    git(&scene.source(), &["init", "-q"]);
    for path in [
        "a.txt",
        "build/out.o",
        "build/keep.me",
        "src/main.rs",
        "src/main.o",
        "src/deep/x.log",
        "src/deep/y.log",
        "docs/page",
        "docs/temp/x",
        "docs/temp/y",
        "logs/1",
        "logs/keep",
        "tracked.tmp",
        "gone",
        "a b/ü",
        "-x",
        "node/modules/dep",
        "sub/.gitignore.bak",
    ] {
        scene.write(path, path.as_bytes());
    }
    scene.write(".gitignore", b"# comment\n*.o\n/build/\nnode\n*.tmp\n!src/deep/y.log\n*.log\ntrailing\\ \n");
    scene.write("src/deep/.gitignore", b"!y.log\n");
    scene.write("docs/.gitignore", b"temp/*\n!temp/y\n");
    scene.write("logs/.gitignore", b"*\n!keep\n!.gitignore\n");
    scene.write(".git/info/exclude", b"docs/page\n");
    git(&scene.source(), &["add", "a.txt", "src", "gone"]);
    git(&scene.source(), &["add", "-f", "build/keep.me", "tracked.tmp"]);
    fs::remove_file(scene.source().join("gone")).unwrap();
    scene
}

#[test]
fn it_takes_what_git_takes() {
    let scene = repository();
    let expected = as_git_lists(&scene);
    for there in ["build/keep.me", "tracked.tmp", "src/deep/y.log", "docs/temp/y", "logs/keep", "a b/ü"] {
        assert!(expected.contains(&there.to_owned()), "git takes {there}: {expected:?}");
    }
    assert_eq!(files(&scene, &SnapshotOptions::repository()), expected);
}

#[test]
fn every_version_of_the_index_is_read() {
    let scene = repository();
    for version in ["2", "3", "4"] {
        git(&scene.source(), &["update-index", "--index-version", version]);
        // An entry with the longer flags of version 3.
        git(&scene.source(), &["add", "-N", "docs/temp/y"]);
        assert_eq!(files(&scene, &SnapshotOptions::repository()), as_git_lists(&scene), "version {version}");
    }
    git(&scene.source(), &["update-index", "--split-index"]);
    assert_eq!(files(&scene, &SnapshotOptions::repository()), as_git_lists(&scene), "an index in two files");
}

#[test]
fn a_directory_of_a_repository_has_its_rules() {
    let scene = repository();
    let tree = snapshot(&scene.source().join("src"), &SnapshotOptions::repository()).unwrap();
    assert_eq!(paths(tree.manifest()), ["deep", "deep/.gitignore", "deep/y.log", "main.rs"]);
    let tree = snapshot(&scene.source().join("node"), &SnapshotOptions::repository()).unwrap();
    assert_eq!(paths(tree.manifest()), ["modules", "modules/dep"], "who names an ignored directory means it");
}

#[test]
fn git_itself_comes_along_when_asked() {
    let scene = repository();
    git(&scene.source(), &["commit", "-q", "-m", "first"]);
    let tree = snapshot(&scene.source(), &SnapshotOptions { copy_git: true, ..SnapshotOptions::repository() }).unwrap();
    scene.keep(&tree);
    scene.place(tree.manifest(), "copy");
    assert_eq!(git(&scene.at("copy"), &["log", "--format=%s"]), "first\n");
    let without = snapshot(&scene.source(), &SnapshotOptions::repository()).unwrap();
    assert!(!paths(without.manifest()).iter().any(|path| path.starts_with(".git/")));
    let everything = files(&scene, &SnapshotOptions::everything());
    assert!(everything.contains(&"build/out.o".to_owned()) && everything.contains(&".git/HEAD".to_owned()));
}

#[test]
fn repositories_within_have_their_own_rules() {
    let scene = repository();
    let inner = scene.source().join("inner");
    fs::create_dir(&inner).unwrap();
    git(&inner, &["init", "-q"]);
    scene.write("inner/x.o", b"taken: the outer rules end here");
    scene.write("inner/y.bin", b"ignored");
    scene.write("inner/.gitignore", b"*.bin\n");
    let files = files(&scene, &SnapshotOptions::repository());
    let within: Vec<_> = files.iter().filter(|path| path.starts_with("inner/")).collect();
    assert_eq!(within, ["inner/.gitignore", "inner/x.o"]);
}

#[test]
fn outside_of_repositories_everything_is_taken() {
    let scene = Scene::new();
    scene.write(".gitignore", b"*\n");
    scene.write("a.o", b"x");
    // Somebody's directory of that name is no repository.
    scene.write(".git/notes", b"x");
    assert_eq!(files(&scene, &SnapshotOptions::repository()), [".git/notes", ".gitignore", "a.o"]);
}
