//! What changed, as an archive into a stream.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use executr_agent_protocol::v1::{self, Archive, ArchiveKind, Failure};
use executr_spec::workflow;
use executr_tree::stream::ChunkWriter;
use executr_tree::{Change, ModifiedError, News, Packed, pack_modified};

use super::failure;

/// Sends an archive of what changed in pieces through `send`.
pub(crate) fn pack(
    what: &Archive,
    changes: Vec<v1::Change>,
    send: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> Result<Packed, Failure> {
    let kind = match what.kind() {
        ArchiveKind::TarS2 => workflow::ArchiveKind::TarS2,
        ArchiveKind::TarZst | ArchiveKind::Unspecified => workflow::ArchiveKind::TarZst,
    };
    let directory = Path::new(OsStr::from_bytes(&what.directory));
    let changes: Vec<Change> = changes.into_iter().map(understood).collect();
    let mut to = ChunkWriter::new(send);
    let packed = pack_modified(directory, &changes, kind, &mut to).map_err(|error| told(&error))?;
    to.finish().map_err(|error| told(&ModifiedError::Write(error)))?;
    Ok(packed)
}

fn told(error: &ModifiedError) -> Failure {
    match error {
        ModifiedError::File { source, .. } | ModifiedError::Write(source) | ModifiedError::Read(source) => {
            failure(error, Some(source))
        }
        ModifiedError::Odd { .. } => failure(error, None),
    }
}

/// What is neither deleted nor there is found out when it is packed.
fn understood(change: v1::Change) -> Change {
    let news = match change.news() {
        v1::News::Deleted => News::Deleted,
        v1::News::Added => News::Added,
        v1::News::Mode => News::Mode,
        v1::News::Modified | v1::News::Unspecified => News::Modified,
    };
    Change { path: OsString::from_vec(change.path.into()).into(), news, is_directory: change.directory }
}
