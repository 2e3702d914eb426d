//! Whole stores: what was committed is there after any end, whatever was checkpointed, snapped or trimmed meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::*;
use crate::journal::JournalOptions;
use crate::journal::writer::Steps;
use crate::scratch::{Choices, Scratch};
use crate::state::StateKind;

pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Nothing happens by itself.
pub(crate) fn options(state: StateKind) -> StoreOptions {
    StoreOptions {
        state,
        journal: JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::default() },
        checkpoint_every: Duration::from_secs(3600),
        checkpoint_bytes: usize::MAX,
        snapshot_journal_bytes: u64::MAX,
        disk_reserve_bytes: 0,
        audit: |_, value| value.iter().map(|byte| i128::from(*byte)).sum(),
        ..StoreOptions::default()
    }
}

/// Opens, and sees that what was loaded on the way is what is there.
pub(crate) fn opened(dir: &Path, state: StateKind) -> (Store, Opened) {
    let mut loaded = Vec::new();
    let (store, found) = Store::open_and_load(dir, options(state), |load| match load {
        Load::Again => loaded.clear(),
        Load::Rebuilt(_) => assert!(loaded.is_empty(), "rows come after it"),
        Load::Row(key, stored) => loaded.push((key, stored)),
    })
    .expect("opens");
    assert_eq!(loaded, store.range(&[], None, usize::MAX / 2).expect("reads"));
    (store, found)
}

/// Commits a step with a few random rows, some of them payloads.
pub(crate) fn step(store: &Store, model: &mut Model, choices: &mut Choices) {
    let mut rows = Rows::default();
    for _ in 0..1 + choices.below(4) {
        let key = vec![1 + choices.below(3) as u8, choices.below(40) as u8];
        let fill = choices.below(256) as u8;
        match choices.below(5) {
            0 => {
                rows.delete(&key);
                model.remove(&key);
            }
            1 => {
                let payload = vec![fill; 1000 + choices.below(9000)];
                rows.put_payload(&key, &payload);
                model.insert(key, payload);
            }
            _ => {
                let value = vec![fill; choices.below(200)];
                rows.put(&key, &value);
                model.insert(key, value);
            }
        }
    }
    let lsn = store.durable_lsn() + 1 + choices.below(3) as u64;
    store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: 0 }), rows);
    assert_eq!(store.durable_lsn(), lsn);
}

pub(crate) fn rows_of(store: &Store) -> Model {
    let mut rows = Model::new();
    let visited = store.for_each(&[], None, |key, stored| {
        let bytes = match stored {
            Stored::Value(value) => value.into(),
            Stored::Payload(at) => store.payload(at)?,
        };
        rows.insert(key.into(), bytes);
        Ok::<_, Error>(())
    });
    visited.expect("reads");
    rows
}

use crate::row::{Key, Stored};

fn check_counts(store: &Store) {
    store.shared.checkpoint();
    let mut counted = crate::checkpoint::Applied::empty(store.shared.rows.applied().mark);
    counted.mark.totals = Default::default();
    let visited = store.for_each(&[], None, |key, stored| {
        counted.add(store.shared.rows.audit, &key, &stored);
        Ok::<_, Error>(())
    });
    visited.expect("reads");
    let applied = store.shared.rows.applied();
    assert_eq!((applied.mark.totals, applied.live), (counted.mark.totals, counted.live));
}

fn check_life(state: StateKind, seed: u64) {
    let (dir, mut choices, mut model) = (Scratch::new(), Choices(seed), Model::new());
    let mut dirs = vec![dir];
    let (mut store, first) = opened(dirs[0].path(), state);
    assert_eq!(first.origin, Origin::New);
    let mut epoch = first.epoch;
    for turn in 0..60 {
        match choices.below(12) {
            0 => store.shared.checkpoint(),
            1 => store.settle().expect("settles"),
            2 | 3 => {
                let lsn = store.durable_lsn();
                // Killed: what lies on disk now is all there is. Or ended well.
                if choices.below(2) == 0 {
                    dirs.push(dirs.last().expect("one").copy());
                }
                drop(store);
                let (again, found) = opened(dirs.last().expect("one").path(), state);
                assert!(found.epoch > epoch, "turn {turn}");
                assert_eq!((found.lsn, found.torn_tail), (lsn, None));
                if state == StateKind::Sled {
                    assert_eq!(found.origin, Origin::State, "turn {turn}");
                }
                epoch = found.epoch;
                store = again;
                assert_eq!(rows_of(&store), model, "turn {turn}, seed {seed}");
            }
            _ => step(&store, &mut model, &mut choices),
        }
    }
    assert_eq!(rows_of(&store), model);
    for key in [vec![1, 3], vec![2, 7], vec![3, 11]] {
        assert_eq!(store.value(&key).expect("reads"), model.get(&key).cloned());
    }
    check_counts(&store);
}

