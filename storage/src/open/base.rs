//! Which state a start goes on from.
//!
//! sled is used only if it opens, carries this directory's id and a mark that was finished, the journal has every
//! group behind that mark, every row opens, and rows and audit sum to what the mark says. A checkpoint that was begun
//! is first applied again from the journal: only then the sums can agree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Applied, apply, successor};
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
    pub(crate) behind: Behind,
}

/// The journal's groups behind the state.
pub(crate) enum Behind {
    /// Read, and the rows of state and journal together were loaded.
    Loaded(Layer),
    /// To be read, and rows to be loaded after that.
    Unread,
}

/// A row on its way to the caller, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// Forget all rows so far: the state store they came from isn't right, and the rows of another one follow.
    Again,
    /// So many rows of a snapshot are in the new state store. They come as rows after that.
    Rebuilt(u64),
    /// A row as of the last durable group.
    Row(Key, Stored),
}

/// Who is given the rows.
pub(crate) type Loader<'a> = &'a mut dyn FnMut(Load);

/// Rows that are read together when all are counted.
const COUNT_ROWS: usize = 4096;

/// Rows of a snapshot that are put into a state together: each time costs a flush.
const FILL_ROWS: usize = 16_384;

pub(crate) fn find(
    layout: &Layout,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
    load: Loader<'_>,
) -> Result<Based> {
    let mut first_error = None;
    let reason = match options.state {
        StateKind::Memory => "it is kept in memory".into(),
        StateKind::Sled => match usable_sled(layout, id, segments, options, load)? {
            Ok(Usable { state, applied, survey, behind }) => {
                let state = Arc::new(state);
                return Ok(Based { state, applied, survey, origin: Origin::State, behind });
            }
            Err((Unusable(reason), error)) => {
                load(Load::Again);
                first_error = error;
                reason
            }
        },
    };
    rebuilt(layout, id, segments, options, load, (reason, first_error))
}

/// Why a state store isn't used, with the journal's error where that is the reason.
type Unused = (Unusable, Option<Error>);

struct Usable {
    state: SledState,
    applied: Applied,
    survey: Survey,
    behind: Behind,
}

/// The sled that is there, or why it isn't used.
fn usable_sled(
    layout: &Layout,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
    load: Loader<'_>,
) -> Result<std::result::Result<Usable, Unused>> {
    let journal = layout.journal();
    let (state, marks, survey) = match examine_sled(&layout.state(), &journal, id, segments, options)? {
        Ok(examined) => examined,
        Err(unused) => return Ok(Err(unused)),
    };
    mend_tail(&journal, segments, &survey)?;
    let reached = survey.reached();
    let counted = finish_begun(&state, &journal, segments, marks, options).and_then(|mark| {
        let behind = read_behind(&journal, segments, (mark.group, reached), options)?;
        let applied = match &behind {
            Behind::Loaded(layer) => count_merged(&state, &mark, layer, options, load)?,
            Behind::Unread => count(&state, &mark, options, &mut |_, _| ())?,
        };
        Ok((applied, behind))
    });
    Ok(match counted {
        Ok((applied, behind)) => Ok(Usable { state, applied, survey, behind }),
        Err(reason) => Err((reason, None)),
    })
}

/// The groups behind a state, if they aren't too many to be held at once.
fn read_behind(
    journal: &Path,
    segments: &[Segment],
    (from, to): (u64, u64),
    options: &StoreOptions,
) -> std::result::Result<Behind, Unusable> {
    let limit = MergeBytes(options.dirty_bytes_max / 2);
    let (layer, upto) = changes_since(journal, segments, (from, to), limit).map_err(unreadable)?;
    Ok(if upto.group == to { Behind::Loaded(layer) } else { Behind::Unread })
}

fn unreadable(error: Error) -> Unusable {
    Unusable(error.to_string())
}

/// Counts the state's rows, and loads them with what came behind them.
fn count_merged(
    state: &SledState,
    mark: &Mark,
    layer: &Layer,
    options: &StoreOptions,
    load: Loader<'_>,
) -> std::result::Result<Applied, Unusable> {
    let mut changes = layer.iter().peekable();
    let changed = |(key, stored): (&Key, &Option<Stored>), load: Loader<'_>| {
        if let Some(stored) = stored {
            load(Load::Row(key.clone(), stored.clone()));
        }
    };
    let applied = count(state, mark, options, &mut |key, stored| {
        while let Some(change) = changes.next_if(|(changed, _)| **changed < key) {
            changed(change, load);
        }
        match changes.next_if(|(changed, _)| **changed == key) {
            Some(change) => changed(change, load),
            None => load(Load::Row(key, stored)),
        }
    })?;
    changes.for_each(|change| changed(change, load));
    Ok(applied)
}

