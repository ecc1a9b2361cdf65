//! YAML files that others' programs read: compose files and Kubernetes manifests.

use std::fs;
use std::path::Path;

use saphyr::{LoadableYamlNode, YamlOwned};

/// All documents of a file.
///
/// # Panics
///
/// If the file is not YAML.
#[must_use]
pub(crate) fn documents(path: &Path) -> Vec<YamlOwned> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    YamlOwned::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of `key`, looked up in what `<<` merges as well.
#[must_use]
pub(crate) fn get<'a>(mapping: &'a YamlOwned, key: &str) -> Option<&'a YamlOwned> {
    let own = mapping.as_mapping_get(key);
    own.or_else(|| get(mapping.as_mapping_get("<<")?, key))
}

/// A list of texts; empty when there is none.
#[must_use]
pub(crate) fn words(list: Option<&YamlOwned>) -> Vec<String> {
    let items = list.and_then(YamlOwned::as_sequence).into_iter().flatten();
    items.filter_map(YamlOwned::as_str).map(str::to_owned).collect()
}

/// The keys and values of a mapping, both as texts.
#[must_use]
pub(crate) fn pairs(mapping: Option<&YamlOwned>) -> Vec<(String, YamlOwned)> {
    let entries = mapping.and_then(YamlOwned::as_mapping).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.clone()))).collect()
}
