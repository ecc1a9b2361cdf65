//! Jobs on other hosts, through the program: a run of a workflow there, and what is left when it is killed.

use std::fs;

use executr_tests::background::{Background, Home};
use executr_tests::program::contained_agent;
use executr_tests::sshd::Sshd;

use crate::system::{eventually, text};

/// Something of a worker's, there.
fn left_on(host: &Sshd) -> usize {
    fs::read_dir(host.home().join(".cache/executr/at")).into_iter().flatten().count()
}

fn file(home: &Home, host: &Sshd, jobs: &str) -> String {
    let path = home.path().join("far.yaml");
    let config = host.config();
    let executor = format!("far: {{kind: ssh, host: host, config_file: {}}}", config.display());
    fs::write(&path, format!("name: far\nexecutors:\n  {executor}\njobs:\n{jobs}")).unwrap();
    path.display().to_string()
}

#[test]
fn a_run_goes_there_with_the_repository_and_comes_back_with_artifacts() {
    let Some(host) = Sshd::start() else { return };
    drop(contained_agent());
    let home = Home::new();
    let repository = home.path().join("repository");
    fs::create_dir(&repository).unwrap();
    fs::write(repository.join("Makefile"), "all:\n").unwrap();
    let jobs = "  build:\n    executor: far\n    steps:\n      - run: ls > listing; echo WHERE=$HOME >> $JOB_ENV\n      \
                - run: test \"$WHERE\" = \"$PWD\"; echo \"$WHERE\" >> listing\n    outputs: {listing: listing}\n  \
                read:\n    needs: build\n    executor: far\n    inputs: [listing]\n    steps: [cat listing]\n";
    let file = file(&home, &host, jobs);
    let ran = home.executr(&["run", &file]).current_dir(&repository).output().unwrap();
    let told = format!("{}{}", text(&ran.stdout), text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{told}");
    let there = host.home().join(".cache/executr/at").display().to_string();
    assert!(told.contains("Makefile") && told.contains(&there), "{told}");
    eventually("nothing of it is there any more", || (left_on(&host) == 0).then_some(()));
}

#[test]
fn what_a_killed_run_left_there_is_cleaned_up() {
    let Some(host) = Sshd::start() else { return };
    drop(contained_agent());
    let home = Home::new();
    let started = host.path().join("started");
    let jobs = format!("  long:\n    executor: far\n    steps: [\"touch {}; exec sleep 1000\"]\n", started.display());
    let file = file(&home, &host, &jobs);
    let mut run = Background::start(&home, "run", &mut home.executr(&["run", &file]));
    eventually("the step runs there", || started.exists().then_some(()));
    run.kill();
    assert_eq!(left_on(&host), 1, "it waits for its worker");
    let clean = |arguments: &[&str]| -> String {
        let cleaned = home.executr(arguments).output().unwrap();
        let told = format!("{}{}", text(&cleaned.stdout), text(&cleaned.stderr));
        assert_eq!(cleaned.status.code(), Some(0), "{told}");
        told
    };
    let told = clean(&["clean", "--dry-run"]);
    assert!(told.contains("on a host") && told.contains(" at host"), "{told}");
    clean(&["clean"]);
    assert_eq!(left_on(&host), 0);
}
