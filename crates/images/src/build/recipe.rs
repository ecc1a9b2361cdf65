//! What an image is to be built of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::reference::Reference;

/// What an image is to be built of.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The image it lies upon; nothing for one that has all it needs.
    pub base: Option<Reference>,
    /// Its own layers, lowest first: what changes rarely first.
    pub layers: Vec<LayerRecipe>,
    /// What it says about itself.
    pub changes: Changes,
    /// How its own layers are compressed.
    pub compression: Compression,
}

/// What a layer is to be built of.
#[derive(Clone, Debug, Default)]
pub struct LayerRecipe {
    /// What is put into it, in this order. Nothing may come twice.
    pub parts: Vec<Part>,
}

/// Something put into a layer.
#[derive(Clone, Debug)]
pub enum Part {
    /// All that is in a directory.
    Directory {
        /// Which.
        from: PathBuf,
        /// Where it goes, as `/opt/app`.
        to: String,
    },
    /// One file.
    File {
        /// Which. A link is followed.
        from: PathBuf,
        /// Where it goes, with its name there.
        to: String,
        /// Its permissions there; its own otherwise.
        mode: Option<u32>,
    },
    /// A program that needs nothing beside itself, with the mode 755.
    Program {
        /// Which. A link is followed.
        from: PathBuf,
        /// Where it goes, with its name there.
        to: String,
    },
}

/// What an image says about itself, where that is another than its base says.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// Variables, over the base's of the same names.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// What comes before the command. Where it is said and the command isn't, the base's command goes.
    pub entrypoint: Option<Vec<String>>,
    /// The command.
    pub command: Option<Vec<String>>,
    /// Labels, over the base's of the same names.
    pub labels: BTreeMap<String, String>,
}

/// How layers are compressed. The same input gives the same bytes as long as the program is the same version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all: quickest to build, to load and to start.
    #[default]
    None,
    /// As every engine and registry understands it.
    Gzip,
    /// Smaller and quicker than gzip; not every old engine understands it (Docker does from 23.0 on).
    Zstd,
}

impl Compression {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}
