//! From a file and flags to a plan, or to words about what is wrong.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use executr_spec::workflow::{FileContent, MAX_FILE_BYTES, PlanOptions, Problems, RepositoryCopy, RunPlan, Workflow};

use crate::arguments::WorkflowArgs;
use crate::errors::{Failure, Result};
use crate::exit::Exit;

/// A workflow's file that was read and found right, with all that was asked for besides.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What is in the file.
    pub(super) workflow: Workflow,
    /// What was asked for besides; the source's digest is still to come.
    pub(super) options: PlanOptions,
    /// Where jobs' copies are taken from.
    pub(super) repository: PathBuf,
    /// How much of it they want.
    pub(super) copies: RepositoryCopy,
    /// Whether sources of variables may look into it.
    pub(super) asks_repository: bool,
    file: String,
}

impl Loaded {
    /// The plan.
    pub(super) fn plan(&self) -> Result<RunPlan> {
        self.workflow.plan(&self.options).map_err(|problems| wrong(&problems, &self.file))
    }
}

/// Reads a workflow's file.
pub(super) fn load(file: &Path, jobs: &[String], arguments: &WorkflowArgs, env: &[(String, String)]) -> Result<Loaded> {
    of(parse(file)?, file.display().to_string(), jobs, arguments, env)
}

/// What is asked for of a workflow that is called `name` where it is spoken of.
pub(super) fn of(
    workflow: Workflow,
    name: String,
    jobs: &[String],
    arguments: &WorkflowArgs,
    env: &[(String, String)],
) -> Result<Loaded> {
    let repository = repository()?;
    let mut options = PlanOptions {
        jobs: jobs.to_vec(),
        without_needs: arguments.no_needs,
        env: env.iter().cloned().collect(),
        secrets: arguments.secret.clone(),
        fail_fast: arguments.fail_fast,
        ..PlanOptions::default()
    };
    for path in &arguments.env_file {
        options.env_file.extend(env_file(path)?);
    }
    let told = |problems: Problems| wrong(&problems, &name);
    for path in workflow.local_files(&options).map_err(told)? {
        let content = local_file(&repository, &path)?;
        options.local_files.insert(path, content);
    }
    let copies = workflow.copies(&options).map_err(told)?;
    let asks_repository = workflow.asks_repository(&options).map_err(told)?;
    Ok(Loaded { workflow, options, repository, copies, asks_repository, file: name })
}

/// Reads and checks a file.
pub(in crate::commands) fn parse(file: &Path) -> Result<Workflow> {
    let size = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?.len();
    if size > MAX_FILE_BYTES as u64 {
        return Err(Failure::usage(format!(
            "{} has {size} bytes; a workflow has at most {MAX_FILE_BYTES}",
            file.display()
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    Workflow::parse(&text).map_err(|problems| wrong(&problems, &file.display().to_string()))
}

/// All problems of a file, a line each.
fn wrong(problems: &Problems, file: &str) -> Failure {
    Failure::new(Exit::USAGE, format!("the workflow can't be run as it is\n{}", problems.of_file(file)))
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::USAGE, format!("could not read {}: {error}", file.display()))
        .remedy("a workflow is a YAML or JSON file; a program of that name is run with `executr run -- PROGRAM`")
}

/// A path as it is from the root.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::doing(format!("find {}", path.display()), error))
}

/// The repository around the current directory; without one that directory.
pub(super) fn repository() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|error| Failure::doing("find the current directory", error))?;
    let root = here.ancestors().find(|directory| directory.join(".git").exists());
    Ok(root.map_or_else(|| here.clone(), Path::to_owned))
}

/// The content of a file beside the user. A text stays one so that it is as readable in the plan as in the file.
fn local_file(repository: &Path, path: &str) -> Result<FileContent> {
    use base64::Engine as _;
    let path = repository.join(path);
    let bytes = std::fs::read(&path).map_err(|error| {
        Failure::doing(format!("read {}", path.display()), error)
            .remedy("`from` in `files` is a path from the repository's root")
    })?;
    Ok(FileContent::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// The variables of an `--env-file`.
fn env_file(path: &Path) -> Result<BTreeMap<String, String>> {
    const REMEDY: &str = "--env-file wants a text file of NAME=value lines";
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::USAGE, format!("could not read {}: {error}", path.display())).remedy(REMEDY)
    })?;
    executr_worker::variables_in(&text)
        .map_err(|error| Failure::new(Exit::USAGE, format!("{}: {error}", path.display())).remedy(REMEDY))
}

/// Says what would run.
pub(super) fn show_dry_run(loaded: &Loaded) -> Result<Exit> {
    let plan = loaded.plan()?;
    let mut out = io::stdout().lock();
    out.write_all(executr_spec::workflow::dry_run(&plan).as_bytes())?;
    out.flush()?;
    Ok(Exit::SUCCESS)
}
