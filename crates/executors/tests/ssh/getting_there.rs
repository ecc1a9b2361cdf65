//! From a host's name to its agent: what it takes, and what is told when it can't be had.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use executr_executors::ssh::{Phase, Target};
use executr_tests::sshd::Sshd;

use super::rig::{Here, target};

/// What an error says, with what differs from run to run by name.
fn told(error: &executr_executors::ssh::SshError, host: &Sshd) -> String {
    error.to_string().replace(&host.path().display().to_string(), "DIR").replace(&host.port().to_string(), "PORT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_sent_once() {
    let Some(host) = Sshd::start() else { return };
    let here = Here::new().await;
    let seen = here.look(&target(&host)).await.unwrap();
    let cache = host.home().join(".cache/executr");
    assert!(seen.place.starts_with(cache.join("at")), "{}", seen.place.display());
    assert_eq!(seen.architecture, std::env::consts::ARCH);
    let agents = || fs::read_dir(cache.join("agent")).unwrap().map(|entry| entry.unwrap()).collect::<Vec<_>>();
    let [agent] = &agents()[..] else { panic!("{:?}", agents()) };
    assert_eq!(agent.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let sent = agent.metadata().unwrap().created().unwrap();
    here.look(&target(&host)).await.unwrap();
    assert_eq!(agents()[0].metadata().unwrap().created().unwrap(), sent, "it was sent again");
    here.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_login_shell_does() {
    for shell in ["bash", "dash", "busybox sh", "tcsh", "fish", "zsh"] {
        let program = shell.split(' ').next().unwrap();
        if !["/bin", "/usr/bin"].iter().any(|place| Path::new(place).join(program).exists()) {
            executr_tests::component::absent(program, "it isn't installed");
            continue;
        }
        let Some(host) = Sshd::with(shell, "") else { return };
        let here = Here::new().await;
        if let Err(error) = here.look(&target(&host)).await {
            panic!("{shell}: {error}");
        }
        here.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_of_a_profile_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let shell = directory.path().join("noisy");
    fs::write(
        &shell,
        "#!/bin/sh\nprintf 'Welcome\\n\\000executrix\\000\\n'; seq 1 5000; echo more >&2\necho \"$2\"\nexec /bin/sh \"$@\"\n",
    )
    .unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let Some(host) = Sshd::with(&shell.display().to_string(), "Banner /etc/passwd") else { return };
    let here = Here::new().await;
    here.look(&target(&host)).await.unwrap();
    here.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_phase_has_its_error() {
    let Some(mut host) = Sshd::start() else { return };
    let here = Here::new().await;
    let plain = target(&host);
    let mut all = Vec::new();
    let configured = |name: &str, more: &str| Target {
        config_file: Some(host.config_with(name, more).display().to_string()),
        ..plain.clone()
    };
    let cases = [
        ("client", configured("nonsense", "Nonsense yes")),
        ("resolve", configured("resolve", "HostName no-such-host.invalid")),
        ("connect", configured("connect", "Port 1")),
        ("host key", configured("unknown", "UserKnownHostsFile /dev/null")),
        ("authenticate", {
            let usual = fs::read_to_string(host.config()).unwrap();
            let path = host.path().join("wrong-key");
            fs::write(&path, usual.replace("user_key", "other_key")).unwrap();
            Target { config_file: Some(path.display().to_string()), ..plain.clone() }
        }),
        ("place agent", Target { directory: Some("/proc/1".to_owned()), ..plain.clone() }),
        ("place agent", Target { directory: Some("/a'b".to_owned()), ..plain.clone() }),
    ];
    for (phase, target) in cases {
        let error = here.look(&target).await.err().unwrap_or_else(|| panic!("{phase}: it works"));
        assert_eq!(error.phase.as_str(), phase, "{error}");
        all.push(told(&error, &host));
    }
    host.change_key();
    let error = here.look(&plain).await.unwrap_err();
    let lax = host.config_with("lax", "StrictHostKeyChecking no");
    let lax = Target { config_file: Some(lax.display().to_string()), ..plain.clone() };
    let anyway = here.look(&lax).await.unwrap_err();
    assert_eq!([error.phase, anyway.phase], [Phase::HostKey; 2], "whatever the configuration says");
    let error = told(&error, &host);
    let (before, fingerprint) = error.split_once("SHA256:").unwrap();
    let (_, after) = fingerprint.split_once(';').unwrap();
    all.push(format!("{before}SHA256:KEY;{after}"));
    assert_eq!(all.join("\n\n"), GOLDEN.trim());
    here.end().await;
}

/// What is told of each phase.
const GOLDEN: &str = r#"
host: client: DIR/nonsense: line 1: Bad configuration option: nonsense; DIR/nonsense: terminating, 1 bad configuration options; correct the configuration of ssh

host: resolve: ssh: Could not resolve hostname no-such-host.invalid: Name or service not known; check the name, and whether `ssh -F DIR/resolve host` finds it

host: connect: ssh: connect to host 127.0.0.1 port 1: Connection refused; is sshd running there, and on that port? try `ssh -F DIR/connect host true`

host: host key: its host key isn't known on this machine; compare the fingerprint that `ssh -F DIR/unknown host` shows with the host's own, and accept it there, or add the key to ~/.ssh/known_hosts

host: authenticate: root@127.0.0.1: Permission denied (publickey).; nobody is there to type anything, so `ssh -F DIR/wrong-key host true` has to work without questions: add the public key to the host's ~/.ssh/authorized_keys, and load the private one with ssh-add or name it by `identity_file`

host: place agent: there is no directory to keep the agent in: mkdir: cannot create directory '/proc/1/agent': No such file or directory; mkdir: cannot create directory '/proc/1/executr-0': No such file or directory; name one by `workspace_dir` in which this user can write and start programs

host: place agent: `workspace_dir` is `/a\'b`; write an absolute path, or one that begins with `~/`, of letters, digits, spaces and /._-+@%,:=~

host: host key: it shows another key than the one that is known (SHA256:KEY; the known one is in DIR/known_hosts:1): either it was set up anew, or somebody is in between; ask whoever runs the host; if the new key is right, `ssh-keygen -f "DIR/known_hosts" -R "executr-test-host"` and connect once by hand
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_that_does_not_work_is_told() {
    let Some(host) = Sshd::with("/no/such/shell", "") else { return };
    let here = Here::new().await;
    let error = here.look(&target(&host)).await.unwrap_err();
    assert_eq!(error.phase, Phase::Start);
    let text = told(&error, &host);
    assert!(text.contains("no answer") || text.contains("without an answer"), "{text}");
    assert!(text.contains("/no/such/shell") && text.contains("`ssh -F DIR/config host"), "{text}");
    here.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told() {
    if !rustix::process::geteuid().is_root() {
        executr_tests::component::absent("root", "only root can mount a file system that is full");
        return;
    }
    // Of a mount namespace of its own, which goes with the shell.
    let shell =
        "unshare -m --propagation private sh -c 'mount -t tmpfs -o size=256k tmpfs /mnt && exec /bin/sh -c \"$1\"' sh";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shell");
    fs::write(&path, format!("#!/bin/sh\nshift\nexec {shell} \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let Some(host) = Sshd::with(&path.display().to_string(), "") else { return };
    let here = Here::new().await;
    let full = Target { directory: Some("/mnt".to_owned()), ..target(&host) };
    let error = here.look(&full).await.unwrap_err();
    let text = told(&error, &host);
    assert!(error.phase == Phase::PlaceAgent && text.contains("No space left on device"), "{text}");
    assert!(text.contains("make room there"), "{text}");
    here.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_with_a_shell_and_nothing_else_does() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        executr_tests::component::absent("root and busybox", "a small host is a directory that only root can enter");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "tmp", "proc", "dev"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "chmod", "id", "mkdir", "mv", "rm", "uname"] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    let path = root.path().join("enter");
    let enter = format!(
        "#!/bin/sh\nexec unshare -m --propagation private sh -c 'mount -t proc proc {0}/proc; mount --rbind /dev {0}/dev; unset HOME; exec chroot {0} /bin/sh -c \"$1\"' sh \"$2\"\n",
        root.path().display()
    );
    fs::write(&path, enter).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let Some(host) = Sshd::with(&path.display().to_string(), "") else { return };
    // There is no C library.
    let here = Here::with(executr_tests::program::contained_agent()).await;
    let seen = here.look(&target(&host)).await.unwrap();
    assert!(seen.place.starts_with("/tmp/executr-0/.cache/executr/at"), "{}", seen.place.display());
    here.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_behind_another_is_got_to() {
    let Some(host) = Sshd::start() else { return };
    let Some(jump) = Sshd::with("/bin/false", "AllowTcpForwarding yes") else { return };
    let here = Here::new().await;
    let through =
        format!("Host host\n  ProxyCommand ssh -F {} -W 127.0.0.1:{} jump", jump.config().display(), host.port());
    let config_file = Some(host.config_with("through", &through).display().to_string());
    here.look(&Target { config_file, ..target(&host) }).await.unwrap();
    here.end().await;
}
