//! Who makes which artifact, and who gets it.

use std::collections::{BTreeMap, HashMap};

use super::graph::transitive_needs;
use super::tell;
use crate::expression::Template;
use crate::nearest::did_you_mean;
use crate::workflow::file::{Job, Located, Workflow, WrittenInput, WrittenModified};
use crate::workflow::matrix::{Cell, substitute};
use crate::workflow::plan::{ArtifactInput, ArtifactOutput};
use crate::workflow::problem::Problem;
use crate::workflow::read::wrong_name;
use crate::workflow::selection::ModifiedFiles;

/// Who makes an artifact: the place of the job, and of the cell in it.
type Makers = HashMap<String, (usize, usize)>;

/// Gives each cell its outputs and inputs.
///
/// An output of a job with a matrix is called what its `${{ matrix.… }}` make of its name; without any, each cell's has the
/// cell's suffix, so that no two make the same.
pub(super) fn check(workflow: &mut Workflow, problems: &mut Vec<Problem>) {
    let makers = outputs(workflow, problems);
    let bare: HashMap<_, _> = bare_names(workflow);
    for place in 0..workflow.jobs.len() {
        if workflow.jobs[place].inputs.is_empty() {
            continue;
        }
        let before = transitive_needs(&workflow.jobs, place);
        let job = &workflow.jobs[place];
        let mut found = Vec::new();
        for (index, cell) in job.cells.iter().enumerate() {
            let mut inputs = Vec::new();
            for input in &job.inputs {
                let Some((name, path)) = written(input, cell, problems) else { continue };
                let Some((maker, maker_cell)) = makers.get(&name) else {
                    tell(problems, input.at, input.key.clone(), unmade(&name, &makers, &bare));
                    continue;
                };
                let maker = &workflow.jobs[*maker];
                if !before.contains(&makers[&name].0) {
                    let text = if maker.name == job.name {
                        format!("`{name}` is made by `{}` itself; jobs get what jobs before them made", job.name)
                    } else {
                        format!("`{name}` is made by `{0}`, which doesn't run before; add `needs: [{0}]`", maker.name)
                    };
                    tell(problems, input.at, input.key.clone(), text);
                    continue;
                }
                let from = maker.cells[*maker_cell].name.clone();
                inputs.push(ArtifactInput { name, from, path });
            }
            collisions(job, cell, &inputs, workflow, &makers, problems);
            found.push((index, inputs));
        }
        for (index, inputs) in found {
            workflow.jobs[place].cells[index].inputs = inputs;
        }
    }
}

fn written(input: &Located<WrittenInput>, cell: &Cell, problems: &mut Vec<Problem>) -> Option<(String, String)> {
    let decided = substitute(&input.value.name, &cell.values)
        .and_then(|name| Ok((name, substitute(&input.value.path, &cell.values)?)));
    // What can't be decided is told with the names of expressions.
    let (name, path) = decided.ok()?;
    if let Some(wrong) = wrong_name(&name) {
        tell(problems, input.at, input.key.clone(), wrong);
        return None;
    }
    Some((name, path))
}

/// Names of outputs that cells extend, and what they make of them.
fn bare_names(workflow: &Workflow) -> HashMap<String, Vec<String>> {
    let mut bare = HashMap::new();
    for job in workflow.jobs.iter().filter(|job| job.matrix.is_some()) {
        for output in job.outputs.iter().filter(|output| !Template::is_in(&output.value.name)) {
            let made = job.cells.iter().map(|cell| format!("{}{}", output.value.name, cell.suffix)).collect();
            bare.insert(output.value.name.clone(), made);
        }
    }
    bare
}

fn unmade(name: &str, makers: &Makers, bare: &HashMap<String, Vec<String>>) -> String {
    match bare.get(name) {
        Some(made) => {
            let some: Vec<_> = made.iter().take(3).map(|name| format!("`{name}`")).collect();
            let more = if made.len() > 3 { " …" } else { "" };
            format!("each cell makes its own `{name}`: {}{more}; name one of them", some.join(", "))
        }
        None => {
            let mut known: Vec<_> = makers.keys().map(String::as_str).collect();
            known.sort_unstable();
            format!("no job makes `{name}`{}", did_you_mean(name, known))
        }
    }
}

