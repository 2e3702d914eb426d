//! Opening a directory: what is there, which state it goes on from, what is left of the last group.
//!
//! 1. The lock, and the format: a newer version is refused by name. A directory is new only if journal, snapshots
//!    and state are all absent; a part that is missing alone is damage.
//! 2. The clock: a start that is refused for it has changed nothing (see below).
//! 3. The *base*: the state store if it is the one that belongs here ([`base`]), else the newest snapshot that is
//!    whole and from which the journal has every group, else the journal from its first group. A journal that ends
//!    before the base is refused: acknowledged groups are missing.
//! 4. The journal's tail is mended ([`crate::journal::open`]) before anything rests on it.
//! 5. A state that isn't used is moved aside, and one is rebuilt from the base.
//! 6. The journal's groups behind the state become dirty rows again.
//! 7. A frame with the new boot epoch: ids made of (epoch, counter) never repeat.
//!
//! # Clocks
//!
//! Every frame carries two times. The *wall clock's* is what the machine said when it was written; it is only compared
//! with the machine's at the next start, which is refused if the machine's is too far behind. Whoever accepts that
//! (`StoreOptions::clock_behind_max`) does so for good: the frame of step 7 carries the clock as it is
//! then, and that is what the next start compares with. The *caller's* time is that of its last step; it never
//! goes back, whatever the wall clock does, and the caller goes on from it.

pub(crate) mod base;

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod large_tests;
#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod rot_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Rowspace;
use crate::disk::{self, Rewrites};
use crate::error::{Error, Result};
use crate::identity::{self, Layout, Lock};
use crate::journal::open::TornTail;
use crate::journal::rows::Rows;
use crate::journal::scan::{self, Next};
use crate::journal::segment::{self, DirectoryId, Segment};
use crate::journal::tail::Tail;
use crate::journal::writer::Durable;
use crate::journal::{self, Journal};
use crate::snapshot;
use crate::state::sled;
use crate::store::{Shared, Store, StoreOptions};
use base::{Based, Behind, Load, Loader};

/// What a start found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where the rows came from.
    pub origin: Origin,
    /// This start's number: larger than any before, and at least the unix time in seconds. Durable already.
    pub epoch: u64,
    /// The last durable step; the next one must be larger.
    pub lsn: u64,
    /// What the wall clock said when the last group before this start was written, in milliseconds since 1970; 0 in a
    /// new directory.
    pub written_at: u64,
    /// The largest [`crate::Group::at`] before this start: the caller's time goes on from there. 0 in a new directory.
    pub at: u64,
    /// The torn end of the last group, if there was one.
    pub torn_tail: Option<TornTail>,
    /// Groups that were read again from the journal.
    pub replayed_groups: u64,
    /// What the file system does with a block that is written again.
    pub rewrites: Rewrites,
}

/// Where the rows of a start came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The directory is new.
    New,
    /// The state store, and the journal since.
    State,
    /// Rebuilt.
    Rebuilt {
        /// Why the state store wasn't used.
        reason: String,
        /// The group of the snapshot that it was rebuilt from; 0 for the whole journal.
        from_group: u64,
        /// Where the state store was moved.
        moved_to: Option<PathBuf>,
    },
}

impl Store {
    /// Opens a directory, or makes a new one in it.
    ///
    /// # Errors
    /// When another process has it, a newer program wrote it, something that was acknowledged is damaged or missing
    /// (by file and offset), or the system refuses something.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Self, Opened)> {
        opened(dir, options, None)
    }

    /// As [`Store::open`], and gives every row to `load`, in key order, as of the last durable group: what recovery
    /// needs, in the one pass over the state store that a start takes anyway. Memory is bounded. Payloads aren't
    /// read.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_and_load(
        dir: &Path,
        options: StoreOptions,
        mut load: impl FnMut(Load),
    ) -> Result<(Self, Opened)> {
        opened(dir, options, Some(&mut load))
    }
}

fn opened(dir: &Path, options: StoreOptions, load: Option<Loader<'_>>) -> Result<(Store, Opened)> {
    disk::make_dir(dir)?;
    let lock = Lock::take(dir)?;
    let layout = Layout::new(dir);
    let present = Present::look(&layout)?;
    if let Some(id) = present.checked(&layout)? {
        check_clock(last_written_at(&layout, id)?, &options)?;
    }
    let (id, segments) = prepare(&layout, &present, &options)?;
    let mut ignore = |_| ();
    let load: Loader<'_> = load.unwrap_or(&mut ignore);
    let Based { state, applied, survey, origin, behind } =
        base::find(&layout, id, &segments, &options, load)?;
    let base = applied.mark.group;
    let origin = if present.is_nothing() { Origin::New } else { origin };
    let torn_tail = TornTail::of(&survey.debris);
    let rows = Rowspace::new(state, options.audit, applied);
    let upto = survey.last.map_or(Durable::default(), |head| Durable::of(&head));
    match behind {
        Behind::Loaded(layer) => drop(rows.absorb(layer.into_iter().collect(), upto)),
        Behind::Unread => {
            replay(&layout.journal(), &segments, (base, survey.reached()), &rows, &options)?;
            rows.visit(|key, stored| load(Load::Row(key, stored)))?;
        }
    }
    let unsnapped = unsnapped_bytes(&layout, &segments)?;
    let how = (&options.journal, options.wall_ms);
    let resumed = journal::open::resume(&layout.journal(), id, (segments, &survey), how)?;
    let (shared, Durable { written_at, at, .. }) = begin((layout, lock, options), resumed, rows);
    shared.counters.unsnapped_bytes.store(unsnapped, std::sync::atomic::Ordering::Relaxed);
    let Durable { epoch, lsn, .. } = shared.durable();
    let (rewrites, replayed_groups) = (disk::rewrites(dir), survey.reached() - base);
    let opened = Opened { origin, epoch, lsn, written_at, at, torn_tail, replayed_groups, rewrites };
    Ok((Store::new(shared)?, opened))
}

