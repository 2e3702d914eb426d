//! What Switchbox keeps: groups of changed rows, committed together and acknowledged in order.
//!
//! Knows nothing of jobs: rows are keys and values. [`MemoryStore`] keeps them as they are and loses them with the
//! process. [`Store`] keeps bytes, durably:
//!
//! ```text
//!  Committer ── frame + fdatasync ──▶ journal/ ──────────────┐
//!      │                                                     ├─▶ snapshots/ (the one before + the journal since)
//!      └─ rows ──▶ dirty rows ── checkpoint ──▶ state/ (sled)┘   a state that isn't right is rebuilt from both
//! ```
//!
//! A directory holds `format` and `lock` ([`identity`]), `journal/` ([`journal`]), `snapshots/` ([`snapshot`]) and
//! `state/` ([`state`]); those modules state what is on disk. All numbers are little-endian but for keys, whose bytes
//! are their order. All checksums are CRC-32 (ISO-HDLC).

mod backup;
mod bytes;
mod checkpoint;
mod committer;
mod dirty;
mod disk;

mod doctor;
mod error;
mod identity;
mod journal;
mod keeper;
mod memory;
mod open;
mod reclaim;
mod row;
#[cfg(test)]
mod scratch;
mod snapshot;
mod state;
mod store;

pub use backup::BackedUp;
pub use committer::{Change, Codec, Committer, CommitterOptions, Group, Urgency};
pub use disk::Rewrites;
pub use doctor::{Diagnosis, Finding, Severity, doctor};
pub use error::{Error, Result};
pub use identity::FORMAT_VERSION;
pub use journal::JournalOptions;
pub use journal::open::TornTail;
pub use journal::rows::Rows;
pub use memory::MemoryStore;
pub use open::base::Load;
pub use open::{Opened, Origin};
pub use row::{KEY_BYTES_MAX, Key, PayloadRef, Stored, VALUE_BYTES_MAX};
pub use state::StateKind;
pub use state::mark::{Audit, Totals};
pub use state::sled::SledOptions;
pub use store::{Gauges, Room, Store, StoreOptions};
