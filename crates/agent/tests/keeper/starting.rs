//! What a task finds when it starts, and what is said when it can't.

use bytes::Bytes;
use executr_agent_protocol::driver::{Exit, File, KeeperError, ResourceLimit, StartPhase, StartTask};

use crate::rig::{Rig, bytes_of, lives, options, see, until, within};

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let mut rig = Rig::new().await;
    for code in [0, 1, 42, 255] {
        let seen = rig.run(rig.sh(&format!("exit {code}"))).await;
        assert_eq!(seen.ended.exit, Exit::Code(code));
        assert!(seen.stdout.is_empty() && seen.stderr.is_empty());
    }
    for signal in [9, 15, 11] {
        let seen = rig.run(rig.sh(&format!("kill -{signal} $$"))).await;
        assert_eq!(seen.ended.exit, Exit::Signal(signal));
    }
}

#[tokio::test]
async fn arguments_and_environment_arrive_byte_for_byte() {
    let mut rig = Rig::new().await;
    let every_byte: Vec<u8> = (1..=255).collect();
    let mut entry = b"ODD=".to_vec();
    entry.extend_from_slice(&every_byte);
    let mut task = rig.argv(&["/usr/bin/env", "-0"]);
    task.env = vec![Bytes::from(entry.clone()), Bytes::from_static(b"EMPTY="), Bytes::from_static(b"A=b=c")];
    let seen = rig.run(task).await;
    let expected: Vec<u8> = [&entry[..], b"EMPTY=", b"A=b=c"].map(|entry| [entry, b"\0"].concat()).concat();
    assert_eq!(seen.stdout, expected, "the environment is exactly what was given");

    let mut task = rig.argv(&["/usr/bin/printf", "%s|%s|"]);
    task.argv.extend([Bytes::from(every_byte.clone()), Bytes::new()]);
    let seen = rig.run(task).await;
    assert_eq!(seen.stdout, [&every_byte[..], b"||"].concat());
}

#[tokio::test]
async fn a_task_leads_a_session_and_has_nothing_open_but_three() {
    let mut rig = Rig::new().await;
    // The shell's own listing opens one more, the directory itself.
    let seen = rig.run(rig.argv(&["/bin/ls", "-l", "/proc/self/fd"])).await;
    let listing = String::from_utf8(seen.stdout).unwrap();
    let open: Vec<&str> = listing.lines().filter_map(|line| line.split_once(" -> ").map(|(_, to)| to)).collect();
    assert_eq!(open.len(), 4, "{listing}");
    assert_eq!(open[0], "/dev/null");
    assert!(open[1].starts_with("pipe:") && open[2].starts_with("pipe:") && open[1] != open[2], "{listing}");
    assert!(open[3].starts_with("/proc/"), "{listing}");

    let seen = rig.run(rig.sh("cat /proc/self/status; cut -d' ' -f1,5,6 /proc/$$/stat")).await;
    let said = String::from_utf8(seen.stdout).unwrap();
    assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
    assert!(said.contains("SigIgn:\t0000000000000000"), "{said}");
    let pid = seen.pid;
    assert!(said.ends_with(&format!("{pid} {pid} {pid}\n")), "process, group and session: {said}");
}

#[tokio::test]
async fn descriptors_of_the_driver_do_not_reach_tasks() {
    use std::os::fd::AsRawFd;
    // One that is meant to be inherited, as a shell's redirections are.
    let file = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let mut rig = Rig::new().await;
    let fd = file.as_raw_fd();
    let seen = rig.run(rig.sh(&format!("test ! -e /proc/self/fd/{fd}"))).await;
    assert_eq!(seen.ended.exit, Exit::Code(0));
}

