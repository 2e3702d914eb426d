//! The recorder under a box, and what it has recorded.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::process::Setup;

/// The recorder's counters, as it keeps them in a file; zero where nothing records.
#[derive(Debug)]
pub struct Counters {
    file: Option<File>,
}

impl Counters {
    /// Of a box without a recorder.
    pub fn none() -> Self {
        Self { file: None }
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        let read = self.file.as_ref().map(|file| file.read_exact_at(&mut bytes, at));
        if matches!(read, Some(Ok(()))) { u64::from_le_bytes(bytes) } else { 0 }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.number(0)
    }

    /// Log records so far.
    pub fn records(&self) -> u64 {
        self.number(8)
    }
}

/// Where a recorder writes.
#[derive(Debug, Clone)]
pub struct Recorder {
    library: PathBuf,
    /// The log.
    pub log: PathBuf,
    counter: PathBuf,
    told: PathBuf,
}

/// An operation that is to go wrong: the first from this one on that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its number, from 1.
    pub at: u64,
    /// `kill`, `EIO` or `ENOSPC`.
    pub action: &'static str,
    /// A part of its path; with `$` behind it, its end.
    pub on: Option<&'static str>,
    /// `sync`, `write` or `name`.
    pub kind: Option<&'static str>,
}

/// An operation that went wrong, as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// `sync`, `write` or `name`.
    pub kind: String,
    /// Its path, relative to the data directory: empty for the directory itself.
    pub path: String,
}

impl Recorder {
    /// One that writes into a directory, which isn't the box's.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(library: &Path, dir: &Path) -> io::Result<Self> {
        let (log, counter, told) = (dir.join("operations"), dir.join("counters"), dir.join("told"));
        let recorder = Self { library: library.to_owned(), log, counter, told };
        fs::write(&recorder.counter, [0; 16])?;
        Ok(recorder)
    }

    /// The counters.
    ///
    /// # Errors
    /// What the system says.
    pub fn counters(&self) -> io::Result<Counters> {
        File::open(&self.counter).map(|file| Counters { file: Some(file) })
    }

    /// A box that is counted, and fails as planned.
    pub fn under(&self, setup: Setup, plan: Option<&Plan>) -> Setup {
        let text = |path: &Path| path.display().to_string();
        let data = text(&setup.data);
        let setup = setup.with("LD_PRELOAD", text(&self.library)).with("RECORDER_DIR", data);
        let setup = setup.with("RECORDER_COUNTER", text(&self.counter));
        let Some(Plan { at, action, on, kind }) = plan else { return setup };
        let setup = setup.with("RECORDER_AT", at.to_string()).with("RECORDER_ACTION", *action);
        let setup = setup.with("RECORDER_ON", on.unwrap_or_default()).with("RECORDER_TOLD", text(&self.told));
        setup.with("RECORDER_KIND", kind.unwrap_or_default())
    }

    /// A box that is recorded too.
    pub fn recording(&self, setup: Setup, plan: Option<&Plan>) -> Setup {
        let log = self.log.display().to_string();
        self.under(setup, plan).with("RECORDER_LOG", log)
    }

    /// The operation that went wrong; none if none has.
    pub fn happened(&self) -> Option<Happened> {
        let told = fs::read_to_string(&self.told).ok()?;
        let (kind, path) = told.split_once(' ')?;
        Some(Happened { kind: kind.to_owned(), path: path.to_owned() })
    }

    /// Goes on where the log ends: a killed process may have counted one record less than it wrote.
    ///
    /// # Errors
    /// As [`Recorder::records`].
    pub fn go_on(&self) -> io::Result<usize> {
        let records = self.records()?.len();
        let counter = File::options().write(true).open(&self.counter)?;
        counter.write_all_at(&(records as u64).to_le_bytes(), 8)?;
        Ok(records)
    }

    /// What was recorded.
    ///
    /// # Errors
    /// When the log can't be read, or says that it isn't true.
    pub fn records(&self) -> io::Result<Vec<Record>> {
        parse(&fs::read(&self.log)?)
    }
}

/// An operation as it was recorded.
#[allow(missing_docs, reason = "the fields are those of the recorder's log, which states them")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A file was made, open under this inode.
    FileMade { inode: u64, name: String },
    /// A directory was made.
    DirectoryMade { inode: u64, name: String },
    /// A file's length was set.
    Length { inode: u64, length: u64 },
    /// Bytes were written.
    Written { inode: u64, offset: u64, bytes: Vec<u8> },
    /// Zeros were written.
    Zeros { inode: u64, offset: u64, length: u64 },
    /// A sync begins.
    SyncBegins { token: u64, inode: u64 },
    /// It went well.
    Synced { token: u64 },
    /// It was made to fail.
    SyncFailed { token: u64 },
    /// A name became another.
    Renamed { from: String, to: String },
    /// A name was removed.
    Removed { name: String },
}

fn parse(mut log: &[u8]) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    while let Some((head, rest)) = log.split_first_chunk::<5>() {
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        // A killed process leaves whole records, but look.
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        let record = record(head[0], body).ok_or_else(|| {
            io::Error::other(format!("record {} (kind {}) of the log isn't true", records.len(), head[0]))
        })?;
        records.push(record);
        log = rest;
    }
    Ok(records)
}

fn record(kind: u8, body: &[u8]) -> Option<Record> {
    let number = |at: usize| body.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match kind {
        1 if body.get(8)? == &0 => Record::FileMade { inode: number(0)?, name: text(&body[9..]) },
        1 => Record::DirectoryMade { inode: number(0)?, name: text(&body[9..]) },
        2 => Record::Length { inode: number(0)?, length: number(8)? },
        3 => Record::Written { inode: number(0)?, offset: number(8)?, bytes: body[16..].to_vec() },
        4 => Record::Zeros { inode: number(0)?, offset: number(8)?, length: number(16)? },
        5 => Record::SyncBegins { token: number(0)?, inode: number(8)? },
        6 if body.get(8)? == &0 => Record::Synced { token: number(0)? },
        6 => Record::SyncFailed { token: number(0)? },
        7 => {
            let first = u32::from_le_bytes(body.get(..4)?.try_into().ok()?) as usize;
            let (from, to) = body[4..].split_at_checked(first)?;
            Record::Renamed { from: text(from), to: text(to) }
        }
        8 => Record::Removed { name: text(body) },
        _ => return None,
    })
}
