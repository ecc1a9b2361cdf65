//! Assignments as text: the lines of a `.env` file, and what `export -p` and its like print. Parsed, never run: `$NAME`
//! and `` `command` `` stay as they stand.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// How a text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A `.env` file: values without quotes reach to the end of their line, and `\n` in double quotes is a new line.
    DotEnv,
    /// What a program prints for a shell: `export KEY="value"` lines, quoted as bash does it.
    Exports,
}

/// Reads all assignments; of several for one name the last counts.
///
/// # Errors
/// The first line that is none, by its number. Its value isn't told: it may be a secret.
pub(super) fn parse(text: &str, style: Style) -> Result<BTreeMap<String, String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut found = BTreeMap::new();
    while let Some((name, value)) = reader.assignment(style)? {
        found.insert(name, value);
    }
    Ok(found)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        while self.rest.peek().is_some_and(|&c| skipped(c)) {
            self.next();
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&c) = self.rest.peek()
            && (c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        {
            word.push(c);
            self.next();
        }
        word
    }

    fn assignment(&mut self, style: Style) -> Result<Option<(String, String)>, String> {
        loop {
            self.skip(char::is_whitespace);
            match self.rest.peek() {
                None => return Ok(None),
                Some('#') => self.skip(|c| c != '\n'),
                Some(_) => break,
            }
        }
        let line = self.line;
        let wrong = || match style {
            Style::DotEnv => format!("line {line} is not KEY=value"),
            Style::Exports => format!("line {line} of its output is not export KEY=\"value\""),
        };
        let blank = |c| matches!(c, ' ' | '\t');
        let mut name = self.word();
        for prefix in ["declare", "typeset", "export"] {
            if name == prefix && self.rest.peek().is_some_and(|&c| blank(c)) {
                self.skip(blank);
                name = self.word();
                // `declare -x NAME="value"`
                if name.starts_with('-') {
                    self.skip(blank);
                    name = self.word();
                }
                break;
            }
        }
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
            return Err(wrong());
        }
        if style == Style::DotEnv {
            self.skip(blank);
        }
        match self.next() {
            Some('=') => {}
            // `declare -x NAME`: exported without a value.
            None | Some('\n') if style == Style::Exports => return self.assignment(style),
            _ => return Err(wrong()),
        }
        let value = match style {
            Style::DotEnv => self.dotenv_value(),
            Style::Exports => self.shell_value(),
        };
        let value = value.ok_or_else(|| format!("line {line} has a quote that isn't closed"))?;
        if value.contains('\0') {
            return Err(wrong());
        }
        Ok(Some((name, value)))
    }

    fn dotenv_value(&mut self) -> Option<String> {
        self.skip(|c| matches!(c, ' ' | '\t'));
        if let Some(&quote @ ('"' | '\'' | '`')) = self.rest.peek() {
            self.next();
            let mut value = String::new();
            if quote == '"' {
                self.double_quoted(&mut value, true)?;
            } else {
                self.until(quote, &mut value)?;
            }
            // A comment may follow.
            self.skip(|c| c != '\n');
            return Some(value);
        }
        let mut value = String::new();
        while let Some(&c) = self.rest.peek()
            && c != '\n'
        {
            if c == '#' && (value.is_empty() || value.ends_with([' ', '\t'])) {
                self.skip(|c| c != '\n');
                break;
            }
            value.push(c);
            self.next();
        }
        Some(value.trim_end().to_owned())
    }

    /// Pieces side by side, as a shell takes them, until a blank or the end of a command.
    fn shell_value(&mut self) -> Option<String> {
        let mut value = String::new();
        while let Some(&c) = self.rest.peek() {
            if c.is_whitespace() || c == ';' {
                self.next();
                break;
            }
            self.next();
            match c {
                '"' => self.double_quoted(&mut value, false)?,
                '\'' => self.until('\'', &mut value)?,
                '$' if self.rest.peek() == Some(&'\'') => {
                    self.next();
                    self.ansi_quoted(&mut value)?;
                }
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(escaped) => value.push(escaped),
                },
                c => value.push(c),
            }
        }
        Some(value)
    }

    fn until(&mut self, end: char, value: &mut String) -> Option<()> {
        loop {
            match self.next()? {
                c if c == end => return Some(()),
                c => value.push(c),
            }
        }
    }

    fn double_quoted(&mut self, value: &mut String, letters: bool) -> Option<()> {
        loop {
            match self.next()? {
                '"' => return Some(()),
                '\\' => match self.next()? {
                    c @ ('"' | '\\' | '$' | '`') => value.push(c),
                    '\n' => {}
                    'n' if letters => value.push('\n'),
                    'r' if letters => value.push('\r'),
                    't' if letters => value.push('\t'),
                    c => value.extend(['\\', c]),
                },
                c => value.push(c),
            }
        }
    }

    /// `$'…'`, as bash quotes what has new lines or control characters.
    fn ansi_quoted(&mut self, value: &mut String) -> Option<()> {
        loop {
            match self.next()? {
                '\'' => return Some(()),
                '\\' => match self.next()? {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    'E' | 'e' => value.push('\u{1b}'),
                    c @ ('\\' | '\'' | '"' | '?') => value.push(c),
                    c => value.extend(['\\', c]),
                },
                c => value.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str, style: Style) -> String {
        let mut found = parse(line, style).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(found.len(), 1, "{line}");
        found.remove("A").unwrap_or_else(|| panic!("{line}: {found:?}"))
    }

    #[test]
    fn a_dotenv_file_is_read_as_its_readers_do() {
        for (line, value) in [
            ("A=b", "b"),
            ("export A=b", "b"),
            ("A = b c  # comment", "b c"),
            ("A=b#c", "b#c"),
            ("A=#c", ""),
            ("A=", ""),
            ("A=\"b # c\" # d", "b # c"),
            ("A='b\\n$C'", "b\\n$C"),
            ("A=\"b\\nc\\\"d\\$e\"", "b\nc\"d$e"),
            ("A=\"b\nc\"", "b\nc"),
            ("\u{feff}# first\n\n  A=b\r\n", "b"),
            ("A=x\nA=$(rm -rf /)", "$(rm -rf /)"),
        ] {
            assert_eq!(one(line, Style::DotEnv), value, "{line}");
        }
    }

    #[test]
    fn exports_are_read_as_bash_prints_them() {
        for (line, value) in [
            ("export A=\"b c\"", "b c"),
            ("declare -x A=\"b\\\"c\\\\n\\$d\\`e\"", "b\"c\\n$d`e"),
            ("export A='b'\\''c'", "b'c"),
            ("export A=$'b\\nc\\'d'", "b\nc'd"),
            ("export A=b\\ c;", "b c"),
            ("export A=\"$(id) `id` $HOME\"", "$(id) `id` $HOME"),
            ("declare -x UNSET\nexport A=\"b\nc\"\n# done", "b\nc"),
        ] {
            assert_eq!(one(line, Style::Exports), value, "{line}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_told_by_its_line_without_its_content() {
        for (text, line) in [("A=1\nsecret words", "line 2"), ("=b", "line 1"), ("A=\"b", "line 1"), ("1A=b", "line 1")]
        {
            for style in [Style::DotEnv, Style::Exports] {
                let error = parse(text, style).expect_err(text);
                assert!(error.contains(line) && !error.contains("secret"), "{error}");
            }
        }
    }
}
