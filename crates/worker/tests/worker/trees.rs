//! What goes into a job directory before the steps, and what comes out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use executr_api::{Artifact, AttemptResult, Fence, Outcome, RunContext};
use executr_spec::workflow::{
    ArchiveKind, ArtifactInput, ArtifactOutput, FileContent, FileMode, FileSelection, ModifiedFiles, SandboxFile,
    WorkflowJob,
};
use executr_spec::{Condition, Digest, JobSpec, RunId, Step, StepCommand};
use executr_tree::{BlobSource, Manifest, SnapshotOptions, snapshot, unpack_modified};
use uuid::Uuid;

use crate::rig::Rig;

pub(crate) fn step(script: &str) -> Step {
    Step::new(StepCommand::Run(script.to_owned()))
}

pub(crate) fn job(steps: Vec<Step>, change: impl FnOnce(&mut WorkflowJob)) -> JobSpec {
    let mut workflow = WorkflowJob { workflow: "ci".to_owned(), name: "job".to_owned(), ..WorkflowJob::default() };
    change(&mut workflow);
    JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(steps) }
}

pub(crate) async fn came_to(rig: &Rig, spec: &JobSpec, artifacts: Vec<Artifact>) -> (Fence, AttemptResult) {
    let run = RunContext { run: RunId(Uuid::from_u128(7)), needs: BTreeMap::new(), artifacts, workspace: None };
    let fence = rig.coordinator.submit_in(spec, Some(run));
    (fence, rig.coordinator.result(fence).await)
}

/// What was written, without marks.
pub(crate) fn text(rig: &Rig, fence: Fence) -> String {
    let text = rig.coordinator.text(fence);
    text.lines().filter(|line| !line.starts_with("{\"event\"")).map(|line| format!("{line}\n")).collect()
}

/// Puts a directory's tree where the coordinator has its blobs.
pub(crate) fn keep(rig: &Rig, directory: &Path) -> Digest {
    let tree = snapshot(directory, &SnapshotOptions::everything()).unwrap();
    for digest in tree.manifest().blobs().into_iter().chain([tree.digest()]) {
        let mut bytes = Vec::new();
        tree.open_blob(digest).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        rig.coordinator.change(|state| state.blobs.insert(digest, bytes.into()));
    }
    tree.digest()
}

fn paths(rig: &Rig, tree: Digest) -> Vec<String> {
    let bytes = rig.coordinator.change(|state| state.blobs[&tree].clone());
    let manifest = Manifest::parse(&bytes).unwrap();
    manifest.entries().iter().map(|entry| entry.path.display().to_string()).collect()
}

pub(crate) fn output(name: &str, path: &str) -> ArtifactOutput {
    ArtifactOutput { name: name.to_owned(), path: path.to_owned() }
}

