//! `executr completions`

use std::io;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::arguments::Arguments;
use crate::errors::Result;
use crate::exit::Exit;

pub(super) fn completions(shell: Shell) -> Result<Exit> {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "executr", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(Exit::SUCCESS)
}
