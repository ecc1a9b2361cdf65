//! `files` and `modified` of a job: what goes into its directory, and what comes back.
//!
//! `files` is a map from paths to contents, a selection, or a list of both. A map that has no keys but those of a selection is
//! one.

use std::collections::BTreeMap;

use super::field::{Field, Reader};
use super::job::note;
use crate::expression::Template;
use crate::glob::Glob;
use crate::workflow::document::Value;
use crate::workflow::file::{LocalFile, Located, Place, Text, WrittenModified};
use crate::workflow::grammar::is_selection;
use crate::workflow::{ArchiveKind, FileContent, FileMode, FileSelection, SandboxFile};

/// What `files` says.
#[derive(Default)]
pub(super) struct Files {
    /// Contents that stand in the file.
    pub(super) written: BTreeMap<String, SandboxFile>,
    /// Those that stand in files beside the user.
    pub(super) local: BTreeMap<String, LocalFile>,
    pub(super) selected: Vec<FileSelection>,
}

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>, texts: &mut Vec<Text>) -> Files {
    let mut files = Files::default();
    let Some(field) = field.get("files") else { return files };
    let items = match field.node.value {
        Value::List(_) => field.items(),
        _ => vec![field],
    };
    for item in items {
        if let Some(from) = item.text() {
            files.selected.push(FileSelection { from: path(reader, &item, from), ..FileSelection::default() });
        } else if is_selection(item.node) {
            let selected = selection(reader, &item);
            files.selected.push(selected);
        } else {
            contents(reader, &item, &mut files, texts);
        }
    }
    files
}

fn selection(reader: &mut Reader<'_>, field: &Field<'_>) -> FileSelection {
    let mut at = |key: &str| {
        let field = field.get(key)?;
        Some(path(reader, &field, field.text()?))
    };
    let (from, to) = (at("from").unwrap_or_default(), at("to"));
    FileSelection { from, to, include: globs(reader, field, "include"), exclude: globs(reader, field, "exclude") }
}

/// A path that means nothing outside.
fn path(reader: &mut Reader<'_>, field: &Field<'_>, text: &str) -> String {
    if Template::is_in(text) {
        reader.tell(field, "`${{ }}` isn't evaluated in a selection of files");
    } else if text.starts_with('/') || text.contains('\0') || text.split('/').any(|part| part == "..") {
        let text = text.escape_debug();
        reader.tell(field, format!("`{text}` leads out; write a path without `..` that doesn't begin with `/`"));
    }
    if text.trim_end_matches('/') == "." { ".".to_owned() } else { text.to_owned() }
}

fn globs(reader: &mut Reader<'_>, field: &Field<'_>, key: &str) -> Vec<Glob> {
    let items = field.get(key).map(|field| field.items()).unwrap_or_default();
    items.iter().filter_map(|item| reader.parsed(item, item.text()?)).collect()
}

/// What comes back.
pub(super) fn modified(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    texts: &mut Vec<Text>,
) -> Option<Located<WrittenModified>> {
    let field = field.get("modified")?;
    let text = |field: Option<Field<'_>>, texts: &mut Vec<Text>| {
        let field = field?;
        let text = field.text()?;
        note(&field, text, texts);
        Some(text.to_owned())
    };
    let to = if field.text().is_some() { Some(field.clone()) } else { field.get("to") };
    let archive = match field.get("archive").and_then(|archive| archive.text()) {
        Some("tar.s2") => ArchiveKind::TarS2,
        _ => ArchiveKind::TarZst,
    };
    let modified = WrittenModified {
        to: text(to, texts),
        name: text(field.get("name"), texts),
        archive,
        include: globs(reader, &field, "include"),
        exclude: globs(reader, &field, "exclude"),
    };
    Some(field.located(modified))
}

/// Files with contents of their own, by path.
fn contents(reader: &mut Reader<'_>, field: &Field<'_>, files: &mut Files, texts: &mut Vec<Text>) {
    for (key, value) in field.entries() {
        let path = key.name.clone();
        let mode = value.get("mode").and_then(|mode| {
            let parsed = FileMode::try_from(mode.scalar()?);
            parsed.map_err(|wrong| reader.tell(&mode, wrong)).ok()
        });
        let mode = mode.unwrap_or_default();
        let written = |key| value.get(key).and_then(|field| Some((field.text()?, field)));
        let content = if let Some((text, field)) = value.text().map(|text| (text, value.clone())).or(written("text")) {
            if Template::is_in(text) {
                texts.push(field.expressive(Place::Job, text));
            }
            FileContent::Text(text.to_owned())
        } else if let Some((text, field)) = written("base64") {
            let text: String = text.split_ascii_whitespace().collect();
            if !is_base64(&text) {
                reader.tell(&field, "is no base64");
            }
            FileContent::Base64(text)
        } else {
            if let Some((from, field)) = written("from") {
                if from.is_empty() || from.contains('\0') {
                    reader.tell(&field, "name a file");
                }
                files.local.insert(path, LocalFile { from: from.to_owned(), mode });
            }
            continue;
        };
        files.written.insert(path, SandboxFile { content, mode });
    }
}

/// Whether a text is base64 with the usual alphabet and padding.
fn is_base64(text: &str) -> bool {
    let letters = text.trim_end_matches('=');
    let fits = letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/');
    fits && text.len().is_multiple_of(4) && text.len() - letters.len() <= 2
}