pub(crate) fn input(name: &str, path: &str) -> ArtifactInput {
    ArtifactInput { name: name.to_owned(), from: "maker".to_owned(), path: path.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_starts_with_its_own_copy_of_the_repository() {
    let rig = Rig::start(|_| ()).await;
    let repository = tempfile::tempdir().unwrap();
    fs::create_dir(repository.path().join("src")).unwrap();
    fs::write(repository.path().join("src/main"), "#!/bin/sh\necho built\n").unwrap();
    fs::set_permissions(repository.path().join("src/main"), fs::Permissions::from_mode(0o755)).unwrap();
    let source = keep(&rig, repository.path());
    let spec = job(vec![step("src/main; ls; echo changed > src/main")], |job| {
        job.source = Some(source);
        job.condition = Some("test -x src/main".to_owned());
    });
    for _ in 0..2 {
        let (fence, result) = came_to(&rig, &spec, vec![]).await;
        assert_eq!((result.outcome, text(&rig, fence).as_str()), (Outcome::Succeeded, "built\nsrc\n"), "{result:?}");
    }
    let absent = job(vec![step("true")], |job| job.source = Some(Digest::of(b"absent")));
    let (_, result) = came_to(&rig, &absent, vec![]).await;
    assert!(!result.retryable && result.error_message.is_some_and(|message| message.contains("repository")));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gets_what_it_selects_where_it_wants_it() {
    let rig = Rig::start(|_| ()).await;
    let repository = tempfile::tempdir().unwrap();
    for (path, content) in [("src/a.rs", "a"), ("src/deep/b.rs", "b"), ("src/c.txt", "c"), ("tool", "t"), ("large", "")]
    {
        fs::create_dir_all(repository.path().join(path).parent().unwrap()).unwrap();
        fs::write(repository.path().join(path), content).unwrap();
    }
    fs::write(repository.path().join("large"), vec![b'x'; 1 << 20]).unwrap();
    let source = keep(&rig, repository.path());
    let select = |from: &str, to: Option<&str>, include: &[&str]| FileSelection {
        from: from.to_owned(),
        to: to.map(str::to_owned),
        include: include.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        exclude: vec![],
    };
    let with = |selected: Vec<FileSelection>| {
        job(vec![step("find . -type f | sort; cat lib/deep/b.rs bin/tool; echo")], |job| {
            (job.source, job.selected) = (Some(source), selected);
        })
    };
    let spec = with(vec![
        select("src", Some("lib"), &["*.rs"]),
        select("tool", Some("bin/"), &[]),
        select("large", None, &[]),
    ]);
    let (fence, result) = came_to(&rig, &spec, vec![]).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(text(&rig, fence), "./bin/tool\n./large\n./lib/a.rs\n./lib/deep/b.rs\nbt\n");
    let (_, result) = came_to(&rig, &with(vec![select("srx", None, &[])]), vec![]).await;
    assert!(result.error_message.is_some_and(|message| message.contains("the repository has no `srx`")));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_modifies_comes_back_however_it_ends() {
    let rig = Rig::start(|_| ()).await;
    let repository = tempfile::tempdir().unwrap();
    for name in ["kept", "changed", "gone", "touched"] {
        fs::write(repository.path().join(name), "before").unwrap();
    }
    let source = keep(&rig, repository.path());
    let script =
        "echo after > changed; rm gone; touch touched; mkdir -p dist/deep; echo new > dist/deep/new; echo no > left.o";
    for (end, outcome, archive) in
        [("", Outcome::Succeeded, ArchiveKind::TarZst), ("; exit 7", Outcome::Failed, ArchiveKind::TarS2)]
    {
        let spec = job(vec![step(&format!("{script}{end}"))], |job| {
            let content = FileContent::Text("x".to_owned());
            job.files.insert("given".to_owned(), SandboxFile { content, mode: FileMode::default() });
            job.source = Some(source);
            job.modified = Some(ModifiedFiles {
                name: "modified".to_owned(),
                to: None,
                archive,
                include: vec![],
                exclude: vec!["*.o".parse().unwrap()],
            });
        });
        let (_, result) = came_to(&rig, &spec, vec![]).await;
        assert_eq!((result.outcome, result.artifacts.len()), (outcome, 1), "{result:?}");
        assert_eq!(paths(&rig, result.artifacts[0].tree), [format!("modified.{}", archive.as_str())]);
        let blob = {
            let state = rig.coordinator.state.lock().unwrap();
            let manifest = Manifest::parse(&state.blobs[&result.artifacts[0].tree]).unwrap();
            state.blobs[&manifest.blobs()[0]].clone()
        };
        let output = tempfile::tempdir().unwrap();
        let unpacked = unpack_modified(&blob[..], archive, output.path()).unwrap();
        assert_eq!((unpacked.files, unpacked.deleted), (2, vec!["gone".into()]));
        assert_eq!(fs::read_to_string(output.path().join("changed")).unwrap(), "after\n");
        assert_eq!(fs::read_to_string(output.path().join("dist/deep/new")).unwrap(), "new\n");
    }
    rig.drain().await;
}

/// The layout of artifacts, which nobody may change: workflows rely on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_holds_its_output_under_its_own_name_and_is_restored_as_it_is() {
    let rig = Rig::start(|_| ()).await;
    let make = "mkdir -p dist/lib target/release; echo a > dist/lib/a; echo tool > target/release/tool; chmod 755 target/release/tool";
    let spec = job(vec![step(make)], |job| {
        job.outputs = vec![output("dist", "dist/"), output("tool", "target/release/tool"), output("all", ".")];
    });
    let (_, made) = came_to(&rig, &spec, vec![]).await;
    assert_eq!(made.outcome, Outcome::Succeeded, "{made:?}");
    let found: Vec<_> =
        made.artifacts.iter().map(|made| (made.name.as_str(), paths(&rig, made.tree).join(" "))).collect();
    assert_eq!(
        found,
        [
            ("dist", "dist dist/lib dist/lib/a".to_owned()),
            ("tool", "tool".to_owned()),
            ("all", "dist dist/lib dist/lib/a target target/release target/release/tool".to_owned()),
        ]
    );
    assert_eq!((made.artifacts[1].size, made.artifacts[1].files), (5, 1));
    let spec = job(vec![step("find . -type f | sort; cat tool; test -x deep/down/tool")], |job| {
        job.inputs = vec![input("dist", ""), input("tool", ""), input("tool", "deep/down"), input("dist", "lib")];
    });
    let (fence, result) = came_to(&rig, &spec, made.artifacts.clone()).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(text(&rig, fence), "./deep/down/tool\n./dist/lib/a\n./lib/dist/lib/a\n./tool\ntool\n");
    let spec = job(vec![step("true")], |job| job.inputs = vec![input("other", "")]);
    let (_, result) = came_to(&rig, &spec, made.artifacts).await;
    assert_eq!(result.error_message.as_deref(), Some("input `other` isn't there: `maker` didn't make it"));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_are_saved_only_of_what_ended_well_and_stay_within_the_job() {
    let rig = Rig::start(|_| ()).await;
    let with = |script: &str, path: &str| job(vec![step(script)], |job| job.outputs = vec![output("it", path)]);
    let (_, failed) = came_to(&rig, &with("echo x > it; exit 1", "it"), vec![]).await;
    assert!(failed.artifacts.is_empty() && rig.coordinator.state.lock().unwrap().blobs.is_empty());
    for (path, told) in [("absent", "no step made `absent`"), ("../it", "leads out"), ("/etc/passwd", "leads out")] {
        let (_, result) = came_to(&rig, &with("true", path), vec![]).await;
        assert_eq!(result.outcome, Outcome::Failed);
        assert!(result.error_message.as_ref().is_some_and(|message| message.contains(told)), "{result:?}");
    }
    // A link in the place where something is restored is not followed out of the job directory.
    let (_, made) = came_to(&rig, &with("echo x > it", "it"), vec![]).await;
    let repository = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), repository.path().join("way")).unwrap();
    let source = keep(&rig, repository.path());
    let spec = job(vec![step("true")], |job| {
        job.source = Some(source);
        job.inputs = vec![input("it", "way")];
    });
    let (_, result) = came_to(&rig, &spec, made.artifacts).await;
    assert!(result.error_message.is_some_and(|message| message.contains("a link is not followed")));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // Nor is one on the way to an output.
    fs::write(outside.path().join("secret"), "x").unwrap();
    let link = format!("ln -s {} way", outside.path().display());
    let own = format!("cd ..; mv \"$OLDPWD\" \"$OLDPWD.moved\"; ln -s {} \"$OLDPWD\"", outside.path().display());
    for (script, path) in [(&link, "way/secret"), (&own, "secret")] {
        let (_, result) = came_to(&rig, &with(script, path), vec![]).await;
        assert_eq!(result.outcome, Outcome::Failed, "{path}");
        assert!(result.error_message.as_ref().is_some_and(|told| told.contains("through a link")), "{result:?}");
    }
    let (_, itself) = came_to(&rig, &with(&own, "."), vec![]).await;
    assert!(itself.artifacts.iter().all(|link| link.files == 0), "it is a link: {itself:?}");
    assert!(rig.coordinator.change(|state| state.blobs.values().all(|blob| &blob[..] != b"x")));
    drop(outside);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_there_afresh_for_every_step() {
    let rig = Rig::start(|_| ()).await;
    let blob = b"from a blob\n";
    rig.coordinator.change(|state| state.blobs.insert(Digest::of(blob), bytes::Bytes::from_static(blob)));
    let file = |content, mode| SandboxFile { content, mode: FileMode(mode) };
    let mut first = step("cat conf/a b c; stat -c %a conf/a b; rm -f b; mkdir b; echo changed > conf/a");
    first.env.insert("NAME".to_owned(), "first".to_owned());
    let mut second = step("cat conf/a b; sh ./b");
    second.env.insert("NAME".to_owned(), "second".to_owned());
    second.condition = Condition::parse("test -f b");
    let spec = job(vec![first, second], |job| {
        job.files = [
            ("conf/a", file(FileContent::Text("step ${{ env.NAME }}\n".to_owned()), 0o444)),
            ("b", file(FileContent::Base64("ZWNobyBydW4K".to_owned()), 0o755)),
            ("c", file(FileContent::Blob(Digest::of(blob)), 0o600)),
        ]
        .map(|(path, file)| (path.to_owned(), file))
        .into();
    });
    let (fence, result) = came_to(&rig, &spec, vec![]).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(text(&rig, fence), "step first\necho run\nfrom a blob\n444\n755\nstep second\necho run\nrun\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_see_which_files_a_step_changed() {
    let rig = Rig::start(|_| ()).await;
    let mut maker = step("echo new > added; echo more >> kept; rm gone; mkdir -p sub; touch sub/x");
    maker.name = Some("maker".to_owned());
    let mut look = step("echo \"$CHANGED\"");
    look.env.insert("CHANGED".to_owned(), "${{ join(steps.maker.changed_files, ' ') }}".to_owned());
    let mut skipped = step("echo never");
    skipped.condition = Condition::parse("${{ contains(steps.maker.changed_files, 'other') }}");
    let spec = job(vec![step("echo a > kept; echo b > gone; echo c > same"), maker, look, skipped], |_| ());
    let (fence, result) = came_to(&rig, &spec, vec![]).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(text(&rig, fence), "added gone kept sub/x\n");
    let left: Vec<_> =
        fs::read_dir(rig.directory.path().join("jobs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".executr-")), "{left:?}");
    rig.drain().await;
}
