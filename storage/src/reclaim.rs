//! Moves the payloads that are still referred to out of a segment that is mostly dead, so that it can go.
//!
//! They are appended again in ordinary groups, with their rows, by whoever holds the writer; a row that changed
//! meanwhile is left alone. The old segment goes when the rows' new places are in the state store.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Result;
use crate::journal::frame::HEAD_BYTES;
use crate::journal::rows::Rows;
use crate::journal::scan;
use crate::journal::segment::Segment;
use crate::row::{Key, PayloadRef, Stored, row_bytes};
use crate::store::Shared;
use crate::trouble::Task;

/// Bytes of payloads that one group moves: commits wait for it.
const MOVE_BYTES: usize = 256 << 10;

/// A payload that a row refers to.
struct Survivor {
    key: Key,
    at: PayloadRef,
}

/// What became of a segment whose payloads were to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emptied {
    /// They were. Once is enough: no new row can refer to it.
    Moved,
    /// There was no room for them; it is tried again then.
    NoRoom(Instant),
    /// A part of it is damaged; it is tried again then.
    Failed(Instant),
}

impl Emptied {
    fn is_due(self) -> bool {
        match self {
            Self::Moved => false,
            Self::NoRoom(at) | Self::Failed(at) => at <= Instant::now(),
        }
    }
}

/// Whether there is a segment to move payloads into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    There,
    Lacking,
}

impl Shared {
    /// Moves the survivors of one segment, if one is less than half live.
    pub(crate) fn move_survivors(&self) -> Result<()> {
        // Neither is a segment removed while it is read, nor are its payloads moved twice.
        let _retention = self.retention.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.rows.applied().live;
        let mostly_dead = |segment: &Segment| {
            live.get(&segment.number).is_some_and(|live| live.saturating_mul(2) < segment.bytes)
        };
        let due = |segment: &Segment| self.emptied().get(&segment.number).is_none_or(|was| was.is_due());
        let old = self.journal.up_to(self.trim_group()?);
        let Some(segment) = old.into_iter().find(|segment| mostly_dead(segment) && due(segment)) else {
            return Ok(());
        };
        let emptied = self.empty(&segment);
        let again_at = Instant::now() + self.options.snapshot_retry;
        let became = match &emptied {
            Ok(Room::There) => Emptied::Moved,
            Ok(Room::Lacking) => Emptied::NoRoom(again_at),
            Err(_) => Emptied::Failed(again_at),
        };
        self.emptied().insert(segment.number, became);
        self.mend_reclaim();
        emptied.map(drop)
    }

    fn emptied(&self) -> MutexGuard<'_, BTreeMap<u32, Emptied>> {
        self.counters.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment is gone.
    pub(crate) fn forget_emptied(&self, segment: u32) {
        self.emptied().remove(&segment);
        self.mend_reclaim();
    }

    /// Nothing is told any more once no segment is left that couldn't be emptied.
    fn mend_reclaim(&self) {
        if !self.emptied().values().any(|was| matches!(was, Emptied::Failed(_))) {
            self.counters.troubles.mended(Task::Reclaim);
        }
    }

