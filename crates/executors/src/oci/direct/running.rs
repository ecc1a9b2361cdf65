//! A container that was started: the stage it is run from, which this process holds by a pipe.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;

use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;

use super::record::{self, Record};
use crate::oci::engine::ContainerError;

/// How a stage ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) code: i64,
    /// What it or the runtime complained about.
    pub(super) said: String,
}

/// A stage. Dropped, it ends its container and clears up, whatever becomes of this process.
#[derive(Debug)]
pub(super) struct Running {
    hold: Mutex<Option<ChildStdin>>,
    end: watch::Receiver<Option<End>>,
}

impl Running {
    /// Starts the agent as a stage.
    pub(super) fn start(agent: &Path, arguments: &[OsString], record: &Record) -> io::Result<Self> {
        let mut log = record.log()?;
        let mut stage = Command::new(agent)
            .arg("stage")
            .args(arguments)
            .current_dir(record.directory())
            .env_clear()
            // Where `newuidmap` is looked for.
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log.try_clone()?))
            .spawn()?;
        let hold = Mutex::new(stage.stdin.take());
        let (tell, end) = watch::channel(None);
        tokio::spawn(async move {
            let status = stage.wait().await;
            let said = record::logged(&mut log);
            // Nobody may want to know.
            let _ = tell.send(Some(End { code: status.map_or(-1, code), said }));
        });
        Ok(Self { hold, end })
    }

    /// Lets go of it: the container ends.
    pub(super) fn release(&self) {
        self.hold.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Waits until it has ended and cleared up.
    pub(super) async fn ended(&self) -> Result<End, ContainerError> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.ok_or_else(|| ContainerError::Refused {
            what: "say how the container ended",
            message: "this worker is shutting down".to_owned(),
        })
    }
}

fn code(status: ExitStatus) -> i64 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| Some(128 + status.signal()?)).map_or(-1, i64::from)
}
