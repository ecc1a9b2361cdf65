//! `executr image list` and `rm`

use std::io::{self, Write as _};

use serde::Serialize;

use super::{failure, store};
use crate::arguments::{ImageListArgs, ImageRmArgs, OutputForm};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Align, Column, Table, amount, write_json};

/// An image, for programs.
#[derive(Serialize)]
struct Told {
    name: String,
    digest: String,
    layers: usize,
    bytes: u64,
    built: bool,
    whole: bool,
}

pub(super) fn list(arguments: ImageListArgs) -> Result<Exit> {
    let listed = store(&arguments.store)?.list().map_err(|error| failure(&error))?;
    let told = listed.into_iter().map(|image| Told {
        name: image.name,
        digest: format!("sha256:{}", image.digest),
        layers: image.layers,
        bytes: image.bytes,
        built: image.is_built,
        whole: image.is_whole,
    });
    let told: Vec<_> = told.collect();
    if arguments.output == OutputForm::Json {
        write_json(&mut io::stdout().lock(), &told)?;
        return Ok(Exit::SUCCESS);
    }
    if told.is_empty() {
        writeln!(io::stdout(), "no images are here")?;
        return Ok(Exit::SUCCESS);
    }
    let mut table = Table::new(&[
        Column::new("NAME", Align::Left),
        Column::new("DIGEST", Align::Left),
        Column::new("LAYERS", Align::Right),
        Column::new("SIZE", Align::Right),
        Column::new("", Align::Left),
    ]);
    for image in told {
        let state = match (image.whole, image.built) {
            (false, _) => "fetched when needed",
            (true, true) => "built here",
            (true, false) => "",
        };
        let digest = image.digest.get(7..19).unwrap_or(&image.digest).to_owned();
        let (layers, size) = (image.layers.to_string(), amount(image.bytes));
        table.row(vec![image.name.into(), digest.into(), layers.into(), size.into(), state.into()]);
    }
    table.print()?;
    Ok(Exit::SUCCESS)
}

pub(super) fn rm(arguments: &ImageRmArgs) -> Result<Exit> {
    let store = store(&arguments.store)?;
    for name in &arguments.images {
        let removed = store.remove(name).map_err(|error| failure(&error))?.ok_or_else(|| {
            Failure::new(Exit::NOT_FOUND, format!("{name} is not here")).remedy("`executr image list` shows what is")
        })?;
        if removed.is_used {
            // A standard error that is gone is no reason to stop.
            drop(writeln!(io::stderr(), "{name} is used now; what is used goes later"));
        }
        writeln!(io::stdout(), "{name}")?;
    }
    Ok(Exit::SUCCESS)
}