    fn empty(&self, segment: &Segment) -> Result<Room> {
        let mut batch: Vec<(Survivor, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for survivor in self.survivors(segment)? {
            let payload = self.journal.payload(survivor.at)?;
            bytes += payload.len();
            batch.push((survivor, payload));
            if bytes >= MOVE_BYTES {
                if self.move_batch(std::mem::take(&mut batch))? == Room::Lacking {
                    return Ok(Room::Lacking);
                }
                bytes = 0;
            }
        }
        self.move_batch(batch)
    }

    /// What rows refer to in a segment.
    fn survivors(&self, segment: &Segment) -> Result<Vec<Survivor>> {
        let mut survivors = Vec::new();
        scan::read_segment(&self.journal.dir, segment, &mut |frame| {
            for (key, stored) in frame.changes()? {
                if let Some(Stored::Payload(at)) = stored
                    && self.rows.read(&key)? == Some(Stored::Payload(at))
                {
                    survivors.push(Survivor { key, at });
                }
            }
            Ok(())
        })?;
        Ok(survivors)
    }

    /// Never waits long for a segment: the thread that moves payloads is also the one that removes segments.
    fn move_batch(&self, batch: Vec<(Survivor, Vec<u8>)>) -> Result<Room> {
        let bytes = |(survivor, payload): &(Survivor, Vec<u8>)| {
            payload.len() + row_bytes(&survivor.key, Some(&Stored::Payload(survivor.at)))
        };
        let frame_bytes = HEAD_BYTES + batch.iter().map(bytes).sum::<usize>();
        let Some(mut writer) = self.tail.with_room_soon(frame_bytes) else { return Ok(Room::Lacking) };
        let mut rows = Rows::default();
        for (Survivor { key, at }, payload) in &batch {
            // Nobody else appends while the writer is held, so what is read now is what is replaced.
            if self.rows.read(key)? == Some(Stored::Payload(*at)) {
                rows.put_payload(key, payload);
            }
        }
        if !rows.is_empty() {
            self.counters.moved_bytes.fetch_add(rows.payload_bytes() as u64, Ordering::Relaxed);
            self.append(&mut writer, None, rows);
        }
        Ok(Room::There)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::disk::{self, BLOCK};
    use crate::error::Error;
    use crate::journal::segment;
    use crate::journal::spares::Spares;
    use crate::journal::writer::Steps;
    use crate::open::tests::options;
    use crate::scratch::Scratch;
    use crate::state::StateKind;
    use crate::store::{Store, StoreOptions};

    /// A store whose first segment has one payload that a row refers to, and nothing else that anybody needs.
    fn mostly_dead(dir: &Scratch) -> (Store, Segment) {
        let options = StoreOptions { snapshot_retry: Duration::ZERO, ..options(StateKind::Memory) };
        let (store, _) = Store::open(dir.path(), options).expect("a new directory");
        for lsn in 1..=20 {
            let mut rows = Rows::default();
            rows.put_payload(&[1, u8::from(lsn > 1)], &[lsn as u8; 5000]);
            store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), rows);
            if lsn > 18 {
                store.shared.checkpoint();
                store.shared.snapshot().expect("a snapshot");
            }
        }
        let first = store.shared.journal.segments()[0].clone();
        (store, first)
    }

    #[test]
    fn moving_payloads_out_of_a_damaged_segment_is_tried_again() {
        let dir = Scratch::new();
        let (store, first) = mostly_dead(&dir);
        let path = segment::path_of(&store.shared.journal.dir, first.number);
        let flip = || {
            let mut bytes = fs::read(&path).expect("reads");
            bytes[2 * BLOCK + 100] ^= 1;
            fs::write(&path, bytes).expect("writes");
        };
        flip();
        for _ in 0..2 {
            store.shared.keep();
            let trouble = store.trouble().expect("it is told");
            assert!(trouble.contains(&path.display().to_string()), "{trouble}");
        }
        flip();
        store.shared.keep();
        assert_eq!(store.trouble(), None, "it is mended");
        assert!(store.gauges().moved_bytes >= 5000);
        store.settle().expect("settles");
        assert!(!path.exists(), "nobody needs it any more");
        assert_eq!(store.value(&[1, 0]).expect("reads"), Some(vec![1; 5000]));
    }

