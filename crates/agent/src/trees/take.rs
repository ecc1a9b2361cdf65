//! What stands somewhere, into a stream.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use executr_agent_protocol::v1::{Failure, TakeTreeRequest};
use executr_tree::stream::{ChunkWriter, StreamError, Taking};

use super::stream_failure;

/// Sends what stands there in pieces through `send`; whether there is anything.
pub(crate) fn take(
    stopped: &AtomicBool,
    what: &TakeTreeRequest,
    send: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> Result<bool, Failure> {
    let directory = Path::new(OsStr::from_bytes(&what.directory));
    let path = Path::new(OsStr::from_bytes(&what.path));
    let take = || {
        let Some(taking) = Taking::find(directory, path, what.named)? else { return Ok(false) };
        let mut to = ChunkWriter::new(send);
        taking.send(stopped, &mut to)?;
        to.finish().map_err(StreamError::Cut)?;
        Ok(true)
    };
    take().map_err(|error| stream_failure(&error))
}
