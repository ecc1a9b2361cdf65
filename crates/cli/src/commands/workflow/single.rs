//! `executr run --image IMAGE -- COMMAND`: a workflow of one job that nobody wrote a file for. What it writes is shown byte for byte,
//! and its exit code is the command's, as without a place of its own.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Component, Path};

use executr_api::{ApiError, Client as _, ErrorCode, JobStatus, OutputFollow, RunSubmission};
use executr_coordinator::TenantClient;
use executr_spec::workflow::{ArchiveKind, Workflow};
use executr_spec::{JobId, RunId};
use serde_json::{Map, Value, json};

use super::here::{Process, told};
use super::{load, modified, source, watch};
use crate::arguments::{RunArgs, StreamChoice};
use crate::commands::follow::{Stop, show};
use crate::commands::submit::why_it_ended;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{ComingBack, KeptRuns, RunNote, Signals, data_directory};
use crate::show::now;

/// What its job is called.
const JOB: &str = "run";
/// And the artifact with what it changes.
const MODIFIED: &str = "modified";

/// Runs a command in a place of its own.
pub(in crate::commands) async fn run(arguments: RunArgs) -> Result<Exit> {
    let mut signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    let data = data_directory(arguments.data_dir.clone())?;
    let here = std::env::current_dir().map_err(|error| Failure::doing("find the current directory", error))?;
    let below = here.strip_prefix(load::repository()?).map(Path::to_owned).unwrap_or_default();
    let text = described(&arguments, &below)?.to_string();
    let workflow = Workflow::parse(&text)
        .map_err(|problems| Failure::usage(format!("the command can't be run so\n{}", problems.of_file("flags"))))?;
    let program = arguments.command.first().map(String::as_str).unwrap_or_default();
    let loaded = load::of(workflow, program.to_owned(), &[], &arguments.workflow, &arguments.env)?;
    if arguments.workflow.dry_run {
        return load::show_dry_run(&loaded);
    }
    let mut coming_back = BTreeMap::new();
    if let Some(directory) = &arguments.place.modified {
        let directory = load::absolute(directory)?;
        coming_back.insert(MODIFIED.to_owned(), ComingBack { directory, archive: ArchiveKind::default() });
    }
    let note = RunNote {
        file: load::absolute(Path::new(program))?,
        repository: loaded.repository.clone(),
        created_at: now(),
        coming_back: coming_back.clone(),
        runs: Vec::new(),
    };
    let directory = KeptRuns::of(&data).make(&note)?;
    let mut process = Process::start(&data, directory, note, &arguments.here, &loaded.options.secrets).await?;
    let client = process.client();
    let plan = source::with_source(loaded, client.clone(), &data, false, &told).await?;
    let submission = RunSubmission { plan, idempotency_key: None };
    let view = executr_api::RunClient::submit_run(&client, submission).await.map_err(told)?;
    let run = view.id;
    process.attend(view, output(&client, run), arguments.workflow.format, &mut signals).await?;
    modified::bring_back(&client, run, &coming_back, &data).await?;
    let job = client.job(job(&client, run).await?).await.map_err(told)?;
    if job.status != JobStatus::Completed
        && let Some(why) = why_it_ended(&job)
    {
        drop(writeln!(io::stderr(), "executr: {why}"));
    }
    Ok(Exit::of_job(&job))
}

/// The workflow that the flags describe. The command starts where it would in the repository itself: in the directory
/// `below` it, and paths count from there.
fn described(arguments: &RunArgs, below: &Path) -> Result<Value> {
    let mut job = Map::new();
    let argv: Vec<_> = arguments.command.iter().map(|word| literally(word)).collect();
    let mut step = json!({ "argv": argv });
    if !below.as_os_str().is_empty() {
        step["workdir"] = text(below)?.into();
    }
    job.insert("steps".to_owned(), json!([step]));
    match &arguments.place.image {
        Some(image) => {
            let mut executor = json!({ "kind": "oci", "image": image, "mode": "isolated" });
            if let Some(network) = &arguments.place.network {
                executor["network"] = network.as_str().into();
            }
            job.insert("executor".to_owned(), executor);
        }
        // On this machine it finds what it would without a place of its own.
        None => drop(job.insert("inherit".to_owned(), json!(["*"]))),
    }
    let selected = arguments.place.files.iter().map(|(from, to)| {
        let mut selection = json!({ "from": inside(below, from)? });
        if let Some(to) = to {
            selection["to"] = inside(below, to)?.into();
        }
        Ok(selection)
    });
    let selected = selected.collect::<Result<Vec<_>>>()?;
    if !selected.is_empty() {
        job.insert("files".to_owned(), selected.into());
    }
    if arguments.place.modified.is_some() {
        job.insert("modified".to_owned(), json!({ "name": MODIFIED }));
    }
    if let Some(timeout) = arguments.timeout {
        job.insert("timeout".to_owned(), json!(timeout));
    }
    let resources = json!(arguments.resources.resources());
    if resources.as_object().is_some_and(|resources| !resources.is_empty()) {
        job.insert("resources".to_owned(), resources);
    }
    Ok(json!({ "name": JOB, "jobs": { JOB: job } }))
}

