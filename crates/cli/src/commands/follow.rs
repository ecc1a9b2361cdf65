//! A job's output, from the coordinator to our own streams: stdout on stdout, stderr on stderr, byte for byte.

use std::io::{self, Write};

use executr_api::output::{Record, Records, Stream};
use executr_api::{ApiError, JobStatus, OutputEvent, OutputStream};
use futures_util::StreamExt as _;

use crate::arguments::StreamChoice;

/// Why no more output was shown.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is no more; the job stands so.
    End(JobStatus),
    /// It could not be read any further.
    Api(ApiError),
    /// Our own stream can't be written: [`io::ErrorKind::BrokenPipe`] when nobody reads it any more.
    Write(io::Error),
}

/// Shows output until it ends.
pub(crate) async fn show(mut output: OutputStream, choice: StreamChoice) -> Stop {
    while let Some(event) = output.next().await {
        match event {
            Err(error) => return Stop::Api(error),
            Ok(OutputEvent::Attempt(attempt)) => {
                if attempt > 1 {
                    drop(writeln!(io::stderr(), "executr: attempt {attempt}"));
                }
            }
            Ok(OutputEvent::End(status)) => return Stop::End(status),
            Ok(OutputEvent::Chunk(chunk)) => {
                // On another thread, because a reader that takes its time must stop nothing but the reading of output.
                let written = tokio::task::spawn_blocking(move || write(&chunk.records, choice)).await;
                match written {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Stop::Write(error),
                    Err(error) => return Stop::Write(io::Error::other(error)),
                }
            }
        }
    }
    Stop::Api(ApiError::new(executr_api::ErrorCode::Unavailable, "the output broke off; ask again with `executr logs`"))
}

impl StreamChoice {
    fn includes(self, stream: Stream) -> bool {
        match self {
            Self::Stdout => stream == Stream::Stdout,
            Self::Stderr => stream == Stream::Stderr,
            Self::Both => true,
            Self::Neither => false,
        }
    }
}

fn write(records: &Records, choice: StreamChoice) -> io::Result<()> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    for record in records.iter() {
        match record {
            Record::Data { stream: Stream::Stderr, bytes } if choice.includes(Stream::Stderr) => {
                // What was said before has to be seen before.
                stdout.flush()?;
                stderr.write_all(&bytes)?;
            }
            Record::Data { stream: Stream::Stdout, bytes } if choice.includes(Stream::Stdout) => {
                stdout.write_all(&bytes)?;
            }
            Record::Data { .. } => {}
            Record::Gap(_) if choice == StreamChoice::Neither => {}
            Record::Gap(skipped) => {
                stdout.flush()?;
                writeln!(stderr, "executr: {skipped} bytes of output were not kept here")?;
            }
        }
    }
    stdout.flush()
}
