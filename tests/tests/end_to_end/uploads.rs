//! Programs that come from somewhere: a URL, a file, this machine.

use std::fs;

use crate::http::FileServer;
use crate::system::{System, succeed, text};

const SCRIPT: &[u8] = b"#!/bin/sh\necho \"called with: $*\"; echo \"$GREETING, ${HOME-no home}\"\n";

#[test]
fn a_script_of_this_machine_is_uploaded_and_run() {
    let system = System::up(&[]);
    fs::write(system.home.path().join("my-script.sh"), SCRIPT).unwrap();
    for _ in 0..2 {
        let output = succeed(&mut system.executr(&[
            "submit",
            "--wait",
            "--env",
            "GREETING=hi",
            "--",
            "./my-script.sh",
            "a",
            "b c",
        ]));
        assert!(output.starts_with("called with: a b c\nhi, /"), "{output}");
    }
    let output = system.output(&["submit", "--wait", "./my-script.sh"]);
    assert!(text(&output.stdout).starts_with("called with: \n"));
    let output = system.output(&["submit", "--", "./no-such-script"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("./no-such-script"));
}

#[test]
fn a_program_of_many_megabytes_arrives_whole() {
    let system = System::up(&[]);
    let mut program = b"#!/bin/sh\nsha256sum < \"$0\"; exit\n".to_vec();
    program.extend((0..12_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
    fs::write(system.home.path().join("large"), &program).unwrap();
    let here = succeed(system.home.command("sh").args(["-c", "sha256sum < large"]));
    let output = system.output(&["submit", "--wait", "./large"]);
    assert_eq!(text(&output.stdout), here, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("uploading large"), "a plain line in a pipe");
}

#[test]
fn a_program_at_a_url_gets_exactly_what_is_named() {
    let system = System::up(&[]);
    let files = FileServer::start(SCRIPT);
    let submit = |url: &str| {
        let line = [
            "submit",
            "--wait",
            "--type",
            "t",
            "--binary-url",
            url,
            "--env",
            "GREETING=hi",
            "--args",
            "-x",
            "--args",
            "y z",
        ];
        succeed(&mut system.executr(&line))
    };
    // Nothing is inherited: there is no HOME.
    assert_eq!(submit(&files.url), "called with: -x y z\nhi, no home\n");
    assert_eq!(submit(&files.url), "called with: -x y z\nhi, no home\n");
    // Each submission reads it for its digest; the executor fetches it once.
    assert_eq!(files.asked(), 3);
    let path = system.home.path().join("program");
    fs::write(&path, SCRIPT).unwrap();
    assert_eq!(submit(&format!("file://{}", path.display())), "called with: -x y z\nhi, no home\n");
}

#[test]
fn a_program_that_is_not_what_was_named_fails_the_job() {
    let system = System::up(&[]);
    let files = FileServer::start(SCRIPT);
    let wrong = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let id = system.submit(&["--type", "t", "--binary-url", &files.url, "--binary-sha256", wrong]);
    let job = system.wait_final(&id);
    assert_eq!(job["status"], "failed");
    let why = job["error_message"].as_str().unwrap();
    assert!(why.contains(wrong) || why.to_lowercase().contains("sha-256") || why.contains("digest"), "{why}");
}
