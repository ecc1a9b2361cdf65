//! What `doctor` says of machines as they are met: each case from its facts to the letter.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use executr_executors::contract::LimitOffers;
use executr_executors::doctor::facts::{
    CgroupMounts, Containers, ContainersConf, Directory, Engine, EngineKind, Facts, Local, Machine, NoAnswer,
    NoUserNamespaces, Podman, Socket,
};
use executr_executors::doctor::{Standing, diagnose};

/// A machine where nothing is wanting.
fn sound() -> Facts {
    let version = |text: &str| Some(text.to_owned());
    Facts {
        machine: Machine {
            user: 0,
            may_raise_limits: true,
            cgroups: CgroupMounts::V2,
            systemd: true,
            data: Directory {
                path: "/d".into(),
                writable: Ok(()),
                free: Some(5 << 30),
                runs_programs: true,
                reflink: true,
            },
            open_files: (Some(1_024), Some(524_288)),
            git: version("git version 2.39"),
            sops: version("sops 3.9"),
        },
        local: Local { step: Ok(LimitOffers { memory: Ok(()), cpu: Ok(()), pids: Ok(()) }), group: true },
        bash: version("GNU bash 5.2"),
        containers: Some(Containers {
            address: None,
            sockets: vec![Socket { path: "/run/docker.sock".into(), answer: Ok(docker()) }],
            agent: Ok(()),
            podman: None,
            no_user_namespaces: None,
            overlay: true,
        }),
        direct: None,
    }
}

fn docker() -> Engine {
    Engine {
        kind: EngineKind::Docker,
        version: "20.10.24".to_owned(),
        api: "1.41".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: "2".to_owned(),
        storage: "overlay2".to_owned(),
        runtime: "runc".to_owned(),
        rootless: false,
    }
}

fn podman() -> Engine {
    Engine {
        kind: EngineKind::Podman,
        version: "4.3.1".to_owned(),
        storage: "overlay".to_owned(),
        runtime: "crun".to_owned(),
        ..docker()
    }
}

fn podman_program() -> Podman {
    Podman {
        version: "podman version 4.3.1".to_owned(),
        settled: ContainersConf::default(),
        names_on_networks: true,
        id_maps: true,
        sub_ids: true,
        user_network: true,
    }
}

/// The restricted machine: hybrid control groups, root without `CAP_SYS_RESOURCE`, no systemd.
fn restricted() -> Facts {
    let mut facts = sound();
    facts.machine.may_raise_limits = false;
    facts.machine.cgroups = CgroupMounts::Hybrid;
    facts.machine.systemd = false;
    let engine = Engine { cgroup_version: "1".to_owned(), ..docker() };
    containers(&mut facts).sockets[0].answer = Ok(engine);
    facts
}

fn containers(facts: &mut Facts) -> &mut Containers {
    facts.containers.as_mut().unwrap()
}

/// What is not well, a line each.
fn told(facts: &Facts) -> Vec<String> {
    let report = diagnose(facts);
    let mut lines = Vec::new();
    for section in &report.sections {
        for finding in section.findings.iter().filter(|finding| finding.standing != Standing::Ok) {
            let standing = if finding.standing == Standing::Broken { "BROKEN" } else { "lacks" };
            let remedy = finding.remedy.as_deref().expect("what isn't well has a remedy");
            lines.push(format!("{} {standing} {}: {} -> {remedy}", section.name, finding.subject, finding.says));
        }
    }
    assert_eq!(report.works(), !lines.iter().any(|line| line.contains(" BROKEN ")));
    lines
}

fn said(facts: &Facts, section: &str, subject: &str) -> String {
    let report = diagnose(facts);
    let section = report.sections.into_iter().find(|found| found.name == section).unwrap();
    section.findings.into_iter().find(|found| found.subject == subject).unwrap().says
}

#[test]
fn a_machine_that_wants_for_nothing() {
    let facts = sound();
    assert_eq!(told(&facts), [""; 0]);
    assert_eq!(said(&facts, "machine", "data directory"), "/d: 5.0 GiB left");
    assert_eq!(said(&facts, "local", "control groups"), "version 2");
    let engine = "Docker 20.10.24 at /run/docker.sock (API 1.41, overlay2, cgroupfs, runc)";
    assert_eq!(said(&facts, "oci", "engine"), engine);
    assert_eq!(said(&facts, "oci", "limits"), "by control groups of version 2");
}

