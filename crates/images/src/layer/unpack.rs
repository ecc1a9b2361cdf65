//! A layer unpacked, entry after entry.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use executr_spec::Digest;
use tar::{Archive, Entry, EntryType};

use super::Limits;
use super::measured::{Gauge, LONGEST_HEADERS, Measured};
use super::name::{Meaning, meaning, path_of};
use super::place::{Facts, Ownership, Root, Special};
use super::reader::{Decompressed, Hashing};
use super::refusal::{LayerError, Refusal};
use crate::reference::oci_digest;

/// How a record of attributes in a POSIX archive names them.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// The digest of the bytes as they came.
    pub(crate) digest: Digest,
    /// How many of them there were.
    pub(crate) length: u64,
    /// The digest of the archive within.
    pub(crate) diff_id: Digest,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// How many entries.
    pub(crate) entries: u64,
}

/// Puts all of a layer into an empty directory. `layer` is the digest it should have, for errors: the caller compares.
pub(crate) fn unpack(
    layer: Digest,
    bytes: impl Read,
    into: BorrowedFd<'_>,
    ownership: Ownership,
    limits: Limits,
) -> Result<Unpacked, LayerError> {
    let mut at = None;
    unpack_all(bytes, into, ownership, limits, &mut at).map_err(|why| {
        let entry = at.map(|path: PathBuf| path.to_string_lossy().into_owned());
        LayerError { layer: oci_digest(layer), entry, why }
    })
}

fn unpack_all(
    bytes: impl Read,
    into: BorrowedFd<'_>,
    ownership: Ownership,
    limits: Limits,
    at: &mut Option<PathBuf>,
) -> Result<Unpacked, Refusal> {
    let came = Hashing::new(bytes);
    let mut decompressed = Decompressed::new(came).map_err(Refusal::Broken)?;
    let is_plain = decompressed.is_plain();
    // Headers and padding are small beside any limit worth having.
    let (measured, gauge) = Measured::new(&mut decompressed, limits.bytes.saturating_mul(2).saturating_add(1 << 20));
    let mut within = Within { inner: measured, hasher: (!is_plain).then(executr_spec::Hasher::default) };
    let mut root = Root::new(into, ownership);
    let (mut entries, mut total) = (0, 0_u64);
    {
        let mut archive = Archive::new(&mut within);
        let mut all = archive.entries().map_err(Refusal::Broken)?;
        loop {
            gauge.in_headers();
            let Some(entry) = all.next() else { break };
            let mut entry = entry.map_err(|error| broken(error, &gauge, limits))?;
            gauge.in_content();
            entries += 1;
            if entries > limits.entries {
                return Err(Refusal::Entries(limits.entries));
            }
            *at = Some(PathBuf::from(String::from_utf8_lossy(&entry.path_bytes()).into_owned()));
            total = total.saturating_add(entry.size());
            if total > limits.bytes {
                return Err(Refusal::Bytes(limits.bytes));
            }
            put(&mut root, &mut entry).map_err(|why| why_of(why, &gauge, limits))?;
            // What is left of it, and its padding, must not count as headers of the next.
            io::copy(&mut entry, &mut io::sink()).map_err(|error| broken(error, &gauge, limits))?;
        }
        *at = None;
    }
    gauge.in_content();
    root.finish()?;
    // Bytes behind the archive's end are part of the layer's digests.
    io::copy(&mut within, &mut io::sink()).map_err(|error| broken(error, &gauge, limits))?;
    let inner_digest = within.hasher.map(executr_spec::Hasher::finish);
    let mut rest = decompressed.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(Refusal::Broken)?;
    let (digest, length) = rest.into_inner().finish().map_err(Refusal::Broken)?;
    Ok(Unpacked { digest, length, diff_id: inner_digest.unwrap_or(digest), bytes: total, entries })
}

/// The archive within, hashed where its digest is another than that of the bytes as they came.
struct Within<R> {
    inner: R,
    hasher: Option<executr_spec::Hasher>,
}

impl<R: Read> Read for Within<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

