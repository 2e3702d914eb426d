//! The durable store: journal, dirty rows and state behind one handle.
//!
//! Reads see exactly what is durable. Writes come from the [`crate::Committer`], group by group: frame and
//! `fdatasync`, then the dirty rows, then whoever waits. Nothing here blocks a committer but the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::checkpoint::{Absorbed, Grown, Rowspace};
use crate::disk;
use crate::error::{Error, Result};
use crate::identity::{Layout, Lock};
use crate::journal::frame::frame_bytes;
use crate::journal::rows::Rows;
use crate::journal::tail::Tail;
use crate::journal::writer::{Durable, Steps, Writer, Written};
use crate::journal::{Journal, JournalOptions};
use crate::keeper::{Keeper, SORT_ROWS_MIN, Signal};
use crate::mutant::{self, Mutant};
use crate::reclaim::Emptied;
use crate::row::{Key, PayloadRef, Stored};
use crate::state::StateKind;
use crate::state::mark::{Audit, Totals};
use crate::state::sled::SledOptions;
use crate::trouble::Troubles;

/// How to keep things.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Which store holds the rows behind the journal.
    pub state: StateKind,
    /// How sled is opened.
    pub sled: SledOptions,
    /// How the journal is cut.
    pub journal: JournalOptions,
    /// A checkpoint begins at these many bytes of dirty rows,
    pub checkpoint_bytes: usize,
    /// or when this long has passed.
    pub checkpoint_every: Duration,
    /// A checkpoint would slow a burst of rows, so it lets one pass that has fewer bytes than this.
    pub burst_bytes: usize,
    /// Bytes of dirty rows at which admission is to close ([`Store::room`]).
    pub dirty_bytes_max: usize,
    /// A snapshot is made after these many bytes of journal.
    pub snapshot_journal_bytes: u64,
    /// How long after it failed making a snapshot, or moving payloads out of an old segment, is tried again.
    pub snapshot_retry: Duration,
    /// Bytes of rows that one snapshot merges at most: what its memory is bounded by.
    pub snapshot_merge_bytes: usize,
    /// Bytes of disk below which admission is to close; the reserve is at least twice the state.
    pub disk_reserve_bytes: u64,
    /// The caller's number for a row, summed over all of them.
    pub audit: Audit,
    /// How far the wall clock may be behind what it said when the newest group was written; none for any distance. A
    /// start that goes on makes the clock as it is now what later starts compare with.
    pub clock_behind_max: Option<Duration>,
    /// The wall clock, in milliseconds since 1970.
    pub wall_ms: fn() -> u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            state: StateKind::default(),
            sled: SledOptions::default(),
            journal: JournalOptions::default(),
            checkpoint_bytes: 8 << 20,
            checkpoint_every: Duration::from_secs(1),
            burst_bytes: 192 << 20,
            dirty_bytes_max: 256 << 20,
            snapshot_journal_bytes: 256 << 20,
            snapshot_retry: Duration::from_secs(30),
            snapshot_merge_bytes: 64 << 20,
            disk_reserve_bytes: 2 << 30,
            audit: |_, _| 0,
            clock_behind_max: None,
            wall_ms: disk::unix_ms,
        }
    }
}

/// Whether there is room for new work on the way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Open,
    /// Dirty rows wait for the state store.
    Rows,
    /// Less disk is free than the reserve.
    Disk,
}

/// What the store is doing, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Bytes of rows in the journal and not yet in the state store.
    pub dirty_bytes: u64,
    /// Bytes that may still be written to the disk, as of the last look (each second).
    pub disk_free_bytes: u64,
    /// Bytes below which admission closes.
    pub disk_reserve_bytes: u64,
    /// The last durable group.
    pub group: u64,
    /// The last group in the state store.
    pub applied_group: u64,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// Bytes of the state store's files.
    pub state_bytes: u64,
    /// Bytes of payloads that rows refer to, as of the last checkpoint.
    pub payload_bytes: u64,
    /// Checkpoints since the start.
    pub checkpoints: u64,
    /// Snapshots since the start.
    pub snapshots: u64,
    /// Segments removed since the start.
    pub segments_removed: u64,
    /// Bytes of payloads that were moved since the start, so that their segment could go.
    pub moved_bytes: u64,
}

