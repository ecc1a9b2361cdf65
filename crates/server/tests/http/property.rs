//! The OpenAPI document against real answers, by a property tester (schemathesis): whatever fits the document must be
//! answered as the document says, and whatever doesn't must be refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use executr_api::output::{OutputChunk, RecordWriter, Stream};
use executr_server::Limits;
use executr_spec::Digest;
use executr_tests::component;
use reqwest::Method;
use serde_json::json;

use crate::running::{Server, Setup, finish, report, success};

/// Where `scripts/setup` puts the tester: beside what cargo builds.
fn tester() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools/schemathesis/bin/schemathesis")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_answers_are_as_the_document_says() {
    let tester = tester();
    if !tester.exists() {
        return component::missing("schemathesis", &format!("{} is not there", tester.display()));
    }
    // Calls that wait must not make the test wait.
    let limits = Limits { wait_time: Duration::from_millis(20), ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    // From the start: else the tester makes the first token and is locked out.
    let (_, token) = server.post("/admin/tokens", json!({"role": "admin"})).await;
    let authorization = format!("Authorization: Bearer {}", token["secret"].as_str().unwrap());
    server.set_token(token["secret"].as_str());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("schemathesis.toml"), known(&server).await).unwrap();
    let mut command = Command::new(tester);
    command
        .current_dir(directory.path())
        .args(["run", &server.url("/openapi.json"), "--header", &authorization])
        .args(["--phases", "examples,coverage,fuzzing", "--mode", "all", "--max-examples", "15"])
        // The default seed is a new one each time: a failure must come back when the test is repeated. One worker: some
        // versions of Python can't parse on two threads at a time.
        .args(["--seed", "1", "--workers", "1", "--request-timeout", "20", "--suppress-health-check", "all"])
        .args(["--checks", "all", "--exclude-checks", EXCLUDED]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes a job with an attempt and output, a run, and a blob, and names them to the tester: else it would meet nothing but 404.
async fn known(server: &Server) -> String {
    let job = server.submit().await;
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    let mut writer = RecordWriter::default();
    writer.push(Stream::Stdout, b"hello");
    let mut result = success(&lease);
    result.output = Some(OutputChunk { offset: 0, records: writer.take() });
    result.output_bytes = 5;
    finish(server, &mut worker, result).await;
    let digest = Digest::of(b"blob");
    let (_, run) = server.post("/workflows", crate::runs::plan(&[("a", &[]), ("b", &[0])])).await;
    let run = run["id"].as_str().unwrap();
    let put = server.request(Method::PUT, &format!("/blobs/{digest}")).body("blob").send().await.unwrap();
    assert_eq!(put.status(), 201);
    format!(
        "[parameters]\n\"path.id\" = \"{}\"\n\"path.digest\" = \"{digest}\"\n\
         [[operations]]\ninclude-path-regex = \"/runs/\"\nparameters = {{ \"path.id\" = \"{run}\" }}\n",
        job.id
    )
}

/// Checks that can't hold. What fits a schema may still be refused: bytes that don't hash to their name, the
/// result of a job that isn't running. Who may do what is tested beside this, role by role.
const EXCLUDED: &str = "positive_data_acceptance,ignored_auth,object_level_authorization";