/// Whether a sled belongs to a journal; its rows aren't counted yet.
pub(crate) fn examine_sled(
    dir: &Path,
    journal: &Path,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
) -> Result<std::result::Result<(SledState, Marks, Survey), Unused>> {
    let unused = |reason: &str| Ok(Err((Unusable(reason.to_owned()), None)));
    if !sled::is_there(dir)? {
        return unused("it isn't there");
    }
    let state = match sled::open(dir, &options.sled)? {
        Ok(state) => state,
        Err(reason) => return Ok(Err((reason, None))),
    };
    state.check_shim()?;
    let marks = match state.marks() {
        Ok(Some(marks)) => marks,
        Ok(None) => return unused("it was never finished"),
        Err(reason) => return Ok(Err((reason, None))),
    };
    if marks.applied.id != id {
        return unused("it belongs to another directory");
    }
    if state.side_files()? > 0 {
        return unused("it has side files, which are never synced");
    }
    let survey = match scan(journal, segments, marks.applied.group, &mut |_| Ok(())) {
        Ok(survey) => survey,
        Err(error) => {
            let reason = format!("it is as of group {}, and then {error}", marks.applied.group);
            return Ok(Err((Unusable(reason), Some(error))));
        }
    };
    let newest = marks.begun.as_ref().unwrap_or(&marks.applied).group;
    survey.reaches(journal, newest, "the state store")?;
    Ok(Ok((state, marks, survey)))
}

/// Ends a checkpoint that was begun, and says what the state must hold.
pub(crate) fn finish_begun(
    state: &SledState,
    journal: &Path,
    segments: &[Segment],
    marks: Marks,
    options: &StoreOptions,
) -> std::result::Result<Mark, Unusable> {
    let Some(begun) = marks.begun else { return Ok(marks.applied) };
    let groups = (marks.applied.group, begun.group);
    let (layer, _) = changes_since(journal, segments, groups, MergeBytes(usize::MAX)).map_err(unreadable)?;
    let again = (state.clone(), begun.clone());
    let finished = guard::call(options.sled.patience, move || {
        let (state, begun) = again;
        state.apply(&mut layer.iter()).and_then(|()| state.finish(&begun))
    })?;
    finished.map(|()| begun).map_err(unreadable)
}

/// Reads and counts every row; they must sum to what the mark says.
pub(crate) fn count(
    state: &SledState,
    mark: &Mark,
    options: &StoreOptions,
    visit: &mut dyn FnMut(Key, Stored),
) -> std::result::Result<Applied, Unusable> {
    let mut applied = Applied::empty(Mark { totals: Default::default(), ..mark.clone() });
    let mut failed = None;
    guard::pieces(options.sled.patience, pieces_of(state.clone()), |piece| match piece {
        Ok(rows) => rows.into_iter().for_each(|(key, stored)| {
            applied.add(options.audit, &key, &stored);
            visit(key, stored);
        }),
        Err(error) => failed = Some(error),
    })?;
    if let Some(error) = failed {
        return Err(unreadable(error));
    }
    if applied.mark.totals != mark.totals {
        let (found, wanted) = (&applied.mark.totals, &mark.totals);
        return Err(Unusable(format!("its rows sum to {found:?}, its mark says {wanted:?}")));
    }
    Ok(applied)
}

/// All rows, piece by piece; nothing after an error.
fn pieces_of(state: SledState) -> impl FnMut() -> Option<Result<Vec<(Key, Stored)>>> {
    let mut next: Option<Key> = Some(Box::default());
    move || {
        let rows = state.range(&next.take()?, None, COUNT_ROWS);
        let whole = rows.as_ref().ok().filter(|rows| rows.len() == COUNT_ROWS);
        next = whole.and_then(|rows| rows.last()).map(|(key, _)| successor(key));
        Some(rows)
    }
}

/// Groups that a state can be rebuilt from, the best first: snapshots, and the journal's beginning.
pub(crate) fn candidates(layout: &Layout) -> Result<Vec<u64>> {
    let mut groups = snapshot::list(&layout.snapshots())?;
    groups.insert(0, 0);
    groups.reverse();
    Ok(groups)
}

/// The journal from a candidate on.
fn scan_candidate(layout: &Layout, segments: &[Segment], group: u64) -> Result<Survey> {
    let survey = scan(&layout.journal(), segments, group, &mut |_| Ok(()))?;
    let newest = candidates(layout)?[0];
    survey.reaches(&layout.journal(), newest, "a snapshot")?;
    Ok(survey)
}

