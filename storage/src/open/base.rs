//! Which state a start goes on from.
//!
//! sled is used only if it opens, carries this directory's id and a mark that was finished, the journal has every
//! group behind that mark, every row opens, and rows and audit sum to what the mark says. A checkpoint that was begun
//! is first applied again from the journal: only then the sums can agree.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{Applied, apply};
use crate::dirty::Layer;
use crate::disk;
use crate::error::{Error, Result};
use crate::identity::Layout;
use crate::journal::open::mend_tail;
use crate::journal::scan::{Survey, scan};
use crate::journal::segment::{DirectoryId, Segment};
use crate::journal::writer::Durable;
use crate::open::Origin;
use crate::row::{Key, Stored};
use crate::snapshot;
use crate::snapshot::file::SnapshotReader;
use crate::snapshot::merge::{MergeBytes, changes_since};
use crate::state::guard;
use crate::state::mark::{Audit, Mark};
use crate::state::memory::MemoryState;
use crate::state::sled::{self, SledState, Unusable};
use crate::state::{Marks, StateKind, StateStore};
use crate::store::StoreOptions;

/// A state that belongs here, what it holds, and the journal behind it, with its tail mended.
pub(crate) struct Based {
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) applied: Applied,
    pub(crate) survey: Survey,
    pub(crate) origin: Origin,
}

/// Rows that are read together when all are counted.
const COUNT_ROWS: usize = 4096;

pub(crate) fn find(
    layout: &Layout,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
) -> Result<Based> {
    let mut first_error = None;
    let reason = match options.state {
        StateKind::Memory => "it is kept in memory".into(),
        StateKind::Sled => match usable_sled(layout, id, segments, options)? {
            Ok((state, applied, survey)) => {
                return Ok(Based { state: Arc::new(state), applied, survey, origin: Origin::State });
            }
            Err((Unusable(reason), error)) => {
                first_error = error;
                reason
            }
        },
    };
    rebuilt(layout, id, segments, options, (reason, first_error))
}

type Usable = (SledState, Applied, Survey);

/// The sled that is there, or why it isn't used.
fn usable_sled(
    layout: &Layout,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
) -> Result<std::result::Result<Usable, (Unusable, Option<Error>)>> {
    let unusable = |reason: &str| Ok(Err((Unusable(reason.to_owned()), None)));
    if !sled::is_there(&layout.state())? {
        return unusable("it isn't there");
    }
    let state = match sled::open(&layout.state(), &options.sled)? {
        Ok(state) => state,
        Err(reason) => return Ok(Err((reason, None))),
    };
    state.check_shim()?;
    let marks = match state.marks() {
        Ok(Some(marks)) => marks,
        Ok(None) => return unusable("it was never finished"),
        Err(reason) => return Ok(Err((reason, None))),
    };
    if marks.applied.id != id {
        return unusable("it belongs to another directory");
    }
    if state.side_files()? > 0 {
        return unusable("it has side files, which are never synced");
    }
    let survey = match scan(&layout.journal(), segments, marks.applied.group, &mut |_| Ok(())) {
        Ok(survey) => survey,
        Err(error) => {
            let reason = format!("it is as of group {}, and then {error}", marks.applied.group);
            return Ok(Err((Unusable(reason), Some(error))));
        }
    };
    let newest = marks.begun.as_ref().unwrap_or(&marks.applied).group;
    survey.reaches(&layout.journal(), newest, "the state store")?;
    mend_tail(&layout.journal(), segments, &survey)?;
    let applied = counted_as_marked(&state, &layout.journal(), segments, marks, options);
    Ok(applied.map(|applied| (state, applied, survey)).map_err(|reason| (reason, None)))
}

/// Ends a checkpoint that was begun, and counts.
fn counted_as_marked(
    state: &SledState,
    journal: &Path,
    segments: &[Segment],
    marks: Marks,
    options: &StoreOptions,
) -> std::result::Result<Applied, Unusable> {
    let unreadable = |error: Error| Unusable(error.to_string());
    let mut expected = marks.applied;
    if let Some(begun) = marks.begun {
        let groups = (expected.group, begun.group);
        let (layer, _) =
            changes_since(journal, segments, groups, MergeBytes(usize::MAX)).map_err(unreadable)?;
        let again = (state.clone(), begun.clone());
        let applied = guard::call(options.sled.patience, move || {
            let (state, begun) = again;
            state.apply(&mut layer.iter()).and_then(|()| state.finish(&begun))
        })?;
        applied.map_err(unreadable)?;
        expected = begun;
    }
    let applied = count(state, &expected, options.audit, options.sled.patience)?;
    if applied.mark.totals != expected.totals {
        let (found, wanted) = (&applied.mark.totals, &expected.totals);
        return Err(Unusable(format!("its rows sum to {found:?}, its mark says {wanted:?}")));
    }
    Ok(applied)
}

