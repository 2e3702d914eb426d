//! Moves dirty rows into the state store, at a group boundary.
//!
//! First the totals as of that group are computed (reading what the rows replace), then it is said what is about to
//! come (`begin`), then the rows go in, then the mark. After a crash in between, the same groups are applied again
//! from the journal: every row ends up the same, and the totals were written down before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::dirty::{self, Dirty, HandedIn, Layer, Pieces};
use crate::error::{Error, Result};
use crate::journal::writer::Durable;
use crate::row::{Key, RowChange, Stored};
use crate::state::StateStore;
use crate::state::mark::{Audit, Mark};

/// Rows that are looked at together at least, so that a few deleted ones don't cost a round each.
const RANGE_ROWS_MIN: usize = 64;

/// So many rows are sorted in by whoever commits, while it has nothing to commit: more would make the next commit wait.
const IDLE_ROWS_MAX: usize = 8;

/// How much there was before rows were handed in, and is now.
pub(crate) struct Absorbed {
    pub(crate) newer_bytes: Grown<usize>,
    pub(crate) handed_in_rows: Grown<usize>,
}

/// A number that grew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grown<T> {
    pub(crate) from: T,
    pub(crate) to: T,
}

impl<T: Ord> Grown<T> {
    /// Whether it reached the bound just now.
    pub(crate) fn passes(&self, bound: T) -> bool {
        self.from < bound && self.to >= bound
    }
}

/// What the state store holds, as of the last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) mark: Mark,
    /// Bytes of payloads that rows refer to, by segment; none that is 0.
    pub(crate) live: BTreeMap<u32, u64>,
}

impl Applied {
    pub(crate) fn empty(mark: Mark) -> Self {
        Self { mark, live: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, audit: Audit, key: &[u8], stored: &Stored) {
        self.mark.totals.add(audit, key, stored);
        if let Some(payload) = stored.payload() {
            *self.live.entry(payload.segment).or_default() += u64::from(payload.len);
        }
    }

    fn remove(&mut self, audit: Audit, key: &[u8], stored: &Stored) {
        self.mark.totals.remove(audit, key, stored);
        if let Some(payload) = stored.payload() {
            let live = self.live.get_mut(&payload.segment).expect("a payload is counted before it goes");
            *live -= u64::from(payload.len);
            if *live == 0 {
                self.live.remove(&payload.segment);
            }
        }
    }

    pub(crate) fn at(&mut self, durable: Durable) {
        self.mark.group = durable.group;
        self.mark.lsn = durable.lsn;
        self.mark.epoch = durable.epoch;
    }
}

/// Dirty rows over a state store.
pub(crate) struct Rowspace {
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) audit: Audit,
    dirty: RwLock<Dirty>,
    applied: Mutex<Applied>,
    /// Held while a checkpoint runs.
    running: Mutex<()>,
    /// Rows on their way into `dirty`.
    handed_in: Mutex<HandedIn>,
    /// Held by who sorts them in: groups go in in their order.
    sorting: Mutex<()>,
    /// Bytes in the layers, without those that were handed in.
    newer_bytes: AtomicUsize,
    frozen_bytes: AtomicUsize,
    /// Bytes that came since the last checkpoint began, those of rows that were changed again too.
    came_bytes: AtomicUsize,
    /// Bytes of the dirty rows and the last step in them, for those who mustn't wait for a lock.
    dirty_bytes: AtomicUsize,
    lsn: AtomicU64,
}

impl Rowspace {
    pub(crate) fn new(state: Arc<dyn StateStore>, audit: Audit, applied: Applied) -> Self {
        let Mark { group, lsn, epoch, .. } = applied.mark;
        let upto = Durable { group, lsn, epoch, written_at: 0, at: 0 };
        let dirty = RwLock::new(Dirty::new(upto));
        let (applied, running) = (Mutex::new(applied), Mutex::default());
        Self {
            state,
            audit,
            dirty,
            applied,
            running,
            handed_in: Mutex::new(HandedIn::new(upto)),
            sorting: Mutex::default(),
            newer_bytes: AtomicUsize::new(0),
            frozen_bytes: AtomicUsize::new(0),
            came_bytes: AtomicUsize::new(0),
            dirty_bytes: AtomicUsize::new(0),
            lsn: AtomicU64::new(lsn),
        }
    }

