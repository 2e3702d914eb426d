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
//! # On disk
//!
//! | file | what | stated in |
//! |---|---|---|
//! | `format` | version and id of the directory, as text with a CRC; written first, never again | `identity` |
//! | `lock` | empty; `flock`ed while a process has the directory | `identity` |
//! | `journal/NNNNNNNNNN.segment` | preallocated; 4 KiB header with a salt, then frames on 4 KiB boundaries | `journal::segment`, `journal::frame` |
//! | `snapshots/GGGGGGGGGGGGGGGGGGGG.snapshot` | all rows as of a group, sorted, in checksummed blocks, with totals | `snapshot::file` |
//! | `state/` | sled 0.34.7: rows in envelopes, the mark that was applied, the one that was begun | `state::sled`, `state::envelope`, `state::mark` |
//! | `state.bad-MS` | a state store that wasn't used, the latest one | `state::sled` |
//! | `state-rebuilding/`, `*.unfinished` | not finished, or an old segment to be used again; removed at start | `open`, `disk`, `journal::retired` |
//!
//! Numbers are little-endian; keys are ordered by their bytes. Checksums are CRC-32 (ISO-HDLC). Every format carries
//! a version; a start reads all versions up to its own, writes its own, and refuses a newer one by name.
//!
//! A *group* is what one frame holds: one commit. Groups are numbered without gaps, so a missing one is noticed; the
//! caller's step numbers (LSN) only grow. A row's value is either short and the row's own, or a *payload*: bytes of
//! any length that stay in the journal frame that brought them, with a reference in the row. Whoever moves a payload
//! later changes the row in the same group, so nobody outside needs to know.
//!
//! # What is promised
//!
//! - `on_durable(lsn)` is called only after the frame with `lsn` was written and `fdatasync`ed.
//! - After a crash or power cut a start finds every acknowledged step, and of the unacknowledged ones a prefix.
//! - Damage is recovered from what is redundant, or refused by file and offset. Only bytes of the last group can't be
//!   told from a torn one.
//! - An error while writing or syncing journal or state ends the process (`abort`): it is never tried again.
//! - A state store that isn't right is moved aside and rebuilt from a snapshot and the journal.

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
mod mutant;
mod open;
mod reclaim;
mod row;
#[cfg(test)]
mod scratch;
mod snapshot;
mod state;
mod store;
mod trouble;

pub use backup::BackedUp;
pub use committer::{Change, Codec, Committer, CommitterOptions, Group, Urgency};
pub use disk::Rewrites;
pub use doctor::{Diagnosis, Finding, RowCheck, Severity, doctor, doctor_with};
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
