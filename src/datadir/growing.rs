//! A directory that becomes a backup: nobody's box until it is whole, and nobody's hindrance if it never is.
//!
//! It bears a mark from its first file to its last: while it isn't whole one that every start refuses, then one that says
//! so, which goes once it has its name. The mark is also the lock of whoever makes it, and the last file to go when it is
//! removed. So what an interruption leaves, at whatever instant, is a backup with its name, or something that the next
//! one knows and replaces.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use super::files::{Lock, Privacy, PrivateDir};
use super::keys::{API_KEYS, API_KEYS_BYTES_MAX};
use super::sums::SUMS;
use super::{DataDirError, LOCK, SECRETS, UNFINISHED_BACKUP, WHOLE_BACKUP};

const MARKS: [&str; 2] = [UNFINISHED_BACKUP, WHOLE_BACKUP];

/// A directory that becomes a backup. A start refuses it until it is [`Growing::seal`]ed.
#[derive(Debug)]
pub struct Growing {
    dir: PrivateDir,
    _lock: Lock,
}

impl Growing {
    /// Makes the directory. One of that name is replaced if it is a backup that was interrupted.
    ///
    /// # Errors
    /// When something else is there, or another process makes that backup.
    pub fn begin(path: &Path) -> Result<Self, DataDirError> {
        if let Ok(left) = PrivateDir::existing(path) {
            replace(&left)?;
        }
        let dir = PrivateDir::create(path, UNFINISHED_BACKUP)?;
        let lock = dir.lock(UNFINISHED_BACKUP)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Copies the secrets of the box at `from`, and makes this a directory that a start knows for one of its own.
    pub fn take_secrets(&self, from: &Path) -> Result<(), DataDirError> {
        let from = PrivateDir::existing(from)?;
        for name in SECRETS.into_iter().chain([SUMS]) {
            if let Some(bytes) = from.read(name, Privacy::Required)? {
                self.dir.write(name, &bytes)?;
            }
        }
        if let Some(bytes) = from.read_up_to(API_KEYS, Privacy::Required, API_KEYS_BYTES_MAX)? {
            self.dir.write(API_KEYS, &bytes)?;
        }
        self.dir.write(LOCK, b"")
    }

    /// It is whole, and so are all files in it, durably.
    pub fn seal(&self) -> Result<(), DataDirError> {
        self.dir.rename(UNFINISHED_BACKUP, WHOLE_BACKUP)
    }

    /// Gives it its name in that directory, durably; in place of an empty directory too.
    pub fn take_name(&self, parent: &Path, name: &OsStr) -> Result<(), DataDirError> {
        let target = parent.join(name);
        let named = std::fs::rename(self.path(), &target);
        // Its mark stays until no power cut can take the name back.
        let named = named.and_then(|()| File::open(parent)?.sync_all());
        named.map_err(|source| DataDirError::Io {
            action: "name the backup",
            path: target,
            source,
            remedy: "name another target",
        })?;
        // One that stays says nothing that isn't so, and goes with the first start.
        let _ = self.dir.remove(WHOLE_BACKUP);
        Ok(())
    }

    /// Removes it. What can't be removed is replaced by the next one.
    pub fn discard(self) {
        let _ = remove(&self.dir);
    }
}

/// Makes room for a backup where one was interrupted.
fn replace(left: &PrivateDir) -> Result<(), DataDirError> {
    let unfit = |problem: String, remedy: &str| DataDirError::Unfit {
        path: left.path().to_owned(),
        problem,
        remedy: remedy.into(),
    };
    let mut locks = Vec::new();
    for mark in MARKS {
        match left.lock_as_it_is(mark) {
            Err(DataDirError::InUse { pid, .. }) => {
                return Err(unfit(format!("is being made by process {pid}"), "wait for it"));
            }
            lock => locks.extend(lock?),
        }
    }
    if locks.is_empty() && !left.is_empty()? {
        let problem = "is there, and isn't a backup that was interrupted".to_owned();
        return Err(unfit(problem, "remove it, or name another target"));
    }
    // A box may have been started on one that was whole.
    locks.extend(left.lock_as_it_is(LOCK)?);
    remove(left)
}

/// Removes a backup that has no name, its mark last.
fn remove(dir: &PrivateDir) -> Result<(), DataDirError> {
    let path = dir.path();
    let failed = |source| DataDirError::Io {
        action: "remove the interrupted backup",
        path: path.to_owned(),
        source,
        remedy: "remove it by hand, or name another target",
    };
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if MARKS.iter().any(|mark| entry.file_name() == *mark) {
            continue;
        }
        let removed = if entry.file_type().map_err(failed)?.is_dir() {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        removed.map_err(failed)?;
    }
    dir.sync()?;
    MARKS.into_iter().try_for_each(|mark| dir.remove(mark))?;
    std::fs::remove_dir(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("switchbox-growing-{name}-{}", std::process::id()));
            fs::create_dir(&dir).expect("a new directory");
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn filled(path: &Path) -> Growing {
        let growing = Growing::begin(path).expect("it begins");
        fs::create_dir(path.join("store")).expect("made");
        fs::write(path.join("store/format"), "x").expect("written");
        growing
    }

    #[test]
    fn whatever_interrupts_one_the_next_gets_through() {
        let dir = Dir::new("interrupted");
        let (path, target) = (dir.0.join("copy.unfinished"), dir.0.join("copy"));
        // Dropped, as by the death of its process: before it is whole, and before it has its name.
        drop(filled(&path));
        let growing = filled(&path);
        growing.seal().expect("sealed");
        drop(growing);
        assert!(path.join(WHOLE_BACKUP).exists() && !path.join(UNFINISHED_BACKUP).exists());
        // In the middle of being removed, and right before the end of that.
        drop(filled(&path));
        fs::remove_dir_all(path.join("store")).expect("removed");
        drop(filled(&path));
        fs::remove_dir_all(path.join("store")).expect("removed");
        fs::remove_file(path.join(UNFINISHED_BACKUP)).expect("removed");
        let growing = filled(&path);
        growing.seal().expect("sealed");
        growing.take_name(&dir.0, OsStr::new("copy")).expect("named");
        assert!(target.join("store/format").exists() && !target.join(WHOLE_BACKUP).exists());
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_makes_or_has_is_left_alone() {
        let dir = Dir::new("left-alone");
        let path = dir.0.join("copy.unfinished");
        let refused = |problem: &str| {
            let error = Growing::begin(&path).expect_err("it is somebody's").to_string();
            assert!(error.contains(problem), "{problem}: {error}");
            assert!(path.join("store/format").exists());
        };
        let growing = filled(&path);
        refused("is being made by process");
        growing.seal().expect("sealed");
        refused("is being made by process");
        growing.take_secrets(&dir.0).expect("none there");
        drop(growing);
        let on_it = PrivateDir::existing(&path).and_then(|dir| dir.lock(LOCK)).expect("as a start does");
        refused("is in use by another switchbox process");
        drop(on_it);
        fs::remove_file(path.join(WHOLE_BACKUP)).expect("as a start does");
        refused("remove it, or name another target");
    }
}