/// A state rebuilt in `dir` from a candidate, and the journal behind it.
pub(crate) fn try_candidate(
    layout: &Layout,
    dir: &Path,
    id: DirectoryId,
    (segments, group): (&[Segment], u64),
    options: &StoreOptions,
    load: Loader<'_>,
) -> Result<(SledState, Applied, Survey)> {
    let survey = scan_candidate(layout, segments, group)?;
    sled::remove(dir)?;
    let state = open_own(dir, options)?;
    state.check_shim()?;
    let applied = fill(&state, layout, id, (group, options.audit), load)?;
    Ok((state, applied, survey))
}

/// A state from a snapshot, or from the journal's beginning.
fn rebuilt(
    layout: &Layout,
    id: DirectoryId,
    segments: &[Segment],
    options: &StoreOptions,
    load: Loader<'_>,
    (reason, mut first_error): (String, Option<Error>),
) -> Result<Based> {
    for group in candidates(layout)? {
        match rebuilt_from(layout, id, (segments, group), options, load) {
            Ok((state, applied, survey, moved_to)) => {
                let origin = Origin::Rebuilt { reason, from_group: group, moved_to };
                return Ok(Based { state, applied, survey, origin, behind: Behind::Unread });
            }
            Err(error @ Error::Damaged { .. }) => drop(first_error.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    Err(first_error.expect("every candidate was tried"))
}

type Rebuilt = (Arc<dyn StateStore>, Applied, Survey, Option<PathBuf>);

fn rebuilt_from(
    layout: &Layout,
    id: DirectoryId,
    (segments, group): (&[Segment], u64),
    options: &StoreOptions,
    load: Loader<'_>,
) -> Result<Rebuilt> {
    let journal = layout.journal();
    match options.state {
        StateKind::Memory => {
            let survey = scan_candidate(layout, segments, group)?;
            mend_tail(&journal, segments, &survey)?;
            let state = Arc::new(MemoryState::default());
            let applied = fill(&*state, layout, id, (group, options.audit), load)?;
            Ok((state, applied, survey, None))
        }
        StateKind::Sled => {
            let built = try_candidate(layout, &layout.rebuilding(), id, (segments, group), options, load)?;
            let (state, applied, survey) = built;
            // It is renamed only when it is closed.
            drop(state);
            mend_tail(&journal, segments, &survey)?;
            let moved_to = settle(layout)?;
            let state: Arc<dyn StateStore> = Arc::new(open_own(&layout.state(), options)?);
            Ok((state, applied, survey, moved_to))
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
    (base, audit): (u64, Audit),
    load: Loader<'_>,
) -> Result<Applied> {
    let mut applied = Applied::empty(Mark::empty(id));
    if base > 0 {
        let mut reader = SnapshotReader::open(&layout.snapshots(), id, base, audit)?;
        let mut blocks = Vec::new();
        while let Some(rows) = reader.next_block()? {
            rows.iter().for_each(|(key, stored)| applied.add(audit, key, stored));
            blocks.extend(rows.into_iter().map(|(key, stored)| (key, Some(stored))));
            if blocks.len() >= FILL_ROWS {
                state.apply(&mut blocks.iter().map(|(key, stored)| (key, stored)))?;
                blocks.clear();
                load(Load::Rebuilt(applied.mark.totals.all_rows()));
            }
        }
        state.apply(&mut blocks.iter().map(|(key, stored)| (key, stored)))?;
        load(Load::Rebuilt(applied.mark.totals.all_rows()));
        let Mark { group, lsn, epoch, .. } = reader.mark.expect("it ended well");
        applied.at(Durable { group, lsn, epoch, written_at: 0, at: 0 });
    }
    // Through `apply`, so that a state is finished in one way only.
    let upto = Durable {
        group: applied.mark.group,
        lsn: applied.mark.lsn,
        epoch: applied.mark.epoch,
        written_at: 0,
        at: 0,
    };
    apply(state, audit, applied, &Layer::new(), upto)
}

/// Moves the old state aside and the new one into its place.
fn settle(layout: &Layout) -> Result<Option<PathBuf>> {
    let there = sled::is_there(&layout.state())?;
    let moved_to = there.then(|| sled::move_aside(&layout.state())).transpose()?;
    // An empty directory isn't worth keeping.
    sled::remove(&layout.state())?;
    let from = layout.rebuilding();
    std::fs::rename(&from, layout.state()).map_err(Error::io("rename", &from))?;
    disk::sync_dir(&layout.dir)?;
    Ok(moved_to)
}
