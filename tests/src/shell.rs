//! Enough of the shell's grammar to find the `executr` commands in a script, as documentation and examples write them.

/// The arguments of every `executr` command in a script, without the program's name and without what follows in a
/// pipe, a list or a redirection. A job's own command line, behind `--`, is left out.
///
/// Knows words, quotes, continued lines, comments, `$(…)` and variables, which stay as they are written.
#[must_use]
pub fn executr_commands(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in script.lines() {
        for command in simple_commands(line) {
            let Some(program) = command.iter().position(|word| !may_precede(word)) else { continue };
            if command[program] != "executr" && !command[program].ends_with("/executr") {
                continue;
            }
            let arguments = command[program + 1..].iter().take_while(|word| *word != "--");
            found.push(arguments.cloned().collect());
        }
    }
    found
}

/// Whether a word can stand before a program's name: a variable for it, or a word of the shell.
fn may_precede(word: &str) -> bool {
    word.contains('=') || ["!", "do", "exec", "if", "sudo", "then", "until", "while"].contains(&word)
}

/// One line as simple commands, each a list of words. Substitutions become commands of their own.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut reader = Reader { rest: line.chars().collect(), at: 0, found: Vec::new() };
    reader.commands(None);
    reader.found
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    found: Vec<Vec<String>>,
}

impl Reader {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.get(self.at).copied();
        self.at += 1;
        c
    }

    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    /// Reads commands up to `end`, or to the end of the line.
    fn commands(&mut self, end: Option<char>) {
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        let mut redirected = false;
        while let Some(c) = self.next() {
            if Some(c) == end {
                break;
            }
            match c {
                ' ' | '\t' => Self::end_word(&mut words, &mut word, &mut redirected),
                '#' if word.is_none() => break,
                '\'' => {
                    let text = word.get_or_insert_default();
                    while let Some(c) = self.rest.get(self.at).copied() {
                        self.at += 1;
                        if c == '\'' {
                            break;
                        }
                        text.push(c);
                    }
                }
                '"' => {
                    let text = self.quoted();
                    word.get_or_insert_default().push_str(&text);
                }
                '$' if self.peek() == Some('(') => {
                    self.at += 1;
                    self.commands(Some(')'));
                    word.get_or_insert_default().push_str("$(…)");
                }
                '>' | '<' => {
                    // A digit right before it is a descriptor, not a word.
                    word.take_if(|word| word.chars().all(|c| c.is_ascii_digit()));
                    Self::end_word(&mut words, &mut word, &mut redirected);
                    redirected = true;
                }
                '|' | '&' | ';' | '(' | ')' => {
                    Self::end_word(&mut words, &mut word, &mut redirected);
                    self.found.push(std::mem::take(&mut words));
                }
                c => word.get_or_insert_default().push(c),
            }
        }
        Self::end_word(&mut words, &mut word, &mut redirected);
        self.found.push(words);
    }

    fn quoted(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => break,
                '$' if self.peek() == Some('(') => {
                    self.at += 1;
                    self.commands(Some(')'));
                    text.push_str("$(…)");
                }
                c => text.push(c),
            }
        }
        text
    }

    fn end_word(words: &mut Vec<String>, word: &mut Option<String>, redirected: &mut bool) {
        if let Some(word) = word.take() {
            // The word behind `>` names a file.
            if !std::mem::take(redirected) {
                words.push(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_where_scripts_have_them() {
        let script = "export A=1 # executr no\n\
            executr run -- sh -c 'exit 3' || echo \"the job said $?\"\n\
            id=$(executr submit --output json -- sleep 1000 | jq -r .id)\n\
            EXECUTR_TOKEN=... executr executor --name w1 \\\n  --max-jobs 8 &\n\
            executr token create --role admin > admin.token 2>&1\n\
            x \"$(\n\
            install target/release/executr /usr/local/bin/\n\
            kubectl --namespace executr get pods\n";
        assert_eq!(
            executr_commands(script),
            [
                vec!["run"],
                vec!["submit", "--output", "json"],
                vec!["executor", "--name", "w1", "--max-jobs", "8"],
                vec!["token", "create", "--role", "admin"],
            ]
        );
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(executr_commands(r#"executr submit --args "a b" 'c  d'"#), [["submit", "--args", "a b", "c  d"]]);
    }
}
