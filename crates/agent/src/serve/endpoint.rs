//! Where the agent listens, and who may call.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::Caller;
use super::errno;
use super::tasks::Tasks;
use super::token::Token;
use crate::keeper::Fault;
use crate::processes;
use crate::relay;

/// How long no caller is let in after one couldn't be: for want of descriptors, as a rule.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where callers come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A Unix socket, made at this path; whoever may enter its directory may call. As the first process of a container the
    /// agent answers only calls from outside of it.
    Socket(PathBuf),
    /// TCP. What is said isn't encrypted.
    Tcp {
        /// Bound already.
        listener: TcpListener,
        /// What callers have to know.
        token: Token,
    },
    /// One caller, at the other end of standard input and output.
    Stdio,
}

/// Lets callers in until none has been there for `patience`, and nothing ran; or, once it is `closed`, until those that are
/// there have gone.
pub(super) async fn serve(
    endpoint: Endpoint,
    caller: &Caller,
    tasks: &Tasks,
    patience: Duration,
    closed: watch::Receiver<bool>,
) -> Result<(), Fault> {
    let unusable = |error| Fault::system("the socket for callers can't be made")(errno(&error));
    let lobby = Lobby { caller, tasks, patience, closed };
    match endpoint {
        Endpoint::Socket(path) => {
            let listener = listen(&path).and_then(tokio::net::UnixListener::from_std).map_err(unusable)?;
            lobby.serve(None, async || listener.accept().await.map(|(stream, _)| stream), is_from_outside).await;
        }
        Endpoint::Tcp { listener, token } => {
            listener.set_nonblocking(true).map_err(unusable)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(unusable)?;
            let accept = async || {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            };
            lobby.serve(Some(Arc::new(token)), accept, |_| true).await;
        }
        Endpoint::Stdio => {
            let stream = standard_stream()
                .map_err(|error| Fault::system("standard input and output can't be used")(errno(&error)))?;
            caller.serve(stream, None).await;
        }
    }
    Ok(())
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    // Its name is there when calls are answered, not before.
    let unready = socket.with_extension("new");
    let listener = UnixListener::bind(&unready)?;
    // Whoever may enter its directory may call: that is the driver's user, who needn't be the one in here.
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o666))?;
    std::fs::rename(&unready, socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where callers come in.
struct Lobby<'agent> {
    caller: &'agent Caller,
    tasks: &'agent Tasks,
    patience: Duration,
    closed: watch::Receiver<bool>,
}

impl Lobby<'_> {
    async fn serve<S>(
        mut self,
        token: Option<Arc<Token>>,
        accept: impl AsyncFn() -> std::io::Result<S>,
        admits: impl Fn(&S) -> bool,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let open = Arc::clone(self.caller.open());
        let mut pause = FIRST_PAUSE;
        let mut alone_since = Instant::now();
        loop {
            let is_closed = *self.closed.borrow_and_update();
            let is_alone = open.is_none() && self.tasks.is_none();
            if is_alone && is_closed {
                return;
            }
            if !is_alone {
                alone_since = Instant::now();
            }
            tokio::select! {
                called = accept(), if !is_closed => match called {
                    Ok(stream) if admits(&stream) => {
                        pause = FIRST_PAUSE;
                        tokio::spawn(self.caller.serve(stream, token.clone()));
                    }
                    Ok(_) => {}
                    // A caller who has gone again, or too many open files: asked again at once it would be the same.
                    Err(_) => {
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                },
                () = sleep_until(alone_since + self.patience), if is_alone => return,
                () = open.changed.notified() => alone_since = Instant::now(),
                () = self.tasks.changed().notified() => alone_since = Instant::now(),
                // It can't be said a second time.
                _ = self.closed.changed() => {}
            }
        }
    }
}

/// Whether the caller isn't one of the processes that this one is the first of: none that can't be seen from here, nor one
/// that was put in from outside, as an engine's `exec` does. Where it is the first of none, nothing tells them apart.
fn is_from_outside(caller: &tokio::net::UnixStream) -> bool {
    if std::process::id() != 1 {
        return true;
    }
    match caller.peer_cred().map(|peer| peer.pid()) {
        Ok(None | Some(0)) => true,
        Ok(Some(pid)) => processes::parent(pid.unsigned_abs()) == Some(0),
        Err(_) => false,
    }
}

/// Standard input and output as one stream.
fn standard_stream() -> std::io::Result<tokio::net::UnixStream> {
    let stream = if relay::has_socket() {
        UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?)
    } else {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        // Pipes may be others', too, for whom they can't be made not to wait.
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            // When it can't go on it hangs up, which is seen here.
            let _ = relay::pass_on(theirs.as_fd());
        })?;
        ours
    };
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
