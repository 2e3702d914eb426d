//! The state store on sled 0.34.7, opened with care.
//!
//! One tree, `state`. Keys that start with 0 are the store's own: `00 41` the mark that was applied, `00 42` the one
//! that was begun. Values are in an [`envelope`]. Single sorted operations only (a mixed `Batch` leaks memory and
//! disk); a flush is an `fdatasync` by [`shim`]; nothing is ever large enough for sled's unsynced side files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::sled::{Db, Tree};

use crate::disk;
use crate::error::{Error, Result};
use crate::row::{Key, Stored};
use crate::state::guard::{self, Failure};
use crate::state::mark::Mark;
use crate::state::{Marks, StateStore, envelope, shim};

const APPLIED: [u8; 2] = [0, b'A'];
const BEGUN: [u8; 2] = [0, b'B'];
/// Keys below belong to the store itself.
const FIRST_TABLE: [u8; 1] = [1];
const TREE: &[u8] = b"state";
/// What was moved aside gets this added to its name.
const BAD: &str = ".bad-";

/// Between two looks whether sled's lock is free.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// How to open sled.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Bytes of its page cache. What it really uses was seen to be several times as much.
    pub cache_bytes: u64,
    /// How long opening it, or reading a piece of it at start, may take before it counts as hung.
    pub patience: Duration,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, patience: Duration::from_secs(120) }
    }
}

/// Rows in sled.
#[derive(Clone)]
pub(crate) struct SledState {
    db: Db,
    tree: Tree,
    dir: PathBuf,
}

/// Why the sled that is there isn't used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable(pub(crate) String);

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

/// Whether there is anything in a sled directory.
pub(crate) fn is_there(dir: &Path) -> Result<bool> {
    disk::names(dir).map(|names| !names.is_empty())
}

/// Opens a sled with care; a directory without one gets one.
pub(crate) fn open(dir: &Path, options: &SledOptions) -> Result<std::result::Result<SledState, Unusable>> {
    disk::make_dir(dir)?;
    // A snapshot that was being written when the process was killed: sled would take it for the newest.
    remove_files(dir, |name| name.starts_with("snap.") && name.ends_with(".generating"))?;
    let mut opened = open_unlocked(dir, options);
    if matches!(&opened, Err(Unusable(problem)) if !problem.contains("no answer")) {
        // Snapshots only speed its start up; without them it reads its whole log.
        remove_files(dir, |name| name.starts_with("snap."))?;
        opened = open_unlocked(dir, options);
    }
    if opened.is_ok() {
        for name in ["conf", "db"] {
            let path = dir.join(name);
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("sync", &path))?;
        }
        disk::sync_dir(dir)?;
    }
    Ok(opened)
}

fn remove_files(dir: &Path, unwanted: impl Fn(&str) -> bool) -> Result<()> {
    for name in disk::names(dir)?.iter().filter(|name| unwanted(name)) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    disk::sync_dir(dir)
}

/// As [`open_once`], once the one before it is really closed: sled's threads let go of its lock some time after the
/// last handle is dropped. Whoever opens has the directory's own lock, so nobody else can have sled's.
fn open_unlocked(dir: &Path, options: &SledOptions) -> std::result::Result<SledState, Unusable> {
    let until = Instant::now() + options.patience;
    loop {
        let opened = open_once(dir, options);
        let locked = matches!(&opened, Err(Unusable(problem)) if problem.contains("acquire lock"));
        if !locked || Instant::now() >= until {
            return opened;
        }
        std::thread::sleep(LOCK_LOOK);
    }
}

fn open_once(dir: &Path, options: &SledOptions) -> std::result::Result<SledState, Unusable> {
    let (path, cache_bytes) = (dir.to_owned(), options.cache_bytes);
    let open = move || -> std::result::Result<SledState, ::sled::Error> {
        let config = ::sled::Config::new().path(&path).cache_capacity(cache_bytes).flush_every_ms(None);
        let db = config.use_compression(false).open()?;
        let tree = db.open_tree(TREE)?;
        db.flush()?;
        Ok(SledState { db, tree, dir: path })
    };
    guard::call(options.patience, open)?.map_err(|error| Unusable(format!("it can't be opened: {error}")))
}

