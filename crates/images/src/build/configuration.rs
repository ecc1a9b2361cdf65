//! What an image says about itself, over what its base says.

use executr_spec::Digest;
use serde_json::{Map, Value, json};

use super::Changes;
use crate::image::Platform;
use crate::reference::oci_digest;

/// All times in an image.
const BEGINNING: &str = "1970-01-01T00:00:00Z";

/// The configuration's bytes: of `base`, with these layers upon it. What the base says and nobody here knows, stays.
pub(super) fn configuration(
    base: Option<&[u8]>,
    platform: &Platform,
    layers: &[Digest],
    changes: &Changes,
) -> Result<Vec<u8>, String> {
    let empty = || json!({"os": platform.os, "architecture": platform.architecture});
    let mut root = match base {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| format!("no configuration: {error}"))?,
        None => empty(),
    };
    let root = root.as_object_mut().ok_or("its configuration is no object")?;
    root.insert("created".to_owned(), json!(BEGINNING));
    let rootfs = object(root, "rootfs")?;
    rootfs.insert("type".to_owned(), json!("layers"));
    let ids = rootfs.entry("diff_ids").or_insert_with(|| json!([])).as_array_mut().ok_or("its layers are no list")?;
    let below = ids.len();
    ids.extend(layers.iter().map(|layer| json!(oci_digest(*layer))));
    history(root, below, layers.len());
    let config = object(root, "config")?;
    let mut set = |name: &str, value: Value| drop(config.insert(name.to_owned(), value));
    if let Some(user) = &changes.user {
        set("User", json!(user));
    }
    if let Some(workdir) = &changes.workdir {
        set("WorkingDir", json!(workdir));
    }
    if let Some(entrypoint) = &changes.entrypoint {
        set("Entrypoint", json!(entrypoint));
        set("Cmd", Value::Null);
    }
    if let Some(command) = &changes.command {
        set("Cmd", json!(command));
    }
    if !changes.env.is_empty() {
        let list = config.entry("Env").or_insert(Value::Null);
        let mut env: Vec<String> = serde_json::from_value(list.take()).unwrap_or_default();
        for (name, value) in &changes.env {
            let written = format!("{name}={value}");
            match env.iter_mut().find(|there| there.split('=').next() == Some(name)) {
                Some(there) => *there = written,
                None => env.push(written),
            }
        }
        *list = json!(env);
    }
    if !changes.labels.is_empty() {
        let labels = object(config, "Labels")?;
        labels.extend(changes.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
    }
    config.retain(|_, value| !value.is_null());
    // Whichever way objects are kept here, they are written in one.
    serde_json::to_vec(&sorted(Value::Object(root.clone()))).map_err(|error| error.to_string())
}

/// Engines want a line for each layer, or none at all.
fn history(root: &mut Map<String, Value>, below: usize, layers: usize) {
    let mut lines = match root.remove("history") {
        Some(Value::Array(lines)) => lines,
        _ => Vec::new(),
    };
    let filled = lines.iter().filter(|line| line.get("empty_layer") != Some(&Value::Bool(true))).count();
    if filled != below {
        return;
    }
    let line = json!({"created": BEGINNING, "created_by": "executr image build"});
    lines.extend(std::iter::repeat_n(line, layers));
    root.insert("history".to_owned(), Value::Array(lines));
}

fn object<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>, String> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| format!("its `{name}` is no object"))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: Map<_, _> = map.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            map.sort_keys();
            Value::Object(map)
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(base: Option<&Value>, changes: &Changes) -> Value {
        let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() };
        let base = base.map(|base| serde_json::to_vec(base).unwrap());
        let bytes = configuration(base.as_deref(), &platform, &[Digest::of(b"new")], changes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn what_the_base_says_stays_unless_it_is_said_anew() {
        let base = json!({
            "os": "linux", "architecture": "amd64", "author": "somebody",
            "config": {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Labels": {"a": "1"}, "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
            "history": [{"created_by": "x"}, {"created_by": "y", "empty_layer": true}],
        });
        let changes = Changes {
            env: vec![("A".to_owned(), "2".to_owned()), ("B".to_owned(), String::new())],
            entrypoint: Some(vec!["/app".to_owned()]),
            user: Some("1000".to_owned()),
            labels: [("b".to_owned(), "2".to_owned())].into(),
            ..Changes::default()
        };
        let made = made(Some(&base), &changes);
        assert_eq!(
            made["config"],
            json!({
                "Env": ["PATH=/bin", "A=2", "B="], "Entrypoint": ["/app"], "User": "1000",
                "Labels": {"a": "1", "b": "2"}, "ExposedPorts": {"80/tcp": {}},
            })
        );
        assert_eq!(made["author"], "somebody");
        assert_eq!(made["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        assert_eq!(made["history"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn an_image_upon_nothing_says_what_it_is_for() {
        let changes = Changes { command: Some(vec!["a".to_owned()]), ..Changes::default() };
        let made = made(None, &changes);
        assert_eq!((&made["os"], &made["architecture"]), (&json!("linux"), &json!("amd64")));
        assert_eq!(made["created"], BEGINNING);
        assert_eq!(made["history"].as_array().unwrap().len(), 1);
        assert_eq!(made["config"], json!({"Cmd": ["a"]}));
    }
}
