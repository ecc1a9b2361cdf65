//! One session of the client: from its start to the mark that says where the bytes begin that were asked for.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitStatus;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::Instant;

use super::client::Client;
use super::diagnosis;
use super::error::{Phase, SshError};
use super::preamble::{self, Found, Mark};
use super::target::Target;

/// How long a host may take until it answers: some ask a directory service first, or wake up a disk.
const ANSWER: Duration = Duration::from_secs(60);

/// How long a session may go on behind its mark until it has said everything.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Of what is written to standard error, how much is kept.
const MOST_SAID: usize = 16 * 1024;

/// And how much is noted in the log.
const MOST_LOGGED: usize = 1 << 20;

/// Bytes a pipe to the client holds, so that it and this process take turns less often.
const PIPE: usize = 1 << 20;

/// The exit code by which the client says that the fault was its own.
const OWN_FAULT: i32 = 255;

/// A client that runs. Dropped, it is ended.
pub(super) struct Session {
    target: Target,
    child: Child,
    /// `None` once nothing more is to be written.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    heard: BytesMut,
    said: Vec<u8>,
}

/// What [`Session::found`] came to.
enum Sought {
    Mark(Mark),
    /// There won't be one.
    Nothing,
    /// Nothing happens any more.
    Silence,
}

impl Session {
    /// Starts the client.
    pub(super) fn start(client: &Client, control: &Path, target: &Target, command: &str) -> Result<Self, SshError> {
        let failed = |error: io::Error| {
            let (problem, remedy) = match error.kind() {
                io::ErrorKind::NotFound => (
                    format!("there is no program `{}` on this machine", client.program.display()),
                    "install OpenSSH's client (Debian: apt-get install openssh-client)",
                ),
                _ => (format!("`{}` can't be started: {error}", client.program.display()), "try again"),
            };
            SshError::new(target, Phase::Client, problem, remedy)
        };
        let mut child = client.session(control, target, command).spawn().map_err(failed)?;
        let taken = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((stdin, stdout), stderr) = taken.expect("all three were asked for");
        for pipe in [stdin.as_fd(), stdout.as_fd()] {
            // As it was is slower, no more.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
        }
        let (heard, said) = (BytesMut::new(), Vec::new());
        Ok(Self { target: target.clone(), child, stdin: Some(stdin), stdout, stderr, heard, said })
    }

    /// Waits for the mark. Without one it is for `phase` that nobody answers, if it isn't the client's own fault.
    pub(super) async fn mark(&mut self, phase: Phase) -> Result<Mark, SshError> {
        self.mark_after(Bytes::new(), phase).await
    }

    /// Writes `input`, and nothing behind it where it isn't empty, and waits for the mark.
    pub(super) async fn mark_after(&mut self, input: Bytes, phase: Phase) -> Result<Mark, SshError> {
        match self.found(input).await {
            Ok(Sought::Mark(mark)) => {
                self.hear_out();
                if diagnosis::has_changed_key(&self.said()) {
                    return Err(diagnosis::changed_key(&self.target, &self.said()));
                }
                Ok(mark)
            }
            Ok(Sought::Nothing) => Err(self.ended(phase).await),
            Ok(Sought::Silence) => Err(self.silent(phase)),
            Err(error) => {
                Err(SshError::new(&self.target, phase, format!("the client can't be read: {error}"), "try again"))
            }
        }
    }

