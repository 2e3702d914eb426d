//! Why a directory can't be opened or read. What goes wrong while writing isn't here: it ends the process
//! ([`crate::disk::fatal`]), for nothing could be promised any more.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why something of the store can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// Another process has the directory.
    #[error("`{}` is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer program wrote the directory.
    #[error(
        "`{}` has format version {found}; this program reads up to {known}: use the program that wrote it, \
         or a newer one",
        path.display()
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// The version it says.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The wall clock is further behind the newest group than the caller allows.
    #[error("this machine's clock is {} s behind the newest stored time", by.as_secs())]
    ClockBehind {
        /// By how much.
        by: Duration,
    },
    /// Bytes aren't what was written, or something that was acknowledged is missing.
    #[error("`{}` is damaged at byte {offset}: {problem}", path.display())]
    Damaged {
        /// The file (or directory, where a whole file is missing).
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// For `map_err` on what the system refuses.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the disk is full, or the owner's share of it.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    pub(crate) fn damaged(path: &Path, offset: u64, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, problem: problem.into() }
    }
}

/// The result of reading the store.
pub type Result<T> = std::result::Result<T, Error>;
