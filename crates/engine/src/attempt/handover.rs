//! What steps write into the files they hand over in: `KEY=value` lines, and blocks for values of several lines.
//!
//! ```text
//! VERSION=1.2.3
//! NOTES<<END
//! first line
//! second line
//! END
//! ```
//!
//! A value begins after the `=` and ends with the line; quotes and `${{ }}` mean nothing in it. Empty lines are passed
//! over, and `export ` before a name is, too. Of several lines for one name the last counts.

use std::collections::BTreeMap;

use executr_executors::contract::Handover;

/// The most bytes a step may hand over in one file.
pub(super) const MOST: u64 = 1 << 20;

/// Reads what a step wrote.
///
/// # Errors
/// What is wrong, for the step's author.
pub(super) fn parse(handover: Handover, content: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let file = match handover {
        Handover::Variables => "$JOB_ENV",
        Handover::Outputs => "$STEP_OUTPUT",
    };
    if content.len() as u64 > MOST {
        return Err(format!("wrote more than {MOST} bytes to {file}; hand over files as artifacts"));
    }
    let text = std::str::from_utf8(content).map_err(|_| format!("wrote something to {file} that is no UTF-8 text"))?;
    let mut found = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        // The line isn't shown: it may be a piece of a secret, which no mask would know.
        let wrong = || format!("line {} it wrote to {file} is neither KEY=value nor KEY<<END", number + 1);
        let declared = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = match (declared.find('='), declared.find("<<")) {
            (Some(equals), block) if block.is_none_or(|block| equals < block) => {
                (&declared[..equals], declared[equals + 1..].to_owned())
            }
            (_, Some(block)) => {
                let end = declared[block + 2..].trim();
                let mut value = Vec::new();
                loop {
                    let Some((_, line)) = lines.next() else {
                        return Err(format!("the block of `{}` in {file} has no end `{end}`", &declared[..block]));
                    };
                    if line == end {
                        break;
                    }
                    value.push(line);
                }
                (&declared[..block], value.join("\n"))
            }
            _ => return Err(wrong()),
        };
        if !is_name(key) || value.contains('\0') {
            return Err(wrong());
        }
        found.insert(key.to_owned(), value);
    }
    Ok(found)
}

/// Whether expressions and shells can name it.
fn is_name(key: &str) -> bool {
    let mut characters = key.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|other| other.is_ascii_alphanumeric() || other == '_' || other == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        parse(Handover::Outputs, text.as_bytes()).map(|found| found.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        Ok(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn lines_and_blocks_are_read() {
        assert_eq!(read(""), pairs(&[]));
        assert_eq!(read("A=1\n\nB= a=b \"c\" \nA=2"), pairs(&[("A", "2"), ("B", " a=b \"c\" ")]));
        assert_eq!(read("export A=1\n"), pairs(&[("A", "1")]));
        assert_eq!(
            read("notes<<END\none\n\n A=2\nEND\nempty<<X\nX\nB=<<END\n"),
            pairs(&[("B", "<<END"), ("empty", ""), ("notes", "one\n\n A=2")])
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("A=1\nnonsense\n", "line 2"),
            ("1A=1", "line 1"),
            ("A B=1", "line 1"),
            ("=1", "line 1"),
            ("A<<END\nx\n", "no end `END`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told) && error.contains("$STEP_OUTPUT"), "{error}");
        }
        assert!(parse(Handover::Variables, &[0xff]).unwrap_err().contains("$JOB_ENV"));
        assert!(parse(Handover::Variables, &vec![b'\n'; MOST as usize + 1]).is_err());
    }
}
