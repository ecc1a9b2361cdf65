//! The agent as what a container is run from: it prepares what a runtime (crun, runc) can't do or doesn't need to know,
//! runs the runtime, and clears up after it.
//!
//! - `plan`: what is to be done, from words;
//! - `users`: a user namespace, where this isn't root;
//! - `mounts`: the container's root, in a mount namespace of its own;
//! - `runtime`: the program itself, and the end of all it started.
//!
//! What is mounted is seen by nobody else and goes with this process, however that ends. Whoever started it holds the
//! other end of its standard input: closed, by intent or by death, everything is ended. So a container outlives its worker
//! only when somebody kills this process as well.

mod mounts;
mod plan;
mod runtime;
mod users;

use std::ffi::OsString;
use std::io;

use crate::cgroup::{Hierarchies, Limiter, Mark, TaskGroup};
use crate::keeper::Fault;
use crate::{directory, signals};
use plan::Plan;

/// Does what `arguments` say, and waits until all is over; the exit code to end with. To be called first thing in a process,
/// before any thread is started.
///
/// # Errors
/// When something can't be prepared. Nothing was started then.
pub fn run(arguments: &[OsString]) -> Result<u8, Fault> {
    let plan = Plan::parse(arguments).map_err(Fault::Protocol)?;
    // A terminal's interrupt is for whoever holds our input, who then says what becomes of this.
    let _ = rustix::process::setsid();
    let prepared = prepare(&plan).and_then(|group| runtime::run(&plan.command, group));
    if let Some(directory) = &plan.remove {
        mounts::leave(&plan.root);
        if let Err(error) = directory::remove(directory) {
            // The container is over all the same; the directory bears its owner's mark.
            return prepared.and(Err(Fault::Stage { what: "remove what it had", source: io::Error::other(error) }));
        }
    }
    prepared
}

fn prepare(plan: &Plan) -> Result<Option<TaskGroup>, Fault> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(Fault::system("this process can't become a subreaper"))?;
    // Before the namespaces: control groups belong to the user we are now.
    let group = bounded(plan)?;
    users::enter(plan.users).map_err(failed("make a user namespace"))?;
    mounts::enter().map_err(failed("make a mount namespace"))?;
    if plan.hide_unified {
        mounts::hide_unified().map_err(failed("hide the control groups of version 2"))?;
    }
    mounts::make(&plan.root).map_err(failed("mount the container's root"))?;
    signals::reset();
    Ok(group)
}

/// The control groups of the container; none where nothing bounds it.
fn bounded(plan: &Plan) -> Result<Option<TaskGroup>, Fault> {
    let Some(owner) = plan.owner else { return Ok(None) };
    let mark = Mark::of(owner).ok_or_else(|| Fault::Protocol("its owner is gone".to_owned()))?;
    let limiter = Limiter::of_container(&Hierarchies::discover(), &mark, plan.number);
    limiter.group(&plan.limits).map_err(|error| Fault::Stage { what: "bound it", source: io::Error::other(error) })
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Fault {
    move |source| Fault::Stage { what, source }
}
