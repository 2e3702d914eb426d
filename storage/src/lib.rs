//! What Switchbox keeps: groups of changed rows, committed together and acknowledged in order.
//!
//! Knows nothing of jobs: rows are keys and values. For now the store is memory, so nothing survives the
//! process; the grouping and the acknowledgement rule are those that a journal will follow.

mod committer;
mod memory;

pub use committer::{Change, Committer, CommitterOptions, Group, Urgency};
pub use memory::MemoryStore;
