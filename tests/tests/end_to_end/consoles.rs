//! Consoles in jobs: by hand in a terminal, in a pipe, here, on a server, in a container, and where there is none.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use executr_tests::background::{Background, Home};
use executr_tests::docker::{self, IMAGE};
use executr_tests::program::contained_agent;
use executr_tests::terminal::Terminal;
use rustix::process::Signal;

use crate::system::{System, eventually, is_alive, line_in, signal, spawn, succeed, text};

/// A run of one job, `build`, that waits in a sandbox on `executor` until its gate is opened.
struct Run {
    home: Home,
    child: Child,
}

impl Run {
    fn start(flags: &[&str]) -> Self {
        let home = Home::new();
        let at = home.path().display();
        let content = format!(
            "name: w\ndefaults: {{ executor: {{ kind: local, copy_repo: false }} }}\njobs:\n  build:\n    env: {{ COLOR: blue }}\n    \
             steps:\n      - |\n        echo in > file\n        pwd > {at}/pwd\n        \
             while [ ! -e {at}/gate ]; do sleep 0.02; done\n"
        );
        fs::write(home.path().join("w.yaml"), content).unwrap();
        let child = spawn(home.executr(&[&["run", "w.yaml"], flags].concat()).env("SECRET", "hush-hush"));
        line_in(&home.path().join("pwd"));
        Self { home, child }
    }

    fn exec(&self, words: &[&str]) -> Command {
        self.home.executr(&[&["exec"], words].concat())
    }

    /// Lets the job end.
    fn open_gate(&self) {
        fs::write(self.home.path().join("gate"), "").unwrap();
    }

    fn end(self) -> (Home, Output) {
        self.open_gate();
        let output = self.child.wait_with_output().unwrap();
        (self.home, output)
    }
}

/// What a command does with this as standard input.
fn fed(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

/// Bytes of all kinds, in no order that repeats.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn in_a_pipe_bytes_pass_exactly_and_the_command_decides_the_exit_code() {
    let run = Run::start(&[]);
    let output =
        run.exec(&["build", "--", "sh", "-c", "pwd; cat file; echo $COLOR; echo err >&2; exit 7"]).output().unwrap();
    let pwd = line_in(&run.home.path().join("pwd"));
    assert_eq!(text(&output.stdout), format!("{pwd}\nin\nblue\n"));
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("err\n", Some(7)));
    let sent = bytes(10 << 20);
    let output = fed(&mut run.exec(&["build", "--", "cat"]), sent.clone());
    assert!(output.stdout == sent, "{} of {} bytes: {}", output.stdout.len(), sent.len(), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    // Without a command it is a shell, which takes what comes in for a script.
    let output = fed(&mut run.exec(&["build"]), b"echo from a script; kill -9 $$".to_vec());
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("from a script\n", Some(137)));
    let output = run.exec(&["build", "--", "no-such-program"]).output().unwrap();
    assert!(output.status.code() == Some(125) && text(&output.stderr).contains("no-such-program"), "{output:?}");
    let unknown = run.exec(&["--here", "nothing", "--", "true"]).output().unwrap();
    assert!(unknown.status.code() == Some(125) && text(&unknown.stderr).contains("`nothing`"), "{unknown:?}");
    let socket = fs::read_dir(run.home.path().join(".local/state/executr/workflows")).unwrap();
    let socket = socket.map(|entry| entry.unwrap().path().join("consoles")).find(|path| path.exists()).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&socket).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let (_home, output) = run.end();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("from a script"), "what consoles write is none of the job's output");
}

