//! The compose files' own commands, run side by side without containers: tokens are made once, executors get to the
//! server with theirs, and nobody gets in without one.

use std::fs;
use std::path::Path;

use executr_tests::background::{Background, Home};
use executr_tests::postgres;

use crate::manifest::{get, pairs, words};
use crate::services;
use saphyr::YamlOwned;

#[test]
fn the_services_with_postgresql_make_a_fleet() {
    let Some(database) = postgres::database() else { return };
    fleet_of("docker-compose.yml", Some(database.url()));
}

#[test]
fn the_services_with_the_embedded_database_make_a_fleet() {
    fleet_of("examples/compose/docker-compose.yml", None);
}

fn fleet_of(file: &str, database_url: Option<String>) {
    let home = Home::new();
    let tokens = home.path().join("tokens");
    for role in ["admin", "execute"] {
        fs::create_dir_all(tokens.join(role)).unwrap();
    }
    let data = home.path().join("data").display().to_string();
    let database = match &database_url {
        Some(url) => [("EXECUTR_DB_URL", url.as_str())],
        None => [("EXECUTR_DATA_DIR", data.as_str())],
    };
    let services = services(file);
    let service = |name: &str| &services.iter().find(|(known, _)| known == name).unwrap().1;

    make_tokens(&home, service("tokens"), &database);
    let admin = fs::read_to_string(tokens.join("admin/token")).unwrap();
    make_tokens(&home, service("tokens"), &database);
    assert_eq!(fs::read_to_string(tokens.join("admin/token")).unwrap(), admin, "a restart keeps the tokens");

    let server = words(get(service("server"), "command"));
    // In its container a server listens on all addresses; a test does not.
    let server: Vec<_> = server.iter().map(|word| if word == "0.0.0.0" { "127.0.0.1" } else { word }).collect();
    let (_server, url) = Background::serve(&home, &server, &database);

    let executors: Vec<_> = services
        .iter()
        .filter(|(_, service)| words(get(service, "command")).first().is_some_and(|word| word == "executor"))
        .map(|(name, service)| executor(&home, name, service, &url))
        .collect();
    assert!(!executors.is_empty());

    let submit = |token: Option<&Path>| {
        let mut command = home.executr(&["submit", "--wait", "--server-url", &url, "--", "echo", "done"]);
        command.envs(token.map(|file| ("EXECUTR_TOKEN_FILE", file)));
        command.output().unwrap()
    };
    let done = submit(Some(&tokens.join("admin/token")));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "done\n", "{}", String::from_utf8_lossy(&done.stderr));
    for token in [None, Some(tokens.join("execute/token"))] {
        let refused = submit(token.as_deref());
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{token:?} is no admin's token");
    }
}

fn make_tokens(home: &Home, service: &YamlOwned, database: &[(&str, &str)]) {
    let entrypoint = words(get(service, "entrypoint"));
    let tokens = home.path().join("tokens");
    let arguments = entrypoint.iter().skip(1).map(|word| {
        // Compose reads `$$` as `$`.
        word.replace("$$", "$").replace("/tokens", &tokens.display().to_string())
    });
    let output = home.command(&entrypoint[0]).args(arguments).envs(database.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn executor(home: &Home, name: &str, service: &YamlOwned, url: &str) -> Background {
    let arguments = words(get(service, "command"));
    let mut command = home.executr(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    for (variable, value) in pairs(get(service, "environment")) {
        let value = value.as_str().unwrap().replace("/tokens", &home.path().join("tokens").display().to_string());
        command.env(variable, value);
    }
    command
        .env("EXECUTR_SERVER_URL", url)
        .env("EXECUTR_WORK_DIR", home.path().join(name).join("jobs"))
        .env("EXECUTR_CACHE_DIR", home.path().join(name).join("cache"));
    Background::start(home, name, &mut command)
}
