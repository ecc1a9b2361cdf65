//! A tree out of a stream into a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use executr_agent_protocol::v1::{Failure, PutTree};
use executr_tree::stream::{ChunkReader, StreamError, place_stream, receive_manifest};
use executr_tree::{Baseline, Existing, Owner, PlaceAt};

use super::{Notes, Pieces, stream_failure};
use crate::identity::Identity;

/// Where a tree goes.
pub(super) struct Whither<'a> {
    pub(super) to: PlaceAt<'a>,
    /// The directory is noted as it is then.
    pub(super) is_noted: bool,
}

/// Where `what` says.
pub(super) fn whither(what: &PutTree) -> Result<Whither<'_>, Failure> {
    let owner = match what.user.as_str() {
        "" => None,
        user => {
            let Identity { uid, gid, .. } = Identity::find(user).map_err(|error| Failure::from(&error))?;
            Some(Owner { uid, gid })
        }
    };
    let to = PlaceAt {
        target: Path::new(OsStr::from_bytes(&what.directory)),
        below: Path::new(OsStr::from_bytes(&what.below)),
        existing: if what.replace { Existing::Replace } else { Existing::Refuse },
        owner,
    };
    Ok(Whither { to, is_noted: what.note && what.below.is_empty() })
}

/// Puts the tree that comes in pieces where `what` says.
pub(crate) fn put(stopped: &AtomicBool, what: &PutTree, mut pieces: Pieces, notes: &Notes) -> Result<(), Failure> {
    let Whither { to, is_noted } = whither(what)?;
    let mut place = || {
        let mut from = ChunkReader::new(|| pieces.next());
        let manifest = receive_manifest(&mut from)?;
        let placed = place_stream(stopped, &manifest, &mut from, to)?;
        from.finish().map_err(StreamError::Cut)?;
        Ok((manifest, placed))
    };
    let (manifest, placed) = place().map_err(|error| stream_failure(&error))?;
    if is_noted && !manifest.is_single() {
        notes.set(to.target, Baseline::of_placed(&manifest, &placed));
    }
    Ok(())
}
