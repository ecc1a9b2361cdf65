//! The commands of docs/api.md, run as they stand.

use std::fs;
use std::process::Command;

use executr_tests::{markdown, program};

use crate::running::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_api_page_work() {
    let page = fs::read_to_string(program::root().join("docs/api.md")).unwrap();
    let script: String =
        markdown::blocks(&page).into_iter().filter(|block| block.info == ["sh"]).map(|block| block.text).collect();
    assert!(script.matches("call ").count() > 10, "{script}");
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", &script])
        .current_dir(directory.path())
        .env("EXECUTR_SERVER_URL", format!("http://{}", server.address));
    let output = tokio::task::spawn_blocking(move || shell.output()).await.unwrap().unwrap();
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{printed}\n{said}", output.status);
    for expected in ["\"status\":\"healthy\"", "\"cancelled\"", "https://example.com/binary", "ell"] {
        assert!(printed.contains(expected), "{expected} is missing in {printed}");
    }
}
