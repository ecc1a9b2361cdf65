//! Going on with output where a reader's connection broke.

use executr_api::{ApiError, Client, OutputEvent, OutputFollow, OutputStream};
use executr_coordinator::TenantClient;
use executr_spec::JobId;
use futures_util::{StreamExt, stream};

/// How far a reader got: the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    attempt: u32,
    offset: u64,
}

impl Position {
    /// Reads `ATTEMPT:OFFSET`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (attempt, offset) = text.split_once(':')?;
        Some(Self { attempt: attempt.parse().ok()?, offset: offset.parse().ok()? })
    }
}

/// The output from `position` on. Where the reader had asked for no attempt in particular, those that came after the
/// one it was in follow, also when there were several meanwhile.
pub(crate) async fn output(
    client: TenantClient,
    job: JobId,
    asked: OutputFollow,
    position: Position,
) -> Result<OutputStream, ApiError> {
    let Position { attempt, offset } = position;
    let first = OutputFollow { attempt: Some(attempt), offset, follow: asked.follow };
    let current = client.output(job, first).await?;
    if asked.attempt.is_some() || !asked.follow {
        return Ok(current);
    }
    let resumed = Resumed { client, job, attempt, current, skipping: false, last: false };
    Ok(stream::unfold(resumed, |mut resumed| async move { Some((resumed.next().await?, resumed)) }).boxed())
}

struct Resumed {
    client: TenantClient,
    job: JobId,
    /// The attempt whose output is sent.
    attempt: u32,
    current: OutputStream,
    /// Whether what comes was sent before.
    skipping: bool,
    /// Whether `current` goes on to the job's end by itself.
    last: bool,
}

impl Resumed {
    async fn next(&mut self) -> Option<Result<OutputEvent, ApiError>> {
        loop {
            match self.current.next().await? {
                Ok(OutputEvent::Attempt(attempt)) if self.skipping => {
                    if attempt > self.attempt {
                        self.skipping = false;
                        return Some(Ok(OutputEvent::Attempt(attempt)));
                    }
                }
                Ok(OutputEvent::Chunk(_)) if self.skipping => {}
                Ok(OutputEvent::End(status)) if !self.last => match self.go_on().await {
                    Ok(true) => {}
                    Ok(false) => return Some(Ok(OutputEvent::End(status))),
                    Err(error) => return Some(Err(error)),
                },
                other => return Some(other),
            }
        }
    }

    /// Opens what comes after the attempt that ended. False: nothing does.
    async fn go_on(&mut self) -> Result<bool, ApiError> {
        let job = self.client.job(self.job).await?;
        let mut follow = OutputFollow { follow: true, ..OutputFollow::default() };
        if self.attempt < job.attempt {
            self.attempt += 1;
            follow.attempt = Some(self.attempt);
        } else if job.state.is_final() {
            return Ok(false);
        } else {
            // The next attempt has not begun: what is there is known, what follows is not.
            self.skipping = true;
            self.last = true;
        }
        self.current = self.client.output(self.job, follow).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_events_name_them() {
        assert_eq!(Position::parse("2:17"), Some(Position { attempt: 2, offset: 17 }));
        for text in ["", "2", "2:", ":1", "a:b", "2:17:3", "-1:0"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
