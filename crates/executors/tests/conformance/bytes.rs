//! What steps are given and what they write.

use bytes::Bytes;
use executr_executors::contract::Exit;

use super::rig::{Outcome, Rig, argv, plan, run, run_step, sh};

pub(crate) async fn no_output_is_none(rig: &Rig) {
    assert_eq!(run_step(rig, plan(), argv(&[b"true"])).await, Outcome::exited(0, ""));
}

pub(crate) async fn output_is_exact(rig: &Rig) {
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(run_step(rig, plan(), argv(&[b"seq", b"1", b"300000"])).await == Outcome::exited(0, &expected));
}

pub(crate) async fn binary_output_is_exact(rig: &Rig) {
    let file = rig.directory.path().join("bytes");
    let every: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    std::fs::write(&file, &every).unwrap();
    let outcome = run_step(rig, plan(), argv(&[b"cat", file.to_str().unwrap().as_bytes()])).await;
    assert!(outcome.stdout == every && outcome.exit == Some(Exit::Code(0)));
}

pub(crate) async fn streams_are_told_apart(rig: &Rig) {
    let outcome = run(rig, plan(), "echo out; echo err >&2; printf more").await;
    assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), (&b"out\nmore"[..], &b"err\n"[..]));
}

pub(crate) async fn the_environment_is_exactly_what_is_given(rig: &Rig) {
    // Every byte an environment may hold: all but NUL, and in a name all but `=` as well.
    let value: Vec<u8> = (1..=255).collect();
    let name: Vec<u8> = (1..=255).filter(|byte| *byte != b'=').collect();
    let mut step = argv(&[b"/usr/bin/env", b"-0"]);
    let variable = |name: &[u8], value: &[u8]| Bytes::from([name, b"=", value].concat());
    step.env = vec![variable(b"VALUE", &value), variable(&name, b"name"), variable(b"EMPTY", b"")];
    let expected: Vec<u8> = step.env.iter().flat_map(|word| [word, &b"\0"[..]].concat()).collect();
    let outcome = run_step(rig, plan(), step).await;
    assert_eq!(outcome.stdout, expected);

    let mut none = argv(&[b"/usr/bin/env"]);
    none.env.clear();
    assert_eq!(run_step(rig, plan(), none).await, Outcome::exited(0, ""));
}

pub(crate) async fn arguments_are_passed_as_they_are(rig: &Rig) {
    let every: Vec<u8> = (1..=255).collect();
    let words: [&[u8]; 6] = [b"printf", b"%s|", b"", b"$HOME *", b"a\nb", &every];
    let outcome = run_step(rig, plan(), argv(&words)).await;
    assert_eq!(outcome.stdout, [&b"|$HOME *|a\nb|"[..], &every, b"|"].concat());
}

pub(crate) async fn odd_names_are_made_and_removed(rig: &Rig) {
    let script = r#"
        mkdir -p "a b/c
d" deep && cd deep
        touch -- -rf ' ' '*' "$(printf 'not\377utf8')" .hidden
        mkdir closed && touch closed/file && chmod 000 closed
        i=0; while [ $i -lt 200 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done
        ln -s / root; ln -s nowhere dangling; mkfifo pipe
    "#;
    assert_eq!(run(rig, plan(), script).await.exit, Some(Exit::Code(0)));
}

pub(crate) async fn scripts_end_at_the_first_failure(rig: &Rig) {
    assert_eq!(run_step(rig, plan(), sh("echo a\nfalse\necho b\n")).await, Outcome::exited(1, "a\n"));
    assert_eq!(run_step(rig, plan(), sh("#!/bin/sh\nfalse\necho b\n")).await, Outcome::exited(0, "b\n"));
}

pub(crate) async fn long_scripts_run(rig: &Rig) {
    let script = format!("{}\necho end", "# a line that says nothing, many times\n".repeat(20_000));
    let step = sh(&script);
    assert_eq!(run_step(rig, plan(), step).await, Outcome::exited(0, "end\n"));
}
