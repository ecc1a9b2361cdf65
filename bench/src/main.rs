//! `executr-bench MEASURE`: one subcommand per measure; the measures themselves are in the library.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program may print")]

use std::error::Error;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;

use executr_agent_protocol::driver::Cgroups;
use executr_bench::{bounds, keepers};

/// Bytes of output in one go.
const GIBIBYTE: u64 = 1 << 30;

/// Medians are of this many rounds.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let measure = args.next().unwrap_or_default();
    let count = args.next().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let done = match measure.as_str() {
        "bounds" => print_bounds(count),
        "keepers" => print_keepers(count),
        // The program is its own keeper.
        "keeper" => {
            // SAFETY: descriptor 0 is the socket the driver hands over; nothing else here uses it.
            let control = unsafe { OwnedFd::from_raw_fd(0) };
            executr_agent::keeper::run(control).map_err(Into::into)
        }
        _ => Err("usage: executr-bench bounds|keepers [COUNT]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("executr-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_bounds(count: u32) -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let mut spawns = Vec::new();
    let mut syncs = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let b1 = bounds::sync::measure(count.div_ceil(10), place.path())?;
        spawns.push(b1.spawn.as_secs_f64() * 1e6);
        syncs.push(b1.sync.as_secs_f64() * 1e6);
        rates.push(bounds::busy::measure(count, place.path())?.rate());
    }
    println!("B1  spawn and wait        {:>8.0} µs", median(&mut spawns));
    println!("B1  fdatasync             {:>8.0} µs", median(&mut syncs));
    println!("B2  children, 2 threads   {:>8.0} /s", median(&mut rates));
    Ok(())
}

fn print_keepers(count: u32) -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cases = [2, 8].into_iter().flat_map(|keepers| {
        [(keepers, Cgroups::WhereWritable, "with cgroups"), (keepers, Cgroups::Never, "without cgroups")]
    });
    let mut ratios: Vec<Vec<f64>> = cases.clone().map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for _ in 0..ROUNDS {
        for (case, (number, cgroups, _)) in cases.clone().enumerate() {
            // Side by side, so that a busy moment of the machine meets both.
            let b2 = bounds::busy::measure(count / 2, place.path())?.rate();
            let args = vec!["keeper".into()];
            let run = keepers::measure(count, number, program.clone(), args, cgroups, place.path());
            let tasks = runtime.block_on(run)?.rate();
            let b2 = (b2 + bounds::busy::measure(count / 2, place.path())?.rate()) / 2.0;
            bound.push(b2);
            ratios[case].push(tasks / b2);
        }
    }
    println!("B2                         {:>8.0} /s", median(&mut bound));
    for ((keepers, _, how), ratios) in cases.zip(&mut ratios) {
        println!("{keepers} keepers, {how:<15}  {:>8.3} of B2", median(ratios));
    }
    let args = || vec!["keeper".into()];
    let spawn = bounds::sync::measure(200, place.path())?.spawn;
    let end = runtime.block_on(keepers::measure_end(200, program.clone(), args()))?;
    println!("ending a sleep             {:>8} µs, {:.2} of B1's spawn", end.as_micros(), end.div_duration_f64(spawn));
    let output = runtime.block_on(keepers::measure_output(GIBIBYTE, program, args()))?;
    println!("1 GiB of output            {:>8.0} MB/s", output / 1e6);
    Ok(())
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