/// Counters that the keeper's threads write.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) checkpoints: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    pub(crate) segments_removed: AtomicU64,
    pub(crate) moved_bytes: AtomicU64,
    pub(crate) disk_free_bytes: AtomicU64,
    pub(crate) disk_reserve_bytes: AtomicU64,
    /// Bytes of frames since the last snapshot.
    pub(crate) unsnapped_bytes: AtomicU64,
    /// When a snapshot that failed is tried again; none after one that didn't.
    pub(crate) snapshot_again_at: Mutex<Option<Instant>>,
    pub(crate) troubles: Troubles,
    /// What became of segments whose payloads were to be moved.
    pub(crate) emptied: Mutex<BTreeMap<u32, Emptied>>,
}

/// A handle to the store; clones share it. When the last one goes, what is dirty is checkpointed.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    _keeper: Arc<Keeper>,
}

/// What the handle and the threads share.
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) options: StoreOptions,
    pub(crate) journal: Arc<Journal>,
    pub(crate) rows: Rowspace,
    pub(crate) counters: Counters,
    pub(crate) signal: Signal,
    /// Wakes the thread that sorts rows in.
    pub(crate) sorting: Signal,
    pub(crate) tail: Tail,
    /// Held while segments or snapshots are removed, while they are copied, and while payloads are moved out of one.
    pub(crate) retention: Mutex<()>,
    /// Held while snapshots are made: two would write the same file.
    pub(crate) snapping: Mutex<()>,
    _lock: Lock,
}

impl Store {
    pub(crate) fn new(shared: Shared) -> Result<Self> {
        let shared = Arc::new(shared);
        shared.look_at_disk()?;
        let keeper = Keeper::start(&shared)?;
        Ok(Self { shared, _keeper: Arc::new(keeper) })
    }

    /// What a row holds.
    ///
    /// # Errors
    /// When the state store can't be read, or holds something else than was written.
    pub fn read(&self, key: &[u8]) -> Result<Option<Stored>> {
        self.shared.rows.read(key)
    }

    /// A row's value, or its payload's bytes.
    ///
    /// # Errors
    /// As [`Store::read`], and when the payload isn't what was written.
    pub fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut stored = self.read(key)?;
        loop {
            let at = match stored {
                None => return Ok(None),
                Some(Stored::Value(value)) => return Ok(Some(value.into())),
                Some(Stored::Payload(at)) => at,
            };
            match self.payload(at) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) => {
                    // It may have been moved meanwhile, and its segment removed.
                    stored = self.read(key)?;
                    if stored == Some(Stored::Payload(at)) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A payload's bytes. It may have been moved since the row was read: then read the row again.
    ///
    /// # Errors
    /// When its segment is gone, or the bytes aren't what was written.
    pub fn payload(&self, at: PayloadRef) -> Result<Vec<u8>> {
        self.shared.journal.payload(at)
    }

    /// At most `limit` rows in key order, from the first one not below `from`, and below `to` where given.
    /// Rows that change meanwhile come as before or after their change.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn range(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Stored)>> {
        self.shared.rows.range(from, to, limit)
    }

    /// Visits the rows of `from..to` in key order, a few thousand at a time.
    ///
    /// # Errors
    /// As [`Store::read`], and what `visit` returns.
    pub fn for_each<E: From<Error>>(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: impl FnMut(Key, Stored) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.shared.rows.for_each(from, to, visit)
    }

    /// The last step that is durable and readable. Waits for nobody.
    pub fn durable_lsn(&self) -> u64 {
        self.shared.rows.lsn()
    }

    /// Rows by table and the audit's sum, as of the last checkpoint.
    pub fn totals(&self) -> Totals {
        self.shared.rows.applied().mark.totals
    }

    /// Whether there is room for new work. Costs three loads, and waits for nobody.
    pub fn room(&self) -> Room {
        let counters = &self.shared.counters;
        let (free, reserve) = (&counters.disk_free_bytes, &counters.disk_reserve_bytes);
        if free.load(Ordering::Relaxed) < reserve.load(Ordering::Relaxed) {
            Room::Disk
        } else if self.shared.rows.dirty_bytes() > self.shared.options.dirty_bytes_max {
            Room::Rows
        } else {
            Room::Open
        }
    }

    /// Bytes of rows that aren't in the state store yet, and how many of them are too many
    /// ([`StoreOptions::dirty_bytes_max`]).
    pub fn dirty_bytes(&self) -> (u64, u64) {
        (self.shared.rows.dirty_bytes() as u64, self.shared.options.dirty_bytes_max as u64)
    }

