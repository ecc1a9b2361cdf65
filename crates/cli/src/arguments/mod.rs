//! What can be said on the command line: one file per group of commands, each a picture of its `--help`.
//!
//! Only types, defaults and words live here. A flag wins over its variable, the variable over the default; clap does
//! that. What a command does is in [`crate::commands`].

mod admin;
mod connection;
mod exec;
mod executor;
mod image;
mod job;
mod jobs;
mod logging;
mod look;
mod machine;
mod server;
mod values;
mod workflow;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueHint};

pub(crate) use admin::{
    CompletionsArgs, ExecutorsArgs, MigrateArgs, StatsArgs, TokenArgs, TokenCommand, TokenPlaceArgs,
};
pub(crate) use connection::{ConnectionArgs, CredentialArgs, DEFAULT_SERVER, TokenSource};
pub(crate) use exec::ExecArgs;
pub(crate) use executor::{ExecutorArgs, ExecutorChoices, UpArgs};
pub(crate) use image::{
    ImageArgs, ImageBuildArgs, ImageCommand, ImageListArgs, ImagePullArgs, ImagePushArgs, ImageRmArgs, ImageStoreArgs,
    Placed, RegistryArgs, Target,
};
pub(crate) use job::{RunArgs, SubmitArgs};
pub(crate) use jobs::{CancelArgs, ListArgs, LogsArgs, StatusArgs, StreamChoice, WaitArgs};
pub(crate) use logging::{LogFormat, LogLevel, LoggingArgs};
pub(crate) use look::{CheckArgs, GraphArgs, GraphFormat, SchemaArgs};
pub(crate) use machine::{CleanArgs, DoctorArgs};
pub(crate) use server::{DatabaseArgs, DatabasePlace, ListeningArgs, QUEUE, QueueRules, ServerArgs};
pub(crate) use values::{Allowed, OutputForm};
pub(crate) use workflow::{
    ArtifactPlace, ArtifactsArgs, ArtifactsCommand, RerunArgs, RunsArgs, WorkflowArgs, WorkflowHereArgs,
};

/// Runs jobs: at once on this machine, or from a durable queue on many.
#[derive(Debug, Parser)]
#[command(
    name = "executr",
    version,
    max_term_width = 110,
    after_help = "Examples:
  executr run -- make test             run a job here, with no server
  executr run ci.yaml                  run a workflow here
  executr up                           a server and an executor in one process
  executr submit --wait -- ./report    submit a job and wait for its end
  executr list                         what there is

Exit codes are listed in docs/cli.md. Every command has examples: executr COMMAND --help"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Up(Box<UpArgs>),
    Server(Box<ServerArgs>),
    Executor(Box<ExecutorArgs>),
    Submit(Box<SubmitArgs>),
    List(ListArgs),
    Status(StatusArgs),
    Logs(LogsArgs),
    Exec(Box<ExecArgs>),
    Cancel(CancelArgs),
    Wait(WaitArgs),
    Check(CheckArgs),
    Graph(GraphArgs),
    Schema(SchemaArgs),
    Runs(Box<RunsArgs>),
    Rerun(Box<RerunArgs>),
    Artifacts(Box<ArtifactsArgs>),
    Stats(StatsArgs),
    Executors(ExecutorsArgs),
    Token(TokenArgs),
    Migrate(MigrateArgs),
    Image(ImageArgs),
    Doctor(DoctorArgs),
    Clean(CleanArgs),
    Completions(CompletionsArgs),
}

impl Arguments {
    /// Reads the command line. What is wrong with it is told, and ends the process, as clap does it.
    pub(crate) fn read(words: Vec<OsString>) -> Self {
        Self::try_read(words).unwrap_or_else(|error| error.exit())
    }