#[test]
fn in_a_terminal_keys_reach_the_command_and_the_terminal_is_as_it_was_afterwards() {
    let run = Run::start(&[]);
    let mut terminal = Terminal::start(run.exec(&["build", "--", "sh"]).env("TERM", "vt100").env("PS1", "> "), 33, 99);
    terminal.press("echo \"$TERM $(stty size) $COLOR.\"\r");
    terminal.see("vt100 33 99 blue.");
    assert!(!terminal.is_ordinary());
    terminal.resize(44, 111);
    // The new size arrives when it arrives.
    terminal.press("until [ \"$(stty size)\" = '44 111' ]; do sleep 0.05; done; echo re''sized\r");
    terminal.see("resized");
    // Ctrl-C is the command's, and ends neither the shell nor what is here.
    terminal.press("(trap 'echo int''errupted; exit' INT; echo rea''dy; sleep 1000)\r");
    terminal.see("ready");
    terminal.press("\x03");
    terminal.see("interrupted");
    eventually("the shell goes on", || {
        // It drops what was typed before it did.
        terminal.press("echo still he''re\r");
        terminal.screen().contains("still here").then_some(())
    });
    terminal.press("exit 5\r");
    assert_eq!(terminal.code(), Some(5), "{}", terminal.screen());
    assert!(terminal.is_ordinary());
    // Told to end from outside.
    let mut terminal =
        Terminal::start(&mut run.exec(&["build", "--", "sh", "-c", "echo $$ > pid; echo here; sleep 1000"]), 24, 80);
    terminal.see("here");
    let process = line_in(&PathBuf::from(line_in(&run.home.path().join("pwd"))).join("pid"));
    signal(terminal.child(), Signal::TERM);
    assert_eq!(terminal.code(), Some(128 + 15));
    assert!(terminal.is_ordinary());
    eventually("the command goes with its caller", || (!is_alive(&process)).then_some(()));
    // And when the job ends.
    let mut terminal =
        Terminal::start(&mut run.exec(&["build", "--", "sh", "-c", "trap '' TERM HUP; echo here; sleep 1000"]), 24, 80);
    terminal.see("here");
    let (_home, output) = run.end();
    assert!(output.status.success(), "{}", text(&output.stderr));
    terminal.see("the job is over");
    assert_eq!(terminal.code(), Some(125));
    assert!(terminal.is_ordinary());
}

#[test]
fn a_kept_directory_has_its_jobs_environment_and_no_secret() {
    let run = Run::start(&["--keep", "--secret", "SECRET"]);
    let (home, output) = run.end();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let exec = |words: &[&str]| home.executr(&[&["exec", "build", "--"], words].concat());
    let output = exec(&["sh", "-c", "cat file; echo $COLOR; [ $HOME = $PWD ] && echo at home; echo \"<$SECRET>\""])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "in\nblue\nat home\n<>\n");
    assert!(text(&output.stderr).contains("SECRET"), "{}", text(&output.stderr));
    let given = exec(&["printenv", "SECRET"]).env("SECRET", "again").output().unwrap();
    assert_eq!((text(&given.stdout).as_str(), text(&given.stderr).as_str()), ("again\n", ""));
    let kept = succeed(home.command("find").args([".", "-name", "*.json", "-path", "*kept*"]));
    let note = home.path().join(kept.trim());
    assert!(!fs::read_to_string(&note).unwrap().contains("hush"), "{kept}");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&note).unwrap()) & 0o777, 0o600);
}

/// A job of a server that runs until it is cancelled.
fn waiting(command: impl Fn(&[&str]) -> Command) -> String {
    let script = "echo in > file; exec sleep 1000";
    let id = succeed(&mut command(&["submit", "--", "sh", "-c", script])).trim().to_owned();
    eventually("the job runs", || {
        let shown = command(&["status", &id, "--output", "json"]).output().unwrap();
        text(&shown.stdout).contains("\"running\"").then_some(())
    });
    id
}

#[test]
fn on_a_server_roles_decide_and_the_log_tells_who() {
    let system = System::server(&[]);
    let admin = succeed(&mut system.executr(&["token", "create", "--role", "admin"])).trim().to_owned();
    let token = |role: &str| {
        let mut command = system.executr(&["token", "create", "--role", role, "--name", &format!("the-{role}")]);
        succeed(command.env("EXECUTR_TOKEN", &admin)).trim().to_owned()
    };
    let [read, submit, execute] = ["read", "submit", "execute"].map(token);
    let mut executor = system.executor("w", &["--token", &execute]);
    let as_one = |token: &str, words: &[&str]| {
        let mut command = system.executr(words);
        command.env("EXECUTR_TOKEN", token);
        command
    };
    let id = waiting(|words| as_one(&submit, words));
    // By the beginning of its id.
    let mut cat = as_one(&submit, &["exec", &id[..13], "--", "sh", "-c", "cat; cat file; exit 4"]);
    let sent = bytes(10 << 20);
    let output = fed(&mut cat, sent.clone());
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(output.stdout[..sent.len()] == sent && output.stdout[sent.len()..] == *b"in\n");
    for (token, told) in
        [(&read, "needs `submit`"), (&execute, "needs `submit`"), (&"executr_no".to_owned(), "not valid")]
    {
        let refused = as_one(token, &["exec", &id, "--", "true"]).output().unwrap();
        assert!(refused.status.code() == Some(125) && text(&refused.stderr).contains(told), "{refused:?}");
    }
    let said = eventually("who it was", || Some(system.server.output()).filter(|said| said.contains("the-submit")));
    assert!(said.contains(&id) && !said.contains(&submit), "{said}");
    assert!(executor.output().contains("the-submit"), "{}", executor.output());
    let unknown = as_one(&submit, &["exec", "01890a5d-ac96-774b-bcce-b302099a8057", "--", "true"]).output().unwrap();
    assert!(unknown.status.code() == Some(125) && text(&unknown.stderr).contains("there is no job"), "{unknown:?}");
    // The executor goes.
    let mut left =
        Terminal::start(&mut as_one(&submit, &["exec", &id, "--", "sh", "-c", "echo here; sleep 1000"]), 24, 80);
    left.see("here");
    executor.kill();
    left.see("lost");
    assert_eq!(left.code(), Some(125), "{}", left.screen());
    assert!(left.is_ordinary());
    let gone = as_one(&submit, &["exec", &id, "--", "true"]).output().unwrap();
    assert!(gone.status.code() == Some(125) && text(&gone.stderr).contains("heard of"), "{gone:?}");
    let over = succeed(&mut as_one(&submit, &["submit", "--", "true"]));
    let _executor = system.executor("w2", &["--token", &execute]);
    succeed(&mut as_one(&submit, &["wait", over.trim()]));
    let over = as_one(&submit, &["exec", over.trim()]).output().unwrap();
    assert!(over.status.code() == Some(125) && text(&over.stderr).contains("is over: it is completed"), "{over:?}");
}

