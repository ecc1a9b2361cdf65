//! Executors by name. Two with the same name are one, so they have to be the same.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field::{Field, Reader, wrong_name};
use super::{command, container, hosts};
use crate::nearest::did_you_mean;
use crate::requirements::ExecutorKind;
use crate::workflow::ExecutorChoice;
use crate::workflow::file::Executor;
use crate::workflow::grammar::{COMMAND, CONTAINER, HOOKS, HOSTS};
use crate::workflow::problem::Position;

/// The executors a file speaks of so far, and where each was first described.
#[derive(Debug)]
pub(super) struct Executors {
    known: BTreeMap<String, (Executor, Position)>,
}

impl Executors {
    /// Those under `executors`.
    pub(super) fn read(reader: &mut Reader<'_>, top: &Field<'_>) -> Self {
        let mut known = BTreeMap::new();
        for (key, field) in top.get("executors").iter().flat_map(Field::entries) {
            if let Some(wrong) = wrong_name(&key.name) {
                reader.tell_at(key.at, &field.key, wrong);
            }
            if let Some(name) = field.get("name") {
                reader.tell(&name, format!("is `{}` already: its key is its name", key.name));
            }
            known.insert(key.name.clone(), (described(reader, &field, key.name.clone()), field.node.at));
        }
        Self { known }
    }

    /// The executor that `field` names, or describes in place. `local` without any.
    pub(super) fn choose(&mut self, reader: &mut Reader<'_>, field: Option<&Field<'_>>) -> Executor {
        let Some(field) = field else { return self.named("local").unwrap_or_else(local) };
        if let Some(name) = field.text() {
            return self.named(name).unwrap_or_else(|| {
                if name != "local" {
                    let known = self.known.keys().map(String::as_str).chain(["local"]);
                    let meant = did_you_mean(name, known);
                    let text = format!("there is no executor `{name}`{meant}");
                    let help = if meant.is_empty() { "; describe it under `executors`" } else { "" };
                    reader.tell(field, text + help);
                }
                local()
            });
        }
        if !field.is_map() {
            return local();
        }
        let kind = kind(field);
        let name = field.get("name").and_then(|name| {
            let text = name.text()?;
            if let Some(wrong) = wrong_name(text) {
                reader.tell(&name, wrong);
            }
            Some(text.to_owned())
        });
        let name = name.unwrap_or_else(|| kind.as_str().to_owned());
        let executor = described(reader, field, name.clone());
        match self.known.get(&name) {
            Some((first, at)) if first.choice != executor.choice => {
                let text =
                    format!("another executor `{name}` stands in line {}; give this one another `name`", at.line);
                reader.tell(field, text);
            }
            Some(_) => {}
            None => drop(self.known.insert(name, (executor.clone(), field.node.at))),
        }
        executor
    }

    fn named(&self, name: &str) -> Option<Executor> {
        self.known.get(name).map(|(executor, _)| executor.clone())
    }
}

fn local() -> Executor {
    let choice = ExecutorChoice { kind: ExecutorKind::Local, name: "local".to_owned(), options: Value::Null };
    Executor { choice, copy_repo: true, copy_git: false }
}

fn kind(field: &Field<'_>) -> ExecutorKind {
    match field.get("kind").and_then(|kind| kind.text()) {
        Some("hooks") => ExecutorKind::Hooks,
        Some("oci") => ExecutorKind::Oci,
        Some("command") => ExecutorKind::Command,
        Some("ssh") => ExecutorKind::Ssh,
        _ => ExecutorKind::Local,
    }
}

/// Keys that only executors of some kinds have, each with those.
fn keys() -> impl Iterator<Item = (&'static str, Vec<ExecutorKind>)> {
    let own = [
        (ExecutorKind::Local, &["isolate"][..]),
        (ExecutorKind::Hooks, &HOOKS[..]),
        (ExecutorKind::Oci, &CONTAINER),
        (ExecutorKind::Command, &COMMAND),
        (ExecutorKind::Ssh, &HOSTS),
    ];
    let mut keys: Vec<_> = own.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(move |key| {
        let of = own.iter().filter(|(_, keys)| keys.contains(&key)).map(|(kind, _)| *kind);
        (key, of.collect())
    })
}

fn described(reader: &mut Reader<'_>, field: &Field<'_>, name: String) -> Executor {
    let kind = kind(field);
    let isolates = kind == ExecutorKind::Local && field.get("isolate").and_then(|field| field.switch()) == Some(true);
    for (key, of) in keys().filter(|(key, of)| !(of.contains(&kind) || isolates && *key == "network")) {
        let Some(at) = field.get(key) else { continue };
        let of: Vec<_> = of.iter().map(|of| format!("`{}`", of.as_str())).collect();
        let (of, kind) = (of.join(" and "), kind.as_str());
        reader.tell(&at, format!("`{key}` is for executors of kind {of}; this one is `{kind}`"));
    }
    let options = match kind {
        ExecutorKind::Local if isolates => isolated(reader, field),
        ExecutorKind::Local => serde_json::Map::new(),
        ExecutorKind::Oci => container::options(reader, field),
        ExecutorKind::Command => command::options(reader, field),
        ExecutorKind::Ssh => hosts::options(reader, field),
        ExecutorKind::Hooks => {
            let hooks: serde_json::Map<_, _> = HOOKS
                .into_iter()
                .filter_map(|hook| Some((hook.to_owned(), Value::from(field.get(hook)?.text()?))))
                .collect();
            if !hooks.contains_key("execute") {
                reader.tell(field, "needs `execute`, the script that runs a step");
            }
            hooks
        }
    };
    let switch = |key, usual| field.get(key).and_then(|field| field.switch()).unwrap_or(usual);
    let (copy_repo, copy_git) = (switch("copy_repo", true), switch("copy_git", false));
    if copy_git && !copy_repo {
        reader.tell(field, "has `copy_git` without `copy_repo`; there is no copy to hold `.git`");
    }
    let options = if options.is_empty() { Value::Null } else { Value::Object(options) };
    Executor { choice: ExecutorChoice { kind, name, options }, copy_repo, copy_git }
}

/// The settings of an executor `local` whose jobs are kept from the machine.
fn isolated(reader: &mut Reader<'_>, executor: &Field<'_>) -> serde_json::Map<String, Value> {
    let mut options = serde_json::Map::from_iter([("isolate".to_owned(), Value::from(true))]);
    if let Some(field) = executor.get("network")
        && let Some(network) = field.text()
    {
        if network == "bridge" {
            reader.tell(&field, "is for containers of an engine; `local` has `none` or `host`");
        }
        options.insert("network".to_owned(), network.into());
    }
    options
}
