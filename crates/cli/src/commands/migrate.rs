//! `executr migrate`

use std::io::{self, Write as _};

use crate::arguments::DatabaseArgs;
use crate::errors::Result;
use crate::exit::Exit;
use crate::services;

pub(super) async fn migrate(arguments: &DatabaseArgs) -> Result<Exit> {
    let applied = services::migrate(&services::place(arguments)?).await?;
    let mut out = io::stdout().lock();
    for name in applied {
        writeln!(out, "applied {name}")?;
    }
    writeln!(out, "the database is up to date")?;
    Ok(Exit::SUCCESS)
}
