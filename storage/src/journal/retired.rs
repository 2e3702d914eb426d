//! Segments that nothing needs any more, kept to be used again.
//!
//! Making a segment writes each of its bytes twice, and removing one makes the file system tell the disk; both slow the
//! commits beside them. One that is used again costs its header. Crash points:
//!
//! - A segment is *retired* by being renamed to a name that isn't a segment's, and the directory is synced: from then
//!   on it is an unfinished file, which a start removes.
//! - It gets its new header (number, salt) under that name, is synced, and only then is renamed: a segment's name never
//!   stands for another one's header.
//! - What it held before can't be taken for a frame: a frame names its segment, and its sums are seeded with the salt.
//!   So what lies behind the last frame needn't be zeros ([`super::segment::Behind`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk;
use crate::error::{Error, Result};
use crate::journal::JournalOptions;
use crate::journal::segment::{self, Segment, VERSION};

/// The retired segments, at most so many bytes of them.
#[derive(Debug)]
pub(crate) struct Retired {
    dir: PathBuf,
    segment_bytes: u64,
    most: usize,
    paths: Mutex<Vec<PathBuf>>,
}

impl Retired {
    pub(crate) fn new(dir: &Path, options: &JournalOptions) -> Self {
        let most = (options.retired_bytes_max / options.segment_bytes) as usize;
        Self { dir: dir.to_owned(), segment_bytes: options.segment_bytes, most, paths: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a segment that nothing needs: kept, or removed. When this returns there is no such segment any more.
    pub(crate) fn take_in(&self, segment: &Segment) -> Result<()> {
        let path = segment::path_of(&self.dir, segment.number);
        let fits = segment.version == VERSION && segment.bytes == self.segment_bytes;
        let mut paths = self.lock();
        if fits && paths.len() < self.most {
            let kept = disk::unfinished_name(&path);
            fs::rename(&path, &kept).map_err(Error::io("rename", &path))?;
            // Before anybody can write another header into it.
            disk::sync_dir(&self.dir)?;
            paths.push(kept);
            return Ok(());
        }
        drop(paths);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        disk::sync_dir(&self.dir)
    }

    /// One to be used again.
    pub(crate) fn give(&self) -> Option<PathBuf> {
        self.lock().pop()
    }

    /// Removes them all: others need the disk. Says whether there were any.
    pub(crate) fn clear(&self) -> Result<bool> {
        let mut paths = self.lock();
        let any = !paths.is_empty();
        for path in paths.drain(..) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(any)
    }

    /// Bytes of those that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().len() as u64 * self.segment_bytes
    }
}
