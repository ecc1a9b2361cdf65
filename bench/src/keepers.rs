//! Driver and keepers alone: the same children as [`B2`](crate::bounds::busy::B2), each a task with a directory of its own,
//! through a number of keepers at once.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use executr_agent_protocol::driver::{Cgroups, Event, Exit, Keeper, KeeperError, KeeperOptions, StartTask};

/// Tasks through keepers.
#[derive(Debug, Clone, Copy)]
pub struct Tasks {
    /// Tasks that were run.
    pub tasks: u32,
    /// In this time, keepers already standing.
    pub elapsed: Duration,
}

impl Tasks {
    /// Tasks per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.tasks) / self.elapsed.as_secs_f64()
    }
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum KeepersError {
    /// A keeper failed.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A task did.
    #[error("a task ended unexpectedly: {0:?}")]
    Task(Event),
    /// Its driver did.
    #[error("a driver panicked: {0}")]
    Driver(#[from] tokio::task::JoinError),
}

/// Measures `count` tasks of `/bin/true` through `keepers` keepers, with their directories in `directory`.
/// `program` with `args` is a keeper.
///
/// # Errors
/// When a keeper or a task fails.
pub async fn measure(
    count: u32,
    keepers: u32,
    program: PathBuf,
    args: Vec<OsString>,
    cgroups: Cgroups,
    directory: &Path,
) -> Result<Tasks, KeepersError> {
    let mut ready = Vec::new();
    for _ in 0..keepers {
        let options = KeeperOptions { program: program.clone(), args: args.clone(), cgroups };
        ready.push(Keeper::spawn(options).await?);
    }
    let each = count / keepers.max(1);
    let begun = Instant::now();
    let mut running = Vec::new();
    for (number, mut keeper) in ready.into_iter().enumerate() {
        let directory = directory.join(format!("keeper-{number}"));
        running.push(tokio::spawn(async move {
            for task in 0..each {
                let mut path = directory.clone().into_os_string();
                path.push(format!("-{task}"));
                run_true(&mut keeper, Path::new(&path)).await?;
            }
            Ok::<Keeper, KeepersError>(keeper)
        }));
    }
    let mut done = Vec::new();
    for driver in running {
        done.push(driver.await??);
    }
    let elapsed = begun.elapsed();
    for keeper in done {
        keeper.close().await?;
    }
    Ok(Tasks { tasks: each * keepers, elapsed })
}

async fn run_true(keeper: &mut Keeper, directory: &Path) -> Result<(), KeepersError> {
    let mut task = keeper
        .start(StartTask {
            argv: vec!["/bin/true".into()],
            directory: directory.as_os_str().as_bytes().to_vec().into(),
            create_directory: true,
            remove_directory: true,
            ..Default::default()
        })
        .await?;
    while let Some(event) = task.next().await? {
        match event {
            Event::Started { .. } | Event::InputTaken { .. } => {}
            Event::Ended(ended) if ended.exit == Exit::Code(0) && ended.removal_failure.is_none() => {}
            other => return Err(KeepersError::Task(other)),
        }
    }
    Ok(())
}

/// Mean time from ending a `sleep` to knowing that its tree is gone, over `count` of them.
///
/// # Errors
/// When a keeper or a task fails.
pub async fn measure_end(count: u32, program: PathBuf, args: Vec<OsString>) -> Result<Duration, KeepersError> {
    let mut keeper = Keeper::spawn(KeeperOptions { program, args, cgroups: Cgroups::default() }).await?;
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let argv = vec!["/bin/sleep".into(), "1000".into()];
        let mut task = keeper.start(StartTask { argv, directory: "/".into(), ..Default::default() }).await?;
        let Some(Event::Started { .. }) = task.next().await? else { continue };
        let begun = Instant::now();
        task.end(Duration::ZERO).await?;
        while task.next().await?.is_some() {}
        total += begun.elapsed();
    }
    keeper.close().await?;
    Ok(total / count.max(1))
}

/// Bytes of output per second that come through a keeper, read and dropped.
///
/// # Errors
/// When a keeper or a task fails.
pub async fn measure_output(bytes: u64, program: PathBuf, args: Vec<OsString>) -> Result<f64, KeepersError> {
    let mut keeper = Keeper::spawn(KeeperOptions { program, args, cgroups: Cgroups::default() }).await?;
    let argv = vec!["/usr/bin/head".into(), "-c".into(), bytes.to_string().into(), "/dev/zero".into()];
    let begun = Instant::now();
    let mut task = keeper.start(StartTask { argv, directory: "/".into(), ..Default::default() }).await?;
    let mut seen = 0;
    while let Some(event) = task.next().await? {
        match event {
            Event::Output { data, .. } => seen += data.len(),
            Event::Started { .. } | Event::InputTaken { .. } | Event::Ended(_) => {}
            failed @ Event::StartFailed(_) => return Err(KeepersError::Task(failed)),
        }
    }
    let rate = seen as f64 / begun.elapsed().as_secs_f64();
    drop(task);
    keeper.close().await?;
    Ok(rate)
}
