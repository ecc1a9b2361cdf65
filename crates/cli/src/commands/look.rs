//! `executr check`, `graph` and `schema`: a workflow's file is looked at, and nothing runs.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use executr_spec::workflow::{self, FileContent, MAX_FILE_BYTES, PlanOptions, Problems, RunPlan, Workflow, picture};

use crate::arguments::{CheckArgs, GraphArgs, GraphFormat};
use crate::errors::{Failure, Result};
use crate::exit::Exit;

pub(super) fn check(arguments: &CheckArgs) -> Result<Exit> {
    let file = &arguments.file;
    match plan(&read(file)?) {
        Ok(plan) => {
            let count = plan.jobs.len();
            let jobs = if count == 1 { "job" } else { "jobs" };
            writeln!(io::stdout(), "{}: {count} {jobs}, nothing wrong", file.display())?;
            Ok(Exit::SUCCESS)
        }
        Err(problems) => Ok(tell(file, &problems)),
    }
}

pub(super) fn graph(arguments: &GraphArgs) -> Result<Exit> {
    let plan = match plan(&read(&arguments.file)?) {
        Ok(plan) => plan,
        Err(problems) => return Ok(tell(&arguments.file, &problems)),
    };
    let picture = match arguments.format {
        GraphFormat::Text => picture::text(&plan),
        GraphFormat::Mermaid => picture::mermaid(&plan),
        GraphFormat::Dot => picture::dot(&plan),
    };
    io::stdout().write_all(picture.as_bytes())?;
    Ok(Exit::SUCCESS)
}

pub(super) fn schema() -> Result<Exit> {
    writeln!(io::stdout(), "{:#}", workflow::schema())?;
    Ok(Exit::SUCCESS)
}

/// The plan of all jobs. What is in files beside the user makes no difference to it here.
fn plan(text: &str) -> std::result::Result<RunPlan, Problems> {
    let workflow = Workflow::parse(text)?;
    let mut options = PlanOptions::default();
    for path in workflow.local_files(&options)? {
        options.local_files.insert(path, FileContent::Text(String::new()));
    }
    workflow.plan(&options)
}

/// A line for each problem, as compilers write them, so that editors find their way.
fn tell(file: &Path, problems: &Problems) -> Exit {
    // There is no further place to say that even this can't be said.
    drop(writeln!(io::stderr(), "{}", problems.of_file(&file.display().to_string())));
    Exit::USAGE
}

fn read(path: &Path) -> Result<String> {
    let failed = |error: io::Error| {
        let failure = Failure::new(Exit::USAGE, format!("could not read {}: {error}", path.display()));
        failure.remedy("name a workflow's file, in YAML or JSON")
    };
    // One byte more than may be: the parser tells of a file that is too large.
    let most = MAX_FILE_BYTES as u64 + 1;
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().take(most).read_to_string(&mut text).map_err(failed)?;
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(failed)?;
    }
    Ok(text)
}