#[tokio::test]
async fn many_tasks_leave_no_descriptor_and_no_child_behind() {
    let mut rig = Rig::new().await;
    let keeper = rig.keeper.pid();
    let open = || std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    rig.run(rig.argv(&["true"])).await;
    let before = open();
    for number in 0..50 {
        let mut task = rig.argv(&["true"]);
        task.directory = bytes_of(&rig.path(&format!("job-{number}")));
        task.create_directory = true;
        task.remove_directory = true;
        assert_eq!(rig.run(task).await.ended.exit, Exit::Code(0));
        rig.refused(rig.argv(&["no-such-program"])).await;
    }
    rig.keeper.ping().await.unwrap();
    assert_eq!(open(), before);
    // The one that is kept for the next task.
    let left: Vec<_> = std::fs::read_dir(rig.place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [format!("{}{keeper}", executr_agent_protocol::SPARE_PREFIX).as_str()]);
}

#[tokio::test]
async fn the_directory_is_made_filled_and_removed() {
    let mut rig = Rig::new().await;
    let outside = rig.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "kept").unwrap();
    let job = rig.path("job");
    let mut task = rig.argv(&["./script", "world"]);
    task.directory = bytes_of(&job);
    task.create_directory = true;
    task.remove_directory = true;
    task.files = vec![File {
        path: Bytes::from_static(b"script"),
        content: Bytes::from_static(
            b"#!/bin/sh\necho hello $1\npwd\nmkdir -p a/b\nln -s ../outside a/link\nln -s ../outside link\n",
        ),
        mode: 0o700,
    }];
    let seen = rig.run(task.clone()).await;
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), format!("hello world\n{}\n", job.display()));
    assert_eq!(seen.ended.exit, Exit::Code(0));
    assert_eq!(seen.ended.removal_failure, None);
    assert!(!job.exists());
    assert!(outside.join("kept").exists(), "a link was followed");

    // Kept when that is what was asked, and removed by the other call.
    task.remove_directory = false;
    rig.run(task).await;
    assert!(job.join("script").exists());
    rig.keeper.remove_directory(&job).await.unwrap().unwrap();
    assert!(!job.exists());
    assert!(outside.join("kept").exists(), "a link was followed");
    rig.keeper.remove_directory(&job).await.unwrap().unwrap();
    let failure = rig.keeper.remove_directory(outside.join("kept")).await.unwrap().unwrap_err();
    assert_eq!(failure.errno, libc::ENOTDIR, "{failure}");
}

#[tokio::test]
async fn a_directory_that_exists_is_neither_used_nor_removed() {
    let mut rig = Rig::new().await;
    let theirs = rig.path("theirs");
    std::fs::create_dir(&theirs).unwrap();
    let mut task = rig.argv(&["true"]);
    task.directory = bytes_of(&theirs);
    task.create_directory = true;
    task.remove_directory = true;
    let failed = rig.refused(task).await;
    assert_eq!((failed.phase, failed.failure.errno), (StartPhase::Directory, libc::EEXIST));
    assert_eq!(failed.failure.path, theirs);
    assert!(theirs.exists());
}

