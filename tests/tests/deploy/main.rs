//! The files under `deploy/` and the compose files: what engines and clusters would be told is well-formed, fits together,
//! and is something the program takes. No engine is needed for that.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod fleet;
mod manifest;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use executr_tests::program::root;
use executr_tests::{component, shell, usage};
use manifest::{documents, get, pairs, words};
use saphyr::YamlOwned;

const COMPOSE_FILES: [&str; 2] = ["docker-compose.yml", "examples/compose/docker-compose.yml"];

#[test]
fn compose_services_run_commands_the_program_takes() {
    for file in COMPOSE_FILES {
        for (name, service) in services(file) {
            let command = words(get(&service, "command"));
            if !command.is_empty() {
                assert_eq!(usage::is_known(&command), Ok(()), "{file}: {name}");
            }
            for script in words(get(&service, "entrypoint")) {
                for command in shell::executr_commands(&script.replace("$$role", "admin")) {
                    assert_eq!(usage::is_known(&command), Ok(()), "{file}: {name}");
                }
            }
        }
    }
}

#[test]
fn compose_services_wait_for_services_and_mount_volumes_that_exist() {
    for file in COMPOSE_FILES {
        let services = services(file);
        let names: BTreeSet<_> = services.iter().map(|(name, _)| name.clone()).collect();
        let declared: BTreeSet<_> =
            pairs(get(&documents(&root().join(file))[0], "volumes")).into_iter().map(|(name, _)| name).collect();
        let mut mounted = BTreeSet::new();
        for (name, service) in &services {
            let waits_for = get(service, "depends_on");
            let listed = words(waits_for).into_iter();
            for other in listed.chain(pairs(waits_for).into_iter().map(|(other, _)| other)) {
                assert!(names.contains(&other), "{file}: {name} waits for {other}");
            }
            for mount in words(get(service, "volumes")) {
                mounted.insert(mount.split(':').next().unwrap().to_owned());
            }
        }
        assert_eq!(mounted, declared, "{file}");
    }
}

#[test]
fn executors_in_compose_see_no_token_but_their_own() {
    for file in COMPOSE_FILES {
        let mut executors = 0;
        for (name, service) in services(file) {
            if words(get(&service, "command")).first().is_some_and(|command| command == "executor") {
                executors += 1;
                assert_eq!(words(get(&service, "volumes")), ["executor-token:/tokens/execute:ro"], "{file}: {name}");
            }
        }
        assert!(executors > 0, "{file} runs executors");
    }
}

#[test]
fn kubernetes_containers_run_commands_the_program_takes() {
    let mut containers = 0;
    for deployment in kubernetes().iter().filter(|object| text(object, "kind") == "Deployment") {
        let pod = get(get(get(deployment, "spec").unwrap(), "template").unwrap(), "spec").unwrap();
        for container in get(pod, "containers").and_then(YamlOwned::as_sequence).unwrap() {
            containers += 1;
            assert_eq!(usage::is_known(&words(get(container, "args"))), Ok(()));
        }
    }
    assert_eq!(containers, 2);
}

#[test]
fn kubernetes_selectors_find_the_pods() {
    let objects = kubernetes();
    let mut labels = BTreeSet::new();
    for object in &objects {
        if text(object, "kind") == "Deployment" {
            let spec = get(object, "spec").unwrap();
            let selected = get(get(spec, "selector").unwrap(), "matchLabels").unwrap();
            let given = get(get(get(spec, "template").unwrap(), "metadata").unwrap(), "labels").unwrap();
            assert_eq!(selected, given);
            labels.insert(text(given, "app"));
        }
    }
    for object in &objects {
        if text(object, "kind") == "Service" {
            let selector = get(get(object, "spec").unwrap(), "selector").unwrap();
            assert!(labels.contains(&text(selector, "app")));
        }
    }
}

#[test]
fn variables_in_all_these_files_are_ones_the_program_reads() {
    let known = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut unknown = Vec::new();
    let mut found = 0;
    for path in files_with_variables() {
        let text = fs::read_to_string(&path).unwrap();
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let ours = word.starts_with("EXECUTR_") || word.starts_with("EXECUTOR_");
            // The password of the compose file's own database.
            if ours && word != "EXECUTR_DB_PASSWORD" {
                found += 1;
                if !known.contains(&format!("`{word}`")) {
                    unknown.push(format!("{}: {word}", path.display()));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(found > 10);
}

#[test]
fn systemd_takes_the_units_and_the_program_their_commands() {
    for name in ["executr-server", "executr-executor"] {
        let unit = fs::read_to_string(root().join(format!("deploy/systemd/{name}.service"))).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let commands = shell::executr_commands(start);
        assert_eq!(commands.len(), 1, "{start}");
        assert_eq!(usage::is_known(&commands[0]), Ok(()));
        verify_unit(name, &unit.replace("/usr/local/bin/executr", "/bin/true"));
    }
}

/// systemd's own opinion about a unit, where it is installed; not under `CI=true` either, since containers rarely have
/// it and nothing of Executr needs it.
fn verify_unit(name: &str, unit: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("{name}.service"));
    fs::write(&path, unit).unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            // Before version 254 it is passed over, as the unit says.
            let objections = said.lines().filter(|line| line.contains(name) && !line.contains("'DelegateSubgroup'"));
            assert!(output.status.success() && objections.count() == 0, "{said}");
        }
        Err(error) => component::absent("systemd-analyze", &error.to_string()),
    }
}

fn services(file: &str) -> Vec<(String, YamlOwned)> {
    let services = pairs(get(&documents(&root().join(file))[0], "services"));
    assert!(services.len() > 2, "{file}");
    services
}

fn kubernetes() -> Vec<YamlOwned> {
    let folder = root().join("deploy/kubernetes");
    let kustomization = &documents(&folder.join("kustomization.yaml"))[0];
    words(get(kustomization, "resources")).iter().flat_map(|file| documents(&folder.join(file))).collect()
}

fn files_with_variables() -> Vec<PathBuf> {
    let mut files: Vec<_> = COMPOSE_FILES.map(|file| root().join(file)).into();
    for folder in ["deploy/kubernetes", "deploy/systemd", "examples/executors"] {
        files.extend(fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    files
}

fn text(mapping: &YamlOwned, key: &str) -> String {
    get(mapping, key).and_then(YamlOwned::as_str).unwrap().to_owned()
}
