//! The settings of an executor of kind `oci` and of a step's own container, each looked at where it stands, so that what is wrong has a line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field::{Field, Reader};
use crate::expression::Template;
use crate::quantity::{Bytes, Millicores};
use crate::step_image::{StepImage, wrong_image, wrong_user};
use crate::workflow::file::{Place, Text};

/// Words and switches, taken as they are once their shape is right.
const PLAIN: [&str; 4] = ["mode", "pull", "network", "read_only"];

/// Engines that are known by a word.
const ENGINES: [&str; 4] = ["auto", "direct", "docker", "podman"];

pub(super) fn options(reader: &mut Reader<'_>, executor: &Field<'_>) -> Map<String, Value> {
    let mut options = Map::new();
    match executor.get("image") {
        None => reader.tell(executor, "needs `image`, what its containers are made of"),
        Some(image) => {
            if let Some(name) = image.text() {
                if let Some(wrong) = wrong_image(name) {
                    reader.tell(&image, wrong);
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
    if let Some(field) = executor.get("mode")
        && field.text().is_some_and(|mode| matches!(mode, "dedicated" | "pool"))
    {
        reader.tell(&field, "is for other hosts (`kind: ssh`); write `shared` or `isolated`");
    }
    if let Some(field) = executor.get("engine")
        && let Some(address) = field.text()
    {
        if !ENGINES.contains(&address) && !address.strip_prefix("unix://").unwrap_or(address).starts_with('/') {
            reader.tell(&field, "has to be `auto`, `direct`, `docker`, `podman`, or a socket of the worker's machine, `unix:///PATH`: job directories are mounted into containers");
        }
        options.insert("engine".to_owned(), address.into());
    }
    if let Some(field) = executor.get("user")
        && let Some(user) = field.scalar()
    {
        if let Some(wrong) = wrong_user(&user) {
            reader.tell(&field, wrong);
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
    if let Some(field) = executor.get("registry") {
        options.insert("registry".to_owned(), field.node.to_json());
    }
    if let Some(field) = executor.get("container_env") {
        let variables = variables(reader, &field).into_iter().map(|(name, text)| (name, Value::from(text)));
        options.insert("container_env".to_owned(), variables.collect::<Map<_, _>>().into());
    }
    options
}

/// The image of a step with a container of its own.
pub(super) fn step_image(reader: &mut Reader<'_>, field: &Field<'_>, texts: &mut Vec<Text>) -> Option<StepImage> {
    let name = if field.is_map() { field.get("name") } else { Some(field.clone()) }?;
    let mut image = StepImage { name: name.text()?.to_owned(), ..StepImage::default() };
    if Template::is_in(&image.name) {
        texts.push(name.expressive(Place::Cell, &image.name));
    } else if let Some(wrong) = wrong_image(&image.name) {
        reader.tell(&name, wrong);
    }
    if !field.is_map() {
        return Some(image);
    }
    if let Some(field) = field.get("user") {
        image.user = field.scalar();
        if let Some(wrong) = image.user.as_deref().and_then(wrong_user) {
            reader.tell(&field, wrong);
        }
    }
    image.container_env = field.get("container_env").map(|field| variables(reader, &field)).unwrap_or_default();
    Some(image)
}

fn variables(reader: &mut Reader<'_>, field: &Field<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in field.entries() {
        if name.name.is_empty() || name.name.contains(['=', '\0']) {
            reader.tell_at(name.at, &value.key, "is no name of a variable; leave out `=`");
        }
        variables.extend(value.scalar().map(|text| (name.name.clone(), text)));
    }
    variables
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