    pub(crate) fn dirty(&self) -> RwLockReadGuard<'_, Dirty> {
        self.dirty.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn dirty_mut(&self) -> RwLockWriteGuard<'_, Dirty> {
        self.dirty.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn applied_mut(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the state store holds.
    pub(crate) fn applied(&self) -> Applied {
        self.applied_mut().clone()
    }

    /// Takes the rows of a durable group, all at once. Waits for no one who sorts rows in: how many may be left
    /// is bounded by the bytes at which admission closes.
    pub(crate) fn absorb(&self, changes: Vec<RowChange>, upto: Durable) -> Absorbed {
        let pieces = Pieces::of(changes);
        let (rows, bytes) = (pieces.rows, pieces.bytes);
        let mut queue = self.handed_in();
        queue.push(pieces, upto);
        let (handed_in_rows, handed_in_bytes) = (queue.rows(), queue.bytes());
        drop(queue);
        self.lsn.store(upto.lsn, Ordering::Release);
        self.came_bytes.fetch_add(bytes, Ordering::Relaxed);
        let newer_bytes = handed_in_bytes + self.newer_bytes.load(Ordering::Acquire);
        self.dirty_bytes.store(newer_bytes + self.frozen_bytes.load(Ordering::Acquire), Ordering::Release);
        Absorbed {
            newer_bytes: Grown { from: newer_bytes - bytes, to: newer_bytes },
            handed_in_rows: Grown { from: handed_in_rows - rows, to: handed_in_rows },
        }
    }

    /// Sorts in what was handed in before this call.
    pub(crate) fn sort_all_in(&self) {
        let sorting = self.sorting();
        // Whole groups: they are handed in whole.
        let pieces = self.handed_in().len();
        for _ in 0..pieces {
            self.sort_piece_in(&sorting);
        }
    }

    /// Sorts in one short group that was handed in, unless somebody is at it. Says whether there was one.
    pub(crate) fn sort_one_in(&self) -> bool {
        let Ok(sorting) = self.sorting.try_lock() else { return false };
        let short = self.handed_in().oldest_whole().is_some_and(|rows| rows <= IDLE_ROWS_MAX);
        if short {
            self.sort_piece_in(&sorting);
        }
        short
    }

    /// Sorts the oldest piece in.
    fn sort_piece_in(&self, _sorting: &MutexGuard<'_, ()>) {
        let mut dirty = self.dirty_mut();
        // Under the lock of the layers: whoever doesn't find it in the queue any more waits for it here.
        let oldest = self.handed_in().pop();
        oldest.into_iter().for_each(|oldest| dirty.sort_in(oldest));
        self.newer_bytes.store(dirty.newer_bytes(), Ordering::Release);
    }

    fn sorting(&self) -> MutexGuard<'_, ()> {
        self.sorting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handed_in(&self) -> MutexGuard<'_, HandedIn> {
        self.handed_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last group that is durable and readable.
    pub(crate) fn upto(&self) -> Durable {
        self.handed_in().upto()
    }

    /// Bytes of rows that came since the last checkpoint began.
    pub(crate) fn newer_bytes(&self) -> usize {
        self.newer_bytes.load(Ordering::Acquire) + self.handed_in().bytes()
    }

    /// Bytes that came since then, those of rows that were changed again too.
    pub(crate) fn came_bytes(&self) -> usize {
        self.came_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the dirty rows. Waits for nobody.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes.load(Ordering::Acquire)
    }

    /// The last step that is durable and readable. Waits for nobody.
    pub(crate) fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Acquire)
    }

    /// Looks at the state and what it holds, while no checkpoint changes it.
    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&Mark, &dyn StateStore) -> T) -> T {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        look(&self.applied().mark, &*self.state)
    }

    /// What a row holds now.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Stored>> {
        // A row leaves the queue while the layers are locked, and those only when the state has it, so this order can't
        // miss it.
        let handed_in = self.handed_in().pieces();
        let changed = dirty::last_of(&handed_in, key).cloned().or_else(|| self.dirty().read(key));
        match changed {
            Some(stored) => Ok(stored),
            None => self.state.read(key),
        }
    }

    /// At most `limit` rows, in key order, as they are now. Rows that change meanwhile come as before or after.
    pub(crate) fn range(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Stored)>> {
        let mut rows = Vec::new();
        let mut from: Key = from.into();
        while rows.len() < limit {
            let wanted = (limit - rows.len()).max(RANGE_ROWS_MIN);
            let handed_in = self.handed_in().pieces();
            let changes = self.dirty().range(&handed_in, (&from, to), wanted);
            let found = self.state.range(&from, to, wanted)?;
            // What either didn't give any more may lie behind its last key.
            let changes_end =
                changes.last_key_value().filter(|_| changes.len() == wanted).map(|(key, _)| key);
            let found_end = found.last().filter(|_| found.len() == wanted).map(|(key, _)| key);
            let end = [changes_end, found_end].into_iter().flatten().min().map(|key| successor(key));
            let within = |key: &Key| end.as_ref().is_none_or(|end| key < end);
            let mut merged: Layer = found.into_iter().map(|(key, stored)| (key, Some(stored))).collect();
            merged.extend(changes);
            let kept = merged.into_iter().filter(|(key, _)| within(key));
            rows.extend(kept.filter_map(|(key, stored)| stored.map(|stored| (key, stored))));
            match end {
                Some(end) => from = end,
                None => break,
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Visits all rows in key order, a few thousand at a time.
    pub(crate) fn visit(&self, mut visit: impl FnMut(Key, Stored)) -> Result<()> {
        let each = |key, stored| {
            visit(key, stored);
            Ok::<_, Error>(())
        };
        self.for_each(&[], None, each)
    }

    /// Visits the rows of `from..to` in key order, a few thousand at a time.
    pub(crate) fn for_each<E: From<Error>>(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        mut visit: impl FnMut(Key, Stored) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        const ROWS: usize = 4096;
        let mut from: Key = from.into();
        loop {
            let rows = self.range(&from, to, ROWS)?;
            let next = rows.last().filter(|_| rows.len() == ROWS).map(|(last, _)| successor(last));
            rows.into_iter().try_for_each(|(key, stored)| visit(key, stored))?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Moves the dirty rows into the state store. Returns whether there were any. An error ends the process.
    ///
    /// # Errors
    /// When the state can't be read or written.
    pub(crate) fn checkpoint(&self) -> Result<Moved> {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.sort_all_in();
        let (layer, upto) = {
            // No group is halfway in.
            let _sorting = self.sorting();
            let mut dirty = self.dirty_mut();
            let frozen = dirty.freeze();
            self.newer_bytes.store(0, Ordering::Release);
            self.came_bytes.store(0, Ordering::Relaxed);
            self.frozen_bytes.store(dirty.bytes(), Ordering::Release);
            frozen
        };
        let moved = if layer.is_empty() { Moved::Nothing } else { Moved::Rows };
        if moved == Moved::Rows {
            let next = apply(&*self.state, self.audit, self.applied(), &layer, upto)?;
            *self.applied_mut() = next;
        }
        let thawed = {
            let mut dirty = self.dirty_mut();
            let thawed = dirty.thaw();
            self.frozen_bytes.store(0, Ordering::Release);
            let bytes = dirty.bytes() + self.handed_in().bytes();
            self.dirty_bytes.store(bytes, Ordering::Release);
            thawed
        };
        // Freed outside the lock: a million rows take a while.
        drop(thawed);
        Ok(moved)
    }
}

/// Whether a checkpoint had something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    Nothing,
    Rows,
}

/// The smallest key above `key`.
pub(crate) fn successor(key: &[u8]) -> Key {
    key.iter().copied().chain([0]).collect()
}

/// Applies a layer, and says what the state holds then.
pub(crate) fn apply(
    state: &dyn StateStore,
    audit: Audit,
    mut applied: Applied,
    layer: &Layer,
    upto: Durable,
) -> Result<Applied> {
    let mut changes = Vec::with_capacity(layer.len());
    for (key, stored) in layer {
        let old = state.read(key)?;
        if let Some(old) = &old {
            applied.remove(audit, key, old);
        }
        if let Some(stored) = stored {
            applied.add(audit, key, stored);
        }
        // Rows that came and went since the last checkpoint were never there: on a busy box that is most of those gone.
        if old.is_some() || stored.is_some() {
            changes.push((key, stored));
        }
    }
    applied.at(upto);
    state.begin(&applied.mark)?;
    state.apply(&mut changes.into_iter())?;
    state.finish(&applied.mark)?;
    Ok(applied)
}
