//! Files of one private directory, always by the directory's own descriptor: what the path is made to mean later
//! changes nothing, and no link inside it is followed. Files are replaced whole, with mode 0600 whatever the
//! umask, and are on disk when the write returns.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::DataDirError;

/// Bytes of a file here, if nothing else is said.
const FILE_BYTES_MAX: u64 = 4_096;
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What other users may do, in a file's mode.
const OTHERS: u32 = 0o077;
const DISK_REMEDY: &str = "see to the disk and to who owns the directory";

/// What becomes of a file that other users may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// It is closed to them, with a warning.
    Tightened,
    /// It isn't read.
    Required,
    /// It is read.
    Unchecked,
}

/// The lock; let go when dropped, also by the death of the process.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// A directory that only its owner enters.
#[derive(Debug)]
pub(super) struct PrivateDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl PrivateDir {
    /// Makes it if there is none. A directory with other files in it that other users may enter is refused
    /// unless `mark` shows that it is ours: who names `.` by mistake keeps his permissions.
    pub(super) fn create(path: &Path, mark: &str) -> Result<Self, DataDirError> {
        let remedy = "name another directory with `--data-dir DIR`";
        let failed = |source| DataDirError::Io { action: "create", path: path.to_owned(), source, remedy };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match fs::mkdir(path, Mode::from_raw_mode(DIR_MODE)) {
            // The umask may have taken even the owner's bits.
            Ok(()) => fs::chmod(path, Mode::from_raw_mode(DIR_MODE)).map_err(|errno| failed(errno.into()))?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let this = Self::existing(path)?;
        this.close_to_others(mark)?;
        Ok(this)
    }

    /// One that is there.
    pub(super) fn existing(path: &Path) -> Result<Self, DataDirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = fs::open(path, flags, Mode::empty()).map_err(|errno| DataDirError::Io {
            action: "open the data directory",
            path: path.to_owned(),
            source: errno.into(),
            remedy: "name the right one with `--data-dir DIR`",
        })?;
        Ok(Self { path: path.to_owned(), dir })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn unfit(&self, problem: String, remedy: &str) -> DataDirError {
        DataDirError::Unfit { path: self.path.clone(), problem, remedy: remedy.to_owned() }
    }

    fn io(&self, action: &'static str, name: &str, errno: Errno) -> DataDirError {
        let path = self.path.join(name);
        // What O_NOFOLLOW says of a link.
        if errno == Errno::LOOP {
            let (problem, remedy) =
                ("is a link, which is never followed here".into(), "put the file itself there");
            return DataDirError::Unfit { path, problem, remedy: remedy.into() };
        }
        DataDirError::Io { action, path, source: errno.into(), remedy: DISK_REMEDY }
    }

    fn close_to_others(&self, mark: &str) -> Result<(), DataDirError> {
        let stat = fs::fstat(&self.dir).map_err(|errno| self.io("look at", "", errno))?;
        let user = rustix::process::geteuid();
        if stat.st_uid != user.as_raw() {
            let problem = format!("belongs to user {}, not to the one who runs this ({user})", stat.st_uid);
            return Err(
                self.unfit(problem, "run as its owner, or name another directory with `--data-dir DIR`")
            );
        }
        let mode = stat.st_mode & 0o7777;
        if mode & OTHERS == 0 {
            return Ok(());
        }
        if !self.is_empty()? && !self.has(mark)? {
            let problem =
                format!("has other files in it and may be entered by other users (mode {mode:04o})");
            let remedy = "name a new directory with `--data-dir DIR`, or `chmod 700` this one if it is meant";
            return Err(self.unfit(problem, remedy));
        }
        fs::fchmod(&self.dir, Mode::from_raw_mode(DIR_MODE)).map_err(|errno| self.io("chmod", "", errno))?;
        tracing::warn!(path = %self.path.display(), "the data directory could be entered by other users (mode {mode:04o}); it is 0700 now");
        Ok(())
    }

    pub(super) fn is_empty(&self) -> Result<bool, DataDirError> {
        self.names().map(|names| names.is_empty())
    }

    /// What is in it, in no order. A name that isn't UTF-8 is shown as well as it can be.
    pub(super) fn names(&self) -> Result<Vec<String>, DataDirError> {
        let failed = |errno| self.io("list", "", errno);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(super) fn has(&self, name: &str) -> Result<bool, DataDirError> {
        match fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.io("look at", name, errno)),
        }
    }

