//! The state store behind the journal: rows as of a group, in key order, rebuilt from snapshot and journal whenever
//! it isn't the one that belongs here.
//!
//! Only the checkpoint writes it ([`crate::checkpoint`]): `begin`, `apply`, `finish`. What a crash leaves half
//! applied is harmless, because the journal is applied again from the mark. Readers must look at the dirty rows
//! first ([`crate::dirty`]).

pub(crate) mod envelope;
pub(crate) mod guard;
pub(crate) mod mark;
pub(crate) mod memory;
pub(crate) mod shim;
pub(crate) mod sled;

#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::row::{Key, Stored};
use mark::Mark;

/// Which store holds the rows behind the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateKind {
    /// sled 0.34.7, in the directory.
    #[default]
    Sled,
    /// Memory: rebuilt from snapshot and journal at each start.
    Memory,
}

/// What the store says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// As of which group all rows are.
    pub(crate) applied: Mark,
    /// A checkpoint that was begun and may be half applied.
    pub(crate) begun: Option<Mark>,
}

/// Rows as of a mark. Errors of `begin`, `apply` and `finish` end the process (their caller sees to it).
pub(crate) trait StateStore: Send + Sync {
    /// What a row holds.
    fn read(&self, key: &[u8]) -> Result<Option<Stored>>;

    /// At most `limit` rows in key order, from the first one not below `from`, and below `to` where given.
    fn range(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Stored)>>;

    /// Says, durably, that rows are about to change to what they are at `mark`.
    fn begin(&self, mark: &Mark) -> Result<()>;

    /// Changes rows, durably. They are in key order, each key once.
    fn apply(&self, changes: &mut dyn Iterator<Item = (&Key, &Option<Stored>)>) -> Result<()>;

    /// Says, durably, that all rows are as of `mark`.
    fn finish(&self, mark: &Mark) -> Result<()>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}
