//! A consistent copy of a store that goes on working: the newest snapshot, every segment that it or a live payload
//! needs, up to the group that is durable when the copy begins.
//!
//! The state store isn't copied: a start on the copy rebuilds it. `format` comes last, so what was interrupted is
//! refused rather than started on. The copy keeps the directory's id; its first start has a larger epoch than the
//! group it ends with, so ids stay unique even if the original runs on.

use std::fs;
use std::io;
use std::path::Path;

use crate::checkpoint::Applied;
use crate::disk;
use crate::error::{Error, Result};
use crate::identity::Layout;
use crate::journal::scan::Place;
use crate::journal::segment::{self, Segment};
use crate::journal::writer::Durable;
use crate::snapshot::{self, file};
use crate::store::{Shared, Store};

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// The last step in it.
    pub lsn: u64,
    /// The group of its snapshot; 0 without one.
    pub snapshot_group: u64,
    /// The group it ends with.
    pub group: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Store {
    /// Copies the store to `target`, which must be absent or empty. Steps go on meanwhile; nothing is trimmed.
    ///
    /// # Errors
    /// When something can't be read or written; then `target` is incomplete, and no start accepts it.
    pub fn backup(&self, target: &Path) -> Result<BackedUp> {
        self.shared.backup(target, &|| ())
    }
}

/// What a copy is made of, looked at while steps go on.
struct Cut {
    /// What the state has.
    applied: Applied,
    /// The newest snapshot.
    snapshot_group: u64,
    /// The group that the copy ends with, and where it ends.
    durable: Durable,
    end: Place,
}

impl Cut {
    /// Where the copy ends is looked at last: then neither the snapshot nor what is known to be live can be of a later
    /// group than that, and a payload that its rows refer to can't be missing. `between` runs between the looks.
    fn take(shared: &Shared, between: &dyn Fn()) -> Result<Self> {
        let applied = shared.rows.applied();
        between();
        let snapshot_group = snapshot::list(&shared.layout.snapshots())?.last().copied().unwrap_or(0);
        between();
        let writer = shared.tail.writer();
        Ok(Self { applied, snapshot_group, durable: writer.durable(), end: writer.end() })
    }
}

impl Shared {
    fn backup(&self, target: &Path, between: &dyn Fn()) -> Result<BackedUp> {
        if !disk::names(target)?.is_empty() {
            let source = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
            return Err(Error::Io { action: "back up to", path: target.to_owned(), source });
        }
        let layout = Layout::new(target);
        for dir in [target.to_owned(), layout.journal(), layout.snapshots()] {
            disk::make_dir(&dir)?;
        }
        // Nothing that is copied may be removed before it was.
        let _retention = self.retention.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let cut = Cut::take(self, between)?;
        let Cut { snapshot_group, durable, end, .. } = cut;
        let mut bytes = 0;
        if snapshot_group > 0 {
            bytes += self.copy_snapshot(&layout, snapshot_group)?;
        }
        for segment in self.needed(&cut) {
            bytes += self.copy_segment(&layout, &segment, end)?;
        }
        let format = self.layout.format();
        let text = fs::read(&format).map_err(Error::io("read", &format))?;
        disk::write_whole(&layout.format(), &text)?;
        Ok(BackedUp { lsn: durable.lsn, snapshot_group, group: durable.group, bytes })
    }

    /// Segments with groups behind the snapshot, or with payloads that rows refer to.
    fn needed(&self, cut: &Cut) -> Vec<Segment> {
        let Cut { applied, snapshot_group, end, .. } = cut;
        // What is live is known as of the state's group; later payloads lie in segments with later groups.
        let base = applied.mark.group.min(*snapshot_group);
        let ended = self.journal.up_to(base);
        let unneeded = |segment: &Segment| {
            ended.iter().any(|old| old.number == segment.number)
                && !applied.live.contains_key(&segment.number)
        };
        let mut segments = self.journal.segments();
        // The last one may have been left for the next meanwhile: it is what says where the copy ends.
        segments.retain(|segment| {
            segment.number == end.segment || segment.number < end.segment && !unneeded(segment)
        });
        segments
    }

    fn copy_snapshot(&self, to: &Layout, group: u64) -> Result<u64> {
        let from = snapshot::path_of(&self.layout.snapshots(), group);
        let bytes = fs::metadata(&from).map_err(Error::io("look at", &from))?.len();
        let copy = snapshot::path_of(&to.snapshots(), group);
        disk::copy(&from, &copy, bytes, bytes)?;
        file::verify(&copy, self.journal.id, group, self.rows.audit)?;
        Ok(bytes)
    }

