//! From a workflow to the plan of a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::file::{Job, RepositoryCopy, Workflow};
use super::matrix::{Cell, substitute};
use super::plan::{FileContent, PlannedJob, RunPlan, SandboxFile};
use super::problem::{Problem, Problems};
use super::provider::Provider;
use crate::digest::Digest;
use crate::expression::Template;
use crate::job::{JobSpec, SpecJson};
use crate::nearest::did_you_mean;

/// What is asked for besides the file.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Which jobs; all when empty. The name of a job with a matrix means all its cells, that of a cell means that one.
    pub jobs: Vec<String>,
    /// Whether the jobs that these need are left out. Their successors then start at once.
    pub without_needs: bool,
    /// Variables from `--env-file`.
    pub env_file: BTreeMap<String, String>,
    /// Variables from the command line, above those of `env_file`.
    pub env: BTreeMap<String, String>,
    /// Names of secrets from the command line: all jobs get them.
    pub secrets: Vec<String>,
    /// Instead of what the file says.
    pub fail_fast: Option<bool>,
    /// The tree of the repository, when [`Workflow::copies`] or [`Workflow::asks_repository`] says that one is needed.
    pub source: Option<Digest>,
    /// What is in the files that [`Workflow::local_files`] names: text that is not evaluated stands as base64 or as a blob.
    pub local_files: BTreeMap<String, FileContent>,
}

impl Workflow {
    /// What its jobs start from: the most that one of the chosen needs. Its tree is what [`PlanOptions::source`] wants.
    ///
    /// # Errors
    /// When a chosen job doesn't exist.
    pub fn copies(&self, options: &PlanOptions) -> Result<RepositoryCopy, Problems> {
        let chosen = self.chosen(options)?;
        let copies = self.jobs.iter().zip(&chosen).filter(|(_, cells)| !cells.is_empty()).map(|(job, _)| job.copy);
        Ok(copies.max().unwrap_or(RepositoryCopy::Nothing))
    }

    /// Whether a source of variables of the chosen jobs may look for something in the repository.
    ///
    /// # Errors
    /// When a chosen job doesn't exist.
    pub fn asks_repository(&self, options: &PlanOptions) -> Result<bool, Problems> {
        let chosen = self.chosen(options)?;
        let mut jobs = self.jobs.iter().zip(&chosen).filter(|(_, cells)| !cells.is_empty());
        Ok(jobs.any(|(job, _)| asks_repository(&job.template)))
    }

    /// The files beside the user whose content the chosen jobs want, by their paths from the repository's root.
    ///
    /// # Errors
    /// When a chosen job doesn't exist.
    pub fn local_files(&self, options: &PlanOptions) -> Result<BTreeSet<String>, Problems> {
        let chosen = self.chosen(options)?;
        let jobs = self.jobs.iter().zip(&chosen).filter(|(_, cells)| !cells.is_empty());
        Ok(jobs.flat_map(|(job, _)| job.local_files.values().map(|file| file.from.clone())).collect())
    }

    /// The plan of a run of the chosen jobs: matrices multiplied, each job after those it needs, otherwise in the order of the
    /// file.
    ///
    /// A matrix with `max_parallel` holds its jobs together by the concurrency key `matrix:<job>`, which is the run's own:
    /// the coordinator puts the run's id before it.
    ///
    /// # Errors
    /// What of the options doesn't fit the file, or a job that is too large.
    pub fn plan(&self, options: &PlanOptions) -> Result<RunPlan, Problems> {
        let chosen = self.chosen(options)?;
        let mut overrides = options.env_file.clone();
        overrides.extend(options.env.clone());
        let (mut plan, mut problems) = (Vec::new(), Vec::new());
        // Of each job, the places of its chosen cells in the plan.
        let mut places: Vec<Vec<u32>> = vec![Vec::new(); self.jobs.len()];
        let mut names: HashMap<&str, u32> = HashMap::new();
        for place in self.order.iter().copied() {
            let job = &self.jobs[place];
            let mut needs: Vec<u32> = job.need_places.iter().flat_map(|need| places[*need].iter().copied()).collect();
            needs.sort_unstable();
            for index in chosen[place].iter().copied() {
                let cell = &job.cells[index];
                let planned = u32::try_from(plan.len()).unwrap_or(u32::MAX);
                places[place].push(planned);
                names.insert(&cell.name, planned);
                for input in cell.inputs.iter().filter(|input| !names.contains_key(input.from.as_str())) {
                    let text = format!("its input `{}` is made by `{}`, which is not chosen", input.name, input.from);
                    problems.push(asked(format!("jobs.{}", job.name), text));
                }
                let planned = self.planned(job, cell, &needs, &chosen, &overrides, options);
                match planned {
                    Ok(planned) => plan.push(planned),
                    Err(problem) => {
                        problems.push(problem);
                        // It keeps its place: what follows is judged as if it were there.
                        plan.push(PlannedJob {
                            name: cell.name.clone(),
                            needs: Vec::new(),
                            condition: job.condition.clone(),
                            continue_on_error: false,
                            spec: JobSpec::new(Vec::new()),
                        });
                    }
                }
            }
        }
        Problems::check(problems)?;
        Ok(RunPlan {
            name: self.name.clone(),
            fail_fast: options.fail_fast.unwrap_or(self.fail_fast),
            timeout: self.timeout,
            source: if plan.iter().any(has_source) { options.source } else { None },
            jobs: plan,
        })
    }

