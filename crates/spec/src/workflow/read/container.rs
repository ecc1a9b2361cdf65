//! The settings of an executor of kind `oci`, each looked at where it stands, so that what is wrong has a line.

use serde_json::{Map, Value};

use super::field::{Field, Reader};
use crate::quantity::{Bytes, Millicores};

/// Words and switches, taken as they are once their shape is right.
const PLAIN: [&str; 4] = ["mode", "pull", "network", "read_only"];

pub(super) fn options(reader: &mut Reader<'_>, executor: &Field<'_>) -> Map<String, Value> {
    let mut options = Map::new();
    match executor.get("image") {
        None => reader.tell(executor, "needs `image`, what its containers are made of"),
        Some(image) => {
            if let Some(name) = image.text() {
                if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
                    reader.tell(
                        &image,
                        "is no name of an image; write one like `debian:12` or `registry.example/team/image@sha256:…`",
                    );
                }
                options.insert("image".to_owned(), name.into());
            }
        }
    }
    for key in PLAIN {
        if let Some(field) = executor.get(key) {
            options.insert(key.to_owned(), field.node.to_json());
        }
    }
    if let Some(field) = executor.get("engine")
        && let Some(address) = field.text()
    {
        if !address.strip_prefix("unix://").unwrap_or(address).starts_with('/') {
            reader.tell(&field, "has to be a socket of the worker's machine, `unix:///PATH`: job directories are mounted into containers");
        }
        options.insert("engine".to_owned(), address.into());
    }
    if let Some(field) = executor.get("user")
        && let Some(user) = field.scalar()
    {
        if user.is_empty()
            || user.starts_with(':')
            || user.contains(char::is_whitespace)
            || user.matches(':').count() > 1
        {
            reader.tell(&field, format!("`{user}` is no user; write `USER` or `USER:GROUP`, names or numbers"));
        }
        options.insert("user".to_owned(), user.into());
    }
    // Looked at as what they are, and passed on as they are written.
    if let Some(field) = executor.get("cpus")
        && reader.value::<Millicores>(&field).is_some()
    {
        options.insert("cpus".to_owned(), field.node.to_json());
    }
    if let Some(field) = executor.get("memory")
        && reader.value::<Bytes>(&field).is_some()
    {
        options.insert("memory".to_owned(), field.node.to_json());
    }
    if let Some(pids) = executor.get("pids").and_then(|field| field.count()) {
        options.insert("pids".to_owned(), pids.into());
    }
    let tmpfs = texts(
        reader,
        executor,
        "tmpfs",
        |text| text.starts_with('/'),
        "a path, or a path and mount options: `/tmp:size=64m`",
    );
    let mounts =
        texts(reader, executor, "mounts", is_mount, "two absolute paths: `/SOURCE:/TARGET` or `/SOURCE:/TARGET:ro`");
    for (key, texts) in [("tmpfs", tmpfs), ("mounts", mounts)] {
        if !texts.is_empty() {
            options.insert(key.to_owned(), texts.into());
        }
    }
    if let Some(field) = executor.get("container_env") {
        let mut variables = Map::new();
        for (name, value) in field.entries() {
            if name.name.is_empty() || name.name.contains(['=', '\0']) {
                reader.tell_at(name.at, &value.key, "is no name of a variable; leave out `=`");
            }
            variables.extend(value.scalar().map(|text| (name.name.clone(), Value::from(text))));
        }
        options.insert("container_env".to_owned(), variables.into());
    }
    options
}

fn texts(reader: &mut Reader<'_>, executor: &Field<'_>, key: &str, fits: fn(&str) -> bool, what: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for field in executor.get(key).iter().flat_map(Field::items) {
        let Some(text) = field.text() else { continue };
        if !fits(text) {
            reader.tell(&field, format!("`{text}` isn't {what}"));
        }
        texts.push(text.to_owned());
    }
    texts
}

fn is_mount(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    let paths = parts.iter().take(2).all(|path| path.starts_with('/'));
    paths && matches!(&parts[..], [_, _] | [_, _, "ro" | "rw"])
}