#[test]
fn a_life_of_ends_with_the_state_in_memory() {
    (1..=12).for_each(|seed| check_life(StateKind::Memory, seed * 7919));
}

#[test]
fn a_life_of_ends_with_the_state_in_sled() {
    (1..=4).for_each(|seed| check_life(StateKind::Sled, seed * 104_729));
}

/// A store with some history: snapshots, a trimmed journal, dirty rows.
pub(crate) fn with_history(state: StateKind) -> (Scratch, Model) {
    let (dir, mut model, mut choices) = (Scratch::new(), Model::new(), Choices(77));
    let (store, _) = opened(dir.path(), state);
    for round in 0..4 {
        for _ in 0..25 {
            step(&store, &mut model, &mut choices);
        }
        if round < 3 {
            store.settle().expect("settles");
        }
    }
    assert!(store.gauges().segments_removed > 0, "{:?}", store.gauges());
    assert!(store.gauges().moved_bytes > 0, "{:?}", store.gauges());
    let copy = dir.copy();
    drop(store);
    (copy, model)
}

#[test]
fn a_state_that_is_missing_or_foreign_is_rebuilt() {
    let (dir, model) = with_history(StateKind::Sled);
    let (other, _) = with_history(StateKind::Sled);
    let state = |dir: &Scratch| dir.path().join("state");
    let rebuilt = |dir: &Scratch, wanted: &str| {
        let (store, found) = opened(dir.path(), StateKind::Sled);
        let Origin::Rebuilt { reason, from_group, moved_to } = found.origin else {
            panic!("{:?}", found.origin)
        };
        assert!(reason.contains(wanted), "{reason}");
        assert!(from_group > 0);
        assert_eq!(rows_of(&store), model);
        check_counts(&store);
        drop(store);
        assert_eq!(opened(dir.path(), StateKind::Sled).1.origin, Origin::State, "for good");
        moved_to
    };
    let missing = dir.copy();
    fs::rename(state(&missing), missing.path().join("state-rebuilding")).expect("a rebuild was interrupted");
    assert_eq!(rebuilt(&missing, "isn't there"), None);
    assert!(!missing.path().join("state-rebuilding").exists());

    let foreign = dir.copy();
    fs::remove_dir_all(state(&foreign)).expect("remove");
    fs::rename(state(&other), state(&foreign)).expect("move");
    let moved_to = rebuilt(&foreign, "another directory").expect("it was there");
    assert!(moved_to.exists());

    let torn = dir.copy();
    fs::write(state(&torn).join("conf"), [0; 30]).expect("write");
    rebuilt(&torn, "can't be opened");
}

#[test]
fn rows_that_the_state_lost_are_noticed() {
    let (dir, model) = with_history(StateKind::Sled);
    let path = dir.path().join("state");
    let state = sled::open(&path, &Default::default()).expect("io").expect("usable");
    let rows = crate::state::StateStore::range(&state, &[], None, 5).expect("reads");
    let gone = [(rows[2].0.clone(), None)];
    crate::state::StateStore::apply(&state, &mut gone.iter().map(|(k, s)| (k, s))).expect("applies");
    drop(state);
    let (store, found) = opened(dir.path(), StateKind::Sled);
    assert!(matches!(found.origin, Origin::Rebuilt { reason, .. } if reason.contains("sum to")));
    assert_eq!(rows_of(&store), model);
}

#[test]
fn a_state_ahead_of_the_journal_is_refused_not_believed() {
    let (dir, _) = with_history(StateKind::Sled);
    drop(opened(dir.path(), StateKind::Sled));
    // Everything that a later journal had is gone; the state knows that it was there.
    let journal = dir.path().join("journal");
    let id = identity::load(&Layout::new(dir.path())).expect("reads").expect("there");
    let segments = segment::list(&journal, id).expect("lists");
    let last = segments.iter().rfind(|segment| segment.first_group.is_some()).expect("one");
    let path = segment::path_of(&journal, last.number);
    let mut bytes = fs::read(&path).expect("read");
    bytes[4096..].fill(0);
    fs::write(&path, bytes).expect("write");
    let refused = Store::open(dir.path(), options(StateKind::Sled)).err().expect("refused").to_string();
    assert!(refused.contains("journal ends with group"), "{refused}");
}

