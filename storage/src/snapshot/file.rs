//! A snapshot's file: `snapshots/GGGGGGGGGGGGGGGGGGGG.snapshot`, named by its group.
//!
//! Little-endian:
//! - head, 40 bytes: `SWBXSNAP` | version 1 u32 | directory's id 16 | group u64 | CRC-32 of bytes 0..36 u32;
//! - blocks: `length u32 | CRC-32 u32 | rows` ([`crate::row`], no deletions), in key order, each key once; the CRC is
//!   over group and number of the block (two u64, the first block is 0), then the rows;
//! - the end: `0 u32 | CRC-32 u32 | length u32 | mark` ([`crate::state::mark`]); the CRC is over group and number
//!   likewise, then the mark. Nothing follows.
//!
//! The mark's totals must be those of the rows. It gets its name only after it was synced and read back.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;

use crate::bytes::Reader;
use crate::disk::Unfinished;
use crate::error::{Error, Result};
use crate::journal::segment::DirectoryId;
use crate::mutant::{self, Mutant};
use crate::row::{Key, Stored, read_row, write_row};
use crate::state::mark::{Audit, Mark, Totals};

const MAGIC: [u8; 8] = *b"SWBXSNAP";
/// The newest version of the snapshot's format.
pub(crate) const VERSION: u32 = 1;
const HEAD_BYTES: usize = 40;
/// Rows are collected into blocks of about this size.
const BLOCK_BYTES: usize = 64 << 10;
/// Longer blocks weren't written by us.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + (8 << 10);