/// A path from the directory `below` the repository as one from its root.
fn inside(below: &Path, path: &str) -> Result<String> {
    let mut inside = below.to_owned();
    for part in Path::new(path).components() {
        let fits = match part {
            Component::Normal(name) => {
                inside.push(name);
                true
            }
            Component::CurDir => true,
            Component::ParentDir => inside.pop(),
            Component::RootDir | Component::Prefix(_) => false,
        };
        if !fits {
            let text = format!("--files {path}: it leads out of the repository");
            return Err(Failure::usage(text).remedy("name a file or directory in it, from the current directory"));
        }
    }
    let slash = if path.ends_with('/') { "/" } else { "" };
    let inside = text(&inside)?;
    Ok(if inside.is_empty() { ".".to_owned() } else { inside + slash })
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::usage(format!("the name of the directory {} is not UTF-8", path.display()))
            .remedy("start it from another one")
    })
}

/// A word in which nothing is evaluated.
fn literally(word: &str) -> String {
    word.replace("${{", "${{ '${{' }}")
}

/// Shows what the run's one job writes, to its end.
async fn output(client: &TenantClient, run: RunId) -> Result<()> {
    let follow = OutputFollow { attempt: None, offset: 0, follow: true };
    let output = client.output(job(client, run).await?, follow).await.map_err(told)?;
    match show(output, StreamChoice::Both).await {
        Stop::End(_) => {}
        Stop::Api(error) => return Err(told(error)),
        Stop::Write(error) => return Err(error.into()),
    }
    // The job is over; the run is, too, in a moment.
    executr_api::RunClient::wait_run(client, run, std::time::Duration::from_secs(60)).await.map_err(told)?;
    Ok(())
}

async fn job(client: &TenantClient, run: RunId) -> Result<JobId> {
    let jobs = watch::jobs(client, run).await.map_err(told)?;
    let first = jobs.first().map(|job| job.id);
    first
        .ok_or_else(|| told(ApiError::new(ErrorCode::Internal, "the run has lost its job; this is a fault of executr")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use executr_spec::StepCommand;
    use executr_spec::workflow::PlanOptions;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn planned(below: &str, words: &[&str]) -> executr_spec::JobSpec {
        let words = ["executr", "run"].iter().chain(words);
        let Command::Run(arguments) = Arguments::try_parse_from(words).expect("a run").command else {
            panic!("not a run");
        };
        let workflow =
            Workflow::parse(&described(&arguments, Path::new(below)).expect("described").to_string()).expect("right");
        workflow.plan(&PlanOptions::default()).expect("a plan").jobs.remove(0).spec
    }

    #[test]
    fn flags_describe_a_workflow_of_one_job() {
        let spec = planned(
            "",
            &["--image", "i:1", "--files", "src:lib", "--files", "a", "--timeout", "5s", "--pids", "9", "--", "x", "y"],
        );
        assert_eq!(spec.steps[0].command, StepCommand::Argv(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!((spec.timeout.map(|timeout| timeout.0.as_secs()), spec.resources.pids), (Some(5), Some(9)));
        assert!(spec.inherit.is_empty());
        let workflow = spec.workflow.expect("one");
        assert!(!workflow.executor.shares_a_container() && workflow.executor.options["image"] == "i:1");
        let selected: Vec<_> = workflow.selected.iter().map(|one| (one.from.as_str(), one.to.as_deref())).collect();
        assert_eq!(selected, [("src", Some("lib")), ("a", None)]);
        let here = planned("sub/dir", &["--files", "./a:b/", "--files", "../../c", "--", "make"]);
        assert_eq!((here.inherit, here.steps[0].workdir.as_deref()), (vec!["*".to_owned()], Some("sub/dir")));
        let selected = here.workflow.expect("one").selected;
        assert_eq!((selected[0].from.as_str(), selected[0].to.as_deref()), ("sub/dir/a", Some("sub/dir/b/")));
        assert_eq!(selected[1].from, "c");
        assert!(inside(Path::new("sub"), "../../x").is_err() && inside(Path::new(""), "/etc").is_err());
    }

    #[test]
    fn nothing_in_a_command_is_evaluated() {
        let StepCommand::Argv(words) =
            planned("", &["--image", "i", "--", "echo", "a ${{ b }} ${{"]).steps.remove(0).command
        else {
            panic!("not an argv");
        };
        let context = executr_spec::expression::Template::parse(&words[1]).expect("a template");
        let pieces: Vec<_> = context.pieces().iter().map(|piece| format!("{piece:?}")).collect();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| !piece.contains("\"b\"")), "{pieces:?}");
    }
}
