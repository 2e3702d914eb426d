//! A copy of a whole box: its store and its secrets, made while it runs or while it doesn't. A start on the copy is the
//! restore.
//!
//! It grows under another name (`TARGET.unfinished`), in a directory that every start refuses, and gets its own when
//! all of it is on disk. So whatever interrupts it, what bears the name is whole, and what doesn't is replaced by the
//! next one (`datadir/growing.rs`).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};

use switchbox_storage::Store;

use crate::datadir::{self, DataDirError, Growing, Quiet};

/// What a store holds that a start makes anew, or that belongs to who has it.
const NOT_COPIED: [&str; 3] = ["lock", "state", "state-rebuilding"];
/// The store's last file: without it no start takes the others for a store.
const FORMAT: &str = "format";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target can't become one.
    #[error("can't back up to `{}`: {problem}", path.display())]
    Target {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another one is being made.
    #[error("the box makes a backup already: try again when it is done")]
    Busy,
    /// A directory of secrets.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store.
    #[error(transparent)]
    Store(#[from] switchbox_storage::Error),
    /// The system refused something.
    #[error("can't {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl BackupError {
    /// Whether another target, or another time, would do.
    pub fn is_about_the_request(&self) -> bool {
        matches!(self, BackupError::Target { .. } | BackupError::Busy)
    }
}

/// A backup that is whole, and on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Where it is.
    pub target: PathBuf,
    /// Bytes of the store's files in it.
    pub bytes: u64,
    /// The last step in it, where the box that made it runs.
    pub lsn: Option<u64>,
}

/// Makes backups of the box that runs, one at a time.
pub struct Backups {
    data_dir: PathBuf,
    store: Store,
    making: Mutex<()>,
}

impl Backups {
    /// Of the box in that data directory, with that store.
    pub fn new(data_dir: &Path, store: Store) -> Self {
        Self { data_dir: data_dir.to_owned(), store, making: Mutex::new(()) }
    }

    /// Makes one: everything that was acknowledged before is in it. The box goes on meanwhile. Takes as long as the
    /// disk does, so not for the io thread.
    ///
    /// # Errors
    /// When the target can't become one, another is being made, or something can't be read or written.
    pub fn make(&self, target: &Path) -> Result<BackedUp, BackupError> {
        let _making = match self.making.try_lock() {
            Ok(making) => making,
            // One that panicked has left nothing but its unfinished directory.
            Err(TryLockError::Poisoned(making)) => making.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy),
        };
        let place = Place::of(target, &self.data_dir)?;
        let copied = place.fill(&self.data_dir, |store| Ok(self.store.backup(store)?))?;
        Ok(BackedUp { target: place.target, bytes: copied.bytes, lsn: Some(copied.lsn) })
    }
}

/// Makes a backup of a box that doesn't run, as it lies there: what its start would mend, the copy's start mends.
///
/// # Errors
/// As [`Backups::make`].
pub fn make_of_quiet(box_at: &Quiet, target: &Path) -> Result<BackedUp, BackupError> {
    let place = Place::of(target, box_at.path())?;
    let from = box_at.path().join(datadir::STORE);
    let bytes = place.fill(box_at.path(), |store| copy_store(&from, store))?;
    Ok(BackedUp { target: place.target, bytes, lsn: None })
}

/// Where a backup comes to be.
struct Place {
    target: PathBuf,
    unfinished: PathBuf,
    parent: PathBuf,
    name: OsString,
}

impl Place {
    fn of(target: &Path, data_dir: &Path) -> Result<Self, BackupError> {
        let refused = |problem| BackupError::Target { path: target.to_owned(), problem };
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refused("it isn't the name of a directory"));
        };
        if !target.is_absolute() {
            return Err(refused("it must be an absolute path"));
        }
        let parent = fs::canonicalize(parent).map_err(failed("look at", parent))?;
        let data_dir = fs::canonicalize(data_dir).map_err(failed("look at", data_dir))?;
        if parent.starts_with(&data_dir) {
            return Err(refused("it lies in the box's own data directory"));
        }
        let target = parent.join(name);
        match fs::read_dir(&target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(refused("it isn't empty")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(refused("it isn't a directory"));
            }
            Err(error) => return Err(failed("look at", &target)(error)),
        }
        let mut unfinished = name.to_owned();
        unfinished.push(".unfinished");
        Ok(Self { unfinished: parent.join(unfinished), target, name: name.to_owned(), parent })
    }

    /// Makes the backup of the box at `data_dir`, whose store `copy_store` copies to where it is told, and gives it its
    /// name when it is whole. What fails leaves nothing: it may have failed for want of room.
    fn fill<T>(
        &self,
        data_dir: &Path,
        copy_store: impl FnOnce(&Path) -> Result<T, BackupError>,
    ) -> Result<T, BackupError> {
        let growing = Growing::begin(&self.unfinished)?;
        let filled = copy_store(&growing.path().join(datadir::STORE)).and_then(|copied| {
            growing.take_secrets(data_dir)?;
            growing.seal()?;
            growing.take_name(&self.parent, &self.name)?;
            Ok(copied)
        });
        if filled.is_err() {
            growing.discard();
        }
        filled
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
}

fn sync(dir: &Path) -> Result<(), BackupError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

/// Copies a store that nobody has; gives its bytes.
fn copy_store(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let names = |name: &str| {
        !NOT_COPIED.contains(&name) && name != FORMAT && !name.starts_with("state.bad-") && is_finished(name)
    };
    let bytes = copy_dir(from, to, &names)?;
    let format = from.join(FORMAT);
    if !fs::exists(&format).map_err(failed("look at", &format))? {
        // A first start that was interrupted: there is nothing yet.
        return Ok(bytes);
    }
    let bytes = bytes + copy_file(&format, &to.join(FORMAT))?;
    sync(to)?;
    Ok(bytes)
}

fn is_finished(name: &str) -> bool {
    !name.ends_with(".unfinished")
}

/// Copies the files of a directory whose names `wanted` likes, and all of its subdirectories.
fn copy_dir(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<u64, BackupError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(to).map_err(failed("make directory", to))?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).map_err(failed("list", from))? {
        let entry = entry.map_err(failed("list", from))?;
        let name = entry.file_name();
        if !wanted(&name.to_string_lossy()) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type().map_err(failed("look at", &source))?;
        bytes += if kind.is_dir() {
            copy_dir(&source, &target, &is_finished)?
        } else {
            copy_file(&source, &target)?
        };
    }
    sync(to)?;
    Ok(bytes)
}

/// Copies a file that is for its owner only, durably.
fn copy_file(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let mut source = File::open(from).map_err(failed("open", from))?;
    let mut options = OpenOptions::new();
    let mut target =
        options.write(true).create_new(true).mode(0o600).open(to).map_err(failed("create", to))?;
    let bytes = io::copy(&mut source, &mut target).map_err(failed("copy", from))?;
    target.sync_all().map_err(failed("sync", to))?;
    Ok(bytes)
}
