//! The conformance suite against an agent whose job directories nobody else sees: it has a file system of its own in their
//! place.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod conformance;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance::rig::{Outcome, Rig, gather, plan, sh};
use executr_agent_protocol::driver::{Agent, AgentOptions, OneStream};
use executr_executors::contract::{
    ExecutorError, FileToPut, Handover, JobPlan, LimitOffers, PutTo, Sandbox, TakeFrom, TreeAtHand, Workspace,
};
use executr_executors::remote::RemoteWorkspace;
use executr_spec::workflow::{ArchiveKind, ModifiedFiles};
use executr_tree::{BlobDir, Manifest, SnapshotOptions, snapshot, unpack_modified};

/// A place, and the agent that ends with it.
struct Far {
    place: RemoteWorkspace,
    agent: Mutex<Child>,
}

#[async_trait::async_trait]
impl Workspace for Far {
    fn limits(&self) -> &LimitOffers {
        self.place.limits()
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        self.place.setup_job(job).await
    }

    async fn cleanup(&self) {
        self.place.cleanup().await;
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // It goes when nobody is there any more.
        self.agent.lock().unwrap().wait().unwrap();
    }
}

/// An agent in a mount namespace of its own, where nothing that it does in its work directory is seen outside.
async fn rig() -> Option<Rig> {
    if !rustix::process::geteuid().is_root() {
        executr_tests::component::absent("root user", "mounting takes one");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let script = "mount -t tmpfs none \"$1\" && exec \"$0\" serve --stdio --limits";
    let agent = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .arg(executr_tests::program::agent())
        .arg(&work)
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs)
        .spawn()
        .unwrap();
    ours.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(ours).unwrap();
    let options = AgentOptions { patience: Duration::ZERO, ..AgentOptions::default() };
    let driver = Agent::connect(Arc::new(OneStream::new(stream)), options).await.unwrap();
    let blobs = BlobDir::open(directory.path().join("blobs")).unwrap();
    let place = RemoteWorkspace::open(driver, work, blobs).await.unwrap();
    Some(Rig { workspace: Arc::new(Far { place, agent: Mutex::new(agent) }), directory })
}

mod conforming {
    use super::rig;
    crate::conformance!(rig);
}

/// A tree of a directory, and its blobs.
struct Kept(Manifest, BlobDir);

impl TreeAtHand for Kept {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn blobs(&self) -> &BlobDir {
        &self.1
    }
}

fn kept(rig: &Rig, directory: &Path) -> Arc<dyn TreeAtHand> {
    let tree = snapshot(directory, &SnapshotOptions::everything()).unwrap();
    let blobs = BlobDir::open(rig.directory.path().join("source")).unwrap();
    for digest in tree.manifest().blobs() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut tree.blob(digest).unwrap().open(), &mut bytes).unwrap();
        let mut partial = blobs.bring(digest).unwrap().unwrap();
        partial.append(&bytes).unwrap();
        blobs.commit_all(vec![partial]).unwrap();
    }
    Arc::new(Kept(tree.manifest().clone(), blobs))
}

