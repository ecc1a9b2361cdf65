//! A layer made, or found made before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::sync::mpsc;
use std::time::SystemTime;

use executr_spec::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::listing::Listing;
use super::{BuildError, Compression, LayerRecipe, archive};
use crate::error::ImageError;
use crate::registry::Descriptor;
use crate::store::ImageStore;

/// Never changed: the bytes of all layers would be others.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// A layer that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) descriptor: Descriptor,
    /// The digest of the archive within.
    pub(super) diff_id: Digest,
    /// It was found made before.
    #[serde(skip)]
    pub(super) was_there: bool,
}

/// Which blob a note is about.
pub(crate) fn made_digest(note: &[u8]) -> Option<Digest> {
    serde_json::from_slice::<Made>(note).ok().map(|made| made.descriptor.digest)
}

/// Makes a layer as a blob of the store, or finds it made before.
pub(super) fn make(store: &ImageStore, recipe: &LayerRecipe, compression: Compression) -> Result<Made, ImageError> {
    let now = SystemTime::now();
    let listing = Listing::of(recipe)?;
    let (fingerprint, is_settled) = listing.fingerprint(compression, now);
    let note = store.built_note(fingerprint);
    if let Some(mut made) = fs::read(&note).ok().and_then(|bytes| serde_json::from_slice::<Made>(&bytes).ok())
        && store.blobs().has(made.descriptor.digest)
    {
        made.was_there = true;
        // So that who collects knows; a blob that is taken away now is missed where it is read.
        store.blobs().touch(made.descriptor.digest, now)?;
        return Ok(made);
    }
    let room = store.room()?;
    let path = room.path().join("layer");
    let file = File::create(&path).map_err(ImageError::store("write", &path))?;
    let (packed, diff_id) = write(&listing, file, compression)?;
    let written = |error| ImageError::store("write", &path)(error);
    let (digest, size) = packed.finish().map_err(written)?;
    let diff_id = diff_id.unwrap_or(digest);
    store.blobs().take_in(&path, digest)?;
    let descriptor = Descriptor { media_type: compression.media_type().to_owned(), digest, size };
    let made = Made { descriptor, diff_id, was_there: false };
    if is_settled {
        let fresh = room.path().join("note");
        let bytes = serde_json::to_vec(&made).map_err(|error| ImageError::store("write", &note)(error.into()))?;
        fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, &note)).map_err(ImageError::store("write", &note))?;
    }
    Ok(made)
}

/// Writes the archive. What was written, and the digest of the archive where that is another.
fn write(
    listing: &Listing,
    file: File,
    compression: Compression,
) -> Result<(Counted<BufWriter<Settling>>, Option<Digest>), BuildError> {
    let failed = |error| BuildError::io("write the layer of", std::path::Path::new("/"))(error);
    let file = Settling::new(file).map_err(failed)?;
    let out = Counted::new(BufWriter::with_capacity(256 * 1024, file));
    match compression {
        Compression::None => {
            let mut out = out;
            archive::write(listing, &mut out)?;
            Ok((out, None))
        }
        Compression::Gzip => {
            // No time and no name in its header.
            let encoder = flate2::GzBuilder::new().mtime(0).operating_system(255);
            let mut within = Counted::new(encoder.write(out, flate2::Compression::new(GZIP_LEVEL)));
            archive::write(listing, &mut within)?;
            let diff_id = within.hasher.finish();
            Ok((within.inner.finish().map_err(failed)?, Some(diff_id)))
        }
        Compression::Zstd => {
            let encoder = zstd::stream::Encoder::new(out, ZSTD_LEVEL).map_err(failed)?;
            let mut within = Counted::new(encoder);
            archive::write(listing, &mut within)?;
            let diff_id = within.hasher.finish();
            Ok((within.inner.finish().map_err(failed)?, Some(diff_id)))
        }
    }
}

/// Bytes that are written before the disk is told to take them.
const TAKEN: usize = 4 << 20;

/// A file that goes to the disk while it is written: whoever waits for that in the end doesn't wait long.
struct Settling {
    file: File,
    since: usize,
    /// Each message asks for what is written by then. A thread of its own waits for the disk.
    asks: mpsc::SyncSender<()>,
}

impl Settling {
    fn new(file: File) -> io::Result<Self> {
        let (asks, asked) = mpsc::sync_channel(1);
        let copy = file.try_clone()?;
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                // Whether it worked is found out when all of it is synced.
                drop(copy.sync_data());
            }
        });
        Ok(Self { file, since: 0, asks })
    }
}

impl Write for Settling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.since += written;
        if self.since >= TAKEN {
            self.since = 0;
            // While it waits for the disk it needs no further word.
            let _ = self.asks.try_send(());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes and counts what is written through it.
struct Counted<W> {
    inner: W,
    hasher: Hasher,
    length: u64,
}

impl<W: Write> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default(), length: 0 }
    }

    fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.inner.flush()?;
        Ok((self.hasher.finish(), self.length))
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
