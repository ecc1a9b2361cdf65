//! Taking a tree out of a stream into a directory, without blobs on this side.
//!
//! One thread takes the stream apart and writes large files itself; small ones, links and empty files go to threads of their
//! own in batches of a mebibyte, which verify and write them. Of the stream no more is in memory than two batches per
//! processor and one. Each file is verified before it is given its name's content for good: one that is other than
//! the manifest says is removed, and ends it all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use executr_spec::{Digest, Hasher};

use super::contents::{Wanted, Way, Ways};
use super::{CHUNK, StreamError, joined};
use crate::manifest::{Entry, FileEntry, Kind, Manifest, Place};
use crate::materialise::{MaterialiseError, PlaceAt, Placed, Target, copy_file, failed};
use crate::parallel;
use crate::stamp::{self, Stamp};

/// So many bytes of small files are written by one thread at a time, and so many files.
const BATCH: usize = 1 << 20;
const TOGETHER: usize = 256;

/// Puts a tree somewhere whose files' bytes come out of `from`, as [`materialise`](crate::materialise()) does. After an error
/// a part of the tree may be there.
///
/// # Errors
/// [`StreamError`].
pub fn place_stream(
    stopped: &AtomicBool,
    manifest: &Manifest,
    from: &mut impl Read,
    to: PlaceAt<'_>,
) -> Result<Placed, StreamError> {
    place_wanted(stopped, manifest, &Wanted::All, &|_| true, from, to)
}

/// As [`place_stream`], with only the wanted files, and those links and empty files of which `others` is true. The rest is
/// left as it is.
///
/// # Errors
/// [`StreamError`].
pub fn place_wanted(
    stopped: &AtomicBool,
    manifest: &Manifest,
    wanted: &Wanted,
    others: &dyn Fn(&Entry) -> bool,
    from: &mut impl Read,
    to: PlaceAt<'_>,
) -> Result<Placed, StreamError> {
    let mut ways = Ways::new(manifest, wanted)?;
    let target = Target::open(stopped, manifest, to)?;
    let mut placed = Placed { stamps: vec![None; manifest.entries().len()], at: 0 };
    let threads = parallel::threads();
    let (give, take) = sync_channel::<Batch>(threads);
    let take = Mutex::new(Some(take));
    let writer = Writer { manifest, target: &target, batches: &take };
    let stamps = thread::scope(|scope| {
        let writing: Vec<_> = (0..threads).map(|_| scope.spawn(|| writer.run())).collect();
        let mut divider = Divider::new(&writer, give);
        let divided = divider.divide(&mut ways, others, from);
        let mut stamps = std::mem::take(&mut divider.stamps);
        // The threads end when nothing more can come.
        drop(divider);
        let mut error = None;
        for thread in writing {
            match joined(thread) {
                Ok(found) => stamps.extend(found),
                Err(first) => error = error.or(Some(first)),
            }
        }
        // When a thread failed, what it did to the others says less.
        match (error, divided) {
            (Some(error), _) | (None, Err(error)) => Err(error),
            (None, Ok(())) => Ok(stamps),
        }
    })?;
    target.modes()?;
    for (index, stamp) in stamps {
        placed.stamps[index] = stamp;
    }
    placed.at = stamp::now();
    Ok(placed)
}

/// What one thread is to write: entries, and where in `bytes` theirs are.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    entries: Vec<(usize, Range<usize>)>,
}

type Stamps = Vec<(usize, Option<Stamp>)>;

/// Takes the stream apart.
struct Divider<'a> {
    writer: &'a Writer<'a>,
    give: SyncSender<Batch>,
    batch: Batch,
    stamps: Stamps,
    /// The directory that the last large file is in.
    last: Option<(PathBuf, OwnedFd)>,
    /// Large files that others are copied from, by their number.
    large: HashMap<Digest, usize>,
}

impl<'a> Divider<'a> {
    fn new(writer: &'a Writer<'a>, give: SyncSender<Batch>) -> Self {
        Self { writer, give, batch: Batch::default(), stamps: Vec::new(), last: None, large: HashMap::new() }
    }

    fn divide(
        &mut self,
        ways: &mut Ways<'_>,
        others: &dyn Fn(&Entry) -> bool,
        from: &mut impl Read,
    ) -> Result<(), StreamError> {
        let manifest = self.writer.manifest;
        for (index, entry) in manifest.entries().iter().enumerate() {
            self.writer.target.go_on()?;
            match &entry.kind {
                Kind::Directory { .. } => {}
                Kind::Symlink { .. } if others(entry) => self.add(index, 0)?,
                Kind::Symlink { .. } => {}
                Kind::File(file) => match ways.of(file) {
                    Way::Empty if others(entry) => self.add(index, 0)?,
                    Way::Empty | Way::Unwanted => {}
                    Way::Sent if file.place == Place::Own => self.large(index, entry, file, from)?,
                    Way::Sent => {
                        // A small file's size fits.
                        let (start, size) = (self.batch.bytes.len(), file.size as usize);
                        self.batch.bytes.resize(start + size, 0);
                        from.read_exact(&mut self.batch.bytes[start..]).map_err(StreamError::Cut)?;
                        self.add(index, size)?;
                    }
                    Way::Again => self.again(index, entry, file)?,
                },
            }
        }
        self.hand_on()
    }

