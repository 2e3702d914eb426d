//! Threads that keep the store in shape: one checkpoints, one makes snapshots and removes what isn't needed, and one
//! sorts dirty rows in while commits leave no time for it.
//!
//! Neither acknowledges anything. A failed write or sync ends the process; a damaged file only stops the trimming,
//! and is told ([`crate::Store::trouble`]).

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::checkpoint::{Moved, successor};
use crate::disk;
use crate::error::{Error, Result};
use crate::row::Key;
use crate::snapshot::merge::{self, MergeBytes};
use crate::snapshot::{self, file};
use crate::store::Shared;
use crate::trouble::Task;

/// How often it is looked at what could be removed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Less free disk than this, and no checkpoint is begun.
const CHECKPOINT_FREE_BYTES_MIN: u64 = 64 << 20;

/// So many rows handed in wake the thread that sorts them in: fewer are left to whoever commits.
pub(crate) const SORT_ROWS_MIN: usize = 512;

/// Rows come fast when more than [`FAST_BYTES`] of them come in this time.
const LULL: Duration = Duration::from_millis(10);
const FAST_BYTES: usize = 128 << 10;

/// Rows that are read together when a snapshot is made of the state.
const STATE_ROWS: usize = 4096;

/// How far the threads step back: they get about a tenth of a CPU that a commit wants too.
const NICENESS: i32 = 10;

/// Wakes the keeper's threads.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    wish: Mutex<Wish>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Wish {
    #[default]
    Keep,
    Stop,
}

impl Signal {
    /// There may be something to do.
    pub(crate) fn notify(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        let _wish = self.lock();
        self.changed.notify_all();
    }

    fn stop(&self) {
        *self.lock() = Wish::Stop;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `due`, or for `at_most`.
    fn wait(&self, at_most: Duration, due: impl Fn() -> bool) -> Wish {
        let waits = |wish: &mut Wish| *wish == Wish::Keep && !due();
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, waits);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The threads. Dropping it ends them, with everything checkpointed.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let mut keeper = Self { shared: Arc::clone(shared), threads: Vec::new() };
        keeper.spawn("checkpoint", run_checkpoints)?;
        keeper.spawn("snapshot", run_snapshots)?;
        keeper.spawn("dirty-rows", run_sorting)?;
        Ok(keeper)
    }

    fn spawn(&mut self, name: &'static str, run: fn(&Shared)) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || {
            step_back();
            if std::panic::catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                disk::fatal(&format!("the {name} thread panicked (a bug)"));
            }
        });
        self.threads.push(spawned.map_err(Error::io("start a thread for", &self.shared.layout.dir))?);
        Ok(())
    }
}

/// Lets whoever commits go first, where there is less CPU than work: what isn't kept up with closes admission in time.
fn step_back() {
    // Of this thread alone, on Linux. Where it isn't allowed nothing is lost but speed.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.signal.stop();
        self.shared.sorting.stop();
        for thread in self.threads.drain(..) {
            // It ends the process rather than panic.
            let _ = thread.join();
        }
    }
}

fn run_checkpoints(shared: &Shared) {
    let due = || shared.rows.newer_bytes() >= shared.options.checkpoint_bytes;
    let mut patience = Patience::Left;
    loop {
        let mut wish = shared.signal.wait(shared.options.checkpoint_every, due);
        if !due() {
            patience = Patience::Left;
        }
        if wish == Wish::Keep && patience == Patience::Left {
            (wish, patience) = wait_for_a_lull(shared);
        }
        disk::or_die("the disk can't be looked at", shared.look_at_disk());
        // On a full disk rows stay dirty, and admission closed, rather than sled in an unknown state.
        let free = shared.counters.disk_free_bytes.load(Ordering::Relaxed);
        if free >= CHECKPOINT_FREE_BYTES_MIN {
            shared.checkpoint();
            shared.counters.troubles.mended(Task::Checkpoint);
        } else {
            let problem = format!("no checkpoint is made: {free} bytes of disk are free");
            shared.counters.troubles.tell(Task::Checkpoint, problem);
            if wish == Wish::Keep {
                std::thread::sleep(shared.options.checkpoint_every);
            }
        }
        if wish == Wish::Stop {
            return;
        }
    }
}

/// Whether a burst is let pass. One that exceeded its bound isn't one: then there are many small checkpoints, rather
/// than few that keep admission closed for long, until a bound isn't reached in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Left,
    Gone,
}

/// Lets a burst pass, within its bound: a checkpoint would take CPU and disk from its commits, and is the cheaper the
/// more rows it has.
fn wait_for_a_lull(shared: &Shared) -> (Wish, Patience) {
    loop {
        let before = shared.rows.came_bytes();
        if before >= shared.options.burst_bytes {
            return (Wish::Keep, Patience::Gone);
        }
        let wish = shared.signal.wait(LULL, || false);
        if wish == Wish::Stop || shared.rows.came_bytes().saturating_sub(before) < FAST_BYTES {
            return (wish, Patience::Left);
        }
    }
}

fn run_sorting(shared: &Shared) {
    let due = || shared.rows.handed_in().rows() >= SORT_ROWS_MIN;
    while shared.sorting.wait(LOOK_EVERY, due) == Wish::Keep {
        shared.rows.sort_all_in();
    }
}

fn run_snapshots(shared: &Shared) {
    while shared.signal.wait(LOOK_EVERY, || shared.snapshot_is_due()) == Wish::Keep {
        shared.keep();
    }
}