#[test]
fn an_executor_the_program_was_built_without_is_not_told_of() {
    let facts = Facts { containers: None, ..sound() };
    let names: Vec<_> = diagnose(&facts).sections.into_iter().map(|section| section.name).collect();
    assert_eq!(names, ["machine", "local", "hooks"]);
}

#[test]
fn a_bare_machine() {
    let mut facts = sound();
    (facts.machine.git, facts.machine.sops, facts.bash) = (None, None, None);
    facts.machine.data.reflink = false;
    facts.machine.data.free = Some(300 << 20);
    facts.machine.open_files = (Some(1_024), Some(1_024));
    assert_eq!(
        told(&facts),
        [
            "machine lacks data directory: /d: only 0.2 GiB left -> free some space (`executr clean` shows what is \
             Executr's), or name another directory with --data-dir",
            "machine lacks reflink: the file system copies files byte by byte; all works, large repositories take \
             longer -> put the data directory on btrfs, or on XFS made with reflink=1",
            "machine lacks open files: 1024 for jobs, 1024 for servers and executors -> raise the hard limit (`ulimit \
             -Hn`; systemd: LimitNOFILE=65536) for many slots or clients",
            "machine lacks git: not found: runs can't take the repository they start in -> install it (Debian: apt-get \
             install git), or run workflows outside repositories",
            "machine lacks sops: not found: `env_from: [{sops: …}]` fails -> put the program into PATH, if your \
             workflows use it",
            "hooks lacks bash: not found: hooks can't be run -> install it (Debian: apt-get install bash); jobs \
             themselves don't need it",
        ]
    );
}

#[test]
fn a_data_directory_that_does_not_do() {
    let mut facts = sound();
    facts.machine.data.writable = Err("Read-only file system (os error 30)".to_owned());
    facts.local.step = Err("there is no directory for it".to_owned());
    assert_eq!(
        told(&facts),
        [
            "machine BROKEN data directory: /d: Read-only file system (os error 30) -> make /d writable for this user, \
             or name another directory with --data-dir",
            "local BROKEN steps: a step can't be run: there is no directory for it -> jobs run here unless told \
             otherwise: see to what stands above first, then to what is said here",
        ]
    );
    let mut facts = sound();
    facts.machine.data.runs_programs = false;
    assert_eq!(
        told(&facts),
        ["machine BROKEN programs: /d is mounted noexec: fetched and uploaded programs can't be started -> name a \
          directory of another file system with --data-dir, or --cache-dir and --work-dir"]
    );
}

#[test]
fn limits_that_cannot_be_kept() {
    let mut facts = sound();
    facts.local.group = false;
    facts.local.step = Ok(LimitOffers {
        memory: Err(
            "the memory controller isn't given to /sys/fs/cgroup/u; delegate it (systemd: Delegate=memory)".to_owned()
        ),
        cpu: Ok(()),
        pids: Err("no control group to make others in".to_owned()),
    });
    assert_eq!(
        told(&facts),
        [
            "local lacks memory limit: can't be kept: the memory controller isn't given to /sys/fs/cgroup/u -> delegate \
             it (systemd: Delegate=memory)",
            "local lacks pids limit: can't be kept: no control group to make others in -> delegate the controller to \
             this user (systemd: Delegate=yes)",
            "local lacks ending jobs: process by process: complete, but a fork bomb may outrun it for a while -> let \
             this user make control groups (systemd: Delegate=yes; in a container: a writable /sys/fs/cgroup)",
        ]
    );
    let refusal = || Err("no control groups of version 2 are mounted".to_owned());
    facts.local = Local { step: Ok(LimitOffers { memory: refusal(), cpu: Ok(()), pids: Ok(()) }), group: true };
    for (mounts, named, remedy) in [
        (CgroupMounts::None, "none are mounted", "mount control groups: `mount -t cgroup2 none /sys/fs/cgroup`"),
        (
            CgroupMounts::V1,
            "version 1",
            "mount that controller of version 1, or start the machine with systemd.unified_cgroup_hierarchy=1",
        ),
        (
            CgroupMounts::Hybrid,
            "hybrid: version 1 for the controllers, version 2 beside it",
            "mount that controller of version 1, or start the machine with systemd.unified_cgroup_hierarchy=1",
        ),
    ] {
        facts.machine.cgroups = mounts;
        assert_eq!(said(&facts, "local", "control groups"), named);
        let line = "local lacks memory limit: can't be kept: no control groups of version 2 are mounted -> ";
        assert_eq!(told(&facts), [format!("{line}{remedy}")]);
    }
}

