//! Connections that are cut, hosts that die, and what is left of it all.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executr_executors::contract::{Event, Exit, Workspace};
use executr_executors::ssh::{Mode, SshOptions, SshSweeper, SshWorkspace};
use executr_executors::sweep::Sweeper;
use executr_tests::sshd::Sshd;

use super::rig::{Here, options, target};
use crate::conformance::rig::{gather, plan, sh};

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).into_iter().flatten().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_whole_and_in_order_across_cuts() {
    let Some(host) = Sshd::start() else { return };
    let here = Here::new().await;
    let workspace = SshWorkspace::new(Arc::clone(&here.hosts), options(&host));
    let mut sandbox = workspace.setup_job(plan()).await.unwrap();
    let script =
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i % 1000)) -eq 0 ] && sleep 0.3; done; exit 7";
    let mut execution = sandbox.execute(sh(script)).await.unwrap();
    let (mut output, mut cuts, mut exit) = (Vec::new(), 0, None);
    while let Some(event) = execution.next().await.unwrap() {
        match event {
            Event::Output { offset, data, .. } => {
                assert_eq!(offset, output.len() as u64, "nothing is missing, nothing comes twice");
                output.extend_from_slice(&data);
                if cuts < 2 && output.len() > cuts * 10_000 {
                    cuts += 1;
                    host.cut();
                }
            }
            Event::Ended(ended) => exit = Some(ended.exit),
            _ => {}
        }
    }
    drop(execution);
    let expected: String = (1..=3000).map(|line| format!("line {line}\n")).collect();
    assert!(output == expected.as_bytes(), "{} bytes instead of {}", output.len(), expected.len());
    assert_eq!((exit, cuts), (Some(Exit::Code(7)), 2));
    sandbox.cleanup().await.unwrap();
    drop(sandbox);
    here.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_goes_round_and_passes_over_the_dead() {
    let Some((mut dead, alive, other)) = three() else { return };
    let here = Here::new().await;
    let hosts = [&dead, &alive, &other].map(|host| format!("port-{}", host.port()));
    let config = here.directory.path().join("config");
    let mut text = String::new();
    for (name, host) in hosts.iter().zip([&dead, &alive, &other]) {
        let usual = fs::read_to_string(host.config()).unwrap();
        text.push_str(&usual.replacen("Host *", &format!("Host {name}"), 1));
    }
    fs::write(&config, text).unwrap();
    let pool = SshOptions {
        hosts: hosts.to_vec(),
        mode: Mode::Pool,
        config_file: Some(config.display().to_string()),
        ..SshOptions::default()
    };
    let workspace = SshWorkspace::new(Arc::clone(&here.hosts), pool);
    let homes = [dead.home(), alive.home(), other.home()];
    let place_of = async || {
        let mut sandbox = workspace.setup_job(plan()).await.unwrap();
        let mut execution = sandbox.execute(sh("pwd")).await.unwrap();
        let outcome = gather(execution.as_mut()).await;
        drop(execution);
        sandbox.cleanup().await.unwrap();
        let directory = String::from_utf8(outcome.stdout).unwrap();
        homes.iter().position(|home| directory.starts_with(&home.display().to_string())).unwrap()
    };
    assert_eq!([place_of().await, place_of().await, place_of().await], [0, 1, 2]);
    dead.stop();
    dead.end_agents();
    // The connection that was there is gone, and another can't be had: one that is lost is found out by whoever comes.
    let mut places = Vec::new();
    for _ in 0..6 {
        places.push(place_of().await);
    }
    assert!(!places.contains(&0) && places.contains(&1) && places.contains(&2), "{places:?}");
    here.hosts.close().await;
    here.machine.cleanup().await;
}

fn three() -> Option<(Sshd, Sshd, Sshd)> {
    Some((Sshd::start()?, Sshd::start()?, Sshd::start()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_worker_left_is_swept() {
    let Some(host) = Sshd::start() else { return };
    let here = Here::new().await;
    let notes = here.directory.path().join("hosts");
    let at = host.home().join(".cache/executr/at");
    // As if its process were dead: nothing is let go of, and no lock is held.
    let workspace = SshWorkspace::new(Arc::clone(&here.hosts), options(&host));
    let mut sandbox = workspace.setup_job(plan()).await.unwrap();
    let mut execution = sandbox.execute(sh("trap '' TERM; echo > here; sleep 1000")).await.unwrap();
    execution.next().await.unwrap();
    let there = || fs::read_dir(&at).unwrap().flatten().next().unwrap().path();
    until("it runs", || entries(&there()) > 1).await;
    for note in fs::read_dir(&notes).unwrap().flatten() {
        let text = fs::read(note.path()).unwrap();
        fs::remove_file(note.path()).unwrap();
        fs::write(note.path(), text).unwrap();
    }
    let sweeper = SshSweeper::new(here.options.clone());
    let found = sweeper.find().await.unwrap();
    assert_eq!(found.len(), 1);
    for left in found {
        assert!(left.name().ends_with(" at host"), "{}", left.name());
        left.remove().await.unwrap();
    }
    assert_eq!((entries(&at), entries(&notes)), (0, 0));
    assert!(execution.next().await.is_err(), "it is lost to whoever it ran for");
    let _ = target(&host);
}
