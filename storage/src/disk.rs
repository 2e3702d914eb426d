//! What the rest asks of the file system: whole files or none, and names that stay.
//!
//! A name is on disk only after its directory was synced, and a sync that failed is never tried again: the
//! kernel may have thrown the dirty pages away, so a second one that succeeds says nothing. Writers therefore
//! call [`or_die`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// The unit of the journal: a frame starts on a multiple of it.
pub(crate) const BLOCK: usize = 4096;

/// Added to the name of a file that is being written; leftovers are removed at start.
const UNFINISHED: &str = "unfinished";

/// `len` rounded up to whole blocks.
pub(crate) fn blocks(len: usize) -> usize {
    len.div_ceil(BLOCK) * BLOCK
}

/// Ends the process: a write or sync failed, so nothing may be acknowledged any more, and a restart recovers.
pub(crate) fn fatal(problem: &str) -> ! {
    let _ = writeln!(io::stderr(), "switchbox: storage: {problem}: aborting, a restart recovers");
    std::process::abort()
}

/// The value, or the end of the process.
pub(crate) fn or_die<T, E: std::fmt::Display>(what: &str, result: std::result::Result<T, E>) -> T {
    result.unwrap_or_else(|error| fatal(&format!("{what}: {error}")))
}

pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    if mutant::planted(Mutant::NoDirectorySync) {
        return Ok(());
    }
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync directory", path))
}

/// Makes a directory (private to its user) that stays, unless it is there.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("make directory", path)(error)),
    }
    sync_dir(path)?;
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

/// The name of a file that is to become `target`.
pub(crate) fn unfinished_name(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// A file under a name that isn't its own yet.
pub(crate) struct Unfinished {
    /// The open file; its content is up to whoever writes it.
    pub(crate) file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let path = unfinished_name(target);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        Ok(Self { file, path, target: target.to_owned() })
    }

    /// A file that is there under a name of this kind, to become `target`.
    pub(crate) fn again(path: PathBuf, target: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
        Ok(Self { file, path, target: target.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs it, gives it its name, and syncs the name.
    pub(crate) fn finish(self) -> Result<File> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        fs::rename(&self.path, &self.target).map_err(Error::io("rename", &self.path))?;
        self.target.parent().map_or(Ok(()), sync_dir)?;
        Ok(self.file)
    }
}

/// Writes a whole file, or none.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = Unfinished::create(path)?;
    unfinished.file.write_all_at(bytes, 0).map_err(Error::io("write", path))?;
    unfinished.finish().map(drop)
}

/// Bytes that are copied at once: files may be larger than the memory.
const COPY_BYTES: usize = 1 << 20;

/// Copies the first `filled` bytes of a file into a new one of `len` bytes, whole or not at all; zeros follow.
pub(crate) fn copy(from: &Path, to: &Path, filled: u64, len: u64) -> Result<()> {
    let source = File::open(from).map_err(Error::io("open", from))?;
    let unfinished = Unfinished::create(to)?;
    let mut piece = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let end = if at < filled { filled } else { len };
        let piece = &mut piece[..(COPY_BYTES as u64).min(end - at) as usize];
        match at < filled {
            true => source.read_exact_at(piece, at).map_err(Error::io("read", from))?,
            false => piece.fill(0),
        }
        unfinished.file.write_all_at(piece, at).map_err(Error::io("write", to))?;
        at += piece.len() as u64;
    }
    unfinished.finish().map(drop)
}

/// The file names in a directory, in order; none if it isn't there.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes what was never finished.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<()> {
    for name in names(dir)?.iter().filter(|name| name.ends_with(UNFINISHED)) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Removes a file, if there is one.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

/// Bytes of all files in a directory, without its subdirectories.
pub(crate) fn bytes_of(dir: &Path) -> u64 {
    let lengths = fs::read_dir(dir).into_iter().flatten().flatten();
    lengths.filter_map(|entry| entry.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// Bytes that this user may still write where `path` lies.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let stat =
        rustix::fs::statvfs(path).map_err(|error| Error::io("ask for free space of", path)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// How the file system treats a block that is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrites {
    /// In place, as the journal assumes.
    InPlace,
    /// As a copy elsewhere: preallocation promises nothing, so the disk reserve matters more, and commits are
    /// slower.
    Copied,
}

/// How the file system of `path` treats rewritten blocks.
pub(crate) fn rewrites(path: &Path) -> Rewrites {
    const BTRFS: u64 = 0x9123_683e;
    const ZFS: u64 = 0x2fc1_2fc1;
    const BCACHEFS: u64 = 0xca45_1a4e;
    let kind = rustix::fs::statfs(path).map(|stat| stat.f_type as u64);
    match kind {
        Ok(BTRFS | ZFS | BCACHEFS) => Rewrites::Copied,
        _ => Rewrites::InPlace,
    }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    or_die("the system gives no random bytes", getrandom::fill(&mut bytes));
    bytes
}
