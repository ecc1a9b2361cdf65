//! The settings of an executor of kind `ssh`, each looked at where it stands, so that what is wrong has a line.

use serde_json::{Map, Value};

use super::field::{Field, Reader};

/// Taken as they are once they look right.
const TEXTS: [&str; 2] = ["identity_file", "config_file"];

pub(super) fn options(reader: &mut Reader<'_>, executor: &Field<'_>) -> Map<String, Value> {
    let mut options = Map::new();
    let mode = mode(reader, executor);
    options.extend(mode.map(|mode| ("mode".to_owned(), Value::from(mode))));
    hosts(reader, executor, mode == Some("pool"), &mut options);
    if let Some(field) = executor.get("user")
        && let Some(user) = field.scalar()
    {
        if user.is_empty() || user.starts_with('-') || user.contains(|c: char| c.is_whitespace() || c.is_control()) {
            reader.tell(&field, format!("`{user}` is no user's name"));
        }
        options.insert("user".to_owned(), user.into());
    }
    for key in ["port", "max_jobs"] {
        options.extend(executor.get(key).and_then(|field| field.count()).map(|count| (key.to_owned(), count.into())));
    }
    for key in TEXTS {
        if let Some(field) = executor.get(key)
            && let Some(path) = field.text()
        {
            if !(path.starts_with('/') || path.starts_with("~/")) || path.contains(char::is_control) {
                reader.tell(&field, "has to be a path of the worker's machine: absolute, or one that begins with `~/`");
            }
            options.insert(key.to_owned(), path.into());
        }
    }
    if let Some(field) = executor.get("workspace_dir")
        && let Some(path) = field.text()
    {
        let is_plain = |c: char| c.is_alphanumeric() || " /._-+@%,:=~".contains(c);
        if !(path.starts_with('/') || path.starts_with("~/")) || !path.chars().all(is_plain) {
            reader.tell(
                &field,
                "has to be a path of the host: absolute, or one that begins with `~/`, of letters, digits, spaces and `/._-+@%,:=~`",
            );
        }
        options.insert("workspace_dir".to_owned(), path.into());
    }
    options
}

/// How jobs share connections.
fn mode<'text>(reader: &mut Reader<'_>, executor: &Field<'text>) -> Option<&'text str> {
    let field = executor.get("mode")?;
    let mode = field.text()?;
    if mode == "isolated" {
        reader.tell(&field, "`isolated` is for containers; write `shared`, `dedicated` or `pool`");
        return None;
    }
    Some(mode)
}

fn hosts(reader: &mut Reader<'_>, executor: &Field<'_>, is_pool: bool, options: &mut Map<String, Value>) {
    let (host, hosts) = (executor.get("host"), executor.get("hosts"));
    match (&host, &hosts) {
        (None, None) if is_pool => reader.tell(executor, "needs `hosts`, a list of those that take jobs in turn"),
        (None, None) => reader.tell(executor, "needs `host`"),
        (Some(_), Some(field)) => reader.tell(field, "stands beside `host`; write only one of them"),
        (None, Some(field)) if !is_pool => reader.tell(field, "is for `mode: pool`; write that, or `host`"),
        (Some(field), None) if is_pool => reader.tell(field, "is for one host; with `mode: pool` write `hosts`"),
        _ => {}
    }
    if let Some(field) = host
        && let Some(host) = field.text()
    {
        check(reader, &field, host);
        options.insert("host".to_owned(), host.into());
    }
    if let Some(list) = hosts {
        let mut names: Vec<&str> = Vec::new();
        for field in list.items() {
            let Some(host) = field.text() else { continue };
            check(reader, &field, host);
            if names.contains(&host) {
                reader.tell(
                    &field,
                    format!("`{host}` stands there twice; a host that may have more jobs needs no second place"),
                );
            }
            names.push(host);
        }
        if list.items().is_empty() {
            reader.tell(&list, "needs a host");
        }
        let names: Vec<_> = names.into_iter().map(Value::from).collect();
        options.insert("hosts".to_owned(), names.into());
    }
}

/// Tells what is wrong with a host's name.
fn check(reader: &mut Reader<'_>, field: &Field<'_>, host: &str) {
    let wrong = if host.contains('@') {
        "holds a user; write that as `user`"
    } else if host.starts_with("ssh://") {
        "is a URL; write the host alone, and its port as `port`"
    } else if host.is_empty()
        || host.starts_with('-')
        || host.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"`$\\;&<>|(){}/".contains(c))
    {
        "is no name of a host"
    } else {
        return;
    };
    reader.tell(field, format!("`{}` {wrong}", host.escape_debug()));
}