    fn planned(
        &self,
        job: &Job,
        cell: &Cell,
        needs: &[u32],
        chosen: &[Vec<usize>],
        overrides: &BTreeMap<String, String>,
        options: &PlanOptions,
    ) -> Result<PlannedJob, Problem> {
        let wrong = |text: String| Problem { at: Some(job.at), key: format!("jobs.{}", job.name), text };
        let mut spec = job.template.clone();
        decide(&mut spec, &cell.values).map_err(wrong)?;
        if let Some(limit) = job.matrix.as_ref().and_then(|matrix| matrix.value.max_parallel) {
            spec.concurrency_key = Some(format!("matrix:{}", job.name));
            spec.concurrency_limit = Some(limit);
        }
        let asks_repository = asks_repository(&spec);
        let workflow = spec.workflow.get_or_insert_default();
        workflow.name.clone_from(&cell.name);
        workflow.matrix.clone_from(&cell.values);
        workflow.needs = job
            .need_places
            .iter()
            .filter(|need| !chosen[**need].is_empty())
            .map(|need| {
                let needed = &self.jobs[*need];
                let cells = chosen[*need].iter().map(|index| needed.cells[*index].name.clone()).collect();
                (needed.name.clone(), cells)
            })
            .collect();
        self.known_needs(job, chosen)?;
        if job.copy != RepositoryCopy::Nothing {
            workflow.source = options.source;
        }
        if asks_repository {
            workflow.env_source = options.source;
        }
        workflow.overrides.clone_from(overrides);
        workflow.secrets.extend(options.secrets.iter().cloned());
        workflow.secrets.sort();
        workflow.secrets.dedup();
        workflow.inputs.clone_from(&cell.inputs);
        workflow.outputs.clone_from(&cell.outputs);
        workflow.modified.clone_from(&cell.modified);
        for (path, file) in &job.local_files {
            let content = options.local_files.get(&file.from).cloned();
            let content = content.ok_or_else(|| wrong(format!("the content of `{}` is not given", file.from)))?;
            workflow.files.insert(path.clone(), SandboxFile { content, mode: file.mode });
        }
        spec.validate().map_err(|error| wrong(error.to_string()))?;
        SpecJson::write(&spec).map_err(|error| wrong(error.to_string()))?;
        Ok(PlannedJob {
            name: cell.name.clone(),
            needs: needs.to_vec(),
            condition: job.condition.clone(),
            continue_on_error: job.continue_on_error,
            spec,
        })
    }

    /// Without its needs a job can't ask for what they handed on.
    fn known_needs(&self, job: &Job, chosen: &[Vec<usize>]) -> Result<(), Problem> {
        let missing: BTreeSet<_> = job
            .need_places
            .iter()
            .filter(|need| chosen[**need].is_empty())
            .map(|need| self.jobs[*need].name.as_str())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        for text in job.texts.iter().filter(|text| Template::is_in(&text.text)) {
            let template = Template::parse(&text.text).map(|template| {
                let mut names = template.expressions().flat_map(|expression| expression.names().to_vec());
                names.find(|name| name.root() == "needs" && name.word(1).is_none_or(|need| missing.contains(need)))
            });
            if let Ok(Some(name)) = template {
                let text_of = format!("asks for `{name}`, and that job is not chosen");
                return Err(Problem { at: Some(text.at), key: text.key.clone(), text: text_of });
            }
        }
        Ok(())
    }

    /// Of each job, the places of its chosen cells.
    fn chosen(&self, options: &PlanOptions) -> Result<Vec<Vec<usize>>, Problems> {
        let all = |job: &Job| (0..job.cells.len()).collect::<Vec<_>>();
        if options.jobs.is_empty() {
            return Ok(self.jobs.iter().map(all).collect());
        }
        let mut chosen: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.jobs.len()];
        let mut problems = Vec::new();
        for name in &options.jobs {
            let mut found = false;
            for (place, job) in self.jobs.iter().enumerate() {
                let cells = job.cells.iter().enumerate();
                let meant = cells.filter(|(_, cell)| job.name == *name || cell.name == *name).map(|(index, _)| index);
                let meant: Vec<_> = meant.collect();
                found |= !meant.is_empty();
                chosen[place].extend(meant);
            }
            if !found {
                let known = self.jobs.iter().map(|job| job.name.as_str());
                problems.push(asked(String::new(), format!("there is no job `{name}`{}", did_you_mean(name, known))));
            }
        }
        Problems::check(problems)?;
        if !options.without_needs {
            for place in self.order.iter().rev().copied() {
                if !chosen[place].is_empty() {
                    for need in &self.jobs[place].need_places {
                        chosen[*need] = (0..self.jobs[*need].cells.len()).collect();
                    }
                }
            }
        }
        Ok(chosen.into_iter().map(|cells| cells.into_iter().collect()).collect())
    }
}

fn has_source(job: &PlannedJob) -> bool {
    job.spec.workflow.as_ref().is_some_and(|workflow| workflow.source.is_some() || workflow.env_source.is_some())
}

fn asks_repository(spec: &JobSpec) -> bool {
    let of_steps = spec.steps.iter().flat_map(|step| &step.env_from);
    let of_job = spec.workflow.iter().flat_map(|workflow| workflow.workflow_env_from.iter().chain(&workflow.env_from));
    of_job.chain(of_steps).any(Provider::reads_repository)
}

fn asked(key: String, text: String) -> Problem {
    Problem { at: None, key, text }
}

/// Puts a cell's values into what is decided before the run.
fn decide(spec: &mut JobSpec, values: &BTreeMap<String, Value>) -> Result<(), String> {
    for step in &mut spec.steps {
        if let Some(workdir) = &mut step.workdir {
            *workdir = substitute(workdir, values)?;
        }
        if let Some(image) = &mut step.image {
            image.name = substitute(&image.name, values)?;
        }
    }
    for label in spec.labels.values_mut().chain(&mut spec.concurrency_key) {
        *label = substitute(label, values)?;
    }
    Ok(())
}
