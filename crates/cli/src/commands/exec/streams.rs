//! Standard input and output of this process. Each has a thread of its own: a read may wait for a person, and a write for
//! whoever reads, while the line needs an answer.

use std::io::{self, Read as _, Write as _};
use std::thread;

use bytes::Bytes;
use executr_api::console::MAX_CONSOLE_DATA;
use executr_api::output::Stream;
use tokio::sync::mpsc;

/// What comes in, a piece at a time; `None` at its end.
pub(super) type Input = mpsc::Receiver<Bytes>;

/// Begins to read. The thread goes with the process.
pub(super) fn input() -> io::Result<Input> {
    let (sender, receiver) = mpsc::channel(1);
    let reading = move || {
        let mut stdin = io::stdin().lock();
        let mut room = vec![0; MAX_CONSOLE_DATA];
        loop {
            match stdin.read(&mut room) {
                // A terminal that is gone reads as an error.
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&room[..read])).is_err() {
                        return;
                    }
                }
            }
        }
    };
    thread::Builder::new().name("stdin".to_owned()).spawn(reading)?;
    Ok(receiver)
}

/// What goes out.
#[derive(Debug)]
pub(super) struct Output {
    to_write: mpsc::UnboundedSender<(Stream, Bytes)>,
    written: mpsc::UnboundedReceiver<io::Result<usize>>,
}

impl Output {
    /// Begins to write what it is given.
    pub(super) fn start() -> io::Result<Self> {
        // How much waits here is bounded by the line's window.
        let (to_write, mut given) = mpsc::unbounded_channel::<(Stream, Bytes)>();
        let (tell, written) = mpsc::unbounded_channel();
        let writing = move || {
            while let Some((stream, bytes)) = given.blocking_recv() {
                let done = write(stream, &bytes);
                let failed = done.is_err();
                if tell.send(done.map(|()| bytes.len())).is_err() || failed {
                    return;
                }
            }
        };
        thread::Builder::new().name("stdout".to_owned()).spawn(writing)?;
        Ok(Self { to_write, written })
    }

    /// Has bytes written behind those before.
    pub(super) fn write(&self, stream: Stream, bytes: Bytes) {
        // An error was told, or will be.
        let _ = self.to_write.send((stream, bytes));
    }

    /// How many were written next; `None` when no more will be.
    pub(super) async fn written(&mut self) -> Option<io::Result<usize>> {
        self.written.recv().await
    }

    /// Waits until everything is written.
    pub(super) async fn finish(self) -> io::Result<()> {
        let Self { to_write, mut written } = self;
        drop(to_write);
        while let Some(done) = written.recv().await {
            done?;
        }
        Ok(())
    }
}

fn write(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    // Through no buffer of lines: a prompt has no end of line.
    match stream {
        Stream::Stderr => {
            let mut stderr = io::stderr().lock();
            stderr.write_all(bytes)?;
            stderr.flush()
        }
        _ => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
    }
}