fn broken(error: io::Error, gauge: &Gauge, limits: Limits) -> Refusal {
    why_of(Refusal::Broken(error), gauge, limits)
}

fn why_of(why: Refusal, gauge: &Gauge, limits: Limits) -> Refusal {
    match why {
        Refusal::Broken(_) if gauge.is_used_up() => Refusal::Bytes(limits.bytes),
        Refusal::Broken(_) if gauge.are_headers_used_up() => Refusal::Headers(LONGEST_HEADERS),
        why => why,
    }
}

fn put<R: Read>(root: &mut Root<'_>, entry: &mut Entry<'_, R>) -> Result<(), Refusal> {
    let kind = entry.header().entry_type();
    if matches!(kind, EntryType::XGlobalHeader) {
        return Ok(());
    }
    let path = path_of(&entry.path_bytes())?;
    let attributes = attributes(entry)?;
    match meaning(&path)? {
        Meaning::Plain => {}
        Meaning::Whiteout(hidden) => return root.whiteout(&path, hidden),
        Meaning::Opaque => return root.opaque(&path),
        Meaning::Ignored => return Ok(()),
    }
    let header = entry.header();
    let number = |field: io::Result<u64>| {
        let number = field.map_err(Refusal::Broken)?;
        u32::try_from(number).map_err(|_| Refusal::Broken(io::Error::other("an owner's number is too large")))
    };
    let facts = Facts {
        mode: header.mode().map_err(Refusal::Broken)? & 0o7777,
        user: number(entry.header().uid())?,
        group: number(entry.header().gid())?,
        modified: modified(entry)?,
        attributes,
    };
    let link = || entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    match kind {
        EntryType::Directory => root.directory(path, facts),
        _ if path.as_os_str().is_empty() => Err(Refusal::Name("that of the image's root, which is a directory")),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            // Old archives say so by a slash.
            if kind == EntryType::Regular && entry.path_bytes().ends_with(b"/") {
                return root.directory(path, facts);
            }
            let length = entry.size();
            root.file(&path, &facts, length, entry)
        }
        EntryType::Symlink => root.symlink(&path, &facts, &link()),
        EntryType::Link => {
            let target = path_of(link().strip_prefix(b"/").unwrap_or(&link()))?;
            root.hard_link(&path, &target)
        }
        EntryType::Fifo => root.special(&path, &facts, Special::Fifo),
        EntryType::Char | EntryType::Block => root.special(&path, &facts, Special::Device),
        other => Err(Refusal::Kind(char::from(other.as_byte()))),
    }
}

/// Seconds and nanoseconds since 1970.
fn modified<R: Read>(entry: &mut Entry<'_, R>) -> Result<(i64, u32), Refusal> {
    let seconds = entry.header().mtime().map_err(Refusal::Broken)?;
    let mut modified = (i64::try_from(seconds).unwrap_or(0), 0);
    for record in records(entry)? {
        if record.0 == b"mtime"
            && let Some(exact) = std::str::from_utf8(&record.1).ok().and_then(exact_time)
        {
            modified = exact;
        }
    }
    Ok(modified)
}

/// A time as POSIX archives have it: `1700000000.123456789`.
fn exact_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Refusal> {
    let mut attributes = BTreeMap::new();
    for (key, value) in records(entry)? {
        if key.starts_with(b"GNU.sparse.") {
            return Err(Refusal::Sparse);
        }
        let Some(name) = key.strip_prefix(ATTRIBUTE) else { continue };
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            return Err(Refusal::Attribute(String::from_utf8_lossy(name).into_owned()));
        }
        attributes.insert(name.to_owned(), value);
    }
    Ok(attributes)
}

/// Names and values.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// The records of an entry's own header in a POSIX archive.
fn records<R: Read>(entry: &mut Entry<'_, R>) -> Result<Records, Refusal> {
    let Some(records) = entry.pax_extensions().map_err(Refusal::Broken)? else { return Ok(Vec::new()) };
    let read = records.map(|record| {
        let record = record.map_err(Refusal::Broken)?;
        Ok((record.key_bytes().to_owned(), record.value_bytes().to_owned()))
    });
    read.collect()
}