fn outputs(workflow: &mut Workflow, problems: &mut Vec<Problem>) -> Makers {
    let mut makers: Makers = HashMap::new();
    let mut told: HashMap<String, String> = HashMap::new();
    for (place, job) in workflow.jobs.iter_mut().enumerate() {
        for (index, cell) in job.cells.iter_mut().enumerate() {
            for output in &job.outputs {
                let extended = job.matrix.is_some() && !Template::is_in(&output.value.name);
                let suffix = if extended { cell.suffix.as_str() } else { "" };
                let decided = substitute(&output.value.name, &cell.values)
                    .and_then(|name| Ok((name + suffix, substitute(&output.value.path, &cell.values)?)));
                let Ok((name, path)) = decided else { continue };
                if let Some(wrong) = wrong_name(&name) {
                    tell(problems, output.at, output.key.clone(), wrong);
                    continue;
                }
                if makers.insert(name.clone(), (place, index)).is_some() {
                    let first = told.get(&name).cloned().unwrap_or_default();
                    let text = if first == job.name {
                        format!(
                            "several cells make `{name}`; put a `${{{{ matrix.… }}}}` in its name that tells them apart"
                        )
                    } else {
                        format!("`{name}` is made by `{first}` too; give one of them another name")
                    };
                    tell(problems, output.at, output.key.clone(), text);
                }
                told.entry(name.clone()).or_insert_with(|| job.name.clone());
                cell.outputs.push(ArtifactOutput { name, path });
            }
            if let Some((name, modified)) = job.modified.as_ref().and_then(|modified| come_back(modified, cell)) {
                let key = job.modified.as_ref().map(|modified| (modified.at, modified.key.clone()));
                let (at, key) = key.unwrap_or((job.at, String::new()));
                let taken = makers.insert(name.clone(), (place, index)).is_some();
                let wrong = wrong_name(&name).or_else(|| {
                    taken.then(|| format!("two artifacts would be called `{name}`; give one another `name`"))
                });
                if let Some(wrong) = wrong {
                    tell(problems, at, key, wrong);
                    continue;
                }
                told.entry(name).or_insert_with(|| job.name.clone());
                cell.modified = Some(modified);
            }
        }
    }
    makers
}

/// What comes back of a cell, and the artifact that holds it; nothing when that can't be decided, which is told with the
/// names of expressions.
fn come_back(modified: &Located<WrittenModified>, cell: &Cell) -> Option<(String, ModifiedFiles)> {
    let written = &modified.value;
    let name = match &written.name {
        None => format!("modified-{}", cell.name),
        Some(name) => {
            let suffix = if Template::is_in(name) { "" } else { cell.suffix.as_str() };
            substitute(name, &cell.values).ok()? + suffix
        }
    };
    let to = written.to.as_ref().map(|to| substitute(to, &cell.values)).transpose().ok()?;
    let (include, exclude) = (written.include.clone(), written.exclude.clone());
    Some((name.clone(), ModifiedFiles { name, to, archive: written.archive, include, exclude }))
}

/// An artifact comes back under its own last name, into the directory that the input says. No two may come to the same place.
fn collisions(
    job: &Job,
    cell: &Cell,
    inputs: &[ArtifactInput],
    workflow: &Workflow,
    makers: &Makers,
    problems: &mut Vec<Problem>,
) {
    let mut targets = BTreeMap::new();
    for input in inputs {
        let Some((maker, index)) = makers.get(&input.name) else { continue };
        let made = workflow.jobs[*maker].cells[*index].outputs.iter().find(|output| output.name == input.name);
        let Some(target) = made.and_then(|made| target(&input.path, &made.path)) else { continue };
        let clash = targets.insert(target.clone(), input.name.clone()).map(|other| {
            format!("`{}` and `{other}` both come to `{target}`; give one of them another `path`", input.name)
        });
        let file = job.template.workflow.as_ref().is_some_and(|workflow| {
            workflow.files.keys().any(|file| super::paths::plain(file).as_deref() == Some(target.as_str()))
        });
        let clash = clash.or_else(|| {
            file.then(|| {
                format!("`{}` comes to `{target}`, where `files` puts one; give it another `path`", input.name)
            })
        });
        if let Some(clash) = clash {
            let place = job
                .inputs
                .iter()
                .rev()
                .find(|written| substitute(&written.value.name, &cell.values).is_ok_and(|name| name == input.name));
            if let Some(place) = place {
                tell(problems, place.at, place.key.clone(), clash);
            }
        }
    }
}

/// Where what was at `made` comes to; nothing when it was the whole job directory.
fn target(into: &str, made: &str) -> Option<String> {
    let made = super::paths::plain(made)?;
    let last = made.rsplit('/').next().filter(|last| !last.is_empty())?;
    super::paths::plain(&format!("./{into}/{last}"))
}