/// Which parts of a directory are there.
#[derive(Debug)]
pub(crate) struct Present {
    id: Option<DirectoryId>,
    journal: Part,
    snapshots: Part,
    state: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Absent,
    There,
}

impl Present {
    pub(crate) fn look(layout: &Layout) -> Result<Self> {
        let part = |there| if there { Part::There } else { Part::Absent };
        let segments = disk::names(&layout.journal())?;
        Ok(Self {
            id: identity::load(layout)?,
            journal: part(segments.iter().any(|name| segment::number_of(name).is_some())),
            snapshots: part(!snapshot::list(&layout.snapshots())?.is_empty()),
            state: part(sled::is_there(&layout.state())?),
        })
    }

    pub(crate) fn is_nothing(&self) -> bool {
        [self.journal, self.snapshots, self.state] == [Part::Absent; 3]
    }

    /// The directory's id; none if it is new.
    ///
    /// # Errors
    /// When a part is missing that must be there.
    pub(crate) fn checked(&self, layout: &Layout) -> Result<Option<DirectoryId>> {
        if self.is_nothing() {
            return Ok(self.id);
        }
        let missing = |path: &Path| Err(Error::damaged(path, 0, "it is missing, yet other parts are there"));
        match self.id {
            None => missing(&layout.format()),
            Some(_) if self.journal == Part::Absent => missing(&layout.journal()),
            id => Ok(id),
        }
    }
}

/// Makes what a new directory lacks, and removes what was never finished.
fn prepare(
    layout: &Layout,
    present: &Present,
    options: &StoreOptions,
) -> Result<(DirectoryId, Vec<Segment>)> {
    let id = present.checked(layout)?;
    disk::remove_unfinished(&layout.dir)?;
    sled::remove(&layout.rebuilding())?;
    for dir in [layout.journal(), layout.snapshots()] {
        disk::make_dir(&dir)?;
        disk::remove_unfinished(&dir)?;
    }
    let id = id.map_or_else(|| identity::create(layout), Ok)?;
    let mut segments = segment::list(&layout.journal(), id)?;
    if segments.is_empty() {
        segments.push(Segment::create(&layout.journal(), id, 1, options.journal.segment_bytes)?);
    }
    Ok((id, segments))
}

/// Makes the journal's groups dirty rows again; checkpoints on the way, where they are many.
pub(crate) fn replay(
    dir: &Path,
    segments: &[Segment],
    (base, to): (u64, u64),
    rows: &Rowspace,
    options: &StoreOptions,
) -> Result<()> {
    scan::read_groups(dir, segments, (base, to), &mut |frame| {
        rows.absorb(frame.changes()?, Durable::of(&frame.head));
        if rows.newer_bytes() >= options.dirty_bytes_max / 2 {
            rows.checkpoint()?;
        }
        Ok(Next::Go)
    })
}

/// About how much journal there is since the newest snapshot.
fn unsnapped_bytes(layout: &Layout, segments: &[Segment]) -> Result<u64> {
    let newest = snapshot::list(&layout.snapshots())?.last().copied().unwrap_or(0);
    let since = |segment: &&Segment| segment.first_group.is_some_and(|first| first > newest);
    Ok(segments.iter().filter(since).map(|segment| segment.bytes).sum())
}

/// The last epoch that a clock alone gives: the year 2097. Whoever keeps epochs in 32 bits has as many starts left as
/// anybody needs, even after one start with a clock that was far off.
const EPOCH_BY_CLOCK_MAX: u64 = 0xf000_0000;

/// A boot's epoch: its second, so that one started on an old copy isn't given again, but larger than any before.
fn next_epoch(unix_secs: u64, before: u64) -> u64 {
    unix_secs.min(EPOCH_BY_CLOCK_MAX).max(before + 1)
}

/// Refuses a wall clock that is too far behind what it said when the last group was written.
fn check_clock(written_at: u64, options: &StoreOptions) -> Result<()> {
    let behind = Duration::from_millis(written_at.saturating_sub((options.wall_ms)()));
    match options.clock_behind_max {
        Some(most) if behind > most => Err(Error::ClockBehind { by: behind }),
        _ => Ok(()),
    }
}

/// What the wall clock said when the last whole group was written; 0 without one. Looks at as little of the journal as
/// it can: all of it is read, and judged, once a base is known.
fn last_written_at(layout: &Layout, id: DirectoryId) -> Result<u64> {
    let journal = layout.journal();
    let segments = segment::list(&journal, id)?;
    for segment in segments.iter().rev().filter(|segment| segment.first_group.is_some()) {
        let bytes = segment.load(&journal)?;
        if let Some(last) = scan::walk(segment, &bytes).last {
            return Ok(last.written_at);
        }
    }
    Ok(0)
}

/// Writes the frame that begins this boot's epoch. With it the wall clock's time now is what the next start compares
/// its own with.
fn begin(
    owned: (Layout, Lock, StoreOptions),
    (journal, tail): (Arc<Journal>, Tail),
    rows: Rowspace,
) -> (Shared, Durable) {
    let mut writer = tail.writer();
    let before = writer.durable();
    let applied = rows.applied().mark.epoch;
    let now_secs = (owned.2.wall_ms)() / 1000;
    writer.begin_epoch(next_epoch(now_secs, before.epoch.max(applied)));
    drop(writer);
    let shared = Shared::new(owned, (journal, tail), rows);
    shared.commit(None, Rows::default());
    (shared, before)
}
