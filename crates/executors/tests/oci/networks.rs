//! Networks of runs: who finds whom, and what is left of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use executr_executors::contract::{Exit, Program, Workspace};
use executr_executors::oci::OciHost;
use executr_tests::docker::{Engine, IMAGE, engine, podman};
use serde_json::json;

use super::conformance::rig::{gather, plan, sh};
use super::{Both, host_of, open_on, said, tag};

fn labels(run: &str, executor: &str) -> BTreeMap<String, String> {
    [("executr.run", run), ("executr.executor", executor)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

async fn container(host: &Arc<OciHost>, temp: &tempfile::TempDir, run: &str, executor: &str) -> Both {
    open_on(host, temp.path(), json!({"image": IMAGE}), labels(run, executor)).await.unwrap()
}

/// A container of the run and one of another; the first serves `hello`, and says at which address.
async fn served(engine: &Engine) {
    let (host, temp) = (host_of(engine), tempfile::tempdir().unwrap());
    let (run, other_run) = (tag(), tag());
    let label = format!("executr.run={run}");
    let server = container(&host, &temp, &run, "web").await;
    let client = container(&host, &temp, &run, "client").await;
    let stranger = container(&host, &temp, &other_run, "client").await;
    assert_eq!(engine.count_networks(&label), 1, "{engine:?}");

    let (mut serving, mut near) = (server.setup_job(plan()).await.unwrap(), client.setup_job(plan()).await.unwrap());
    let mut far = stranger.setup_job(plan()).await.unwrap();
    let address = said(serving.as_mut(), "hostname -i").await;
    let mut step = sh("while :; do echo hello | nc -l -p 8080; done");
    step.last = false;
    let listening = serving.execute(step).await.unwrap();
    let ask = |place: &str| format!("i=0; until nc -w 3 {place} 8080 </dev/null; do i=$((i+1)); test $i -lt 50; done");
    assert_eq!(said(near.as_mut(), &ask("web")).await, "hello\n", "{engine:?}: by name");
    let no = format!(
        "nc -w 2 web 8080 </dev/null && echo found by name; nc -w 2 {} 8080 </dev/null && echo found by address; :",
        address.trim()
    );
    let mut step = sh(&no);
    step.program = Program::Argv(["sh", "-c", &no].map(|word| word.to_owned().into()).into());
    let mut execution = far.execute(step).await.unwrap();
    let found = gather(execution.as_mut()).await;
    assert_eq!(
        (found.exit, String::from_utf8(found.stdout).unwrap().as_str()),
        (Some(Exit::Code(0)), ""),
        "{engine:?}"
    );

    drop((execution, listening));
    for mut job in [serving, near, far] {
        job.cleanup().await.unwrap();
    }
    for container in [server, client, stranger] {
        container.cleanup().await;
    }
    host.settle().await;
    assert_eq!(engine.count_networks(&label), 0, "{engine:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_run_find_each_other_and_no_other_does() {
    let Some(engine) = engine() else { return };
    served(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_run_find_each_other_and_no_other_does_on_podman() {
    let Some(engine) = podman() else { return };
    served(&engine).await;
}
