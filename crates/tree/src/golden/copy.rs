//! Making a job directory of a golden tree: all processors, bytes shared where the filesystem can.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{Golden, GoldenError, failed};
use crate::manifest::{Entry, Kind, SMALL};
use crate::materialise::{Group, MaterialiseError, PlaceAt, Placed, Target, copy_file};
use crate::stamp::{self, Stamp};
use crate::{beneath, parallel};

impl Golden {
    /// Puts the tree somewhere.
    ///
    /// # Errors
    /// [`GoldenError`]; a part of it may be there then.
    pub fn copy(&self, stopped: &AtomicBool, to: PlaceAt<'_>) -> Result<Placed, GoldenError> {
        let tree = self.open_tree()?;
        let target = Target::open(stopped, &self.manifest, to)?;
        let groups = target.groups(|_| true);
        let stamps = parallel::for_each(&groups, Vec::new, |buffer: &mut Vec<u8>, group| {
            let from = beneath::open_directory(tree.as_fd(), group.directory)
                .map_err(failed("open", &self.tree().join(group.directory)))?;
            self.group(&from, &target, group, buffer)
        })?;
        target.modes()?;
        let mut placed = Placed { stamps: vec![None; self.manifest.entries().len()], at: stamp::now() };
        for (index, stamp) in stamps.into_iter().flatten() {
            placed.stamps[index] = stamp;
        }
        Ok(placed)
    }

    fn group(
        &self,
        from: impl AsFd,
        target: &Target<'_>,
        group: &Group<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<(usize, Option<Stamp>)>, GoldenError> {
        let directory = target.directory(group.directory)?;
        let mut stamps = Vec::with_capacity(group.entries.len());
        for index in &group.entries {
            let entry = &self.manifest.entries()[*index];
            let mut problem = None;
            let put = target.put(&directory, entry, |made| {
                self.fill(&from, entry, self.stamps.get(*index).copied().flatten(), made, buffer).map_err(|error| {
                    problem = Some(error);
                    // Only ends it: what the problem is stands there.
                    MaterialiseError::Stopped
                })
            });
            if let Some(problem) = problem {
                return Err(problem);
            }
            stamps.push((*index, put?));
        }
        Ok(stamps)
    }

    fn fill(
        &self,
        from: impl AsFd,
        entry: &Entry,
        stamp: Option<Stamp>,
        made: &mut File,
        buffer: &mut Vec<u8>,
    ) -> Result<(), GoldenError> {
        let Kind::File(file) = &entry.kind else { return Ok(()) };
        if file.size == 0 {
            return Ok(());
        }
        let path = self.tree().join(&entry.path);
        let name = Path::new(entry.path.file_name().unwrap_or_default());
        let mut held = beneath::open_file(from.as_fd(), name).map_err(failed("read", &path))?;
        let stat = rustix::fs::fstat(&held).map_err(|errno| failed("look at", &path)(errno.into()))?;
        if stamp != Some(Stamp::of(&stat)) {
            return Err(GoldenError::Touched { path });
        }
        let copied = if file.size < SMALL { small(&mut held, made, buffer) } else { copy_file(&held, made, file.size) };
        copied.map_err(failed("copy", &path))
    }
}

/// Copies a small file: in two calls, rather than asking whether its bytes can be shared.
fn small(from: &mut File, to: &mut File, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    from.read_to_end(buffer)?;
    to.write_all(buffer)
}