#[test]
fn parts_that_are_missing_alone_are_damage() {
    let (dir, _) = with_history(StateKind::Sled);
    for part in ["format", "journal"] {
        let copy = dir.copy();
        let path = copy.path().join(part);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("remove");
        let refused = Store::open(copy.path(), options(StateKind::Sled)).err().expect("refused");
        assert!(matches!(&refused, Error::Damaged { path: named, .. } if *named == path), "{refused}");
    }
    let copy = dir.copy();
    fs::remove_dir_all(copy.path().join("snapshots")).expect("remove");
    assert_eq!(opened(copy.path(), StateKind::Sled).1.origin, Origin::State, "only the rebuild needs them");
    let copy = dir.copy();
    for part in ["snapshots", "state"] {
        fs::remove_dir_all(copy.path().join(part)).expect("remove");
    }
    assert!(matches!(Store::open(copy.path(), options(StateKind::Sled)), Err(Error::Damaged { .. })));
}

#[test]
fn a_busy_directory_is_refused() {
    let dir = Scratch::new();
    let (store, _) = opened(dir.path(), StateKind::Memory);
    let busy = Store::open(dir.path(), options(StateKind::Memory));
    assert!(matches!(busy, Err(Error::InUse { .. })));
    drop(store);
    drop(opened(dir.path(), StateKind::Memory));
}

#[test]
fn a_start_that_was_killed_anywhere_is_new_again() {
    for keep in 0..4 {
        let dir = Scratch::new();
        let layout = Layout::new(dir.path());
        if keep > 0 {
            identity::create(&layout).expect("creates");
        }
        if keep > 1 {
            disk::make_dir(&layout.journal()).expect("makes");
            fs::write(layout.journal().join("0000000001.segment.unfinished"), [1; 9]).expect("writes");
        }
        if keep > 2 {
            let id = identity::load(&layout).expect("reads").expect("there");
            Segment::create(&layout.journal(), id, 1, 64 << 10).expect("creates");
        }
        let (store, found) = opened(dir.path(), StateKind::Sled);
        assert_eq!((found.lsn, rows_of(&store)), (0, Model::new()), "{keep}");
    }
}

#[test]
fn a_damaged_snapshot_is_replaced_from_the_one_before() {
    let (dir, model) = with_history(StateKind::Sled);
    let layout = Layout::new(dir.path());
    let groups = snapshot::list(&layout.snapshots()).expect("lists");
    let newest = snapshot::path_of(&layout.snapshots(), groups[1]);
    let mut bytes = fs::read(&newest).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("write");
    let without_state = dir.copy();
    fs::remove_dir_all(without_state.path().join("state")).expect("remove");
    let (store, found) = opened(without_state.path(), StateKind::Sled);
    assert!(matches!(found.origin, Origin::Rebuilt { from_group, .. } if from_group == groups[0]));
    assert_eq!(rows_of(&store), model);

    let (store, _) = opened(dir.path(), StateKind::Sled);
    store.settle().expect("settles");
    assert!(!newest.exists(), "it doesn't count as one of two");
    assert_eq!(snapshot::list(&layout.snapshots()).expect("lists").len(), 2);
    assert_eq!(store.trouble(), None);
}

#[test]
fn room_closes_for_dirty_rows_and_for_a_full_disk_and_opens_again() {
    use crate::store::Room;
    let (dir, mut choices) = (Scratch::new(), Choices(3));
    let small = StoreOptions { dirty_bytes_max: 1000, ..options(StateKind::Memory) };
    let (store, _) = Store::open(dir.path(), small).expect("opens");
    assert_eq!(store.room(), Room::Open);
    let mut model = Model::new();
    (0..20).for_each(|_| step(&store, &mut model, &mut choices));
    assert_eq!(store.room(), Room::Rows);
    store.shared.checkpoint();
    assert_eq!(store.room(), Room::Open);
    drop(store);
    let full = StoreOptions { disk_reserve_bytes: u64::MAX, ..options(StateKind::Memory) };
    let (store, _) = Store::open(dir.path(), full).expect("it opens below the reserve");
    assert_eq!(store.room(), Room::Disk);
    assert_eq!(rows_of(&store), model);
}

