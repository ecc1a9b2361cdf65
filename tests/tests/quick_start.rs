//! The quick start, followed word for word: every block of commands runs, and prints what the page says it prints.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use std::fs;

use executr_tests::background::{Background, Home};
use executr_tests::{markdown, program};

#[test]
fn the_quick_start_works_as_it_stands() {
    let page = fs::read_to_string(program::root().join("docs/quick-start.md")).unwrap();
    let blocks = markdown::blocks(&page);
    let home = Home::new();
    // Instead of the one on the port everybody knows.
    let mut server_url = String::new();
    let shell = |script: &str, server_url: &str| {
        let mut command = home.command("sh");
        command.args(["-euc", script]).env("EXECUTR_SERVER_URL", server_url);
        command
    };
    let mut running = Vec::new();
    let mut ran = 0;
    for (index, block) in blocks.iter().enumerate() {
        match block.info.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["sh"] => {
                let output = shell(&block.text, &server_url).output().unwrap();
                let printed = String::from_utf8_lossy(&output.stdout);
                assert!(
                    output.status.success(),
                    "line {}: {}\n{printed}{}",
                    block.line,
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                );
                if let Some(expected) = blocks.get(index + 1).filter(|next| next.info == ["text"]) {
                    assert_eq!(printed, expected.text, "line {}", block.line);
                }
                ran += 1;
            }
            ["sh", "background"] => {
                let mut command = shell(&format!("exec {}", block.text), "");
                let (server, url) =
                    Background::serve_with(&home, "background", command.env_remove("EXECUTR_SERVER_URL"));
                running.push(server);
                server_url = url;
            }
            ["sh", "norun"] | ["text"] => {}
            ref other => panic!("line {}: {other:?} is no kind of block", block.line),
        }
    }
    assert!(ran > 4 && running.len() == 1);
    // Ctrl-C and SIGTERM mean the same to it.
    for mut server in running {
        server.terminate();
        let status = server.wait();
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", server.output());
    }
}
