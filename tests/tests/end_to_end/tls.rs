//! HTTPS with a certificate of one's own.

use std::process::Command;

use executr_tests::background::{Background, Home};
use executr_tests::component;

use crate::system::{eventually, succeed, text};

#[test]
fn server_executor_and_commands_speak_tls() {
    let home = Home::new();
    if Command::new("openssl").arg("version").output().is_err() {
        component::missing("openssl", "it is not on the path");
        return;
    }
    let made = home
        .command("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let port_file = home.path().join("port");
    let flags = ["server", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--port", "0", "--port-file", "port"];
    let _server = Background::start(&home, "server", &mut home.executr(&flags));
    let url = format!("https://127.0.0.1:{}", crate::system::line_in(&port_file));
    let with_tls = |arguments: &[&str]| {
        let mut command = home.executr(arguments);
        command.env("EXECUTR_SERVER_URL", &url).env("EXECUTR_CA_CERT", "cert.pem");
        command
    };
    let mut executor = with_tls(&["executor", "--name", "w", "--work-dir", "work"]);
    let _executor = Background::start(&home, "executor", &mut executor);
    assert_eq!(succeed(&mut with_tls(&["submit", "--wait", "--", "echo", "sealed"])), "sealed\n");
    // A connection that becomes a line, from both sides.
    let id = succeed(&mut with_tls(&["submit", "--", "sleep", "1000"]));
    eventually("a console in the job", || {
        let output = with_tls(&["exec", id.trim(), "--", "echo", "sealed"]).output().unwrap();
        (text(&output.stdout) == "sealed\n").then_some(())
    });
    succeed(&mut with_tls(&["cancel", id.trim()]));
    // Whom nobody vouches for is not talked to.
    let output = with_tls(&["list"]).env_remove("EXECUTR_CA_CERT").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    eventually("a word about the certificate", || text(&output.stderr).contains("certificate").then_some(()));
}