    async fn found(&mut self, mut input: Bytes) -> io::Result<Sought> {
        let mut erring = true;
        let mut deadline = Instant::now() + ANSWER;
        let closes = !input.is_empty();
        loop {
            match preamble::find(&self.heard) {
                Found::Mark(mark, end) => {
                    self.heard.advance(end);
                    return Ok(Sought::Mark(mark));
                }
                Found::Noise => return Ok(Sought::Nothing),
                Found::Nothing => {}
            }
            if closes && input.is_empty() {
                self.stdin = None;
            }
            let mut text = [0; 4096];
            let write = async {
                match &mut self.stdin {
                    Some(stdin) => stdin.write(&input).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.stdout.read_buf(&mut self.heard) => if read? == 0 {
                    return Ok(Sought::Nothing);
                },
                read = self.stderr.read(&mut text), if erring => match read? {
                    0 => erring = false,
                    length => {
                        self.said.extend_from_slice(&text[..length]);
                        self.said.drain(..self.said.len().saturating_sub(MOST_SAID));
                    }
                },
                written = write, if !input.is_empty() => match written {
                    Ok(length) => {
                        input.advance(length);
                        deadline = Instant::now() + ANSWER;
                    }
                    // Nobody takes it; why, will be heard.
                    Err(_) => input.clear(),
                },
                () = tokio::time::sleep_until(deadline) => return Ok(Sought::Silence),
            }
        }
    }

    /// Takes what has been said by now.
    fn hear_out(&mut self) {
        let mut text = [0; 4096];
        while let Ok(length @ 1..) = rustix::io::read(self.stderr.as_fd(), &mut text) {
            self.said.extend_from_slice(&text[..length]);
        }
    }

    /// All that was written to standard error, once nothing more comes: it isn't in order with the mark.
    pub(super) async fn last_words(&mut self) -> String {
        let hearing = async {
            let mut text = [0; 4096];
            while let Ok(length @ 1..) = self.stderr.read(&mut text).await {
                self.said.extend_from_slice(&text[..length]);
                self.said.drain(..self.said.len().saturating_sub(MOST_SAID));
            }
        };
        // Its end may be kept open by somebody else.
        drop(tokio::time::timeout(LAST_WORDS, hearing).await);
        diagnosis::last_words(&self.said())
    }

    /// All that was written to standard error so far.
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Why it ended without a mark.
    async fn ended(&mut self, phase: Phase) -> SshError {
        // One that goes on after all this noise is of no use.
        if preamble::find(&self.heard) == Found::Noise {
            drop(self.child.start_kill());
        }
        let status = self.child.wait().await;
        self.hear_out();
        let said = self.said();
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        if code == Some(OWN_FAULT) {
            return diagnosis::of_client(&self.target, &said);
        }
        let noise = preamble::noise(&self.heard);
        let printed = if noise.is_empty() { String::new() } else { format!("; it printed: {noise}") };
        let how = code.map_or_else(|| "was killed".to_owned(), |code| format!("ended with exit code {code}"));
        let said = diagnosis::last_words(&said);
        SshError::new(
            &self.target,
            phase,
            format!("its shell {how} without an answer: {said}{printed}"),
            format!("does `{} exec /bin/sh -c true` work?", self.target.command()),
        )
    }

    fn silent(&mut self, phase: Phase) -> SshError {
        self.hear_out();
        let noise = preamble::noise(&self.heard);
        let (phase, printed) = match (noise.is_empty(), self.said.is_empty()) {
            (true, true) => (Phase::Connect, String::new()),
            (true, false) => (phase, format!(": {}", diagnosis::last_words(&self.said()))),
            (false, _) => (phase, format!("; it printed: {noise}")),
        };
        SshError::new(
            &self.target,
            phase,
            format!("no answer within {} s{printed}", ANSWER.as_secs()),
            format!("does `{} true` end by itself? a shell's start-up file may wait for input", self.target.command()),
        )
    }

    /// The stream behind the mark.
    pub(super) fn into_stream(self) -> SshStream {
        let Self { target, child, stdin, stdout, stderr, heard, .. } = self;
        tokio::spawn(log(target, stderr));
        SshStream { _child: child, stdin, stdout, early: heard.freeze() }
    }
}

/// Notes what the client says from then on, and takes the rest: a pipe that is full would stop it.
async fn log(target: Target, mut stderr: ChildStderr) {
    let mut text = [0; 4096];
    let mut noted = 0;
    while let Ok(length @ 1..) = stderr.read(&mut text).await {
        noted += length;
        if noted <= MOST_LOGGED {
            tracing::debug!(host = %target, "ssh says: {}", String::from_utf8_lossy(&text[..length]).trim_end());
        }
    }
}

/// A session's bytes in both directions. Dropped, the client is ended.
pub(super) struct SshStream {
    _child: Child,
    /// `None` once it was closed.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// What came together with the mark.
    early: Bytes,
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let length = self.early.len().min(into.remaining());
            into.put_slice(&self.early.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stdout).poll_read(cx, into)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
