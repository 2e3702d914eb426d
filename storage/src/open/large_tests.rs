//! Groups that are longer than a segment, and spares that were made with another size: both come with a limit that an
//! operator raises, and with steps that change many rows at once.

use std::fs;

use super::tests::{Model, opened, options, rows_of};
use super::*;
use crate::journal::writer::Steps;
use crate::scratch::Scratch;
use crate::state::StateKind;

/// Segments of the tests.
const SEGMENT_BYTES: usize = 64 << 10;

/// Commits one step with so many short rows and payloads of these lengths.
fn big_step(store: &Store, model: &mut Model, short: u32, payloads: &[usize]) {
    let lsn = store.durable_lsn() + 1;
    let mut rows = Rows::default();
    for number in 0..short {
        let (key, value) = ([&[1][..], &number.to_be_bytes()].concat(), lsn.to_be_bytes().repeat(12));
        rows.put(&key, &value);
        model.insert(key, value);
    }
    for (number, len) in payloads.iter().enumerate() {
        let (key, value) = (vec![2, number as u8], vec![lsn as u8 | 1; *len]);
        rows.put_payload(&key, &value);
        model.insert(key, value);
    }
    store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at: lsn }), rows);
}

fn check_restart(dir: &Scratch, model: &Model) {
    let killed = dir.copy();
    let (store, _) = opened(killed.path(), StateKind::Sled);
    assert!(rows_of(&store) == *model);
    drop(store);
    fs::remove_dir_all(killed.path().join("state")).expect("removes");
    let (store, found) = opened(killed.path(), StateKind::Sled);
    assert!(matches!(found.origin, Origin::Rebuilt { .. }));
    assert!(rows_of(&store) == *model, "rebuilt");
}

#[test]
fn a_step_of_any_size_is_taken_whole() {
    let (dir, mut model) = (Scratch::new(), Model::new());
    let (store, _) = opened(dir.path(), StateKind::Sled);
    big_step(&store, &mut model, 3, &[100]);
    // Many rows; a payload longer than a segment; several that are so together.
    big_step(&store, &mut model, 9000, &[]);
    check_restart(&dir, &model);
    big_step(&store, &mut model, 1, &[5 * SEGMENT_BYTES]);
    big_step(&store, &mut model, 1, &[SEGMENT_BYTES / 2 + 1, SEGMENT_BYTES / 2, 70_000]);
    big_step(&store, &mut model, 2, &[10]);
    check_restart(&dir, &model);
    store.settle().expect("settles");
    big_step(&store, &mut model, 5000, &[SEGMENT_BYTES, 3]);
    for _ in 0..3 {
        store.settle().expect("settles");
    }
    check_restart(&dir, &model);
    let left = store.shared.journal.segments();
    assert!(
        left.iter().all(|segment| segment.number > 5),
        "what was passed over or is over has gone: {left:?}"
    );
}

#[test]
fn half_of_a_long_group_is_none_of_it() {
    let (dir, mut model) = (Scratch::new(), Model::new());
    let (store, _) = opened(dir.path(), StateKind::Sled);
    big_step(&store, &mut model, 3, &[100]);
    let before = model.clone();
    big_step(&store, &mut model, 4000, &[2 * SEGMENT_BYTES]);
    let segment = store.shared.journal.segments().pop().expect("its own");
    assert!(segment.bytes > 3 * SEGMENT_BYTES as u64);
    let path = segment::path_of(Path::new("journal"), segment.number);
    for lost in [0, 1, 17, (segment.bytes as usize / disk::BLOCK) - 2] {
        let cut = dir.copy();
        let path = cut.path().join(&path);
        let mut bytes = fs::read(&path).expect("reads");
        // The first block of the segment is its header.
        bytes[(1 + lost) * disk::BLOCK..][..512].fill(0);
        fs::write(&path, bytes).expect("writes");
        let (store, found) = opened(cut.path(), StateKind::Sled);
        assert!(rows_of(&store) == before, "block {lost}");
        assert!(found.torn_tail.is_some());
        drop(store);
        assert!(!path.exists(), "a spare of that size isn't kept");
        assert!(rows_of(&opened(cut.path(), StateKind::Sled).0) == before);
    }
    // Named, and nothing in it yet.
    let cut = dir.copy();
    let path = cut.path().join(&path);
    let mut bytes = fs::read(&path).expect("reads");
    bytes[disk::BLOCK..].fill(0);
    fs::write(&path, bytes).expect("writes");
    assert!(rows_of(&opened(cut.path(), StateKind::Sled).0) == before);
}

#[test]
fn spares_that_were_passed_over_are_removed_by_a_later_trim() {
    let (dir, mut model) = (Scratch::new(), Model::new());
    let (store, _) = opened(dir.path(), StateKind::Memory);
    big_step(&store, &mut model, 3, &[100]);
    big_step(&store, &mut model, 1, &[3 * SEGMENT_BYTES]);
    let journal = dir.path().join("journal");
    let numbers = |dir: &Path| -> Vec<u32> {
        disk::names(dir).expect("lists").iter().filter_map(|name| segment::number_of(name)).collect()
    };
    let own = store.shared.journal.segments().pop().expect("its own").number;
    let (copy, id) = (dir.copy(), store.shared.journal.id);
    drop(store);
    let passed_over = own - 1;
    assert!(!numbers(&journal).contains(&passed_over));
    // As if the power had gone before the directory was written.
    Segment::create(&copy.path().join("journal"), id, passed_over, SEGMENT_BYTES as u64).expect("creates");
    let (store, _) = opened(copy.path(), StateKind::Memory);
    assert!(rows_of(&store) == model);
    assert!(numbers(&copy.path().join("journal")).contains(&passed_over));
    for _ in 0..3 {
        big_step(&store, &mut model, 3, &[60_000]);
        store.settle().expect("settles");
    }
    let left = numbers(&copy.path().join("journal"));
    assert!(left.iter().all(|number| *number > passed_over), "{left:?}");
    assert!(rows_of(&store) == model);
}

#[test]
fn spares_and_segments_of_another_size_disturb_nobody() {
    let (dir, mut model) = (Scratch::new(), Model::new());
    for segment_bytes in [64, 256, 32, 1024, 64] {
        let sized = StoreOptions {
            journal: crate::journal::JournalOptions {
                segment_bytes: segment_bytes << 10,
                ..Default::default()
            },
            ..options(StateKind::Sled)
        };
        let (store, _) = Store::open(dir.path(), sized).expect("opens");
        assert!(rows_of(&store) == model, "{segment_bytes} KiB");
        for _ in 0..3 {
            big_step(&store, &mut model, 20, &[20_000, 30_000]);
        }
        // Its files are made as the spares are: wait until one of this size is there.
        let newest = store.shared.journal.segments().pop().expect("one");
        assert!(newest.bytes >= segment_bytes << 10 || model.is_empty());
    }
    check_restart(&dir, &model);
}
