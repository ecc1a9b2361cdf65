//! Limits on a task's tree: which this machine can enforce, found out by trying, and the group of a task that asks
//! for some. Tasks that ask for none get no group and pay nothing.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use executr_agent_protocol::v1::{self, Limits};

use super::group::Group;
use super::{Hierarchies, Mark};

/// Microseconds over which a share of processor time is counted.
const PERIOD_US: u64 = 100_000;

/// The longest such time, and the smallest share, that the kernel takes.
const LONGEST_PERIOD_US: u64 = 1_000_000;
const SMALLEST_QUOTA_US: u64 = 1_000;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }

    /// The file that holds the limit, in version 1 and 2.
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Controller::Memory => ("memory.limit_in_bytes", "memory.max"),
            Controller::Cpu => ("cpu.cfs_quota_us", "cpu.max"),
            Controller::Pids => ("pids.max", "pids.max"),
        }
    }
}

/// Where a controller's groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    V1(PathBuf),
    V2(PathBuf),
}

/// Why a limit can't be enforced here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// A limit that a task asked for isn't set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("the {controller} limit can't be kept on this machine: {refusal}")]
    NotOffered { controller: &'static str, refusal: Refusal },
    #[error("the limits can't be set ({step}): {source}")]
    Failed { step: &'static str, source: io::Error },
}

impl From<&LimitError> for v1::Failure {
    fn from(error: &LimitError) -> Self {
        let errno = match error {
            LimitError::NotOffered { .. } => libc::EOPNOTSUPP,
            LimitError::Failed { source, .. } => source.raw_os_error().unwrap_or(0),
        };
        v1::Failure { errno, message: error.to_string(), ..Default::default() }
    }
}

/// Sets limits where this machine can.
#[derive(Debug, Clone)]
pub struct Limiter {
    memory: Result<Place, Refusal>,
    cpu: Result<Place, Refusal>,
    pids: Result<Place, Refusal>,
    /// Name of the one group a slot's tasks use, one after the other.
    name: String,
}

impl Limiter {
    /// Finds out what can be enforced, by making a group and removing it again.
    #[must_use]
    pub fn probe(hierarchies: &Hierarchies, mark: &Mark, slot: u32) -> Self {
        Self::named(hierarchies, mark.name(slot, "task"))
    }

    /// The same for a container of the owner's.
    #[must_use]
    pub fn of_container(hierarchies: &Hierarchies, mark: &Mark, number: u32) -> Self {
        Self::named(hierarchies, mark.name(number, "container"))
    }

    fn named(hierarchies: &Hierarchies, name: String) -> Self {
        let place = |controller| place(hierarchies, controller, &name);
        Self { memory: place(Controller::Memory), cpu: place(Controller::Cpu), pids: place(Controller::Pids), name }
    }

    /// One that offers nothing, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        let refused = || Err(Refusal(reason.to_owned()));
        Self { memory: refused(), cpu: refused(), pids: refused(), name: String::new() }
    }

    /// What can be enforced, as a driver is told.
    #[must_use]
    pub fn offers(&self) -> v1::Offers {
        let refused = |place: &Result<Place, Refusal>| place.as_ref().err().map(ToString::to_string);
        v1::Offers { no_memory: refused(&self.memory), no_cpu: refused(&self.cpu), no_pids: refused(&self.pids) }
    }

    /// A group with these limits, which the task's process then joins; `None` when none is asked for.
    pub(crate) fn group(&self, limits: &Limits) -> Result<Option<TaskGroup>, LimitError> {
        let asked = [
            (Controller::Memory, &self.memory, limits.memory_bytes),
            (Controller::Cpu, &self.cpu, limits.cpu_millis.into()),
            (Controller::Pids, &self.pids, limits.pids.into()),
        ];
        let mut task = TaskGroup { unified: None, memory: None, others: Vec::new() };
        for (controller, place, amount) in asked {
            if amount == 0 {
                continue;
            }
            let place = place.as_ref().map_err(|refusal| LimitError::NotOffered {
                controller: controller.name(),
                refusal: refusal.clone(),
            })?;
            match place {
                Place::V1(home) => {
                    let group = make(home, &self.name)?;
                    set_v1(&group, controller, amount).map_err(failed("writing the limit"))?;
                    if controller == Controller::Memory {
                        task.memory = Some(group);
                    } else {
                        task.others.push(group);
                    }
                }
                Place::V2(home) => {
                    if task.unified.is_none() {
                        task.unified = Some(make(home, &self.name)?);
                    }
                    if let Some(group) = &task.unified {
                        set_v2(group, controller, amount).map_err(failed("writing the limit"))?;
                    }
                }
            }
        }
        let any = task.groups().next().is_some();
        Ok(any.then_some(task))
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> LimitError {
    move |source| LimitError::Failed { step, source }
}

/// The slot's group for limits, new; one left by a predecessor in the slot is ended.
fn make(home: &Path, name: &str) -> Result<Group, LimitError> {
    let path = home.join(name);
    let made = match Group::create(path.clone()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Group::at(path.clone()).kill_and_remove().and_then(|()| Group::create(path))
        }
        made => made,
    };
    made.map_err(failed("making a control group"))
}

fn set_v1(group: &Group, controller: Controller, amount: u64) -> io::Result<()> {
    match controller {
        Controller::Memory => {
            group.set("memory.limit_in_bytes", &amount.to_string())?;
            // Without this the limit would only make it swap; kernels without swap accounting lack the file.
            let _ = group.set("memory.memsw.limit_in_bytes", &amount.to_string());
            Ok(())
        }
        Controller::Cpu => {
            let (quota, period) = quota(amount);
            group.set("cpu.cfs_period_us", &period.to_string())?;
            group.set("cpu.cfs_quota_us", &quota.to_string())
        }
        Controller::Pids => group.set("pids.max", &amount.to_string()),
    }
}

fn set_v2(group: &Group, controller: Controller, amount: u64) -> io::Result<()> {
    match controller {
        Controller::Memory => {
            group.set("memory.max", &amount.to_string())?;
            let _ = group.set("memory.swap.max", "0");
            Ok(())
        }
        Controller::Cpu => {
            let (quota, period) = quota(amount);
            group.set("cpu.max", &format!("{quota} {period}"))
        }
        Controller::Pids => group.set("pids.max", &amount.to_string()),
    }
}

/// Microseconds of processor time, and in how many, for thousandths of a processor. Small shares are counted over
/// a longer time, since the kernel takes no quota below a millisecond.
fn quota(millis: u64) -> (u64, u64) {
    let period = if millis * PERIOD_US / 1_000 < SMALLEST_QUOTA_US { LONGEST_PERIOD_US } else { PERIOD_US };
    (millis * period / 1_000, period)
}

/// Where groups of this controller can be made.
fn place(hierarchies: &Hierarchies, controller: Controller, name: &str) -> Result<Place, Refusal> {
    let unified = match &hierarchies.unified {
        Some(own) => place_v2(own, controller, name),
        None => Err(Refusal("no control groups of version 2 are mounted".into())),
    };
    unified.or_else(|no_v2| match hierarchies.v1(controller.name()) {
        Some(own) => try_group(own, controller.files().0, name).map(|()| Place::V1(own.to_owned())),
        None => Err(no_v2),
    })
}

fn place_v2(own: &Path, controller: Controller, name: &str) -> Result<Place, Refusal> {
    let mut refusal = None;
    // systemd's DelegateSubgroup puts us one below what is delegated, so that the latter holds no processes.
    let delegated = own.parent().filter(|parent| is_delegated(parent));
    for home in delegated.into_iter().chain([own]) {
        match enable(home, controller).and_then(|()| try_group(home, controller.files().1, name)) {
            Ok(()) => return Ok(Place::V2(home.to_owned())),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or_else(|| Refusal("no control group to make others in".into())))
}

/// Whether systemd marked a group as left to its service.
fn is_delegated(group: &Path) -> bool {
    let mut value = [0_u8; 8];
    ["user.delegate", "trusted.delegate"]
        .iter()
        .any(|name| matches!(rustix::fs::getxattr(group, *name, &mut value), Ok(1) if value[0] == b'1'))
}

/// Has a controller work in the groups below `home`.
fn enable(home: &Path, controller: Controller) -> Result<(), Refusal> {
    let group = Group::at(home.to_owned());
    let lists = |file| {
        let listed = group.get(file).unwrap_or_default();
        listed.split_ascii_whitespace().any(|name| name == controller.name())
    };
    let name = controller.name();
    if lists("cgroup.subtree_control") {
        return Ok(());
    }
    if !lists("cgroup.controllers") {
        return Err(Refusal(format!(
            "the {name} controller isn't given to {}; delegate it (systemd: Delegate={name})",
            home.display()
        )));
    }
    group.set("cgroup.subtree_control", &format!("+{name}")).map_err(|error| {
        let advice = if error.raw_os_error() == Some(libc::EBUSY) {
            "it holds processes itself; delegate one that doesn't (systemd: Delegate=yes and DelegateSubgroup=main)"
        } else {
            "it must be writable for the worker's user (systemd: Delegate=yes)"
        };
        Refusal(format!("the {name} controller can't be enabled below {}: {error}; {advice}", home.display()))
    })
}

/// Makes a group and removes it.
fn try_group(home: &Path, file: &str, name: &str) -> Result<(), Refusal> {
    let refused = |what: &str, error: io::Error| {
        Refusal(format!("{what} in {}: {error}; it must be writable for the worker's user", home.display()))
    };
    let path = home.join(name);
    let left = Group::at(path.clone());
    if path.exists() {
        left.kill_and_remove().map_err(|error| refused("a left-over control group can't be removed", error))?;
    }
    let group = Group::create(path).map_err(|error| refused("no control group can be made", error))?;
    let tried = OpenOptions::new().write(true).open(group.path().join(file));
    // An empty group is removed at once, or by the next that tries.
    let _ = group.remove();
    tried.map(drop).map_err(|error| refused(&format!("{file} can't be set"), error))
}

/// The groups of one task with limits: one in version 2's hierarchy, or one in each of version 1's.
/// Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct TaskGroup {
    unified: Option<Group>,
    memory: Option<Group>,
    others: Vec<Group>,
}

impl TaskGroup {
    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.unified.iter().chain(&self.memory).chain(&self.others)
    }

    /// The files through which the task's process joins.
    pub(crate) fn joins(&self) -> Result<Vec<OwnedFd>, LimitError> {
        let open = |group: &Group| OpenOptions::new().write(true).open(group.path().join("cgroup.procs"));
        let opened: io::Result<Vec<OwnedFd>> = self.groups().map(|group| open(group).map(OwnedFd::from)).collect();
        opened.map_err(failed("joining the control group"))
    }

    /// Processes in it that are in no slot's group: in version 2 a process is in one group only.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.unified.as_ref().map(Group::processes).unwrap_or_default()
    }

    /// Kills everything in it at once, where that is possible without more.
    pub(crate) fn kill(&self) {
        if let Some(group) = &self.unified {
            group.kill();
        }
    }

    /// Largest amount of memory the tree held, in bytes, where its memory is counted.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let unified = self.unified.as_ref().and_then(|group| group.number("memory.peak"));
        unified.or_else(|| self.memory.as_ref()?.number("memory.max_usage_in_bytes"))
    }

    /// Whether the kernel killed for want of memory under the limit.
    pub(crate) fn oom_killed(&self) -> bool {
        let unified = self.unified.as_ref().and_then(|group| group.entry("memory.events", "oom_kill"));
        let v1 = || self.memory.as_ref()?.entry("memory.oom_control", "oom_kill");
        unified.or_else(v1).is_some_and(|kills| kills > 0)
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        for group in self.groups() {
            // The last process may just be leaving; what stays is removed before the slot's next such task.
            let _ = group.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_over_a_time_the_kernel_takes() {
        assert_eq!(quota(1_000), (100_000, 100_000));
        assert_eq!(quota(2_500), (250_000, 100_000));
        assert_eq!(quota(10), (1_000, 100_000));
        assert_eq!(quota(9), (9_000, 1_000_000));
        assert_eq!(quota(1), (1_000, 1_000_000));
    }

    #[test]
    fn a_machine_without_groups_says_so_and_refuses_by_name() {
        let mark = Mark::of(std::process::id()).unwrap();
        let limiter = Limiter::probe(&Hierarchies::default(), &mark, 0);
        assert!(limiter.offers().no_memory.unwrap().contains("version 2"));
        let error = limiter.group(&Limits { pids: 3, ..Default::default() }).unwrap_err();
        assert!(error.to_string().starts_with("the pids limit can't be kept"), "{error}");
        assert!(limiter.group(&Limits::default()).unwrap().is_none());
    }

    #[test]
    fn a_controller_that_is_not_given_is_named() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
        std::fs::write(temp.path().join("cgroup.subtree_control"), "pids\n").unwrap();
        assert!(enable(temp.path(), Controller::Pids).is_ok());
        assert!(enable(temp.path(), Controller::Cpu).is_ok());
        let refusal = enable(temp.path(), Controller::Memory).unwrap_err();
        assert!(refusal.to_string().contains("Delegate=memory"), "{refusal}");
    }
}
