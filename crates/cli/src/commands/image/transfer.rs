//! `executr image pull` and `push`

use std::io::{self, Write as _};
use std::sync::Arc;

use executr_images::{Progress, Pull};

use super::{access, failure, store};
use crate::arguments::{ImagePullArgs, ImagePushArgs};
use crate::errors::Result;
use crate::exit::Exit;
use crate::show::ImageProgress;

pub(super) async fn pull(arguments: ImagePullArgs) -> Result<Exit> {
    let store = store(&arguments.store)?;
    let access = access(arguments.registries);
    for name in arguments.images {
        let progress: Arc<dyn Progress> = Arc::new(ImageProgress::new(format!("pulling {name}")));
        let pulled = store.pull(&name, &access, Pull::Always, &progress).await;
        drop(progress);
        let image = pulled.map_err(|error| failure(&error))?;
        // By its digest another one may be meant: an index of several platforms.
        let whole = match name.digest() {
            Some(_) => name.to_string(),
            None => format!("{name}@sha256:{}", image.digest),
        };
        writeln!(io::stdout(), "{whole}")?;
    }
    Ok(Exit::SUCCESS)
}

pub(super) async fn push(arguments: ImagePushArgs) -> Result<Exit> {
    let store = store(&arguments.store)?;
    let access = access(arguments.registries);
    let target = arguments.target.unwrap_or_else(|| arguments.image.clone());
    let shown = Arc::new(ImageProgress::new(format!("pushing {target}")));
    let progress: Arc<dyn Progress> = Arc::clone(&shown) as _;
    let pushed = store.push(&arguments.image, &target, &access, &progress).await;
    let sent = pushed.map_err(|error| failure(&error))?;
    shown.sent(&sent);
    drop((progress, shown));
    writeln!(io::stdout(), "{target}@sha256:{}", sent.digest)?;
    Ok(Exit::SUCCESS)
}