#[test]
fn damage_that_only_snapshots_need_is_mended_from_the_state() {
    let (dir, mut choices) = (Scratch::new(), Choices(11));
    let mut model = Model::new();
    let (store, _) = opened(dir.path(), StateKind::Sled);
    (0..10).for_each(|_| step(&store, &mut model, &mut choices));
    store.shared.checkpoint();
    (0..3).for_each(|_| step(&store, &mut model, &mut choices));
    let segment = store.shared.journal.segments()[0].clone();
    let copy = dir.copy();
    drop(store);
    let path = segment::path_of(&copy.path().join("journal"), segment.number);
    let mut bytes = fs::read(&path).expect("read");
    bytes[2 * disk::BLOCK + 100] ^= 1;
    fs::write(&path, bytes).expect("write");
    let (store, found) = opened(copy.path(), StateKind::Sled);
    assert_eq!(found.origin, Origin::State);
    store.shared.snapshot().expect("a snapshot needs the damaged group; the state has it");
    assert_eq!(store.trouble(), None);
    step(&store, &mut model, &mut choices);
    store.shared.snapshot().expect("the next one doesn't need it");
    let groups = snapshot::list(&copy.path().join("snapshots")).expect("lists");
    assert_eq!(groups.last(), Some(&store.gauges().group));
    drop(store);
    fs::remove_dir_all(copy.path().join("state")).expect("removes");
    let (store, found) = opened(copy.path(), StateKind::Sled);
    assert!(matches!(found.origin, Origin::Rebuilt { from_group, .. } if groups.contains(&from_group)));
    let mut payloads_may_be_hit = rows_of_tolerant(&store, &model);
    payloads_may_be_hit.retain(|key, value| model.get(key) != Some(value));
    assert_eq!(payloads_may_be_hit, Model::new());
}

#[test]
fn a_snapshot_that_failed_is_tried_again_without_more_journal() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static SKEWED: AtomicBool = AtomicBool::new(true);
    let (dir, mut choices, mut model) = (Scratch::new(), Choices(13), Model::new());
    let (store, _) = opened(dir.path(), StateKind::Sled);
    (0..10).for_each(|_| step(&store, &mut model, &mut choices));
    let path = segment::path_of(&dir.path().join("journal"), store.shared.journal.segments()[0].number);
    drop(store);
    let flip = || {
        let mut bytes = fs::read(&path).expect("reads");
        bytes[2 * disk::BLOCK + 50] ^= 1;
        fs::write(&path, bytes).expect("writes");
    };
    flip();
    let eager = StoreOptions {
        snapshot_journal_bytes: 1,
        snapshot_retry: Duration::from_millis(1),
        // As if the state's rows weren't those that it had when it was counted: a snapshot can't be made of it either.
        audit: |key, value| {
            let snapping = std::thread::current().name() == Some("snapshot");
            let skew = i128::from(snapping && SKEWED.load(Ordering::Relaxed));
            (options(StateKind::Sled).audit)(key, value) + skew
        },
        ..options(StateKind::Sled)
    };
    let (store, found) = Store::open(dir.path(), eager).expect("the state needs none of it");
    assert_eq!(found.origin, Origin::State);
    let trouble = loop {
        match store.trouble() {
            Some(trouble) => break trouble,
            None => std::thread::yield_now(),
        }
    };
    assert!(trouble.contains(&path.display().to_string()), "{trouble}");
    assert_eq!(snapshot::list(&dir.path().join("snapshots")).expect("lists"), Vec::<u64>::new());
    flip();
    SKEWED.store(false, Ordering::Relaxed);
    while store.trouble().is_some() {
        std::thread::yield_now();
    }
    let groups = snapshot::list(&dir.path().join("snapshots")).expect("lists");
    assert_eq!(groups.last(), Some(&store.gauges().group));
    assert!(!store.shared.snapshot_is_due());
}

/// As [`rows_of`], where a payload that is refused counts as the model's.
fn rows_of_tolerant(store: &Store, model: &Model) -> Model {
    let rows = store.range(&[], None, usize::MAX / 2).expect("reads");
    let value = |key: &Key| match store.value(key) {
        Ok(value) => value.expect("it was listed"),
        Err(Error::Damaged { .. }) => model[&**key].clone(),
        Err(error) => panic!("{error}"),
    };
    rows.into_iter().map(|(key, _)| (key.to_vec(), value(&key))).collect()
}

#[test]
fn a_sled_that_is_still_being_closed_is_waited_for() {
    let dir = Scratch::new();
    let path = dir.path().join("state");
    let first = sled::open(&path, &Default::default()).expect("io").expect("usable");
    let closing = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(first);
    });
    let second = sled::open(&path, &Default::default()).expect("io");
    assert!(second.is_ok(), "refused: {:?}", second.err());
    closing.join().expect("no panic");
}

#[test]
fn a_clock_that_was_far_off_once_leaves_epochs_for_later_starts() {
    let far = super::next_epoch(u64::from(u32::MAX) * 2, 1_800_000_000);
    let later = super::next_epoch(1_800_000_000, far);
    assert!(far < later && later + 100_000_000 < u64::from(u32::MAX), "{far} {later}");
    assert_eq!(super::next_epoch(1_800_000_000, 5), 1_800_000_000);
}
