//! The commit journal: what carries the promise. One frame per group commit, one `fdatasync` a frame, never a
//! rewrite of what was acknowledged.
//!
//! Formats: [`segment`] (files), [`frame`] (what a commit writes), [`rows`] (what a caller puts in). At start,
//! [`scan`] tells a torn tail from damage and [`open`] mends the tail. Old segments go by [`Journal::remove`],
//! when their groups lie below the trim group and no row refers to a payload in them.

pub(crate) mod frame;
pub(crate) mod open;
pub(crate) mod retired;
pub(crate) mod rows;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod spares;
pub(crate) mod tail;
pub(crate) mod writer;

#[cfg(test)]
mod reuse_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod version_tests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk;
use crate::error::{Error, Result};
use crate::row::PayloadRef;
use retired::Retired;
use segment::{DirectoryId, Segment};

/// How the journal is cut into files.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Bytes of a segment made from now on: a multiple of 4 KiB, above 8 KiB and below 4 GiB.
    pub segment_bytes: u64,
    /// Bytes of old segments that are kept to be used again.
    pub retired_bytes_max: u64,
    /// Bytes of rows and payloads after which the committer takes no further step into a group.
    pub group_bytes: usize,
    /// Steps after which it takes no further one.
    pub group_steps: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retired_bytes_max: 512 << 20,
            group_bytes: 4 << 20,
            group_steps: 4096,
        }
    }
}

impl JournalOptions {
    /// Bytes of rows and payloads that one step may have: its payloads have less than 4 GiB in all, whatever a segment
    /// has, because what doesn't fit one gets a segment of its own.
    pub fn step_bytes_max(&self) -> usize {
        u32::MAX as usize - disk::BLOCK - frame::HEAD_BYTES
    }

    /// Bytes that a group of an ordinary segment may have.
    pub(crate) fn group_bytes_max(&self) -> usize {
        self.segment_bytes as usize - disk::BLOCK - frame::HEAD_BYTES
    }
}

/// The segments that are there, and the payloads in them. Shared by all threads; the end is [`tail::Tail`]'s.
pub(crate) struct Journal {
    pub(crate) dir: PathBuf,
    pub(crate) id: DirectoryId,
    segments: Mutex<Vec<Segment>>,
    /// The segment that a payload was last read from: a start reads a million of them one after the other.
    last_read: Mutex<Option<(u32, Arc<File>)>>,
    retired: Arc<Retired>,
}

impl Journal {
    pub(crate) fn new(dir: &Path, id: DirectoryId, segments: Vec<Segment>, retired: Arc<Retired>) -> Self {
        let (segments, last_read) = (Mutex::new(segments), Mutex::default());
        Self { dir: dir.to_owned(), id, segments, last_read, retired }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments with groups in them, in order.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.lock().clone()
    }

    /// A segment has its first group now.
    fn started(&self, segment: Segment) {
        self.lock().push(segment);
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// When its segment is gone, or the bytes aren't what was written.
    pub(crate) fn payload(&self, at: PayloadRef) -> Result<Vec<u8>> {
        let path = segment::path_of(&self.dir, at.segment);
        let mut last = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match last.as_ref().filter(|(number, _)| *number == at.segment) {
            Some((_, file)) => Arc::clone(file),
            None => {
                let file = Arc::new(File::open(&path).map_err(Error::io("open", &path))?);
                *last = Some((at.segment, Arc::clone(&file)));
                file
            }
        };
        drop(last);
        read_payload_of(&file, &path, at)
    }

    /// Segments whose groups all lie at or below `group`. Never the one being written.
    pub(crate) fn up_to(&self, group: u64) -> Vec<Segment> {
        let segments = self.lock();
        // A segment without a first group (a spare that was passed over) says nothing of those before it.
        let next = |from: usize| segments[from..].iter().find_map(|segment| segment.first_group);
        let ended = (0..segments.len()).filter(|i| next(i + 1).is_some_and(|next| next <= group + 1));
        ended.map(|i| segments[i].clone()).collect()
    }

    /// Takes a segment out: its file is removed, or used again. Who still reads a payload in it finds other bytes, or
    /// none, and looks where its row has it now.
    pub(crate) fn remove(&self, segment: &Segment) -> Result<()> {
        self.lock().retain(|listed| listed.number != segment.number);
        self.retired.take_in(segment)?;
        // Whoever opened it before this is in here, or its bytes would stay on the disk.
        let mut last = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        last.take_if(|(last, _)| *last == segment.number);
        Ok(())
    }

    /// Removes the old segments that are kept to be used again. Says whether there were any.
    pub(crate) fn give_back(&self) -> Result<bool> {
        self.retired.clear()
    }

    /// Bytes of all segments with groups in them, and of the old ones that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().iter().map(|segment| segment.bytes).sum::<u64>() + self.retired.bytes()
    }
}

/// Reads a payload and checks it.
pub(crate) fn read_payload(dir: &Path, at: PayloadRef) -> Result<Vec<u8>> {
    let path = segment::path_of(dir, at.segment);
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    read_payload_of(&file, &path, at)
}

fn read_payload_of(file: &File, path: &Path, at: PayloadRef) -> Result<Vec<u8>> {
    let damaged = |problem: &str| Error::damaged(path, u64::from(at.offset), problem);
    let end = u64::from(at.offset) + u64::from(at.len);
    if end > file.metadata().map_err(Error::io("look at", path))?.len() {
        return Err(damaged("a payload ends behind the segment"));
    }
    let mut bytes = vec![0; at.len as usize];
    file.read_exact_at(&mut bytes, u64::from(at.offset)).map_err(Error::io("read", path))?;
    if crc32fast::hash(&bytes) != at.crc {
        return Err(damaged("a payload isn't what was written"));
    }
    Ok(bytes)
}