    /// Adds an entry whose bytes are the last `size` of the batch.
    fn add(&mut self, index: usize, size: usize) -> Result<(), StreamError> {
        let end = self.batch.bytes.len();
        self.batch.entries.push((index, end - size..end));
        if end >= BATCH || self.batch.entries.len() >= TOGETHER { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> Result<(), StreamError> {
        let batch = Batch { bytes: Vec::with_capacity(self.batch.bytes.len().min(BATCH)), entries: Vec::new() };
        let batch = std::mem::replace(&mut self.batch, batch);
        // All threads are gone: one of them says why.
        self.give.send(batch).map_err(|_| StreamError::Cut(io::ErrorKind::BrokenPipe.into()))
    }

    /// Writes a large file as it comes.
    fn large(
        &mut self,
        index: usize,
        entry: &Entry,
        file: &FileEntry,
        from: &mut impl Read,
    ) -> Result<(), StreamError> {
        let target = self.writer.target;
        let mut problem = None;
        let directory = self.directory(entry)?;
        let stamp = target.put(directory, entry, |made| {
            receive(from, made, file, &|| target.path(entry)).map_err(|error| {
                problem = Some(error);
                // Only ends it: what the problem is stands there.
                MaterialiseError::Stopped
            })
        });
        if let Some(problem) = problem {
            return Err(problem);
        }
        self.stamps.push((index, stamp?));
        self.large.entry(file.digest).or_insert(index);
        Ok(())
    }

    /// Writes a large file whose bytes came before.
    fn again(&mut self, index: usize, entry: &Entry, file: &FileEntry) -> Result<(), StreamError> {
        let target = self.writer.target;
        let first = self.large.get(&file.digest).and_then(|first| self.writer.manifest.entries().get(*first));
        let first = first.ok_or(StreamError::Foreign)?;
        let from = target.open_file(first)?;
        let directory = self.directory(entry)?;
        let stamp = target.put(directory, entry, |made| {
            copy_file(&from, made, file.size).map_err(|error| failed("write", &target.path(entry))(error))
        })?;
        self.stamps.push((index, stamp));
        Ok(())
    }

    fn directory(&mut self, entry: &Entry) -> Result<&OwnedFd, StreamError> {
        let above = entry.path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(path, _)| path != above) {
            self.last = Some((above.to_owned(), self.writer.target.directory(above)?));
        }
        match &self.last {
            Some((_, directory)) => Ok(directory),
            None => Err(StreamError::Foreign),
        }
    }
}

fn receive(
    from: &mut impl Read,
    made: &mut File,
    file: &FileEntry,
    path: &dyn Fn() -> PathBuf,
) -> Result<(), StreamError> {
    let mut buffer = vec![0; CHUNK];
    let mut hasher = Hasher::default();
    let mut left = file.size;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match from.read(&mut buffer[..most]) {
            Ok(0) => return Err(StreamError::Cut(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StreamError::Cut(error)),
        };
        hasher.update(&buffer[..read]);
        made.write_all(&buffer[..read]).map_err(|error| failed("write", &path())(error))?;
        left -= read as u64;
    }
    if hasher.finish() == file.digest { Ok(()) } else { Err(StreamError::Damaged { path: path() }) }
}

/// Writes batches.
struct Writer<'a> {
    manifest: &'a Manifest,
    target: &'a Target<'a>,
    /// Where they come from; taken away by the first thread that fails, so that the sender sees it.
    batches: &'a Mutex<Option<Receiver<Batch>>>,
}

impl Writer<'_> {
    fn run(&self) -> Result<Stamps, StreamError> {
        let mut stamps = Vec::new();
        let mut last: Option<(PathBuf, OwnedFd)> = None;
        loop {
            let batch = {
                let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
                match batches.as_ref().map(Receiver::recv) {
                    Some(Ok(batch)) => batch,
                    _ => return Ok(stamps),
                }
            };
            if let Err(error) = self.write(&batch, &mut last, &mut stamps) {
                *self.batches.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Err(error);
            }
        }
    }

    fn write(
        &self,
        batch: &Batch,
        last: &mut Option<(PathBuf, OwnedFd)>,
        stamps: &mut Stamps,
    ) -> Result<(), StreamError> {
        for (index, range) in &batch.entries {
            let entry = &self.manifest.entries()[*index];
            let bytes = &batch.bytes[range.clone()];
            if let Kind::File(file) = &entry.kind
                && Digest::of(bytes) != file.digest
            {
                return Err(StreamError::Damaged { path: self.target.path(entry) });
            }
            let above = entry.path.parent().unwrap_or(Path::new(""));
            if last.as_ref().is_none_or(|(path, _)| path != above) {
                *last = Some((above.to_owned(), self.target.directory(above)?));
            }
            let Some((_, directory)) = &last else { continue };
            let write = |made: &mut File| {
                made.write_all(bytes).map_err(|error| failed("write", &self.target.path(entry))(error))
            };
            stamps.push((*index, self.target.put(directory, entry, write)?));
        }
        Ok(())
    }
}
