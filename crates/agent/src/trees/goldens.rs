//! Golden trees: brought up to date by a caller, copied by any number of them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use executr_agent_protocol::v1::update_golden_response::Message as Golden;
use executr_agent_protocol::v1::{CopyGoldenRequest, Failure, UpdateGolden};
use executr_tree::Baseline;
use executr_tree::golden::{self, GoldenError, apply_delta};
use executr_tree::stream::{ChunkReader, StreamError, Wanted, receive_manifest};

use super::put::{Whither, whither};
use super::{Notes, Pieces, failure, stream_failure};

/// Those in use: they are this agent's for as long as it lives.
#[derive(Default)]
pub(crate) struct Goldens(Mutex<HashMap<PathBuf, Arc<Kept>>>);

/// One of them; `None` until it is opened, and after an update that broke off.
type Kept = RwLock<Option<golden::Golden>>;

/// All of a manifest follows.
const WHOLE: u8 = 0;
/// What makes it of the one that is held.
const DELTA: u8 = 1;
/// Nothing: it is the one that is held.
const SAME: u8 = 2;

impl Goldens {
    fn at(&self, directory: &Path) -> Arc<Kept> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(directory.to_owned()).or_default())
    }

    /// Brings one up to date, telling through `tell` what the caller has to know meanwhile.
    pub(crate) fn update(
        &self,
        stopped: &AtomicBool,
        what: &UpdateGolden,
        mut pieces: Pieces,
        tell: impl Fn(Golden) -> Result<(), ()>,
    ) -> Result<(), Failure> {
        let directory = Path::new(OsStr::from_bytes(&what.directory));
        let kept = self.at(directory);
        let mut kept = kept.write().unwrap_or_else(PoisonError::into_inner);
        let mut update = || {
            let golden = match kept.take() {
                Some(golden) => golden,
                None => golden::Golden::open(directory)?,
            };
            let gone = || StreamError::Cut(std::io::ErrorKind::BrokenPipe.into());
            tell(Golden::Held(golden.digest().0.to_vec().into())).map_err(|()| gone())?;
            let mut from = ChunkReader::new(|| pieces.next());
            let mut form = [0];
            from.read_exact(&mut form).map_err(StreamError::Cut)?;
            let manifest = match form {
                [WHOLE] => receive_manifest(&mut from)?,
                [DELTA] => apply_delta(golden.manifest(), &mut from)?,
                [SAME] => golden.manifest().clone(),
                _ => return Err(StreamError::Foreign.into()),
            };
            from.finish().map_err(StreamError::Cut)?;
            if manifest.outline_digest().0[..] != what.digest[..] {
                return Err(StreamError::Foreign.into());
            }
            let wanted = golden.wanted(&manifest)?;
            let bits = match &wanted {
                Wanted::Some(bits) => bits.clone(),
                Wanted::All => Vec::new(),
            };
            tell(Golden::Lacking(bits.into())).map_err(|()| gone())?;
            let mut from = ChunkReader::new(|| pieces.next());
            let golden = golden.update(stopped, manifest, &wanted, &mut from)?;
            from.finish().map_err(StreamError::Cut)?;
            Ok(golden)
        };
        *kept = Some(update().map_err(|error| told(&error))?);
        Ok(())
    }

    /// Puts a copy of one somewhere.
    pub(crate) fn copy(&self, stopped: &AtomicBool, what: &CopyGoldenRequest, notes: &Notes) -> Result<(), Failure> {
        let directory = Path::new(OsStr::from_bytes(&what.golden));
        let kept = self.at(directory);
        let held = kept.read().unwrap_or_else(PoisonError::into_inner);
        let golden =
            held.as_ref().filter(|golden| golden.digest().0[..] == what.digest[..]).ok_or_else(|| Failure {
                message: format!("{} isn't the tree that is wanted; bring it up to date", directory.display()),
                ..Failure::default()
            })?;
        let put = what.put.clone().unwrap_or_default();
        let Whither { to, is_noted } = whither(&put)?;
        let placed = golden.copy(stopped, to).map_err(|error| told(&error))?;
        if is_noted {
            notes.set(to.target, Baseline::of_placed(golden.manifest(), &placed));
        }
        Ok(())
    }
}

fn told(error: &GoldenError) -> Failure {
    match error {
        GoldenError::Stream(error) => stream_failure(error),
        GoldenError::Io { source, .. } => failure(error, Some(source)),
        GoldenError::Busy { .. } | GoldenError::Touched { .. } => failure(error, None),
    }
}