/// Reads every row.
fn count(
    state: &SledState,
    mark: &Mark,
    audit: Audit,
    patience: Duration,
) -> std::result::Result<Applied, Unusable> {
    let mut applied = Applied::empty(Mark { totals: Default::default(), ..mark.clone() });
    let mut from: Key = Box::default();
    loop {
        let piece = (state.clone(), from.clone());
        let rows = guard::call(patience, move || piece.0.range(&piece.1, None, COUNT_ROWS))?;
        let rows = rows.map_err(|error| Unusable(error.to_string()))?;
        rows.iter().for_each(|(key, stored)| applied.add(audit, key, stored));
        match rows.last() {
            Some((last, _)) if rows.len() == COUNT_ROWS => from = last.iter().copied().chain([0]).collect(),
            _ => return Ok(applied),
        }
    }
}

/// A state from a snapshot, or an empty one.
fn rebuilt(
    layout: &Layout,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
    (reason, mut first_error): (String, Option<Error>),
) -> Result<Based> {
    let mut bases = snapshot::list(&layout.snapshots())?;
    let newest = bases.last().copied().unwrap_or(0);
    bases.insert(0, 0);
    for base in bases.into_iter().rev() {
        let survey = match scan(&layout.journal(), segments, base, &mut |_| Ok(())) {
            Ok(survey) => survey,
            Err(error @ Error::Damaged { .. }) => {
                first_error.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        survey.reaches(&layout.journal(), newest, "a snapshot")?;
        mend_tail(&layout.journal(), segments, &survey)?;
        match build(layout, id, base, options) {
            Ok((state, applied)) => {
                let moved_to = settle(layout, options)?;
                let origin = Origin::Rebuilt { reason, from_group: base, moved_to };
                let state = reopened(state, layout, options)?;
                return Ok(Based { state, applied, survey, origin });
            }
            Err(error @ Error::Damaged { .. }) => drop(first_error.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    Err(first_error.expect("every base was tried"))
}

/// A state that is whole, in its own directory, and not yet in its place.
enum Built {
    Memory(Arc<MemoryState>),
    Sled,
}

fn build(layout: &Layout, id: DirectoryId, base: u64, options: &StoreOptions) -> Result<(Built, Applied)> {
    match options.state {
        StateKind::Memory => {
            let state = Arc::new(MemoryState::default());
            let applied = fill(&*state, layout, id, base, options.audit)?;
            Ok((Built::Memory(state), applied))
        }
        StateKind::Sled => {
            let dir = layout.rebuilding();
            sled::remove(&dir)?;
            let state = open_own(&dir, options)?;
            state.check_shim()?;
            let applied = fill(&state, layout, id, base, options.audit)?;
            Ok((Built::Sled, applied))
        }
    }
}

/// Opens a sled that was made in this very start.
fn open_own(dir: &Path, options: &StoreOptions) -> Result<SledState> {
    let refused = |Unusable(problem)| Error::Io {
        action: "open",
        path: dir.to_owned(),
        source: std::io::Error::other(problem),
    };
    sled::open(dir, &options.sled)?.map_err(refused)
}

/// Puts a snapshot's rows into an empty state.
fn fill(
    state: &dyn StateStore,
    layout: &Layout,
    id: DirectoryId,
    base: u64,
    audit: Audit,
) -> Result<Applied> {
    let mut applied = Applied::empty(Mark::empty(id));
    if base > 0 {
        let mut reader = SnapshotReader::open(&layout.snapshots(), id, base, audit)?;
        while let Some(rows) = reader.next_block()? {
            rows.iter().for_each(|(key, stored)| applied.add(audit, key, stored));
            let rows: Vec<(Key, Option<Stored>)> = rows.into_iter().map(|(k, s)| (k, Some(s))).collect();
            state.apply(&mut rows.iter().map(|(key, stored)| (key, stored)))?;
        }
        let Mark { group, lsn, epoch, .. } = reader.mark.expect("it ended well");
        applied.at(Durable { group, lsn, epoch, written_at: 0 });
    }
    // Through `apply`, so that a state is finished in one way only.
    let upto = Durable {
        group: applied.mark.group,
        lsn: applied.mark.lsn,
        epoch: applied.mark.epoch,
        written_at: 0,
    };
    apply(state, audit, applied, &Layer::new(), upto)
}

/// Moves the old state aside and the new one into its place.
fn settle(layout: &Layout, options: &StoreOptions) -> Result<Option<std::path::PathBuf>> {
    if options.state == StateKind::Memory {
        return Ok(None);
    }
    let there = sled::is_there(&layout.state())?;
    let moved_to = there.then(|| sled::move_aside(&layout.state())).transpose()?;
    if !there {
        sled::remove(&layout.state())?;
    }
    let from = layout.rebuilding();
    std::fs::rename(&from, layout.state()).map_err(Error::io("rename", &from))?;
    disk::sync_dir(&layout.dir)?;
    Ok(moved_to)
}

fn reopened(built: Built, layout: &Layout, options: &StoreOptions) -> Result<Arc<dyn StateStore>> {
    match built {
        Built::Memory(state) => Ok(state),
        Built::Sled => Ok(Arc::new(open_own(&layout.state(), options)?)),
    }
}
