//! Who a directory is, which version wrote it, and that one process has it.
//!
//! `format` is text: `switchbox storage`, `version 1`, `id` and 32 hex digits, `crc` and the CRC-32 of the lines
//! before in 8 hex digits, each on a line. It is written before anything else, and never again. `lock` is empty and
//! locked (`flock`) while a process has the directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::{Error, Result};
use crate::journal::segment::DirectoryId;

/// The newest version of the directory's format that this program reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;
const TITLE: &str = "switchbox storage";

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A state that is being built.
    pub(crate) fn rebuilding(&self) -> PathBuf {
        self.dir.join("state-rebuilding")
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.dir.join("format")
    }
}

/// Held by the one process that has the directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Looks whether a process has the directory, without making anything.
    pub(crate) fn probe(dir: &Path) -> Result<Option<Self>> {
        match fs::metadata(dir.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::take(dir).map(Some),
        }
    }
}

/// The directory's id; none if there is no format file.
pub(crate) fn load(layout: &Layout) -> Result<Option<DirectoryId>> {
    let path = layout.format();
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &path)(error)),
        Ok(bytes) => parse(&path, &bytes).map(Some),
    }
}

pub(crate) fn create(layout: &Layout) -> Result<DirectoryId> {
    let id = disk::random();
    disk::write_whole(&layout.format(), &render(FORMAT_VERSION, id))?;
    Ok(id)
}

fn render(version: u32, id: DirectoryId) -> Vec<u8> {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{TITLE}\nversion {version}\nid {id}\n");
    format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes())).into_bytes()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<DirectoryId> {
    let fields = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        let version = lines.by_ref().nth(1)?.strip_prefix("version ")?.parse::<u32>().ok()?;
        let id = lines.next()?.strip_prefix("id ")?;
        let digits = (0..16).map(|i| u8::from_str_radix(id.get(2 * i..2 * i + 2)?, 16).ok());
        Some((version, digits.collect::<Option<Vec<u8>>>()?.try_into().ok()?))
    };
    let sealed = |version, id| render(version, id) == bytes;
    match fields() {
        Some((version, id)) if version > FORMAT_VERSION && sealed(version, id) => {
            Err(Error::Newer { path: path.to_owned(), found: version, known: FORMAT_VERSION })
        }
        Some((version, id)) if version == FORMAT_VERSION && sealed(version, id) => Ok(id),
        _ => Err(Error::damaged(path, 0, "it isn't what was written")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_refused_or_newer() {
        let (path, id) = (Path::new("format"), [0xa7; 16]);
        let bytes = render(1, id);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "switchbox storage\nversion 1\nid a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7\ncrc 7f4d61cc\n"
        );
        assert_eq!(parse(path, &bytes).expect("ours"), id);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(matches!(parse(path, &flipped), Err(Error::Damaged { .. })), "byte {at}");
            assert!(parse(path, &bytes[..at]).is_err());
        }
        let newer = parse(path, &render(2, id)).map_err(|error| error.to_string());
        assert!(newer.expect_err("refused").contains("format version 2; this program reads up to 1"));
    }

    #[test]
    fn one_process_has_it() {
        let dir = crate::scratch::Scratch::new();
        assert!(Lock::probe(dir.path()).expect("free").is_none());
        let lock = Lock::take(dir.path()).expect("free");
        assert!(matches!(Lock::take(dir.path()), Err(Error::InUse { .. })));
        drop(lock);
        assert!(Lock::probe(dir.path()).expect("free").is_some());
    }
}