async fn said(sandbox: &mut dyn Sandbox, script: &str) -> Outcome {
    let mut step = sh(script);
    step.last = false;
    let mut execution = sandbox.execute(step).await.unwrap();
    gather(execution.as_mut()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_files_and_handovers_pass_through_the_agent_alone() {
    let Some(rig) = rig().await else { return };
    let repository = tempfile::tempdir().unwrap();
    std::fs::create_dir(repository.path().join("src")).unwrap();
    std::fs::write(repository.path().join("src/main"), "main\n").unwrap();
    std::fs::write(repository.path().join("gone"), "gone\n").unwrap();
    std::os::unix::fs::symlink("src/main", repository.path().join("link")).unwrap();
    std::fs::write(repository.path().join("large"), vec![b'x'; 300_000]).unwrap();
    let tree = kept(&rig, repository.path());
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    sandbox.put_tree(Arc::clone(&tree), PutTo::JobDirectory).await.unwrap();
    sandbox.put_tree(tree, PutTo::Artifact { name: "it", path: Path::new("in/deep") }).await.unwrap();
    let file = |content: &'static str| FileToPut { path: "etc/conf".into(), content: content.into(), mode: 0o640 };
    sandbox.put_files(vec![file("one\n")]).await.unwrap();
    sandbox.put_files(vec![file("two\n")]).await.unwrap();
    assert!(!sandbox.directory().exists(), "nobody else sees it");
    sandbox.begin_modified().await.unwrap();
    sandbox.note().await.unwrap();
    let output = sandbox.handover_path(Handover::Outputs).display().to_string();
    let script = format!(
        "cat link in/deep/src/main etc/conf; stat -c %a etc/conf; wc -c < large; rm gone; mkdir out; echo made > out/made
         echo x=1 > {output}; pwd"
    );
    let directory = sandbox.directory().display().to_string();
    let outcome = said(sandbox.as_mut(), &script).await;
    assert_eq!(outcome, Outcome::exited(0, &format!("main\nmain\ntwo\n640\n300000\n{directory}\n")));
    assert_eq!(sandbox.take_handover(Handover::Outputs, 100).await.unwrap().unwrap(), "x=1\n");
    assert!(sandbox.take_handover(Handover::Variables, 100).await.unwrap().is_none());
    let changes = sandbox.changes().await.unwrap();
    let told: Vec<_> = changes.told().map(|change| change.path.to_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["gone", "out/made"]);
    let (offer, mut offered) = tokio::sync::mpsc::unbounded_channel();
    let from = |path| TakeFrom::Artifact { name: "out", path: Path::new(path) };
    let taken = sandbox.take_tree(from("out"), offer.clone()).await.unwrap().unwrap();
    let paths: Vec<_> = taken.manifest.entries().iter().map(|entry| entry.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["out", "out/made"]);
    assert!(taken.manifest.blobs().contains(&offered.recv().await.unwrap().digest));
    assert!(sandbox.take_tree(from("absent"), offer).await.unwrap().is_none());
    let wanted = ModifiedFiles {
        name: "m".to_owned(),
        to: None,
        archive: ArchiveKind::TarZst,
        include: vec![],
        exclude: vec![],
    };
    let archive = rig.directory.path().join("archive");
    sandbox.take_modified(&wanted, std::fs::File::create(&archive).unwrap()).await.unwrap();
    let target = rig.directory.path().join("target");
    let unpacked = unpack_modified(std::fs::File::open(&archive).unwrap(), wanted.archive, &target).unwrap();
    assert_eq!((unpacked.files, unpacked.deleted), (1, vec!["gone".into()]));
    assert_eq!(std::fs::read_to_string(target.join("out/made")).unwrap(), "made\n");
    let kept = rig.directory.path().join("kept");
    sandbox.keep_directory(&kept);
    sandbox.cleanup().await.unwrap();
    assert_eq!(std::fs::read_to_string(kept.join("out/made")).unwrap(), "made\n");
    drop(sandbox);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_this_machine_is_brought() {
    let Some(rig) = rig().await else { return };
    let program = rig.directory.path().join("work/program");
    // The agent sees nothing of it: its own file system is mounted there.
    std::fs::write(&program, "#!/bin/sh\necho \"brought $1\"\n").unwrap();
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    for word in ["a", "b"] {
        let mut step = sh("");
        step.last = false;
        step.program = executr_executors::contract::Program::Brought {
            program: program.clone(),
            args: vec![bytes::Bytes::copy_from_slice(word.as_bytes())],
        };
        let mut execution = sandbox.execute(step).await.unwrap();
        assert_eq!(gather(execution.as_mut()).await, Outcome::exited(0, &format!("brought {word}\n")));
    }
    sandbox.cleanup().await.unwrap();
    drop(sandbox);
    std::fs::remove_file(program).unwrap();
    rig.end().await;
}
