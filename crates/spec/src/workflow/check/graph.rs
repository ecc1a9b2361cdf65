//! Needs: that they exist, that they have an order; and the cells of matrices.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{of_job, tell};
use crate::nearest::did_you_mean;
use crate::workflow::file::{Job, Workflow};
use crate::workflow::matrix::Cell;
use crate::workflow::problem::Problem;

/// The most jobs a run may have.
const MAX_RUN_JOBS: usize = 100_000;
/// The most edges the graph of a run may have.
const MAX_RUN_EDGES: usize = 4_000_000;

/// Finds each job's needs, and an order in which each comes after those it needs.
pub(super) fn check(workflow: &mut Workflow, problems: &mut Vec<Problem>) {
    let places: HashMap<_, _> =
        workflow.jobs.iter().enumerate().map(|(place, job)| (job.name.clone(), place)).collect();
    let names: Vec<_> = workflow.jobs.iter().map(|job| job.name.clone()).collect();
    for (place, job) in workflow.jobs.iter_mut().enumerate() {
        let mut found = BTreeSet::new();
        for need in &job.needs {
            match places.get(&need.value) {
                None => {
                    let meant = did_you_mean(&need.value, names.iter().map(String::as_str));
                    tell(problems, need.at, need.key.clone(), format!("there is no job `{}`{meant}", need.value));
                }
                Some(needed) if *needed == place => {
                    tell(problems, need.at, need.key.clone(), format!("`{}` needs itself; leave that out", job.name));
                }
                Some(needed) => {
                    if !found.insert(*needed) {
                        tell(problems, need.at, need.key.clone(), format!("`{}` is needed already", need.value));
                    }
                }
            }
        }
        job.need_places = found.into_iter().collect();
    }
    workflow.order = order(&workflow.jobs);
    if workflow.order.len() < workflow.jobs.len() {
        let ordered: HashSet<_> = workflow.order.iter().copied().collect();
        let cycle = cycle(&workflow.jobs, &ordered);
        if let Some(job) = cycle.first().map(|place| &workflow.jobs[*place]) {
            let path: Vec<_> =
                cycle.iter().chain(cycle.first()).map(|place| workflow.jobs[*place].name.as_str()).collect();
            tell(problems, job.at, of_job(job), format!("waits for itself: {} (`→` is `needs`)", path.join(" → ")));
        }
    }
}

/// All jobs that wait for nothing but jobs that are in it too; the earlier in the file the earlier, as far as needs allow.
fn order(jobs: &[Job]) -> Vec<usize> {
    let mut missing: Vec<_> = jobs.iter().map(|job| job.need_places.len()).collect();
    let mut successors = vec![Vec::new(); jobs.len()];
    for (place, job) in jobs.iter().enumerate() {
        for need in &job.need_places {
            successors[*need].push(place);
        }
    }
    let mut ready: BTreeSet<_> = (0..jobs.len()).filter(|place| missing[*place] == 0).collect();
    let mut order = Vec::with_capacity(jobs.len());
    while let Some(place) = ready.pop_first() {
        order.push(place);
        for successor in &successors[place] {
            missing[*successor] -= 1;
            if missing[*successor] == 0 {
                ready.insert(*successor);
            }
        }
    }
    order
}

/// Jobs that need each other in a circle, each the one after it; the first of the file comes first.
fn cycle(jobs: &[Job], ordered: &HashSet<usize>) -> Vec<usize> {
    let Some(start) = (0..jobs.len()).find(|place| !ordered.contains(place)) else { return Vec::new() };
    let (mut path, mut places, mut at) = (Vec::new(), HashMap::new(), start);
    // Each that has no place in the order needs another that hasn't, so this goes on until one comes again.
    while !places.contains_key(&at) {
        places.insert(at, path.len());
        path.push(at);
        match jobs[at].need_places.iter().find(|need| !ordered.contains(need)) {
            Some(next) => at = *next,
            None => return Vec::new(),
        }
    }
    let mut cycle = path.split_off(places[&at]);
    let first = cycle.iter().enumerate().min_by_key(|(_, place)| **place).map_or(0, |(index, _)| index);
    cycle.rotate_left(first);
    cycle
}

/// Makes the cells of all jobs, and checks that no two have the same name.
pub(super) fn multiply(workflow: &mut Workflow, problems: &mut Vec<Problem>) {
    for job in &mut workflow.jobs {
        job.cells = match &job.matrix {
            None => vec![Cell { name: job.name.clone(), ..Cell::default() }],
            Some(matrix) => matrix.value.cells(&job.name).unwrap_or_else(|wrong| {
                tell(problems, matrix.at, matrix.key.clone(), wrong);
                Vec::new()
            }),
        };
    }
    let jobs: usize = workflow.jobs.iter().map(|job| job.cells.len()).sum();
    let edges: usize = workflow.jobs.iter().map(|job| job.cells.len() * needed(&workflow.jobs, job)).sum();
    if let Some(first) = workflow.jobs.first() {
        if jobs > MAX_RUN_JOBS {
            tell(problems, first.at, "jobs", format!("makes {jobs} jobs; a run has at most {MAX_RUN_JOBS}"));
        }
        if edges > MAX_RUN_EDGES {
            let text = format!(
                "makes {edges} edges of needs; a run has at most {MAX_RUN_EDGES}. Put a job in between that gathers"
            );
            tell(problems, first.at, "jobs", text);
        }
    }
    let mut seen: BTreeMap<&str, &Job> = BTreeMap::new();
    for job in &workflow.jobs {
        for cell in &job.cells {
            if let Some(other) = seen.insert(&cell.name, job) {
                let text = if std::ptr::eq(other, job) {
                    format!("makes two jobs called `{}`; give its values names that differ", cell.name)
                } else {
                    format!("would be called `{}`, as one of `{}` is; rename one", cell.name, other.name)
                };
                tell(problems, job.at, of_job(job), text);
            }
            if cell.name.len() > 200 {
                tell(problems, job.at, of_job(job), "makes jobs with names of more than 200 bytes; shorten its values");
                break;
            }
        }
    }
}

fn needed(jobs: &[Job], job: &Job) -> usize {
    job.need_places.iter().map(|place| jobs[*place].cells.len()).sum()
}

/// The places of all jobs that `place` needs, directly or through others.
pub(super) fn transitive_needs(jobs: &[Job], place: usize) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut open = jobs[place].need_places.clone();
    while let Some(need) = open.pop() {
        if found.insert(need) {
            open.extend(&jobs[need].need_places);
        }
    }
    found
}
