//! The cluster all tests of a run share. Whoever takes the lock first starts it; a watcher ends it with the run.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{Durability, cluster::Cluster, install::Install, place};
use crate::run;

pub(super) fn cluster(install: &Install) -> Cluster {
    let (base, _lock) = run::locked_directory(&place::parent(Durability::Fast));
    let directory = base.join(format!("pg-{}", run::id()));
    if let Some(cluster) = running(install, &directory) {
        return cluster;
    }
    // Here only if whoever started before us ended halfway.
    drop(fs::remove_dir_all(&directory));
    DirBuilder::new().mode(0o700).create(&directory).expect("the tests' own directory is writable");
    install.give_directory(&directory);
    let cluster = Cluster::create(install.clone(), &directory, Durability::Fast, &[], &[]);
    cluster.end_with(run::process());
    let ready = format!("{} {}", cluster.port(), cluster.password());
    fs::write(directory.join("ready"), ready).expect("the cluster's directory is writable");
    cluster
}

fn running(install: &Install, directory: &Path) -> Option<Cluster> {
    let ready = fs::read_to_string(directory.join("ready")).ok()?;
    let (port, password) = ready.split_once(' ')?;
    let port = port.parse().ok()?;
    Some(Cluster::existing(install.clone(), directory, port, password.to_owned()))
}
