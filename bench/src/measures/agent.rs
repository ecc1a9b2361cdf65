//! Steps and output through an agent, beside the same through a keeper.

use std::io;
use std::time::{Duration, Instant};

use executr_agent_protocol::driver::{Agent, Cgroups, Event, Exit, Keeper, KeeperOptions, StartTask};
use executr_tests::program;

use super::Settings;
use super::changes::Serving;
use crate::report::{Row, Target, median};

/// Steps whose mean is one figure.
const STEPS: u32 = 200;
const GIBIBYTE: u64 = 1 << 30;

/// A step of `/bin/true`, and 1 GiB of output, through an agent and through a keeper, in turns.
///
/// # Errors
/// When one can't be started or fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let place = tempfile::tempdir()?;
    let serving = Serving::start(place.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut through, mut local) = ((vec![], vec![]), (vec![], vec![]));
    runtime.block_on(async {
        let agent = serving.agent().await?;
        // The same program, so that nothing else differs.
        let options =
            KeeperOptions { program: program::contained_agent(), args: vec!["keeper".into()], cgroups: Cgroups::Never };
        let mut keeper = Keeper::spawn(options).await.map_err(io::Error::other)?;
        let cat = format!("exec head -c {GIBIBYTE} /dev/zero");
        for _ in 0..settings.repeats {
            local.0.push(mean(async || by_keeper(&mut keeper, "exec /bin/true").await).await?);
            through.0.push(mean(async || by_agent(&agent, "exec /bin/true").await).await?);
            local.1.push(rate(by_keeper(&mut keeper, &cat).await?));
            through.1.push(rate(by_agent(&agent, &cat).await?));
        }
        keeper.close().await.map(drop).map_err(io::Error::other)
    })?;
    let row = |measure: &str, ours: &[f64], other: &[f64], unit: &'static str| Row {
        measure: measure.to_owned(),
        ours: median(ours),
        against: "the same through a keeper".to_owned(),
        other: median(other),
        unit,
        target: Target::Shown,
    };
    Ok(vec![
        row("a step through an agent", &through.0, &local.0, "ms"),
        row("1 GiB of output through an agent", &through.1, &local.1, "MB/s"),
    ])
}

/// Milliseconds a step takes.
async fn mean(mut step: impl AsyncFnMut() -> io::Result<Duration>) -> io::Result<f64> {
    let mut all = Duration::ZERO;
    for _ in 0..STEPS {
        all += step().await?;
    }
    Ok(all.as_secs_f64() * 1e3 / f64::from(STEPS))
}

fn rate(took: Duration) -> f64 {
    GIBIBYTE as f64 / 1e6 / took.as_secs_f64()
}

fn sh(script: &str) -> StartTask {
    StartTask {
        argv: ["/bin/sh", "-c", script].iter().map(|word| word.as_bytes().to_vec().into()).collect(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        directory: "/".into(),
        ..StartTask::default()
    }
}

async fn by_agent(agent: &Agent, script: &str) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut task = agent.start(sh(script)).await.map_err(io::Error::other)?;
    while let Some(event) = task.next().await.map_err(io::Error::other)? {
        check(&event)?;
    }
    Ok(begun.elapsed())
}

async fn by_keeper(keeper: &mut Keeper, script: &str) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut task = keeper.start(sh(script)).await.map_err(io::Error::other)?;
    while let Some(event) = task.next().await.map_err(io::Error::other)? {
        check(&event)?;
    }
    Ok(begun.elapsed())
}

fn check(event: &Event) -> io::Result<()> {
    match event {
        Event::Ended(ended) if ended.exit != Exit::Code(0) => Err(io::Error::other(format!("{:?}", ended.exit))),
        Event::StartFailed(failed) => Err(io::Error::other(failed.failure.message.clone())),
        _ => Ok(()),
    }
}