fn crc(group: u64, number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&group.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn head(id: DirectoryId, group: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&id);
    head.extend_from_slice(&group.to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    head
}

/// Writes a snapshot, row by row.
pub(crate) struct SnapshotWriter {
    out: BufWriter<File>,
    unfinished: Unfinished,
    mark: Mark,
    audit: Audit,
    block: Vec<u8>,
    number: u64,
}

impl SnapshotWriter {
    /// `mark` says as of when; its totals are counted here.
    pub(crate) fn create(dir: &Path, mark: Mark, audit: Audit) -> Result<Self> {
        let unfinished = Unfinished::create(&super::path_of(dir, mark.group))?;
        let path = unfinished.path().to_owned();
        let file = unfinished.file.try_clone().map_err(Error::io("open", &path))?;
        let mark = Mark { totals: Totals::default(), ..mark };
        let mut writer =
            Self { out: BufWriter::new(file), unfinished, mark, audit, block: Vec::new(), number: 0 };
        let head = head(writer.mark.id, writer.mark.group);
        writer.write(&head)?;
        Ok(writer)
    }

    /// The next row in key order.
    pub(crate) fn push(&mut self, key: &[u8], stored: &Stored) -> Result<()> {
        write_row(key, Some(stored), &mut self.block);
        self.mark.totals.add(self.audit, key, stored);
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// What was counted so far.
    pub(crate) fn totals(&self) -> &Totals {
        &self.mark.totals
    }

    fn end_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let len = u32::try_from(block.len()).expect("blocks are small");
        self.write(&len.to_le_bytes())?;
        self.write(&crc(self.mark.group, self.number, &block).to_le_bytes())?;
        self.write(&block)?;
        self.number += 1;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    /// Ends the file, reads it back, and gives it its name.
    pub(crate) fn finish(mut self) -> Result<Mark> {
        self.end_block()?;
        let mark = self.mark.to_bytes();
        let len = u32::try_from(mark.len()).expect("marks are small");
        let sum = crc(self.mark.group, self.number, &mark);
        self.write(&[0u32.to_le_bytes(), sum.to_le_bytes(), len.to_le_bytes()].concat())?;
        self.write(&mark)?;
        let Self { out, unfinished, mark, audit, .. } = self;
        let path = unfinished.path().to_owned();
        out.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
        if mutant::planted(Mutant::TrimUnverified) {
            std::fs::rename(&path, super::path_of(path.parent().expect("in a directory"), mark.group))
                .map_err(Error::io("rename", &path))?;
            return Ok(mark);
        }
        unfinished.file.sync_all().map_err(Error::io("sync", &path))?;
        // So that it is read from the disk; whether the kernel obliges doesn't matter to what is checked.
        let _ = rustix::fs::fadvise(&unfinished.file, 0, None, rustix::fs::Advice::DontNeed);
        let read = verify(&path, mark.id, mark.group, audit)?;
        if read != mark {
            return Err(Error::damaged(&path, 0, "what was read back isn't what was written"));
        }
        unfinished.finish()?;
        Ok(mark)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::io("write", self.unfinished.path()))
    }
}

/// Reads a snapshot, block by block, checking all of it on the way.
pub(crate) struct SnapshotReader {
    file: BufReader<File>,
    path: PathBuf,
    group: u64,
    id: DirectoryId,
    audit: Audit,
    totals: Totals,
    last_key: Option<Key>,
    number: u64,
    offset: u64,
    /// Known when the end was reached and everything agreed.
    pub(crate) mark: Option<Mark>,
}

impl SnapshotReader {
    /// Opens the snapshot as of `group`.
    pub(crate) fn open(dir: &Path, id: DirectoryId, group: u64, audit: Audit) -> Result<Self> {
        Self::open_path(&super::path_of(dir, group), id, group, audit)
    }

    fn open_path(path: &Path, id: DirectoryId, group: u64, audit: Audit) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut reader = Self {
            file: BufReader::with_capacity(BLOCK_BYTES, file),
            path: path.to_owned(),
            group,
            id,
            audit,
            totals: Totals::default(),
            last_key: None,
            number: 0,
            offset: 0,
            mark: None,
        };
        let found = reader.take(HEAD_BYTES)?;
        if found != head(id, group) {
            return Err(reader.refusal(&found));
        }
        Ok(reader)
    }

    fn refusal(&self, found: &[u8]) -> Error {
        let mut r = Reader(found);
        let version = r.array().filter(|magic| *magic == MAGIC).and_then(|_| r.u32());
        let whole = crc32fast::hash(&found[..HEAD_BYTES - 4]).to_le_bytes() == found[HEAD_BYTES - 4..];
        match version {
            Some(found) if found > VERSION && whole => {
                Error::Newer { path: self.path.clone(), found, known: VERSION }
            }
            _ => Error::damaged(&self.path, 0, "its head isn't that of this snapshot of this directory"),
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact(&mut bytes).map_err(|error| {
            Error::damaged(&self.path, self.offset, format!("can't read {len} bytes: {error}"))
        })?;
        self.offset += len as u64;
        Ok(bytes)
    }

    fn word(&mut self) -> Result<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")))
    }

    /// The next rows; none at the end, which is then known to be whole.
    pub(crate) fn next_block(&mut self) -> Result<Option<Vec<(Key, Stored)>>> {
        if self.mark.is_some() {
            return Ok(None);
        }
        let at = self.offset;
        let (len, sum) = (self.word()? as usize, self.word()?);
        if len == 0 {
            self.end(at, sum)?;
            return Ok(None);
        }
        if len > BLOCK_BYTES_MAX {
            return Err(Error::damaged(&self.path, at, format!("a block of {len} bytes")));
        }
        let bytes = self.take(len)?;
        if crc(self.group, self.number, &bytes) != sum {
            return Err(Error::damaged(&self.path, at, "a block isn't what was written"));
        }
        self.number += 1;
        let rows = self.rows(&bytes);
        rows.map(Some)
            .ok_or_else(|| Error::damaged(&self.path, at, "a block is intact, yet its rows can't be read"))
    }

    fn rows(&mut self, bytes: &[u8]) -> Option<Vec<(Key, Stored)>> {
        let mut r = Reader(bytes);
        let mut rows = Vec::new();
        while !r.is_empty() {
            let (key, stored) = read_row(&mut r)?;
            let stored = stored?;
            if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                return None;
            }
            self.totals.add(self.audit, &key, &stored);
            self.last_key = Some(key.clone());
            rows.push((key, stored));
        }
        Some(rows)
    }

    fn end(&mut self, at: u64, sum: u32) -> Result<()> {
        let len = self.word()? as usize;
        if len > BLOCK_BYTES_MAX {
            return Err(Error::damaged(&self.path, at, "its end is too long"));
        }
        let bytes = self.take(len)?;
        let intact = crc(self.group, self.number, &bytes) == sum;
        let mark =
            Mark::from_bytes(&bytes).filter(|mark| intact && (mark.id, mark.group) == (self.id, self.group));
        let mark = mark.ok_or_else(|| Error::damaged(&self.path, at, "its end isn't what was written"))?;
        if mark.totals != self.totals {
            return Err(Error::damaged(&self.path, at, "its rows don't sum to what it says"));
        }
        let mut behind = [0];
        if self.file.read(&mut behind).map_err(Error::io("read", &self.path))? != 0 {
            return Err(Error::damaged(&self.path, self.offset, "something follows its end"));
        }
        self.mark = Some(mark);
        Ok(())
    }
}

/// Reads all of a snapshot; its mark if it is whole.
pub(crate) fn verify(path: &Path, id: DirectoryId, group: u64, audit: Audit) -> Result<Mark> {
    let mut reader = SnapshotReader::open_path(path, id, group, audit)?;
    while reader.next_block()?.is_some() {}
    Ok(reader.mark.expect("it ended well"))
}