#[test]
fn docker_on_the_restricted_machine() {
    assert_eq!(
        told(&restricted()),
        [
            "oci lacks privileges: no CAP_SYS_RESOURCE here: engines can't start privileged containers (\"unable to apply \
          caps\") -> nothing to do: Executr's containers don't ask for it"
        ]
    );
}

const CRUN: &str = "crun as root refuses hybrid control groups (\"cgroups in hybrid mode not supported\") -> have the \
                    engine use runc (Podman: runtime=\"runc\" below [engine]), or start its service where \
                    /sys/fs/cgroup/unified isn't mounted: `unshare -m --propagation private sh -c 'umount \
                    /sys/fs/cgroup/unified; exec podman system service …'`";

#[test]
fn podman_as_root_on_the_restricted_machine() {
    let mut facts = restricted();
    let socket = Socket { path: "/run/podman/podman.sock".into(), answer: Err(NoAnswer::Missing) };
    *containers(&mut facts) =
        Containers { sockets: vec![socket], podman: Some(podman_program()), ..sound().containers.unwrap() };
    let file = "in the file that CONTAINERS_CONF names for Podman's service";
    assert_eq!(
        told(&facts),
        [
            "oci lacks engine: none answers: /run/podman/podman.sock isn't there -> start Podman's service: `podman \
             system service --time 0 unix:///run/podman/podman.sock`"
                .to_owned(),
            format!(
                "oci lacks ulimits: no CAP_SYS_RESOURCE: Podman as root can't set the limits it sets by default, and \
                 starts no container -> write default_ulimits=[\"nofile=20000:20000\",\"nproc=4096:4096\"] below \
                 [containers] {file}"
            ),
            format!(
                "oci lacks cgroup driver: Podman asks systemd for control groups, and systemd doesn't run here -> write \
                 cgroup_manager=\"cgroupfs\" below [engine] {file}"
            ),
            format!(
                "oci lacks events: Podman writes events to systemd's journal, and there is none -> write \
                 events_logger=\"file\" below [engine] {file}"
            ),
            format!("oci lacks runtime: {CRUN}"),
        ]
    );

    // Settled as the table of the page has it, only its own limits remain to be told.
    let settled = "[containers]\ndefault_ulimits=[\"nofile=20000:20000\",\"nproc=4096:4096\"]\n[engine]\n\
                   cgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\nruntime=\"runc\"\n";
    let program = Podman { settled: ContainersConf::read(settled), ..podman_program() };
    containers(&mut facts).podman = Some(program);
    let runc = Engine { runtime: "runc".to_owned(), cgroup_version: "1".to_owned(), ..podman() };
    containers(&mut facts).sockets[0].answer = Ok(runc);
    let lines = told(&facts);
    assert!(matches!(&lines[..], [one] if one.starts_with("oci lacks privileges: ")), "{lines:#?}");
}

#[test]
fn crun_as_root_on_hybrid_control_groups() {
    let mut facts = restricted();
    facts.machine.may_raise_limits = true;
    containers(&mut facts).sockets[0].answer = Ok(podman());
    assert_eq!(told(&facts), [format!("oci lacks runtime: {CRUN}")]);
    // Rootless it needs nothing.
    containers(&mut facts).sockets[0].answer = Ok(Engine { rootless: true, ..podman() });
    assert_eq!(told(&facts), [""; 0]);
}

#[test]
fn containers_without_names_on_their_networks() {
    let mut facts = sound();
    containers(&mut facts).sockets[0].answer = Ok(podman());
    containers(&mut facts).podman = Some(Podman { names_on_networks: false, ..podman_program() });
    assert_eq!(
        told(&facts),
        [
            "oci lacks names: containers on a network of their own can't find each other by name -> install netavark and \
          aardvark-dns, then `podman system reset`"
        ]
    );
}

