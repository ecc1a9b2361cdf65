//! From flags, or a file, to what is submitted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use executr_api::Submission;
use executr_spec::{Backoff, BinaryStep, Digest, Resources, Step, StepCommand};

use crate::arguments::SubmitArgs;
use crate::errors::{Failure, Result};
use crate::exit::Exit;

/// Where the program of a job comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// It is on the executor's machine, or it is a script.
    There(StepCommand),
    /// It is here and has to be uploaded; with its arguments.
    Here(PathBuf, Vec<String>),
    /// It is at this URL; with its arguments.
    At(String, Vec<String>),
}

/// What the flags say the job is.
pub(super) fn program(arguments: &SubmitArgs) -> Result<Program> {
    if let Some(url) = &arguments.binary_url {
        let args = arguments.args.iter().chain(&arguments.command).cloned().collect();
        return Ok(Program::At(url.clone(), args));
    }
    for (given, flag) in
        [(!arguments.args.is_empty(), "--args"), (arguments.binary_sha256.is_some(), "--binary-sha256")]
    {
        if given {
            return Err(Failure::usage(format!("{flag} goes with --binary-url")));
        }
    }
    if let Some(script) = &arguments.run {
        return Ok(Program::There(StepCommand::Run(script.clone())));
    }
    match arguments.command.split_first() {
        Some((first, args)) if first.contains('/') && !first.starts_with('/') => {
            Ok(Program::Here(PathBuf::from(first), args.to_vec()))
        }
        _ => Ok(Program::There(StepCommand::Argv(arguments.command.clone()))),
    }
}

/// What to submit for a program that needs nothing fetched or that is uploaded already.
pub(super) fn of_step(command: StepCommand, arguments: &SubmitArgs) -> Submission {
    let env = environment(arguments);
    Submission { steps: Some(vec![Step::new(command)]), env, ..beside_the_program(arguments) }
}

/// The step that runs an uploaded program.
pub(super) fn uploaded(digest: Digest, args: Vec<String>) -> StepCommand {
    StepCommand::Binary(BinaryStep { url: format!("blob:{digest}"), sha256: digest, args })
}

/// What to submit for a program at a URL: the original's form, with exactly the variables that are named.
pub(super) fn of_url(url: String, sha256: Digest, args: Vec<String>, arguments: &SubmitArgs) -> Submission {
    let mut submission = Submission {
        binary_url: Some(url),
        binary_sha256: Some(sha256),
        arguments: Some(args),
        env_variables: environment(arguments),
        ..beside_the_program(arguments)
    };
    submission.job_type.get_or_insert_default();
    submission
}

fn environment(arguments: &SubmitArgs) -> Option<BTreeMap<String, String>> {
    (!arguments.env.is_empty()).then(|| arguments.env.iter().cloned().collect())
}

fn beside_the_program(arguments: &SubmitArgs) -> Submission {
    let resources = arguments.resources.resources();
    Submission {
        job_type: arguments.job_type.clone(),
        timeout: arguments.timeout,
        priority: Some(arguments.priority),
        max_retries: Some(arguments.max_retries),
        backoff: arguments.backoff.map(|kind| Backoff { kind, ..Backoff::default() }),
        queue: Some(arguments.queue.clone()),
        labels: arguments.label.iter().cloned().collect(),
        run_at: arguments.run_at,
        idempotency_key: arguments.idempotency_key.clone(),
        concurrency_key: arguments.concurrency_key.clone(),
        concurrency_limit: arguments.concurrency_limit,
        resources: (resources != Resources::default()).then_some(resources),
        ..Submission::default()
    }
}

/// The jobs of a file: a JSON array, or JSON objects one after another. `-` is standard input.
pub(super) fn in_file(path: &Path) -> Result<Vec<Submission>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::doing(format!("read {}", path.display()), error))?;
    let jobs = parse(&text).map_err(|error| {
        Failure::new(Exit::USAGE, format!("{}: {error}", path.display()))
            .remedy("write a JSON array of jobs, or one job a line; docs/api.md lists a job's fields")
    })?;
    if jobs.is_empty() {
        return Err(Failure::new(Exit::USAGE, format!("{} holds no job", path.display())));
    }
    Ok(jobs)
}

fn parse(text: &str) -> serde_json::Result<Vec<Submission>> {
    if text.trim_start().starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::Deserializer::from_str(text).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn arguments(line: &str) -> SubmitArgs {
        let words = ["executr", "submit"].into_iter().chain(line.split_whitespace());
        match Arguments::try_parse_from(words).expect("a command line").command {
            Command::Submit(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_relative_path_is_a_program_of_this_machine() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let of = |line| program(&arguments(line)).expect("a program");
        assert_eq!(of("-- ./x a -b"), Program::Here("./x".into(), words(&["a", "-b"])));
        assert_eq!(of("bin/x"), Program::Here("bin/x".into(), vec![]));
        for line in ["-- make test", "-- /usr/bin/make test"] {
            assert!(matches!(of(line), Program::There(StepCommand::Argv(argv)) if argv.len() == 2));
        }
        assert_eq!(of("--run make"), Program::There(StepCommand::Run("make".to_owned())));
        assert_eq!(
            of("--binary-url https://h/b --args -x --args y"),
            Program::At("https://h/b".into(), words(&["-x", "y"]))
        );
    }

    #[test]
    fn flags_that_would_be_ignored_are_refused() {
        for line in [
            "--args x -- make",
            "--binary-sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad make",
        ] {
            assert!(program(&arguments(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn a_url_becomes_the_originals_form() {
        let submission =
            of_url("https://h/b".to_owned(), Digest::of(b"x"), vec![], &arguments("--binary-url u --env A=b"));
        let spec = submission.into_spec().expect("a job");
        assert_eq!(spec.environment, executr_spec::EnvironmentBase::Empty);
        assert_eq!(spec.env["A"], "b");
    }

    #[test]
    fn a_file_holds_an_array_or_jobs_one_after_another() {
        let job = r#"{"steps":[{"argv":["true"]}]}"#;
        assert_eq!(parse(&format!("[{job},{job}]")).expect("an array").len(), 2);
        assert_eq!(parse(&format!("{job}\n{job}\n\n{job}\n")).expect("lines").len(), 3);
        assert_eq!(parse(&job.replace(',', ",\n")).expect("one job").len(), 1);
        assert!(parse(&format!("{job}\n{{\"stepz\":[]}}")).expect_err("a typo").to_string().contains("line 2"));
    }
}
