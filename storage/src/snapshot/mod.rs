//! Snapshots: all rows as of a group, in one file, made from the snapshot before and the journal since.
//!
//! Not made from the state store: a fault of sled's must not spread into what it is rebuilt from. The exception is a
//! journal that is damaged before the oldest group that a snapshot could be made from: then the state's rows, summed
//! again, are all there is. Two are kept.
//! The format is [`file`]'s; [`merge`] makes the next one.

pub(crate) mod file;
pub(crate) mod merge;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::{Error, Result};

const SUFFIX: &str = ".snapshot";
/// How many are kept: a second one, should the newest be damaged.
const KEPT: usize = 2;

/// The file of a snapshot as of a group.
pub(crate) fn path_of(dir: &Path, group: u64) -> PathBuf {
    dir.join(format!("{group:020}{SUFFIX}"))
}

fn group_of(name: &str) -> Option<u64> {
    let group = name.strip_suffix(SUFFIX)?;
    (group.len() == 20).then(|| group.parse().ok()).flatten()
}

/// The groups of the snapshots that are there, the oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>> {
    Ok(disk::names(dir)?.iter().filter_map(|name| group_of(name)).collect())
}

/// Removes all but the newest, which must be durable.
pub(crate) fn keep_newest(dir: &Path) -> Result<()> {
    let groups = list(dir)?;
    for group in &groups[..groups.len().saturating_sub(KEPT)] {
        let path = path_of(dir, *group);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    disk::sync_dir(dir)
}

/// Up to where the journal isn't needed for any snapshot that is kept: nothing is trimmed before there are two.
pub(crate) fn trim_group(groups: &[u64]) -> u64 {
    groups.len().checked_sub(KEPT).map_or(0, |oldest_kept| groups[oldest_kept])
}