    /// Whether there is such a file, and other users may do something with it.
    pub(super) fn is_open_to_others(&self, name: &str) -> bool {
        let stat = fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| stat.st_mode & OTHERS != 0)
    }

    fn open(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.dir, name, flags, Mode::from_raw_mode(FILE_MODE)).map(File::from)
    }

    /// Takes the directory's lock, or says who has it.
    pub(super) fn lock(&self, name: &str) -> Result<Lock, DataDirError> {
        let failed = |errno| self.io("lock", name, errno);
        let mut file = self.open(name, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(self.in_use(&mut file)),
            Err(errno) => return Err(failed(errno)),
        }
        let write = |file: &mut File| {
            fs::fchmod(file.as_fd(), Mode::from_raw_mode(FILE_MODE))?;
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|source| self.write_failed(name, source))?;
        Ok(Lock(file))
    }

    /// Takes the lock as it lies there, without writing; `None` if there is none.
    pub(super) fn lock_as_it_is(&self, name: &str) -> Result<Option<Lock>, DataDirError> {
        let failed = |errno| self.io("lock", name, errno);
        let mut file = match self.open(name, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Err(self.in_use(&mut file)),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn in_use(&self, lock: &mut File) -> DataDirError {
        let mut pid = String::new();
        // A lock that was taken this moment names nobody yet.
        let _ = lock.take(20).read_to_string(&mut pid);
        let pid = pid.trim();
        let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
        DataDirError::InUse { path: self.path.clone(), pid }
    }

    fn write_failed(&self, name: &str, source: std::io::Error) -> DataDirError {
        DataDirError::Io { action: "write", path: self.path.join(name), source, remedy: DISK_REMEDY }
    }

    /// Another view of the same directory.
    pub(super) fn again(&self) -> Result<Self, DataDirError> {
        let dir = self.dir.try_clone().map_err(|source| DataDirError::Io {
            action: "open the data directory",
            path: self.path.clone(),
            source,
            remedy: DISK_REMEDY,
        })?;
        Ok(Self { path: self.path.clone(), dir })
    }

    /// The bytes of a small file; `None` if there is none.
    pub(super) fn read(
        &self,
        name: &str,
        privacy: Privacy,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
        self.read_up_to(name, privacy, FILE_BYTES_MAX)
    }

    /// As [`PrivateDir::read`], for a file that may have so many bytes.
    pub(super) fn read_up_to(
        &self,
        name: &str,
        privacy: Privacy,
        bytes_max: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
        // Not blocking: what lies there might be a pipe.
        let file = match self.open(name, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.io("open", name, errno)),
        };
        self.check_private(&file, name, privacy)?;
        // All of its room at once: what grows leaves copies of secrets behind.
        let room = file.metadata().map_or(0, |meta| meta.len()).min(bytes_max) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
        let path = || self.path.join(name);
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|source| DataDirError::Io {
            action: "read",
            path: path(),
            source,
            remedy: DISK_REMEDY,
        })?;
        if bytes.len() as u64 > bytes_max {
            let (problem, remedy) = (format!("is longer than {bytes_max} bytes"), "put the right file there");
            return Err(DataDirError::Unfit { path: path(), problem, remedy: remedy.into() });
        }
        Ok(Some(bytes))
    }

    fn check_private(&self, file: &File, name: &str, privacy: Privacy) -> Result<(), DataDirError> {
        let stat = fs::fstat(file).map_err(|errno| self.io("look at", name, errno))?;
        let path = self.path.join(name);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let (problem, remedy) = ("isn't a regular file".into(), "put a file there, or remove it");
            return Err(DataDirError::Unfit { path, problem, remedy: remedy.into() });
        }
        let mode = stat.st_mode & 0o7777;
        if mode & OTHERS == 0 || privacy == Privacy::Unchecked {
            return Ok(());
        }
        if privacy == Privacy::Required {
            let problem = format!("may be read by other users (mode {mode:04o})");
            let remedy = format!("`chmod 600 {}`", path.display());
            return Err(DataDirError::Unfit { path, problem, remedy });
        }
        fs::fchmod(file, Mode::from_raw_mode(FILE_MODE)).map_err(|errno| self.io("chmod", name, errno))?;
        tracing::warn!(path = %path.display(), "a secret could be read by other users (mode {mode:04o}); it is 0600 now, but consider replacing it");
        Ok(())
    }

    /// Puts the whole file in place of what was there, durably.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let fresh = format!(".{name}.new");
        let failed = |errno| self.io("write", name, errno);
        // Left by a process that died; the lock is ours, so nobody writes it now.
        self.remove(&fresh)?;
        let mut file = self.open(&fresh, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).map_err(failed)?;
        let write = |file: &mut File| {
            fs::fchmod(file.as_fd(), Mode::from_raw_mode(FILE_MODE))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write(&mut file).map_err(|source| self.write_failed(name, source))?;
        fs::renameat(&self.dir, &fresh, &self.dir, name).map_err(failed)?;
        fs::fsync(&self.dir).map_err(failed)
    }

    /// Gives a file another name, durably.
    pub(super) fn rename(&self, name: &str, to: &str) -> Result<(), DataDirError> {
        fs::renameat(&self.dir, name, &self.dir, to).map_err(|errno| self.io("rename", name, errno))?;
        self.sync()
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), DataDirError> {
        fs::fsync(&self.dir).map_err(|errno| self.io("sync", "", errno))
    }

    /// Removes the file if there is one.
    pub(super) fn remove(&self, name: &str) -> Result<(), DataDirError> {
        match fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.io("remove", name, errno)),
        }
    }
}
