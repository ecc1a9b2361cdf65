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

/// Puts the tree that comes in pieces where `what` says.
pub(crate) fn put(stopped: &AtomicBool, what: &PutTree, mut pieces: Pieces, notes: &Notes) -> Result<(), Failure> {
    let owner = match what.user.as_str() {
        "" => None,
        user => {
            let Identity { uid, gid, .. } = Identity::find(user).map_err(|error| Failure::from(&error))?;
            Some(Owner { uid, gid })
        }
    };
    let target = Path::new(OsStr::from_bytes(&what.directory));
    let below = Path::new(OsStr::from_bytes(&what.below));
    let existing = if what.replace { Existing::Replace } else { Existing::Refuse };
    let mut place = || {
        let mut from = ChunkReader::new(|| pieces.next());
        let manifest = receive_manifest(&mut from)?;
        let placed = place_stream(stopped, &manifest, &mut from, PlaceAt { target, below, existing, owner })?;
        from.finish().map_err(StreamError::Cut)?;
        Ok((manifest, placed))
    };
    let (manifest, placed) = place().map_err(|error| stream_failure(&error))?;
    if what.note && what.below.is_empty() && !manifest.is_single() {
        notes.set(target, Baseline::of_placed(&manifest, &placed));
    }
    Ok(())
}
