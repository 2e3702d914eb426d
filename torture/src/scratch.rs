//! Directories of the rig.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What is lost with the page cache alone doesn't need a disk, and a disk would wear.
const MEMORY: &str = "/dev/shm";

/// A directory that goes when it is dropped, unless something was found in it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

/// Where it is to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// On a disk, with syncs that take their time: `$TMPDIR` or `/tmp`.
    Disk,
    /// In memory, where there is such a file system.
    Memory,
}

impl Scratch {
    /// An empty one.
    ///
    /// # Panics
    /// When it can't be made: the rig can do nothing without.
    pub fn new(on: On) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("switchbox-torture-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let memory = Path::new(MEMORY);
        let parent =
            if on == On::Memory && memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(name);
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        // The recorder compares with what the system says, which knows no links.
        Self { path: path.canonicalize().expect("it was made just now") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves it where it is, for whoever looks into what was found.
    pub fn keep(self) -> PathBuf {
        let path = self.path.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Copies a directory with everything in it. What goes meanwhile is left out.
///
/// # Errors
/// What the system says.
pub fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            match fs::copy(entry.path(), &target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
    }
    Ok(())
}

/// The files below a directory, relative to it, in order.
///
/// # Errors
/// What the system says.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fn walk(dir: &Path, within: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = within.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &name, found)?;
            } else {
                found.push(name);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(dir, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}
