//! Cancelling a running `sleep` through the server, until its process is gone.

use std::io;
use std::time::{Duration, Instant};

use executr_api::{CancelWait, Client as _, JobStatus};

use super::Settings;
use crate::bounds;
use crate::http;
use crate::program::{Executor, Server};
use crate::report::{Row, Target, median};

const TIMES_PER_REPEAT: usize = 10;

/// Milliseconds from the request to the answer that the tree is gone, beside one spawn of bound B1.
///
/// # Errors
/// When the program fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let server = Server::start(None, &[])?;
    let _executor = Executor::start(&server.url, 2, &[])?;
    let (mut ours, mut bound) = (vec![], vec![]);
    http::runtime()?.block_on(async {
        let client = http::client(&server.url)?;
        for _ in 0..settings.repeats {
            let place = tempfile::tempdir()?;
            bound.push(bounds::sync::measure(500, place.path())?.spawn.as_secs_f64() * 1e3);
            for _ in 0..TIMES_PER_REPEAT {
                let job = http::call(client.submit(http::argv(&["sleep", "1000"]))).await?;
                http::wait_for_status(&client, job.id, JobStatus::Running).await?;
                let start = Instant::now();
                let ended = http::call(client.cancel(job.id, CancelWait::AtMost(Duration::from_secs(10)))).await?;
                ours.push(start.elapsed().as_secs_f64() * 1e3);
                if ended.status != JobStatus::Cancelled {
                    return Err(io::Error::other(format!("the job is {} after its cancellation", ended.state)));
                }
            }
        }
        Ok(())
    })?;
    Ok(vec![Row {
        measure: "cancel of a running sleep".to_owned(),
        ours: median(&ours),
        against: "B1, one spawn".to_owned(),
        other: median(&bound),
        unit: "ms",
        target: Target::AtMost(5.0),
    }])
}