#[test]
fn rootless_podman_on_version_1() {
    let mut facts = restricted();
    facts.machine.user = 1_000;
    let engine = Engine { rootless: true, cgroup_version: "1".to_owned(), storage: "vfs".to_owned(), ..podman() };
    containers(&mut facts).sockets[0].answer = Ok(engine);
    assert_eq!(
        told(&facts),
        [
            "oci lacks limits: Podman is rootless on control groups of version 1: cpus, memory and pids are ignored -> \
             start the machine with systemd.unified_cgroup_hierarchy=1, or use an engine that runs as root",
            "oci lacks storage: Podman copies each image whole (vfs), though the kernel has overlay -> write \
             driver=\"overlay\" below [storage] in ~/.config/containers/storage.conf, then `podman system reset`",
        ]
    );
}

#[test]
fn rootless_podman_without_what_it_needs() {
    let mut facts = sound();
    facts.machine.user = 1_000;
    let program = Podman { id_maps: false, user_network: false, ..podman_program() };
    *containers(&mut facts) = Containers {
        address: None,
        sockets: vec![Socket { path: "/run/user/1000/podman/podman.sock".into(), answer: Err(NoAnswer::Missing) }],
        agent: Ok(()),
        podman: Some(program.clone()),
        no_user_namespaces: Some(NoUserNamespaces::Debian),
        overlay: false,
    };
    assert_eq!(
        told(&facts),
        [
            "oci lacks engine: none answers: /run/user/1000/podman/podman.sock isn't there -> start Podman's service: \
             `systemctl --user start podman.socket`",
            "oci lacks user numbers: newuidmap isn't there -> install it (Debian: apt-get install uidmap)",
            "oci lacks network: neither slirp4netns nor pasta is there: only `network: none` and `host` work -> install \
             one (Debian: apt-get install slirp4netns)",
            "oci lacks user namespaces: only root can make them: no rootless engine works -> `sudo sysctl \
             kernel.unprivileged_userns_clone=1`",
            "oci lacks overlay: the kernel doesn't have it: engines copy each image whole for each container -> `sudo \
             modprobe overlay`, or fuse-overlayfs for a rootless engine",
        ]
    );
    containers(&mut facts).podman = Some(Podman { id_maps: true, sub_ids: false, user_network: true, ..program });
    let lines = told(&facts);
    assert!(lines[1].contains("/etc/subuid -> `sudo usermod --add-subuids"), "{lines:#?}");
    for (kind, remedy) in [
        (NoUserNamespaces::None, "user.max_user_namespaces=15000"),
        (NoUserNamespaces::AppArmor, "kernel.apparmor_restrict_unprivileged_userns=0"),
    ] {
        containers(&mut facts).no_user_namespaces = Some(kind);
        assert!(told(&facts)[2].contains(remedy), "{kind:?}");
    }
}

#[test]
fn a_socket_that_is_somebody_elses() {
    let mut facts = sound();
    facts.machine.user = 1_000;
    containers(&mut facts).sockets[0].answer = Err(NoAnswer::Denied { group: Some("docker".to_owned()) });
    assert_eq!(
        told(&facts),
        [
            "oci lacks engine: none answers: /run/docker.sock: permission denied -> `sudo usermod -aG docker $USER` and log \
          in again (members of that group are as good as root), or use rootless Podman"
        ]
    );
    containers(&mut facts).sockets[0].answer = Err(NoAnswer::Denied { group: Some("root".to_owned()) });
    assert!(
        told(&facts)[0].ends_with("-> have root give this user access to /run/docker.sock, or use rootless Podman")
    );
}

#[test]
fn an_engine_that_was_asked_for_and_does_not_answer() {
    for (answer, line) in [
        (NoAnswer::Missing, "/x.sock isn't there"),
        (NoAnswer::Deserted, "nobody listens at /x.sock"),
        (NoAnswer::Silent, "/x.sock doesn't answer in time"),
        (NoAnswer::Failed("no HTTP".to_owned()), "/x.sock: no HTTP"),
    ] {
        let mut facts = sound();
        containers(&mut facts).address = Some("unix:///x.sock".to_owned());
        containers(&mut facts).sockets = vec![Socket { path: "/x.sock".into(), answer: Err(answer) }];
        let lines = told(&facts);
        let start = format!("oci BROKEN engine: DOCKER_HOST=unix:///x.sock: {line} -> ");
        assert!(matches!(&lines[..], [one] if one.starts_with(&start)), "{lines:#?}");
    }
    let mut facts = sound();
    containers(&mut facts).address = Some("tcp://h:2375".to_owned());
    containers(&mut facts).sockets.clear();
    assert_eq!(
        told(&facts),
        [
            "oci BROKEN engine: DOCKER_HOST=tcp://h:2375 is no engine on this machine, and job directories are mounted into \
          containers -> set DOCKER_HOST=unix:///PATH, or unset it to have the usual sockets tried"
        ]
    );
}

