//! `executr-bench`: runs the measures and prints their table.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program may print")]

use std::error::Error;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use executr_bench::measures::{self, Settings};
use executr_bench::report;

const USAGE: &str = "usage: executr-bench [--repeats N] [--hyperqueue CLONE] [--graphile-worker FOLDER] [MEASURE…]

Runs all measures, or those named, and prints one table of ratios, each of values taken in this run.

  --repeats N               how often each is repeated; the median counts (5)
  --hyperqueue CLONE        a clone of HyperQueue with a release build
  --graphile-worker FOLDER  where `npm install graphile-worker` was run";

fn main() -> ExitCode {
    // The keepers' measures start this program again as their keeper.
    if std::env::args().nth(1).as_deref() == Some("keeper") {
        // SAFETY: descriptor 0 is the socket the driver hands over; nothing else here uses it.
        let control = unsafe { OwnedFd::from_raw_fd(0) };
        return match executr_agent::keeper::run(control) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("executr-bench: {error}");
    ExitCode::FAILURE
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut settings = Settings { repeats: 5, hyperqueue: None, graphile_worker: None };
    let mut chosen = vec![];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--repeats" => settings.repeats = value()?.parse()?,
            "--hyperqueue" => settings.hyperqueue = Some(PathBuf::from(value()?)),
            "--graphile-worker" => settings.graphile_worker = Some(PathBuf::from(value()?)),
            "--help" | "-h" => {
                println!("{USAGE}\n\nmeasures: {}", measures::ALL.map(|(name, _)| name).join(", "));
                return Ok(());
            }
            name if measures::ALL.iter().any(|(known, _)| *known == name) => chosen.push(arg),
            _ => return Err(format!("`{arg}` is not known\n{USAGE}").into()),
        }
    }
    let mut rows = vec![];
    for (name, measure) in measures::ALL {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            eprintln!("measuring {name}");
            match measure(&settings) {
                Ok(new) => {
                    // Shown as it comes too: a run of everything is long.
                    eprint!("{}", report::table(&new));
                    rows.extend(new);
                }
                // The others are worth having all the same.
                Err(error) => eprintln!("{name} failed: {error}"),
            }
        }
    }
    print!("{}", report::table(&rows));
    Ok(())
}
