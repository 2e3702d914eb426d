//! A segment: a preallocated file of the journal.
//!
//! `journal/NNNNNNNNNN.segment`, numbered from 1, of a fixed length. Its first 4 KiB (zeros behind 64 bytes):
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `SWBXJRNL` |
//! | 8 | 4 | version, 2 (1 had shorter heads of frames) |
//! | 12 | 4 | its number |
//! | 16 | 16 | the directory's id |
//! | 32 | 16 | salt of its frames, random |
//! | 48 | 8 | its length in bytes |
//! | 56 | 4 | what lies behind the frames: 0 zeros, 1 anything, in a file that was used before |
//! | 60 | 4 | CRC-32 of bytes 0..60 |
//!
//! Frames follow. It gets its name only when all of it is on disk, what lies behind the frames included, so a commit in
//! it is one `fdatasync` that changes no metadata. What has the name and isn't whole was damaged later.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::bytes::Reader;
use crate::disk::{self, BLOCK};
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"SWBXJRNL";
/// The newest version of the journal's format.
pub(crate) const VERSION: u32 = 2;
const HEAD_BYTES: usize = 64;
const SUFFIX: &str = ".segment";
/// Zeros are written and synced in pieces of this size: one big sync would stall the commits beside it.
const ZEROS_BYTES: usize = 1 << 20;

/// The id of a directory: what belongs together carries the same.
pub(crate) type DirectoryId = [u8; 16];

/// What lies behind the last frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Zeros, so that anything else there is left of a torn frame.
    Zeros,
    /// What the file held when it was another segment.
    Anything,
}

/// A segment's header, and where its groups start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Of its format. Only one of [`VERSION`] takes further frames.
    pub(crate) version: u32,
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) salt: [u8; 16],
    pub(crate) behind: Behind,
    /// Group of its first frame; none while it is a spare (or that frame's head is damaged).
    pub(crate) first_group: Option<u64>,
}

pub(crate) fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}{SUFFIX}"))
}

/// The number in a segment's file name.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(SUFFIX)?;
    (number.len() == 10).then(|| number.parse().ok()).flatten()
}

impl Segment {
    fn head(&self, id: DirectoryId) -> Vec<u8> {
        let mut head = Vec::with_capacity(BLOCK);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&self.version.to_le_bytes());
        head.extend_from_slice(&self.number.to_le_bytes());
        head.extend_from_slice(&id);
        head.extend_from_slice(&self.salt);
        head.extend_from_slice(&self.bytes.to_le_bytes());
        head.extend_from_slice(&(self.behind as u32).to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        head.resize(BLOCK, 0);
        head
    }

    /// Makes a segment that is on disk, name and all.
    pub(crate) fn create(dir: &Path, id: DirectoryId, number: u32, bytes: u64) -> Result<Self> {
        let segment = Self::new(number, bytes, Behind::Zeros);
        let unfinished = disk::Unfinished::create(&path_of(dir, number))?;
        let (file, path) = (&unfinished.file, unfinished.path());
        // In one piece where the file system can; zeros are written in any case.
        let _ = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes);
        let zeros = vec![0; ZEROS_BYTES.min(bytes as usize)];
        let mut at = 0;
        while at < bytes {
            let len = zeros.len().min((bytes - at) as usize);
            file.write_all_at(&zeros[..len], at).map_err(Error::io("fill", path))?;
            file.sync_data().map_err(Error::io("sync", path))?;
            at += len as u64;
        }
        file.write_all_at(&segment.head(id), 0).map_err(Error::io("write", path))?;
        unfinished.finish()?;
        Ok(segment)
    }

    /// Makes a segment of a file that was one, under the name of an unfinished one.
    pub(crate) fn create_again(
        dir: &Path,
        id: DirectoryId,
        (number, bytes): (u32, u64),
        retired: PathBuf,
    ) -> Result<Self> {
        let segment = Self::new(number, bytes, Behind::Anything);
        let unfinished = disk::Unfinished::again(retired, &path_of(dir, number))?;
        let written = unfinished.file.write_all_at(&segment.head(id), 0);
        written.map_err(Error::io("write", unfinished.path()))?;
        unfinished.finish()?;
        Ok(segment)
    }

    fn new(number: u32, bytes: u64, behind: Behind) -> Self {
        Self { version: VERSION, number, bytes, salt: disk::random(), behind, first_group: None }
    }

    /// Reads a segment's header and its first frame's head.
    pub(crate) fn read(dir: &Path, id: DirectoryId, number: u32) -> Result<Self> {
        let path = path_of(dir, number);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut bytes = [0; BLOCK + super::frame::HEAD_BYTES];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|_| Error::damaged(&path, 0, "too short for the header of a segment"))?;
        let mut segment = Self::parse(&path, id, &bytes[..HEAD_BYTES])?;
        let len = file.metadata().map_err(Error::io("look at", &path))?.len();
        if segment.number != number {
            return Err(Error::damaged(&path, 12, format!("this is segment {}", segment.number)));
        }
        if len != segment.bytes {
            let problem = format!("it has {len} bytes; its header says {}", segment.bytes);
            return Err(Error::damaged(&path, len.min(segment.bytes), problem));
        }
        segment.first_group =
            super::frame::Head::read(&segment, BLOCK, &bytes[BLOCK..]).map(|head| head.group);
        Ok(segment)
    }

    fn parse(path: &Path, id: DirectoryId, bytes: &[u8]) -> Result<Self> {
        let mut r = Reader(bytes);
        let mut fields = || {
            let (magic, version, number) = (r.array()?, r.u32()?, r.u32()?);
            let (owner, salt, bytes, behind, crc) = (r.array()?, r.array()?, r.u64()?, r.u32()?, r.u32()?);
            let behind = if behind == 0 { Behind::Zeros } else { Behind::Anything };
            Some((magic, crc, owner, Self { version, number, bytes, salt, behind, first_group: None }))
        };
        let (magic, crc, owner, segment): (_, _, DirectoryId, _) =
            fields().ok_or_else(|| Error::damaged(path, 0, "too short for the header of a segment"))?;
        if magic != MAGIC || crc != crc32fast::hash(&bytes[..HEAD_BYTES - 4]) {
            return Err(Error::damaged(path, 0, "its header isn't one of a segment"));
        }
        if segment.version > VERSION {
            let found = segment.version;
            return Err(Error::Newer { path: path.to_owned(), found, known: VERSION });
        }
        if owner != id {
            return Err(Error::damaged(path, 16, "it belongs to another directory"));
        }
        Ok(segment)
    }

    /// All bytes of its file.
    pub(crate) fn load(&self, dir: &Path) -> Result<Vec<u8>> {
        let path = path_of(dir, self.number);
        fs::read(&path).map_err(Error::io("read", &path))
    }

    pub(crate) fn open(&self, dir: &Path) -> Result<File> {
        let path = path_of(dir, self.number);
        OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", &path))
    }
}

/// The segments of a directory, in order.
pub(crate) fn list(dir: &Path, id: DirectoryId) -> Result<Vec<Segment>> {
    let names = disk::names(dir)?;
    let numbers = names.iter().filter_map(|name| number_of(name));
    numbers.map(|number| Segment::read(dir, id, number)).collect()
}