#[test]
fn a_program_without_an_agent_for_containers() {
    let mut facts = sound();
    containers(&mut facts).agent = Err("this is a debug build and /a isn't there; run scripts/build-agent".to_owned());
    let line =
        "agent: none to put into containers: this is a debug build and /a isn't there -> run scripts/build-agent";
    assert_eq!(told(&facts), [format!("oci lacks {line}")]);
    containers(&mut facts).address = Some("unix:///run/docker.sock".to_owned());
    assert_eq!(told(&facts), [format!("oci BROKEN {line}")]);
}

#[test]
fn no_engine_at_all() {
    let mut facts = sound();
    let missing = |path: &str| Socket { path: path.into(), answer: Err(NoAnswer::Missing) };
    containers(&mut facts).sockets = vec![missing("/run/docker.sock"), missing("/run/podman/podman.sock")];
    assert_eq!(
        told(&facts),
        [
            "oci lacks engine: none answers: /run/docker.sock isn't there; /run/podman/podman.sock isn't there -> install \
          Docker (Debian: apt-get install docker.io) or Podman (podman), or set DOCKER_HOST=unix:///PATH"
        ]
    );
}

#[test]
fn docker_that_asks_a_systemd_which_is_not_there() {
    let mut facts = sound();
    facts.machine.systemd = false;
    containers(&mut facts).address = Some("unix:///run/docker.sock".to_owned());
    containers(&mut facts).sockets[0].answer = Ok(Engine { cgroup_driver: "systemd".to_owned(), ..docker() });
    assert_eq!(
        told(&facts),
        ["oci BROKEN cgroup driver: Docker asks systemd for control groups, and systemd doesn't run here -> write \
          {\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]} to /etc/docker/daemon.json and restart it"]
    );
    containers(&mut facts).sockets[0].answer = Ok(Engine { cgroup_driver: "none".to_owned(), ..docker() });
    assert!(told(&facts)[0].starts_with("oci lacks limits: Docker has no control groups"));
}

#[test]
fn containers_without_a_daemon_are_told_case_by_case() {
    use executr_executors::doctor::facts::{Direct, NoDirect};

    let told = |user: u32, runtime: Result<&str, NoDirect>, others: bool| {
        let direct = Some(Direct { runtime: runtime.map(Into::into), others });
        let facts = Facts { machine: Machine { user, ..sound().machine }, direct, ..sound() };
        let report = diagnose(&facts);
        assert!(report.works(), "nobody has asked for them");
        let section = report.sections.into_iter().find(|section| section.name == "direct").unwrap();
        let line = |finding: &executr_executors::doctor::Finding| {
            format!(
                "{} {:?}: {} | {}",
                finding.subject,
                finding.standing,
                finding.says,
                finding.remedy.clone().unwrap_or_default()
            )
        };
        section.findings.iter().map(line).collect::<Vec<_>>()
    };
    let works = "runtime Ok: /usr/bin/crun runs containers here: a root was mounted | ";
    assert_eq!(told(0, Ok("/usr/bin/crun"), false), [works]);
    assert_eq!(told(1000, Ok("/usr/bin/crun"), true), [works, "users Ok: steps may run as any user of an image | "]);
    let lacking = told(1000, Ok("/usr/bin/crun"), false);
    assert!(lacking[1].starts_with("users Lacks") && lacking[1].contains("--add-subuids"), "{lacking:?}");
    let none = told(0, Err(NoDirect::NoRuntime), false);
    assert!(none.len() == 1 && none[0].contains("apt-get install crun"), "{none:?}");
    let failed = |user| told(user, Err(NoDirect::Failed("no".to_owned())), false).remove(0);
    assert!(failed(0).contains("CAP_SYS_ADMIN") && failed(1000).contains("user namespaces"));
}
