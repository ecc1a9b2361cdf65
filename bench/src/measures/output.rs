//! 1 GiB of output through executor and server to a reader that compares every byte.

use std::io;
use std::time::{Duration, Instant};

use executr_api::output::Record;
use executr_api::{Client as _, JobStatus, OutputEvent, OutputFollow};
use futures_util::StreamExt as _;

use super::Settings;
use crate::http;
use crate::program::{Executor, Server, within};
use crate::report::{Row, Target};

const SIZE: u64 = 1 << 30;
const MIB: f64 = 1024.0 * 1024.0;

/// What `yes 0123456789abcde` prints again and again.
const LINE: &[u8] = b"0123456789abcde\n";

/// Memory of executor and server above idle while it flows, in MiB, beside the limit.
///
/// # Errors
/// When the program fails or a byte is wrong.
pub fn measure(_settings: &Settings) -> io::Result<Vec<Row>> {
    let server = Server::start(None, &[])?;
    let executor = Executor::start(&server.url, 1, &["--output-cap", "2Gi"])?;
    let (idle, took) = http::runtime()?.block_on(async {
        let client = http::client(&server.url)?;
        http::wait_for_executors(&client, 1).await?;
        // One job first, so that idle means ready.
        let warm = http::call(client.submit(http::argv(&["true"]))).await?;
        http::call(client.wait(warm.id, Duration::from_secs(10))).await?;
        let idle = [server.process.memory()?.now, executor.process.memory()?.now];
        let script = format!("yes 0123456789abcde | head -c {SIZE}");
        let start = Instant::now();
        let job = http::call(client.submit(http::argv(&["sh", "-c", &script]))).await?;
        let follow = OutputFollow { attempt: None, offset: 0, follow: true };
        let mut events = http::call(client.output(job.id, follow)).await?;
        let mut position = 0_u64;
        while let Some(event) = events.next().await {
            match event.map_err(io::Error::other)? {
                OutputEvent::Chunk(chunk) => {
                    for record in chunk.records.iter() {
                        let Record::Data { bytes, .. } = record else {
                            return Err(io::Error::other(format!("a gap at {position}")));
                        };
                        compare(&bytes, position)?;
                        position += bytes.len() as u64;
                    }
                }
                OutputEvent::End(JobStatus::Completed) => break,
                OutputEvent::End(status) => return Err(io::Error::other(format!("the job is {status}"))),
                OutputEvent::Attempt(_) => {}
            }
        }
        if position == SIZE {
            Ok((idle, start.elapsed()))
        } else {
            Err(io::Error::other(format!("{position} bytes arrived, {SIZE} were written")))
        }
    })?;
    let peak = within(Duration::from_secs(1), || {
        Some([server.process.memory().ok()?.peak, executor.process.memory().ok()?.peak])
    })?;
    let row = |name: &str, which: usize| Row {
        measure: format!("1 GiB of output ({:.0} MiB/s), {name} above idle", 1024.0 / took.as_secs_f64()),
        ours: peak[which].saturating_sub(idle[which]) as f64 / MIB,
        against: "limit".to_owned(),
        other: 64.0,
        unit: "MiB",
        target: Target::AtMost(1.0),
    };
    Ok(vec![row("server", 0), row("executor", 1)])
}

fn compare(bytes: &[u8], position: u64) -> io::Result<()> {
    // The line's length is 16, so the cast can't cut anything.
    let phase = (position % LINE.len() as u64) as usize;
    let expected = LINE.iter().cycle().skip(phase);
    match bytes.iter().zip(expected).position(|(got, wanted)| got != wanted) {
        None => Ok(()),
        Some(index) => Err(io::Error::other(format!("a wrong byte at {}", position + index as u64))),
    }
}
