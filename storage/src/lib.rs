//! What Switchbox keeps: groups of changed rows, committed together and acknowledged in order.
//!
//! Knows nothing of jobs: rows are keys and values.

mod bytes;
mod checkpoint;
mod committer;
mod dirty;
mod disk;
mod error;
mod journal;
mod memory;
mod row;
#[cfg(test)]
mod scratch;
mod state;

pub use committer::{Change, Committer, CommitterOptions, Group, Urgency};
pub use error::{Error, Result};
pub use memory::MemoryStore;