#[tokio::test]
async fn why_a_program_cannot_run_is_said() {
    let mut rig = Rig::new().await;
    std::fs::write(rig.path("plain"), "text").unwrap();
    std::fs::write(rig.path("no-interpreter"), "#!/no/such/shell\n").unwrap();
    std::fs::write(rig.path("neither"), "text").unwrap();
    for name in ["no-interpreter", "neither"] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(rig.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (argv, errno, says) in [
        (&["no-such-program"][..], libc::ENOENT, "no-such-program not found in PATH (/usr/bin:/bin)"),
        (&["/no/such/program"], libc::ENOENT, "no such program: /no/such/program"),
        (&["./plain/program"], libc::ENOTDIR, "not a directory"),
        (&["./plain"], libc::EACCES, "is not executable; set its execute bit"),
        (&["/usr"], libc::EACCES, "/usr is a directory"),
        (&["./no-interpreter"], libc::ENOENT, "the interpreter in its first line"),
        (&["./neither"], libc::ENOEXEC, "neither a program for this machine nor a script"),
    ] {
        let failed = rig.refused(rig.argv(argv)).await;
        assert_eq!((failed.phase, failed.failure.errno), (StartPhase::Exec, errno), "{argv:?}: {}", failed.failure);
        assert!(failed.failure.message.contains(says), "{argv:?}: {}", failed.failure);
    }

    let missing = rig.path("missing");
    let failed = rig.refused(StartTask { directory: bytes_of(&missing), ..rig.argv(&["true"]) }).await;
    assert_eq!((failed.phase, failed.failure.errno), (StartPhase::Chdir, libc::ENOENT));
    assert!(failed.failure.message.starts_with("no such directory"), "{}", failed.failure);
    let plain = rig.path("plain");
    let failed = rig.refused(StartTask { directory: bytes_of(&plain), ..rig.argv(&["true"]) }).await;
    assert_eq!((failed.phase, failed.failure.errno), (StartPhase::Chdir, libc::ENOTDIR));

    let failed = rig.refused(StartTask { argv: Vec::new(), ..rig.argv(&["true"]) }).await;
    assert_eq!(failed.phase, StartPhase::Request);
    assert_eq!(rig.run(rig.argv(&["true"])).await.ended.exit, Exit::Code(0), "the keeper goes on");
}

#[tokio::test]
async fn a_failed_start_removes_what_it_made() {
    let mut rig = Rig::new().await;
    let job = rig.path("job");
    let mut task = rig.argv(&["no-such-program"]);
    task.directory = bytes_of(&job);
    task.create_directory = true;
    task.remove_directory = true;
    task.files = vec![File { path: Bytes::from_static(b"data"), content: Bytes::from_static(b"x"), mode: 0o600 }];
    rig.refused(task.clone()).await;
    assert!(!job.exists());
    task.files.push(File { path: Bytes::from_static(b"data"), ..Default::default() });
    let failed = rig.refused(task).await;
    assert_eq!((failed.phase, failed.failure.errno), (StartPhase::File, libc::EEXIST));
    assert!(!job.exists());
}

#[tokio::test]
async fn resource_limits_are_set() {
    let mut rig = Rig::new().await;
    let mut task = rig.sh("ulimit -n; ulimit -Hn");
    task.resource_limits = vec![ResourceLimit { resource: libc::RLIMIT_NOFILE, soft: 100, hard: 200 }];
    assert_eq!(rig.run(task).await.stdout, b"100\n200\n");
}

#[tokio::test]
async fn a_keeper_that_dies_says_so_and_is_replaced() {
    let mut rig = Rig::new().await;
    let sleep = rig.sh("sleep 1000 & exec sleep 1000");
    let pid = rig.keeper.pid();
    let mut task = rig.keeper.start(sleep).await.unwrap();
    let Some(executr_agent_protocol::driver::Event::Started { pid: main }) = within(task.next()).await.unwrap() else {
        panic!("not started");
    };
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    let error = within(task.next()).await.unwrap_err();
    assert!(matches!(error, KeeperError::Died { .. }), "{error}");
    drop(task);
    until("the first process died with its keeper", || !lives(main)).await;
    assert!(rig.keeper.start(StartTask::default()).await.is_err());
    rig.keeper.respawn().await.unwrap();
    assert_ne!(rig.keeper.pid(), pid);
    let task = rig.sh("echo again");
    let seen = see(rig.keeper.start(task).await.unwrap()).await.unwrap();
    assert_eq!(seen.stdout, b"again\n");
}

#[tokio::test]
async fn a_program_that_is_no_keeper_is_an_error() {
    use executr_agent_protocol::driver::{Cgroups, Keeper};
    let missing =
        executr_agent_protocol::driver::KeeperOptions { program: "/no/such/keeper".into(), ..options(Cgroups::Never) };
    assert!(matches!(Keeper::spawn(missing).await, Err(KeeperError::Spawn { .. })));
    let silent =
        executr_agent_protocol::driver::KeeperOptions { program: "/bin/true".into(), ..options(Cgroups::Never) };
    assert!(matches!(within(Keeper::spawn(silent)).await, Err(KeeperError::Died { .. })));
}
