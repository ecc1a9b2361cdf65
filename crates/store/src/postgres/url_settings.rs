//! Settings in a connection's text that libpq knows and tokio-postgres does not: they are read here and taken out.

use std::ops::Range;

use percent_encoding::percent_decode_str;

/// A connection's text, and the settings that were taken out of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parted {
    /// What is left, for tokio-postgres to read.
    pub(super) rest: String,
    /// Name and value, in their order.
    pub(super) taken: Vec<(String, String)>,
}

/// Takes the settings with these names out of a URL, or of libpq's `name=value …`. A text that can't be read is left
/// as it is: tokio-postgres says what is wrong with it.
pub(super) fn part(text: &str, names: &[&str]) -> Parted {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let parted = if is_url { part_url(text, names) } else { part_words(text, names) };
    parted.unwrap_or_else(|| Parted { rest: text.to_owned(), taken: Vec::new() })
}

fn part_url(text: &str, names: &[&str]) -> Option<Parted> {
    // A password may hold a question mark.
    let after_user = text.find('@').map_or(0, |at| at + 1);
    let start = after_user + text[after_user..].find('?')?;
    let mut taken = Vec::new();
    let mut left = Vec::new();
    for setting in text[start + 1..].split('&') {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        if names.contains(&name) {
            taken.push((name.to_owned(), percent_decode_str(value).decode_utf8().ok()?.into_owned()));
        } else {
            left.push(setting);
        }
    }
    let head = &text[..start];
    let rest = if left.is_empty() { head.to_owned() } else { format!("{head}?{}", left.join("&")) };
    Some(Parted { rest, taken })
}

fn part_words(text: &str, names: &[&str]) -> Option<Parted> {
    let mut taken = Vec::new();
    let mut left = Vec::new();
    let mut at = 0;
    while let Some((span, name, value)) = word(text, at)? {
        at = span.end;
        if names.contains(&name) {
            taken.push((name.to_owned(), value));
        } else {
            left.push(&text[span]);
        }
    }
    Some(Parted { rest: left.join(" "), taken })
}

/// A setting's place in the text, its name and its value.
type Word<'a> = (Range<usize>, &'a str, String);

/// The next `name = value`, whose value may be in single quotes; in both forms a backslash takes the next character as
/// it is. `Some(None)` at the end, `None` when it can't be read.
fn word(text: &str, at: usize) -> Option<Option<Word<'_>>> {
    let start = at + (text[at..].len() - text[at..].trim_start().len());
    if start == text.len() {
        return Some(None);
    }
    let equals = start + text[start..].find('=')?;
    let name = text[start..equals].trim_end();
    let mut value = String::new();
    let after = &text[equals + 1..];
    let mut from = equals + 1 + (after.len() - after.trim_start().len());
    let quoted = text[from..].starts_with('\'');
    from += usize::from(quoted);
    let mut characters = text[from..].char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some(Some((start..from + index + 1, name, value))),
            other if !quoted && other.is_whitespace() => return Some(Some((start..from + index, name, value))),
            other => value.push(other),
        }
    }
    if quoted { None } else { Some(Some((start..text.len(), name, value))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["sslmode", "sslrootcert"];

    fn parted(text: &str) -> (String, Vec<(String, String)>) {
        let Parted { rest, taken } = part(text, &NAMES);
        (rest, taken)
    }

    fn taken(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_are_taken_out_of_a_url() {
        let (rest, found) =
            parted("postgres://u:p?sslmode=x@h/d?sslmode=verify-full&application_name=a%20b&sslrootcert=/a%20b.pem");
        assert_eq!(rest, "postgres://u:p?sslmode=x@h/d?application_name=a%20b");
        assert_eq!(found, taken(&[("sslmode", "verify-full"), ("sslrootcert", "/a b.pem")]));
        assert_eq!(
            parted("postgres://h/d?sslmode=disable"),
            ("postgres://h/d".into(), taken(&[("sslmode", "disable")]))
        );
        assert_eq!(parted("postgres://h/d"), ("postgres://h/d".into(), vec![]));
    }

    #[test]
    fn settings_are_taken_out_of_words() {
        let (rest, found) =
            parted(r"host=h  sslmode = require password='it\'s' sslrootcert='/a \'b\'.pem' dbname=d\ e");
        assert_eq!(rest, r"host=h password='it\'s' dbname=d\ e");
        assert_eq!(found, taken(&[("sslmode", "require"), ("sslrootcert", "/a 'b'.pem")]));
    }

    #[test]
    fn what_cannot_be_read_is_left_as_it_is() {
        for text in ["mysql", "host='h sslmode=require", "host=h sslmode", "host=h sslmode=require\\", "", "  "] {
            let Parted { rest, taken } = part(text, &NAMES);
            assert_eq!((rest.trim(), taken), (text.trim(), vec![]), "{text}");
        }
    }
}
