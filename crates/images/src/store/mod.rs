//! The images of a user: one directory for all their processes.
//!
//! ```text
//! ROOT/blobs/            manifests, configurations, and layers as they travel where those were built here
//! ROOT/layers/<sha256>/  an unpacked layer: `tree`, and `facts` about it
//! ROOT/incoming/         layers that are being unpacked, and what is being removed, each with the lock of who does it
//! ROOT/names/<sha256>    what a name was found to be, the last time
//! ROOT/built/<sha256>    what files became as a layer, by what they looked like from outside
//! ```
//!
//! - `layers`: unpacked layers, whole under their names, always;
//! - `names`: what names were found to be;
//! - `pull`: bringing an image here;
//! - `collect`: keeping the whole within its bounds;
//! - `catalog`: what is here, and taking it away;
//! - `travelling`: layers as they travel, fetched again where only their unpacked form is here;
//! - `removal`: directories removed, whatever modes are within.
//!
//! What a living process leases (through `blobs`) is removed by none; what a dead one left half is removed by the next.

mod catalog;
mod collect;
mod layers;
mod names;
mod pull;
mod removal;
mod travelling;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use executr_spec::Digest;
use executr_tree::{BlobDir, BlobLease};

use crate::error::ImageError;
use crate::image::Platform;
use crate::layer::{Limits, Ownership};
use crate::reference::Reference;
use layers::Layers;
use names::Names;

pub use catalog::{Listed, Removed};
pub(crate) use layers::Room;
pub(crate) use names::Record;
pub(crate) use pull::Known;

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// When it isn't here.
    Missing,
    /// When its registry has another than is here: it is always asked.
    Always,
    /// Not at all.
    Never,
}

/// How a store is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// How many bytes the store may have, before what was used longest ago goes; what is leased stays all the same.
    pub max_bytes: u64,
    /// What a layer may have at most.
    pub limits: Limits,
    /// What images are to be made for.
    pub platform: Platform,
    /// Whose the files of layers are.
    pub ownership: Ownership,
}

impl Default for StoreOptions {
    /// 20 GiB, for this machine and this process's user.
    fn default() -> Self {
        Self {
            max_bytes: 20 << 30,
            limits: Limits::default(),
            platform: Platform::here(),
            ownership: Ownership::of_this_process(),
        }
    }
}

/// The images of a user. Clones are the same store, and so are those other processes opened.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
    options: StoreOptions,
    blobs: BlobDir,
    layers: Layers,
    names: Names,
    built: PathBuf,
}

impl ImageStore {
    /// Opens the directory, making it when it isn't there, and removes what dead processes left in it.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(root: impl Into<PathBuf>, options: StoreOptions) -> Result<Self, ImageError> {
        let root = root.into();
        // Programs of images that become their owner when run are in it: nobody else may come near.
        make_private(&root)?;
        let [layers, incoming, names, built] = ["layers", "incoming", "names", "built"].map(|name| root.join(name));
        for directory in [&layers, &incoming, &names, &built] {
            make_private(directory)?;
        }
        let blobs = BlobDir::open(root.join("blobs"))?;
        let store = Self {
            layers: Layers::new(layers, incoming, options.ownership, options.limits)?,
            names: Names::new(names),
            built,
            blobs,
            options,
            root,
        };
        store.layers.forget_left()?;
        Ok(store)
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whose the files of its layers are: with [`Ownership::Own`] overlay mounts take `userxattr`.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        self.options.ownership
    }

    pub(crate) fn platform(&self) -> &Platform {
        &self.options.platform
    }

    pub(crate) fn blobs(&self) -> &BlobDir {
        &self.blobs
    }

    /// A directory of one's own, on the store's file system.
    pub(crate) fn room(&self) -> Result<Room, ImageError> {
        self.layers.room()
    }

    /// Where it is noted what files became as a layer.
    pub(crate) fn built_note(&self, fingerprint: Digest) -> PathBuf {
        self.built.join(fingerprint.to_string())
    }

    /// Keeps all of an image while the lease lives.
    pub(crate) fn lease(&self, known: &Known) -> Result<BlobLease, ImageError> {
        Ok(self.blobs.lease(&known.digests())?)
    }

    /// Gives a name to an image that was built here.
    pub(crate) fn note_built(
        &self,
        name: &Reference,
        manifest: Digest,
        base: Option<&Reference>,
    ) -> Result<(), ImageError> {
        let base = base.map(ToString::to_string);
        self.names.note(&Record { name: name.to_string(), manifest, is_built: true, base })
    }

    /// What a name was found to be.
    pub(crate) fn record(&self, name: &Reference) -> Result<Option<Record>, ImageError> {
        self.names.find(name)
    }
}

fn make_private(directory: &Path) -> Result<(), ImageError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(ImageError::store("make the directory", directory))?;
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(directory, private).map_err(ImageError::store("close to others", directory))
}
