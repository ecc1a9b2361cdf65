//! The settings of an executor of kind `command`, looked at where they stand.

use serde_json::{Map, Value};

use super::field::{Field, Reader};
use crate::nearest::did_you_mean;
use crate::workflow::placeholder::{self, Placeholder};

pub(super) fn options(reader: &mut Reader<'_>, executor: &Field<'_>) -> Map<String, Value> {
    let Some(argv) = executor.get("argv") else {
        reader.tell(executor, "needs `argv`, the program that starts the agent, and its arguments");
        return Map::new();
    };
    let words: Vec<_> = argv.items().into_iter().filter_map(|word| Some((word.text()?, word))).collect();
    if argv.items().is_empty() || words.first().is_some_and(|(word, _)| word.is_empty()) {
        reader.tell(&argv, "needs a program as its first word");
    }
    for (text, word) in &words {
        if text.contains('\0') {
            reader.tell(word, "holds a NUL character");
        }
        if let Some(name) = placeholder::unknown(text) {
            let known = Placeholder::ALL.map(Placeholder::as_str);
            let meant = did_you_mean(name, known);
            let help = if meant.is_empty() { format!("; there are `{{{}}}`", known.join("}`, `{")) } else { meant };
            reader.tell(word, format!("there is no placeholder `{{{name}}}`{help}"));
        }
    }
    let words: Vec<_> = words.iter().map(|(text, _)| Value::from(*text)).collect();
    let mut options = Map::from_iter([("argv".to_owned(), Value::Array(words))]);
    if let Some(directory) = executor.get("directory")
        && let Some(text) = directory.text()
    {
        if !text.starts_with('/') || text.contains('\0') {
            reader.tell(&directory, "is a path from the root, where the agent is: write one like `/var/tmp/executr`");
        }
        options.insert("directory".to_owned(), text.into());
    }
    options
}
