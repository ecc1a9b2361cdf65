//! Access tokens and what they allow.

use std::fs;

use serde_json::{Value, json};

use crate::http::{self, send};
use crate::system::{System, eventually, succeed, text};

#[test]
fn without_tokens_only_this_machine_is_served() {
    let system = System::server(&[]);
    let other = executr_tests::background::Home::new();
    let output = other.executr(&["server", "--host", "0.0.0.0", "--port", "0"]).output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(told.contains("token create") && told.contains("--insecure-no-tokens"), "{told}");
    drop(system);
}

#[test]
fn roles_allow_what_they_say() {
    let system = System::server(&[]);
    let create = |role: &str, admin: &str| {
        let mut command = system.executr(&["token", "create", "--role", role, "--name", role]);
        succeed(command.env("EXECUTR_TOKEN", admin)).trim().to_owned()
    };
    // The first is made while everybody may do everything; from then on nobody may without one.
    let admin = succeed(&mut system.executr(&["token", "create", "--role", "admin"])).trim().to_owned();
    let refused = system.output(&["list"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(text(&refused.stderr).contains("--token-file"), "{}", text(&refused.stderr));
    let [read, submit, execute] = ["read", "submit", "execute"].map(|role| create(role, &admin));

    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let job = json!({"type": "t", "binary_url": "https://example.com/b", "binary_sha256": sha});
    let claim = json!({"executor_id": "e", "executor_ip": "::1"});
    let ask = |token: &str, method: &str, path: &str, body: Option<&Value>| {
        send(&system.url, method, path, Some(token), body).unwrap().status
    };
    for (token, [reads, submits, claims, administers]) in [
        (&admin, [200, 201, 200, 200]),
        (&read, [200, 403, 403, 403]),
        (&submit, [200, 201, 403, 403]),
        (&execute, [403, 403, 200, 403]),
    ] {
        // Something to claim.
        ask(&admin, "POST", "/jobs", Some(&job));
        assert_eq!(ask(token, "GET", "/jobs", None), reads);
        assert_eq!(ask(token, "POST", "/jobs", Some(&job)), submits);
        assert_eq!(ask(token, "POST", "/jobs/claim", Some(&claim)), claims);
        assert_eq!(ask(token, "GET", "/admin/tokens", None), administers);
    }
    assert_eq!(ask("executr_wrong", "GET", "/jobs", None), 401);
    assert_eq!(http::get(&system.url, "/health").status, 200, "health asks for no token");
}

#[test]
fn a_revoked_token_is_refused() {
    let system = System::server(&[]);
    let home = system.home.path();
    fs::write(home.join("admin.token"), succeed(&mut system.executr(&["token", "create", "--role", "admin"]))).unwrap();
    let as_admin = |arguments: &[&str]| {
        let mut command = system.executr(arguments);
        command.env("EXECUTR_TOKEN_FILE", "admin.token");
        command
    };
    let made = succeed(&mut as_admin(&["token", "create", "--role", "read", "--output", "json"]));
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let asked = || send(&system.url, "GET", "/jobs", Some(secret), None).unwrap().status;
    assert_eq!(asked(), 200);
    let listed = succeed(&mut as_admin(&["token", "list"]));
    assert!(listed.contains(id) && !listed.contains(secret), "{listed}");
    succeed(&mut as_admin(&["token", "revoke", id]));
    assert_eq!(asked(), 401);
    let database = fs::read_dir(home.join(".local/state/executr/queue")).unwrap();
    for file in database.filter_map(|entry| fs::read(entry.unwrap().path()).ok()) {
        assert!(!file.windows(secret.len()).any(|window| window == secret.as_bytes()), "the secret is on disk");
    }
}

#[test]
fn tokens_are_made_in_a_database_without_a_server() {
    let home = executr_tests::background::Home::new();
    let create = |role: &str| {
        let line = ["token", "create", "--role", role, "--data-dir", "data"];
        let token = succeed(&mut home.executr(&line));
        fs::write(home.path().join(role), &token).unwrap();
        token.trim().to_owned()
    };
    let (admin, _execute) = (create("admin"), create("execute"));
    let line = ["server", "--data-dir", "data", "--host", "127.0.0.1"];
    let (_server, url) = executr_tests::background::Background::serve(&home, &line, &[]);
    assert_eq!(http::get(&url, "/jobs").status, 401);
    let mut executor = home.executr(&["executor", "--name", "w", "--work-dir", "work", "--token-file", "execute"]);
    let executor = executor.env("EXECUTR_SERVER_URL", &url);
    let _executor = executr_tests::background::Background::start(&home, "executor", executor);
    let mut submit = home.executr(&["submit", "--wait", "--", "sh", "-c", "echo worked"]);
    assert_eq!(succeed(submit.env("EXECUTR_SERVER_URL", &url).env("EXECUTR_TOKEN", admin)), "worked\n");
}

#[test]
fn an_executor_with_a_stale_token_says_so() {
    let system = System::server(&[]);
    succeed(&mut system.executr(&["token", "create", "--role", "admin"]));
    let executor = system.executor("w", &["--token", "executr_stale"]);
    let told = eventually("the refusal", || Some(executor.output()).filter(|told| told.contains("token")));
    assert!(!told.contains("executr_stale"), "{told}");
}