#[test]
fn a_lost_server_ends_what_was_opened_through_it() {
    let mut system = System::server(&[]);
    let mut executor = system.executor("w", &[]);
    let id = waiting(|words| system.executr(words));
    let script = "echo $$ > /proc/self/fd/3; echo here; sleep 1000";
    let pid = system.home.path().join("pid");
    let mut exec =
        system.executr(&["exec", &id, "--", "sh", "-c", &script.replace("/proc/self/fd/3", pid.to_str().unwrap())]);
    let mut terminal = Terminal::start(&mut exec, 24, 80);
    terminal.see("here");
    let process = line_in(&pid);
    system.server.kill();
    terminal.see("lost");
    assert_eq!(terminal.code(), Some(125));
    assert!(terminal.is_ordinary());
    eventually("the command is ended", || (!is_alive(&process)).then_some(()));
    // Told to stop it would look for its server for a while.
    executor.kill();
}

#[test]
fn in_a_container_it_is_the_containers() {
    let Some(engine) = docker::engine() else { return };
    drop(contained_agent());
    for mode in ["shared", "isolated"] {
        let home = Home::new();
        let content = format!(
            "name: w\ndefaults: {{copy_repo: false}}\njobs:\n  build:\n    \
             executor: {{kind: oci, image: {IMAGE}, network: none, mode: {mode}}}\n    \
             steps: ['echo in > file; while [ ! -e gate ]; do sleep 0.02; done']\n"
        );
        fs::write(home.path().join("w.yaml"), content).unwrap();
        let run = home.executr(&["run", "w.yaml"]).env("DOCKER_HOST", engine.address()).stdin(Stdio::null()).spawn();
        let mut run = run.unwrap();
        // Once its directory is there.
        let output = eventually("the job runs", || {
            let output = home.executr(&["exec", "build", "--", "cat", "file"]).output().unwrap();
            output.status.success().then_some(output)
        });
        assert_eq!(text(&output.stdout), "in\n");
        let mut terminal = Terminal::start(&mut home.executr(&["exec", "build"]), 24, 80);
        terminal.press("echo $FROM_IMAGE $(id -u); test -e /.executr && echo con''tained\r");
        terminal.see("image 0");
        terminal.see("contained");
        // The job's end takes the console with it, and what it was about to say.
        terminal.press("touch gate\r");
        assert!(run.wait().unwrap().success(), "{mode}");
        terminal.see("the job is over");
        assert_eq!(terminal.code(), Some(125));
    }
}

#[test]
fn a_second_ctrl_c_leaves_a_command_that_ignores_the_first() {
    let run = Run::start(&[]);
    let script = "trap 'echo told' INT; echo here; while :; do sleep 0.02; done";
    let mut exec = run.exec(&["build", "--no-terminal", "--", "sh", "-c", script]);
    let mut child = Background::start(&run.home, "exec", &mut exec);
    eventually("the command runs", || child.output().contains("here").then_some(()));
    let process = rustix::process::Pid::from_raw(child.process().cast_signed()).unwrap();
    rustix::process::kill_process(process, Signal::INT).unwrap();
    eventually("the command is told", || child.output().contains("told").then_some(()));
    rustix::process::kill_process(process, Signal::INT).unwrap();
    eventually("it leaves", || child.has_ended().then_some(()));
    drop(run.end());
}