    /// Copies a segment; the one that is written, up to the end as it was, and zeros behind.
    fn copy_segment(&self, to: &Layout, segment: &Segment, end: Place) -> Result<u64> {
        let path = segment::path_of(&self.journal.dir, segment.number);
        let filled = if segment.number == end.segment { end.offset } else { segment.bytes };
        disk::copy(&path, &segment::path_of(&to.journal(), segment.number), filled, segment.bytes)?;
        Ok(segment.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::journal::rows::Rows;
    use crate::journal::writer::Steps;
    use crate::open::Origin;
    use crate::open::tests::{Model, opened, rows_of, step, with_history};
    use crate::scratch::{Choices, Scratch};
    use crate::state::StateKind;

    #[test]
    fn a_backup_of_a_busy_store_holds_a_prefix_of_its_steps() {
        let (dir, mut model) = with_history(StateKind::Sled);
        let (store, _) = opened(dir.path(), StateKind::Sled);
        let target = Scratch::new();
        let stop = AtomicBool::new(false);
        let (history, backed_up) = std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                let mut choices = Choices(9);
                let mut history: Vec<(u64, Model)> = vec![(store.durable_lsn(), model.clone())];
                while !stop.load(Ordering::Relaxed) {
                    step(&store, &mut model, &mut choices);
                    history.push((store.durable_lsn(), model.clone()));
                    if history.len().is_multiple_of(40) {
                        store.settle().expect("settles");
                    }
                }
                history
            });
            while store.gauges().checkpoints < 2 {
                std::thread::yield_now();
            }
            let backed_up = store.backup(&target.path().join("copy"));
            stop.store(true, Ordering::Relaxed);
            (busy.join().expect("steps"), backed_up.expect("backs up"))
        });
        let (copy, found) = opened(&target.path().join("copy"), StateKind::Sled);
        assert!(
            matches!(found.origin, Origin::Rebuilt { from_group, .. } if from_group == backed_up.snapshot_group)
        );
        assert_eq!(found.lsn, backed_up.lsn);
        let (_, expected) = history.iter().find(|(lsn, _)| *lsn == backed_up.lsn).expect("a step");
        assert_eq!(rows_of(&copy), *expected);
        assert!(store.backup(&target.path().join("copy")).is_err(), "never over something");
    }

    /// Steps, a checkpoint and a snapshot at every place where a copy looks at what it is made of.
    #[test]
    fn whatever_happens_between_its_looks_a_backup_starts() {
        let (dir, model) = with_history(StateKind::Sled);
        let (store, _) = opened(dir.path(), StateKind::Sled);
        let busy = RefCell::new((model, Choices(21)));
        for round in 0..6 {
            let target = Scratch::new();
            let between = || {
                let (model, choices) = &mut *busy.borrow_mut();
                (0..8).for_each(|_| step(&store, model, choices));
                store.shared.checkpoint();
                let to = store.shared.durable().group;
                store
                    .shared
                    .snapshot_from(0, to)
                    .or_else(|_| {
                        let newest = *snapshot::list(&store.shared.layout.snapshots())?.last().expect("one");
                        store.shared.snapshot_from(newest, to)
                    })
                    .expect("a snapshot");
            };
            let backed_up = store.shared.backup(&target.path().join("copy"), &between).expect("backs up");
            let (copy, found) = opened(&target.path().join("copy"), StateKind::Sled);
            assert_eq!(
                (found.lsn, rows_of(&copy) == busy.borrow().0),
                (backed_up.lsn, true),
                "round {round}"
            );
        }
    }

    #[test]
    fn what_is_written_after_the_cut_takes_no_segment_from_it() {
        let (dir, _) = with_history(StateKind::Sled);
        let (store, _) = opened(dir.path(), StateKind::Sled);
        store.shared.checkpoint();
        store.shared.snapshot().expect("a snapshot");
        let mut cut = Cut::take(&store.shared, &|| {}).expect("a cut");
        assert_eq!(cut.durable.group, cut.snapshot_group, "the copy ends with its snapshot");
        // As if no payload in it were live.
        cut.applied.live.clear();
        // The very next group doesn't fit the segment any more.
        let mut rows = Rows::default();
        rows.put_payload(&[1, 1], &vec![7; store.shared.options.journal.segment_bytes as usize]);
        let lsn = store.durable_lsn() + 1;
        store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), rows);
        let needed = store.shared.needed(&cut);
        assert!(needed.iter().any(|segment| segment.number == cut.end.segment), "the copy's end is missing");
    }

    #[test]
    fn every_backup_of_a_busy_store_is_a_prefix_from_when_it_began() {
        let (dir, mut model) = with_history(StateKind::Sled);
        let (store, _) = opened(dir.path(), StateKind::Sled);
        let (targets, stop) = (Scratch::new(), AtomicBool::new(false));
        let (history, backups) = std::thread::scope(|scope| {
            let stepping = scope.spawn(|| {
                let (mut choices, mut history) = (Choices(5), BTreeMap::new());
                while !stop.load(Ordering::Relaxed) {
                    step(&store, &mut model, &mut choices);
                    history.insert(store.durable_lsn(), model.clone());
                }
                history
            });
            let settling = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.settle().expect("settles");
                }
            });
            let first = store.durable_lsn();
            while store.durable_lsn() == first {
                std::thread::yield_now();
            }
            let backups: Vec<_> = (0..10)
                .map(|n| {
                    let began_at = store.durable_lsn();
                    let path = targets.path().join(format!("copy-{n}"));
                    (began_at, store.backup(&path).expect("backs up"), path)
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            settling.join().expect("settles");
            (stepping.join().expect("steps"), backups)
        });
        for (began_at, backed_up, path) in backups {
            assert!(backed_up.lsn >= began_at);
            let (copy, found) = opened(&path, StateKind::Memory);
            assert_eq!(found.lsn, backed_up.lsn);
            assert!(rows_of(&copy) == history[&found.lsn], "as of step {}", found.lsn);
        }
    }

    #[test]
    fn an_interrupted_backup_is_refused() {
        let (dir, _) = with_history(StateKind::Memory);
        let (store, _) = opened(dir.path(), StateKind::Memory);
        let target = Scratch::new();
        store.backup(&target.path().join("copy")).expect("backs up");
        fs::remove_file(target.path().join("copy/format")).expect("removes");
        let options = crate::open::tests::options(StateKind::Memory);
        assert!(matches!(Store::open(&target.path().join("copy"), options), Err(Error::Damaged { .. })));
    }
}
