//! Whether the program would take a command line, without running it.

use std::process::Command;

use crate::program;

/// Words which stand for something in documentation, and what the program is asked with in their place.
const PLACEHOLDERS: [(&str, &str); 4] = [
    ("ID", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("ID...", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("$id", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("$(…)", "text"),
];

/// Asks `executr` whether it knows this subcommand with these flags.
///
/// # Errors
///
/// What the program answers when it does not.
pub fn is_known(arguments: &[String]) -> Result<(), String> {
    let arguments = arguments.iter().map(|word| {
        let known = PLACEHOLDERS.iter().find(|(placeholder, _)| placeholder == word);
        known.map_or(word.as_str(), |(_, stand_in)| stand_in)
    });
    // Whatever stands before `--help` is read first, and what is wrong with it is told.
    let output = Command::new(program::executr())
        .args(arguments)
        .arg("--help")
        .env_clear()
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What `executr COMMAND --help` prints.
///
/// # Panics
///
/// If the command does not exist.
#[must_use]
pub fn help(command: &str) -> String {
    let output = Command::new(program::executr())
        .args(command.split_whitespace())
        .arg("--help")
        .env_clear()
        .output()
        .expect("the program was just built");
    assert!(output.status.success(), "there is no executr {command}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
