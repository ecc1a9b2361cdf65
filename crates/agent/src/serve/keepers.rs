//! The processes that run tasks, reused from one to the next.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use executr_agent_protocol::driver::{Cgroups, Keeper, KeeperError, Offers};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::processes;

/// Keepers that rest at most; more end with their task.
const MOST_RESTING: usize = 8;

/// All keepers of this agent, which are its children.
#[derive(Debug)]
pub(super) struct Keepers {
    cgroups: Cgroups,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    resting: Vec<Hired>,
    /// Those that live, by process id.
    living: HashSet<i32>,
    offers: Option<Offers>,
    closed: bool,
}

/// A keeper somebody works with. Dropped, it ends what it runs, and itself.
#[derive(Debug)]
pub(super) struct Hired {
    pub(super) keeper: Keeper,
    pub(super) pid: i32,
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoKeeper {
    /// The system makes no process.
    #[error("{}", explain(.0))]
    Spawn(#[from] std::io::Error),
    /// It doesn't answer as one.
    #[error("a keeper was started but can't be used: {0}")]
    Keeper(#[from] KeeperError),
}

fn explain(error: &std::io::Error) -> String {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => {
            "the bound on processes leaves no room for it: each task that runs takes one process beside its own; raise \
             `pids`, or run fewer jobs at once"
        }
        Some(Errno::NOMEM) => "there is not enough memory; raise the bound on memory, or run fewer jobs at once",
        Some(Errno::MFILE | Errno::NFILE) => "too many files are open; raise the limit, or run fewer jobs at once",
        _ => "see the system's log",
    };
    format!("no keeper can be started to run the task: {error}; {advice}")
}

impl Keepers {
    pub(super) fn new(cgroups: Cgroups) -> Self {
        Self { cgroups, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that rests, or another one.
    pub(super) async fn hire(&self) -> Result<Hired, NoKeeper> {
        let resting = self.inner().resting.pop();
        match resting {
            Some(hired) => Ok(hired),
            None => self.start().await,
        }
    }

    /// Has one rest, so that the first task needn't wait for it.
    pub(super) async fn warm(&self) {
        // Whoever needs one is told why there is none.
        if let Ok(hired) = self.start().await {
            self.release(hired);
        }
    }

    /// It runs nothing any more, and can be used again.
    pub(super) fn release(&self, hired: Hired) {
        let mut inner = self.inner();
        if inner.resting.len() < MOST_RESTING && inner.living.contains(&hired.pid) && !inner.closed {
            inner.resting.push(hired);
        }
    }

    /// Which limits can be kept here.
    pub(super) async fn offers(&self) -> Result<Offers, NoKeeper> {
        if let Some(offers) = &self.inner().offers {
            return Ok(offers.clone());
        }
        let hired = self.hire().await?;
        let offers = hired.keeper.offers().clone();
        self.release(hired);
        Ok(offers)
    }

    async fn start(&self) -> Result<Hired, NoKeeper> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(std::io::Error::from)?;
        let pid = self.spawn(theirs)?;
        let keeper = Keeper::over(ours, self.cgroups).await?;
        self.inner().offers.get_or_insert_with(|| keeper.offers().clone());
        Ok(Hired { keeper, pid })
    }

    /// Another of this program. Nobody waits for it but the reaper.
    fn spawn(&self, control: OwnedFd) -> std::io::Result<i32> {
        let started = Command::new("/proc/self/exe")
            .arg("keeper")
            .env_clear()
            .stdin(Stdio::from(control))
            .stdout(Stdio::null())
            .spawn()?;
        let pid = started.id().cast_signed();
        self.inner().living.insert(pid);
        Ok(pid)
    }

    /// One doesn't answer any more.
    pub(super) fn kill(&self, pid: i32) {
        if self.inner().living.contains(&pid) {
            processes::signal(pid, libc::SIGKILL);
        }
    }

    /// A child has ended.
    pub(super) fn ended(&self, pid: i32) {
        let mut inner = self.inner();
        inner.living.remove(&pid);
        inner.resting.retain(|resting| resting.pid != pid);
    }

    pub(super) fn is_one(&self, pid: i32) -> bool {
        self.inner().living.contains(&pid)
    }

    /// Lets those that rest go, and waits until nothing runs below this process any more.
    pub(super) fn close(&self) {
        let resting = {
            let mut inner = self.inner();
            inner.closed = true;
            std::mem::take(&mut inner.resting)
        };
        drop(resting);
        loop {
            match ended_child(0) {
                Some(pid) => self.ended(pid),
                None => return,
            }
            for child in processes::children() {
                if !self.is_one(child) {
                    processes::signal(child, libc::SIGKILL);
                }
            }
        }
    }
}

/// A child that has ended, if there is one; without `WNOHANG` the next one that does.
pub(super) fn ended_child(flags: i32) -> Option<i32> {
    loop {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), flags) } {
            0 => return None,
            -1 if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            -1 => return None,
            process => return Some(process),
        }
    }
}