    /// What the store is doing.
    pub fn gauges(&self) -> Gauges {
        let (shared, counters) = (&self.shared, &self.shared.counters);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let applied = shared.rows.applied();
        Gauges {
            dirty_bytes: shared.rows.dirty_bytes() as u64,
            disk_free_bytes: load(&counters.disk_free_bytes),
            disk_reserve_bytes: load(&counters.disk_reserve_bytes),
            group: shared.durable().group,
            applied_group: applied.mark.group,
            journal_bytes: shared.journal.bytes(),
            state_bytes: shared.rows.state.disk_bytes(),
            payload_bytes: applied.live.values().sum(),
            checkpoints: load(&counters.checkpoints),
            snapshots: load(&counters.snapshots),
            segments_removed: load(&counters.segments_removed),
            moved_bytes: load(&counters.moved_bytes),
        }
    }

    /// What is wrong with checkpoints, snapshots or moving payloads, if something is, by file and offset. The store
    /// goes on without, and tries again, but the journal grows until it is mended. Cheap enough to be polled.
    pub fn trouble(&self) -> Option<String> {
        self.shared.counters.troubles.text()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.shared.layout.dir
    }

    /// Bytes of rows and payloads that one step may have: `JournalOptions::step_bytes_max`.
    pub fn step_bytes_max(&self) -> usize {
        self.shared.options.journal.step_bytes_max()
    }

    /// Moves what is dirty into the state store now, makes a snapshot, and removes what isn't needed any more. The
    /// store does so by itself; this is for operators and tests.
    ///
    /// # Errors
    /// When the snapshot can't be made.
    pub fn settle(&self) -> Result<()> {
        self.shared.checkpoint();
        self.shared.snapshot()?;
        self.shared.trim();
        self.shared.move_survivors()?;
        self.shared.checkpoint();
        self.shared.trim();
        Ok(())
    }
}

impl Shared {
    pub(crate) fn new(
        (layout, lock, options): (Layout, Lock, StoreOptions),
        (journal, tail): (Arc<Journal>, Tail),
        rows: Rowspace,
    ) -> Self {
        let counters = Counters::default();
        let (signal, sorting) = (Signal::default(), Signal::default());
        let (retention, snapping) = (Mutex::default(), Mutex::default());
        let _lock = lock;
        Self { layout, options, journal, rows, counters, signal, sorting, tail, retention, snapping, _lock }
    }

    /// Makes a group durable and readable. Gives back the frame's memory ([`Rows::in_memory_of`]).
    pub(crate) fn commit(&self, steps: Option<Steps>, rows: Rows) -> Vec<u8> {
        let mut writer = self.tail.with_room(frame_bytes(&rows));
        self.append(&mut writer, steps, rows)
    }

    /// As [`Shared::commit`], for who holds the writer: frames and dirty rows keep the same order.
    pub(crate) fn append(&self, writer: &mut Writer, steps: Option<Steps>, rows: Rows) -> Vec<u8> {
        let bytes = frame_bytes(&rows) as u64;
        let Written { changes, memory } = writer.write(steps, rows);
        if mutant::planted(Mutant::StateBeforeSync) {
            self.rows.absorb(changes.clone(), writer.durable());
            self.checkpoint();
        }
        writer.sync();
        let Absorbed { newer_bytes, handed_in_rows } = self.rows.absorb(changes, writer.durable());
        let unsnapped = self.counters.unsnapped_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Only the group that passes a bound wakes somebody: who is at work looks again before it waits.
        let checkpoint = newer_bytes.passes(self.options.checkpoint_bytes);
        let snapshot = Grown { from: unsnapped, to: unsnapped + bytes };
        if checkpoint || snapshot.passes(self.options.snapshot_journal_bytes) {
            self.signal.notify();
        }
        if handed_in_rows.passes(SORT_ROWS_MIN) {
            self.sorting.notify();
        }
        memory
    }

    /// The last group that is durable and readable. Doesn't wait for the one being written.
    pub(crate) fn durable(&self) -> Durable {
        self.rows.upto()
    }

    /// Looks how much disk is free, and how much is to be kept. Admission doesn't close for old segments that are only
    /// kept to be used again.
    pub(crate) fn look_at_disk(&self) -> Result<()> {
        let mut free = disk::free_bytes(&self.layout.dir)?;
        let reserve = self.options.disk_reserve_bytes.max(2 * self.rows.state.disk_bytes());
        if free < reserve && self.journal.give_back()? {
            free = disk::free_bytes(&self.layout.dir)?;
        }
        self.counters.disk_free_bytes.store(free, Ordering::Relaxed);
        self.counters.disk_reserve_bytes.store(reserve, Ordering::Relaxed);
        Ok(())
    }
}