    #[test]
    fn what_cannot_be_moved_is_forgotten_when_nobody_needs_it() {
        let dir = Scratch::new();
        let (store, first) = mostly_dead(&dir);
        let path = segment::path_of(&store.shared.journal.dir, first.number);
        let mut bytes = fs::read(&path).expect("reads");
        bytes[2 * BLOCK + 100] ^= 1;
        fs::write(&path, bytes).expect("writes");
        assert!(matches!(store.shared.move_survivors(), Err(Error::Damaged { .. })));
        store.shared.keep();
        assert!(store.trouble().is_some());
        let mut rows = Rows::default();
        rows.delete(&[1, 0]);
        store.shared.commit(Some(Steps { first_lsn: 30, last_lsn: 30, count: 1, at: 0 }), rows);
        store.shared.checkpoint();
        store.shared.trim();
        assert!(!path.exists(), "nobody needs it any more");
        assert_eq!(store.trouble(), None);
    }
    #[test]
    fn two_who_keep_it_in_shape_at_once_are_not_in_each_others_way() {
        let dir = Scratch::new();
        let (store, _) = mostly_dead(&dir);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..40).for_each(|_| store.settle().expect("settles")));
            }
            for lsn in 21..400 {
                let mut rows = Rows::default();
                rows.put_payload(&[1, (lsn % 7 * (lsn % 3)) as u8], &[lsn as u8; 3000]);
                store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), rows);
            }
        });
        assert_eq!(store.trouble(), None);
        assert_eq!(store.value(&[1, 6]).expect("reads").map(|value| value.len()), Some(3000));
    }

    /// The committer waits for a segment; whatever could make room goes on.
    #[test]
    fn nobody_else_waits_for_a_segment_that_a_full_disk_does_not_give() {
        let (dir, target) = (Scratch::new(), Scratch::new());
        let (store, first) = mostly_dead(&dir);
        let journal = &store.shared.journal;
        let put = |lsn: u64, key: &[u8], payload: &[u8]| {
            let mut rows = Rows::default();
            rows.put_payload(key, payload);
            store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), rows);
        };
        // Now the writer's segment is so full that the payload to be moved finds no room in it either.
        put(21, &[2], &[21; 5000]);
        let (give, ready) = std::sync::mpsc::sync_channel(2);
        store.shared.tail.replace_spares(Spares::of_test(&journal.dir, ready));
        let payload = vec![7; 60_000];
        let waits = std::thread::scope(|scope| {
            let committing = scope.spawn(|| put(22, &[2], &payload));
            while !store.shared.tail.is_waited_for() {
                std::thread::yield_now();
            }
            let backed_up = store.backup(&target.path().join("copy")).expect("backs up");
            assert_eq!(backed_up.lsn, 21);
            store.shared.keep();
            store.shared.checkpoint();
            store.shared.trim();
            let waits = !committing.is_finished();
            for number in [90, 91] {
                let bytes = store.shared.options.journal.segment_bytes;
                let spare = Segment::create(&journal.dir, journal.id, number, bytes).expect("a segment");
                give.send(spare).expect("it is waited for");
            }
            committing.join().expect("commits");
            waits
        });
        assert!(waits, "it had room");
        assert_eq!((store.durable_lsn(), store.gauges().moved_bytes), (22, 0));
        assert_eq!(store.value(&[2]).expect("reads"), Some(payload));
        store.settle().expect("settles");
        assert!(!segment::path_of(&journal.dir, first.number).exists(), "its payload was moved at last");
    }

    #[test]
    fn old_segments_are_not_kept_where_the_reserve_is_reached() {
        let dir = Scratch::new();
        let full = StoreOptions { disk_reserve_bytes: u64::MAX, ..options(StateKind::Memory) };
        let (store, _) = Store::open(dir.path(), full).expect("opens");
        let unfinished = || {
            let names = disk::names(&store.shared.journal.dir).expect("lists");
            names.iter().filter(|name| name.ends_with("unfinished")).count()
        };
        for lsn in 1..30 {
            let mut rows = Rows::default();
            rows.put_payload(&[1, 0], &[lsn as u8; 9000]);
            store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), rows);
        }
        for lsn in 30..32 {
            store
                .shared
                .commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), Rows::default());
            store.settle().expect("settles");
        }
        assert!(unfinished() > 1, "none was kept");
        store.shared.look_at_disk().expect("looks");
        // One may be in the making.
        assert!(unfinished() <= 1, "they take the room that keeps admission closed");
    }
}