    /// The words after a job's program are the job's own, flags too; after a workflow's file they are ours.
    fn try_read(words: Vec<OsString>) -> Result<Self, clap::Error> {
        let first = Self::try_parse_from(&words);
        let Ok(Self { command: Command::Run(run), .. }) = &first else { return first };
        let at = words.len().saturating_sub(run.command.len());
        let after_dashes = at.checked_sub(1).is_some_and(|before| words[before] == "--");
        if after_dashes || !run.command.first().is_some_and(|word| is_workflow(word)) {
            return first;
        }
        let ours = Self::command().mut_subcommand("run", |run| {
            run.mut_arg("command", |command| {
                command.trailing_var_arg(false).num_args(1..).value_hint(ValueHint::AnyPath)
            })
        });
        let mut arguments = Self::from_arg_matches(&ours.try_get_matches_from(words)?)?;
        if let Command::Run(run) = &mut arguments.command {
            run.is_workflow = true;
        }
        Ok(arguments)
    }
}

/// Whether a word names a workflow's file rather than a program.
pub(crate) fn is_workflow(word: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|ending| word.len() > ending.len() && word.ends_with(ending))
}

#[cfg(test)]
mod tests {

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  executr "), "{}", command.get_name());
        }
    }

    #[test]
    fn a_jobs_own_flags_are_not_ours() {
        let Command::Run(run) = parse("executr run --timeout 5s make -j4 --output json").expect("a run").command else {
            panic!("not a run");
        };
        assert_eq!(run.command, ["make", "-j4", "--output", "json"]);
        let Command::Submit(submit) = parse("executr submit --wait ./program -- -r").expect("a job").command else {
            panic!("not a submission");
        };
        assert_eq!(submit.command, ["./program", "-r"]);
        assert!(submit.wait);
    }

    #[test]
    fn flags_after_a_workflows_file_are_ours() {
        let read = |line: &str| Arguments::try_read(line.split_whitespace().map(OsString::from).collect());
        let Command::Run(run) = read("executr run ci.yaml test --jobs 3 --env A=b lint").expect("a run").command else {
            panic!("not a run");
        };
        assert!(run.is_workflow);
        assert_eq!(
            (run.command, run.here.jobs, run.env.len()),
            (vec!["ci.yaml".into(), "test".into(), "lint".into()], Some(3), 1)
        );
        for line in ["executr run cat ci.yaml --jobs 3", "executr run -- ./tool.yaml --jobs 3"] {
            let Command::Run(run) = read(line).expect("a run").command else { panic!("not a run") };
            assert!(!run.is_workflow && run.here.jobs.is_none(), "{line}");
        }
    }

    #[test]
    fn the_originals_commands_are_understood() {
        for line in [
            "executr server --db-url postgres://a:b@h/d --host 127.0.0.1 --port 1 --cleanup-interval 1h --job-retention 48h \
             --heartbeat-timeout 15s --max-output-size 1048576 --log-level info --log-format text",
            "executr executor --name w --server-url http://h:8080 --max-jobs 2 --poll-interval 5s --heartbeat-interval 5s \
             --network-timeout 60s --cache-dir /c --work-dir /w --max-cache-size 400 --log-level debug",
            "executr submit --server-url http://h --binary-url https://h/b --type t --priority background --args in --args out \
             --env A=b --output json",
            "executr status 01890a5d-ac96-774b-bcce-b302099a8057 --output json",
            "executr cancel 01890a5d-ac96-774b-bcce-b302099a8057 --output table",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, told) in [
            ("executr status 17", "`executr list` shows them"),
            ("executr submit --env A -- true", "NAME=VALUE"),
            ("executr executor --server-url http://h", "--name"),
            ("executr submit --priority urgent -- true", "foreground, background or best_effort"),
            ("executr submit --timeout soon -- true", "300ms"),
            ("executr executor --name w --server-url http://h --queue a=0", "at least 1"),
            ("executr executor --name w --server-url http://h --allow everything", "directory"),
            ("executr server --log-format xml", "json, text"),
            ("executr run", "COMMAND"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
