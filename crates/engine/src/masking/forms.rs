//! The forms in which a value is looked for.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SHORTEST;

/// Bytes of a line of `base64` and of MIME.
const BASE64_LINES: [usize; 2] = [76, 64];

/// Adds all forms of `value` to `forms`.
pub(super) fn of_value(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    if matches!(value.trim(), "true" | "false") {
        return;
    }
    of_part(value, forms);
    if value.contains(['\n', '\r']) {
        of_part(value.trim_end_matches(['\n', '\r']), forms);
        for line in value.lines() {
            of_part(line.trim_end_matches('\r'), forms);
        }
    }
}

fn of_part(part: &str, forms: &mut BTreeSet<Vec<u8>>) {
    if part.len() < SHORTEST {
        return;
    }
    let mut add = |form: String| {
        if form.len() >= SHORTEST {
            forms.insert(form.into_bytes());
        }
    };
    add(part.to_owned());
    for before in 0..3 {
        let encoded = base64_after(before, part.as_bytes());
        add(encoded.replace('+', "-").replace('/', "_"));
        add(encoded);
    }
    let whole = STANDARD.encode(part);
    for width in BASE64_LINES {
        if whole.len() > width {
            for line in whole.as_bytes().chunks(width) {
                add(String::from_utf8_lossy(line).trim_end_matches('=').to_owned());
            }
        }
    }
    for unreserved in [b"-_.~".as_slice(), b"-_.~!'()*", b"-_.~/"] {
        let upper = percent(part, unreserved, true);
        add(upper.replace("%20", "+"));
        add(upper);
        add(percent(part, unreserved, false));
    }
    if let Ok(json) = serde_json::to_string(part) {
        let inner = json[1..json.len() - 1].to_owned();
        add(inner.replace('/', "\\/"));
        add(ascii_json(&inner));
        add(inner);
    }
}

/// What of the base64 of a text stands for `part` alone, when `before` bytes (modulo 3) precede it there: without the
/// characters that depend on its neighbours as well.
fn base64_after(before: usize, part: &[u8]) -> String {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(part);
    let encoded = STANDARD.encode(&bytes);
    let first = (before * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    encoded[first..end.max(first)].to_owned()
}

fn percent(part: &str, unreserved: &[u8], upper: bool) -> String {
    let mut out = String::with_capacity(part.len() * 3);
    for &byte in part.as_bytes() {
        if byte.is_ascii_alphanumeric() || unreserved.contains(&byte) {
            out.push(char::from(byte));
        } else if upper {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

/// JSON's inside of a string with what isn't ASCII escaped, too.
fn ascii_json(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut units = [0; 2];
    for c in inner.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(value: &str) -> BTreeSet<Vec<u8>> {
        let mut forms = BTreeSet::new();
        of_value(value, &mut forms);
        forms
    }

    #[test]
    fn base64_of_any_text_around_a_value_holds_one_of_its_forms() {
        let value = "pa/ss+word?é";
        for before in 0..7 {
            for after in 0..4 {
                let text = format!("{}{value}{}", "x".repeat(before), "y".repeat(after));
                let encoded = STANDARD.encode(text);
                let found =
                    forms(value).iter().any(|form| encoded.as_bytes().windows(form.len()).any(|part| part == form));
                assert!(found, "{encoded}");
            }
        }
    }

    #[test]
    fn escapes_and_lines_are_forms() {
        let forms = forms("first \"line\"\r\nsecond/é");
        for form in [
            "second/é",
            "first \"line\"",
            "first%20%22line%22",
            "first+%22line%22",
            "second%2F%C3%A9",
            "second%2f%c3%a9",
            "first \\\"line\\\"",
            "second\\/é",
            "second/\\u00e9",
        ] {
            assert!(forms.contains(form.as_bytes()), "{form}");
        }
    }

    #[test]
    fn what_is_too_short_or_no_secret_has_no_forms() {
        for value in ["", "abc", "true", "false\n", "a\nb\n"] {
            assert_eq!(forms(value).iter().filter(|form| form.len() < SHORTEST).count(), 0, "{value}");
        }
        assert!(forms("abc").is_empty() && forms("true").is_empty());
    }
}