/// Removes a sled directory that nobody needs.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Renames a directory that isn't to be used, and removes those renamed before it.
pub(crate) fn move_aside(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().expect("a directory of ours has a name").to_string_lossy().into_owned() + BAD;
    let parent = dir.parent().expect("it lies in the store's directory");
    for old in disk::names(parent)?.iter().filter(|old| old.starts_with(&name)) {
        remove(&parent.join(old))?;
    }
    let target = parent.join(format!("{name}{}", disk::unix_ms()));
    fs::rename(dir, &target).map_err(Error::io("move aside", dir))?;
    disk::sync_dir(parent)?;
    Ok(target)
}

impl SledState {
    /// Writes, flushes, and sees whether the flush became an `fdatasync`. A link that lost the shim would otherwise
    /// be found only by a power cut.
    pub(crate) fn check_shim(&self) -> Result<()> {
        let before = shim::calls();
        let probe = [0, b'P'];
        self.write(self.tree.insert(probe, &before.to_le_bytes()[..]))?;
        self.flush()?;
        self.write(self.tree.remove(probe))?;
        self.flush()?;
        if shim::calls() == before {
            let problem =
                "this program was linked without its `sync_file_range`: sled wouldn't survive a power cut";
            return Err(Error::Io {
                action: "sync",
                path: self.dir.clone(),
                source: std::io::Error::other(problem),
            });
        }
        Ok(())
    }

    /// The marks; none in a sled that was never finished.
    pub(crate) fn marks(&self) -> std::result::Result<Option<Marks>, Unusable> {
        let applied = self.mark(APPLIED)?;
        let begun = self.mark(BEGUN)?;
        Ok(applied.map(|applied| Marks { begun: begun.filter(|b| b.group > applied.group), applied }))
    }

    fn mark(&self, key: [u8; 2]) -> std::result::Result<Option<Mark>, Unusable> {
        let sealed = self.tree.get(key).map_err(|error| Unusable(format!("it can't be read: {error}")))?;
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = envelope::open(&key, &sealed).filter(|(kind, _)| *kind == envelope::MARK);
        let mark = opened.and_then(|(_, body)| Mark::from_bytes(body));
        mark.map(Some).ok_or_else(|| Unusable("its mark isn't what was written".into()))
    }

    fn put_mark(&self, key: [u8; 2], mark: &Mark) -> Result<()> {
        let sealed = envelope::seal(envelope::MARK, &key, &mark.to_bytes());
        self.write(self.tree.insert(key, sealed)).map(drop)
    }

    fn write<T>(&self, result: ::sled::Result<T>) -> Result<T> {
        result.map_err(|error| Error::Io {
            action: "write",
            path: self.dir.clone(),
            source: std::io::Error::other(error),
        })
    }

    fn flush(&self) -> Result<()> {
        self.write(self.db.flush()).map(drop)
    }

    fn stored(&self, key: &[u8], sealed: &[u8]) -> Result<Stored> {
        envelope::open_stored(key, sealed).ok_or_else(|| {
            Error::damaged(&self.dir.join("db"), 0, format!("row {key:02x?} isn't what was written"))
        })
    }

    /// Files that sled never syncs; there must be none.
    pub(crate) fn side_files(&self) -> Result<usize> {
        disk::names(&self.dir.join("blobs")).map(|names| names.len())
    }
}

impl StateStore for SledState {
    fn read(&self, key: &[u8]) -> Result<Option<Stored>> {
        let sealed = self.write(self.tree.get(key))?;
        sealed.map(|sealed| self.stored(key, &sealed)).transpose()
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Stored)>> {
        let from = from.max(&FIRST_TABLE[..]);
        let found = match to {
            Some(to) if to <= from => return Ok(Vec::new()),
            Some(to) => self.tree.range(from..to),
            None => self.tree.range(from..),
        };
        let mut rows = Vec::new();
        for row in found.take(limit) {
            let (key, sealed) = self.write(row)?;
            rows.push((key[..].into(), self.stored(&key, &sealed)?));
        }
        Ok(rows)
    }

    fn begin(&self, mark: &Mark) -> Result<()> {
        self.put_mark(BEGUN, mark)?;
        self.flush()
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = (&Key, &Option<Stored>)>) -> Result<()> {
        for (key, stored) in changes {
            let done = match stored {
                Some(stored) => self.tree.insert(key, envelope::seal_stored(key, stored)),
                None => self.tree.remove(key),
            };
            self.write(done)?;
        }
        self.flush()
    }

    fn finish(&self, mark: &Mark) -> Result<()> {
        self.put_mark(APPLIED, mark)?;
        self.write(self.tree.remove(BEGUN))?;
        self.flush()
    }

    fn disk_bytes(&self) -> u64 {
        disk::bytes_of(&self.dir)
    }
}
