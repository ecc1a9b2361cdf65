//! `executr clean`

use std::io::{self, Write as _};

use serde::Serialize;

use crate::arguments::{CleanArgs, OutputForm};
use crate::errors::Result;
use crate::exit::Exit;
use crate::services::{Leftovers, data_directory, sweepers};
use crate::show::{Align, Cell, Column, Ink, Paint, Table, amount, now, write_json};

/// What was found, and what became of it.
#[derive(Serialize)]
struct Told {
    kind: &'static str,
    name: String,
    bytes: Option<u64>,
    removed: bool,
}

pub(super) async fn clean(arguments: CleanArgs) -> Result<Exit> {
    let data = data_directory(arguments.data_dir)?;
    let old_runs = arguments.runs.map(|age| now().minus(age.0));
    let sweepers = sweepers(&data, &arguments.work_dir, &arguments.cache_dir);
    let Leftovers { found, mut failed } = Leftovers::find(sweepers, &data, old_runs).await;
    let mut told = Vec::new();
    for left in found {
        let (kind, name, bytes) = (left.kind(), left.name(), left.bytes());
        let mut removed = false;
        if !arguments.dry_run {
            match left.remove().await {
                Ok(()) => removed = true,
                Err(error) => failed.push(error),
            }
        }
        told.push(Told { kind, name, bytes, removed });
    }
    match arguments.output {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &told)?,
        OutputForm::Table => show(&told, arguments.dry_run)?,
    }
    let ink = Ink::for_stderr();
    for error in &failed {
        // There is no further place to say that even this can't be said.
        drop(writeln!(io::stderr(), "{} {error}", ink.paint(Paint::Bad, "error:")));
    }
    Ok(if failed.is_empty() { Exit::SUCCESS } else { Exit::FAILURE })
}

fn show(told: &[Told], dry_run: bool) -> Result<()> {
    if told.is_empty() {
        writeln!(io::stdout(), "nothing is left of dead processes")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::new("KIND", Align::Left),
        Column::new("SIZE", Align::Right),
        Column::new("", Align::Left),
        Column::new("NAME", Align::Left),
    ]);
    for one in told {
        let (word, paint) = match (one.removed, dry_run) {
            (true, _) => ("removed", Paint::Good),
            (false, true) => ("would go", Paint::Note),
            (false, false) => ("stays", Paint::Bad),
        };
        let size = one.bytes.map(amount).unwrap_or_default();
        table.row(vec![one.kind.into(), size.into(), Cell::painted(word, paint), one.name.as_str().into()]);
    }
    table.print()?;
    Ok(())
}