impl Shared {
    /// A checkpoint; an error ends the process.
    pub(crate) fn checkpoint(&self) {
        if disk::or_die("a checkpoint failed", self.rows.checkpoint()) == Moved::Rows {
            self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there is journal for one, and the last one didn't fail just now.
    pub(crate) fn snapshot_is_due(&self) -> bool {
        let much =
            self.counters.unsnapped_bytes.load(Ordering::Relaxed) >= self.options.snapshot_journal_bytes;
        much && self.snapshot_again_at().is_none_or(|at| at <= Instant::now())
    }

    fn snapshot_again_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.counters.snapshot_again_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whatever fails doesn't keep the rest from being done.
    pub(crate) fn keep(&self) {
        if self.snapshot_is_due()
            && let Err(error) = self.snapshot()
        {
            self.suffer(Task::Snapshot, error);
        }
        self.trim();
        if let Err(error) = self.move_survivors() {
            self.suffer(Task::Reclaim, error);
        }
    }

    /// What can't be read is told, and that the disk is full; what else can't be written ends the process.
    fn suffer(&self, task: Task, error: Error) {
        match error {
            Error::Io { .. } if !error.is_full() => disk::fatal(&error.to_string()),
            error => self.counters.troubles.tell(task, error.to_string()),
        }
    }

    /// Makes snapshots up to what is durable now. One that fails stays due, and is tried again after a while.
    pub(crate) fn snapshot(&self) -> Result<()> {
        let _snapping = self.snapping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = self.snapshots_up_to_now();
        if matches!(made, Err(Error::Damaged { .. })) && self.snapshot_of_state().is_ok() {
            made = self.snapshots_up_to_now();
        }
        if made.is_err() {
            // What was written of it takes the room that the next try needs.
            disk::remove_unfinished(&self.layout.snapshots())?;
        }
        *self.snapshot_again_at() = made.is_err().then(|| Instant::now() + self.options.snapshot_retry);
        if made.is_ok() {
            self.counters.troubles.mended(Task::Snapshot);
        }
        made
    }

    fn snapshots_up_to_now(&self) -> Result<()> {
        // What is written from here on counts for the next one.
        let unsnapped = self.counters.unsnapped_bytes.load(Ordering::Relaxed);
        let to = self.durable().group;
        let dir = self.layout.snapshots();
        while snapshot::list(&dir)?.last().is_none_or(|newest| *newest < to) {
            self.snapshot_from_any(to)?;
            let _retention = self.retention.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot::keep_newest(&dir)?;
            self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.unsnapped_bytes.fetch_sub(unsnapped, Ordering::Relaxed);
        Ok(())
    }

    /// From the newest snapshot that is whole, or from the journal's beginning.
    fn snapshot_from_any(&self, to: u64) -> Result<()> {
        let dir = self.layout.snapshots();
        let mut bases = snapshot::list(&dir)?;
        bases.insert(0, 0);
        let mut first_error = None;
        for base in bases.into_iter().rev() {
            match self.snapshot_from(base, to) {
                Ok(()) => return Ok(()),
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
            let path = snapshot::path_of(&dir, base);
            if base > 0 && file::verify(&path, self.journal.id, base, self.rows.audit).is_err() {
                // Useless, and it mustn't count as one of the two that are kept.
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Err(first_error.expect("there is a base"))
    }

    pub(crate) fn snapshot_from(&self, base: u64, to: u64) -> Result<()> {
        let (dir, id, limit) = (&self.layout.snapshots(), self.journal.id, self.options.snapshot_merge_bytes);
        let segments = self.journal.segments();
        let changes = merge::changes_since(&self.journal.dir, &segments, (base, to), MergeBytes(limit))?;
        merge::write_next(dir, id, self.rows.audit, base, changes).map(drop)
    }

    /// A snapshot of the state store's rows, where a group is damaged that snapshots need and the state has already.
    /// Without it none could ever be made again, and the journal would grow for good. The state was counted when it was
    /// opened and at each checkpoint, and the rows must still sum to that.
    fn snapshot_of_state(&self) -> Result<()> {
        // So that the state has all that is damaged.
        self.checkpoint();
        let (dir, audit) = (self.layout.snapshots(), self.rows.audit);
        self.rows.with_state(|mark, state| {
            let mut writer = file::SnapshotWriter::create(&dir, mark.clone(), audit)?;
            let mut from: Key = Box::default();
            loop {
                let rows = state.range(&from, None, STATE_ROWS)?;
                rows.iter().try_for_each(|(key, stored)| writer.push(key, stored))?;
                match rows.last().filter(|_| rows.len() == STATE_ROWS) {
                    Some((last, _)) => from = successor(last),
                    None => break,
                }
            }
            if writer.totals() != &mark.totals {
                let problem = "its rows don't sum to what its mark says";
                return Err(Error::damaged(&self.layout.state(), 0, problem));
            }
            writer.finish().map(drop)
        })?;
        self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Up to where neither state nor snapshots need the journal.
    pub(crate) fn trim_group(&self) -> Result<u64> {
        let snapshots = snapshot::list(&self.layout.snapshots())?;
        Ok(snapshot::trim_group(&snapshots).min(self.rows.applied().mark.group))
    }

    /// Removes segments that nothing needs.
    pub(crate) fn trim(&self) {
        let _retention = self.retention.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: what was live later than the trim group isn't in these segments.
        let trim_group = disk::or_die("the snapshots can't be listed", self.trim_group());
        let live = self.rows.applied().live;
        for segment in self.journal.up_to(trim_group) {
            if !live.contains_key(&segment.number) {
                disk::or_die("an old segment can't be removed", self.journal.remove(&segment));
                self.forget_emptied(segment.number);
                self.counters.segments_removed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
