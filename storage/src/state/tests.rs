//! Dirty rows over both state stores, against a plain map; half-applied checkpoints; what sled survives.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::memory::MemoryState;
use super::sled::{SledOptions, SledState, Unusable, open};
use super::*;
use crate::checkpoint::{Applied, Rowspace, apply};
use crate::dirty::Layer;
use crate::journal::writer::Durable;
use crate::row::PayloadRef;
use crate::scratch::Scratch;

const ID: [u8; 16] = [5; 16];

fn audit(_key: &[u8], value: &[u8]) -> i128 {
    value.first().map_or(0, |byte| i128::from(*byte))
}

fn upto(group: u64) -> Durable {
    Durable { group, lsn: group * 10, epoch: 1, written_at: 0, at: 0 }
}

fn opened(dir: &Scratch) -> SledState {
    open(&dir.path().join("state"), &SledOptions::default()).expect("io").expect("usable")
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u8) -> Vec<u8> {
    vec![1 + n % 3, n]
}

/// Groups of changes: key number and value (none deletes). Every third value is a payload reference.
fn any_groups() -> impl Strategy<Value = Vec<Vec<(u8, Option<u8>)>>> {
    let change = (0u8..24, proptest::option::of(any::<u8>()));
    proptest::collection::vec(proptest::collection::vec(change, 0..12), 1..12)
}

fn stored_of(value: u8) -> Stored {
    match value % 3 {
        0 => Stored::Payload(PayloadRef {
            segment: u32::from(value % 5),
            offset: 1,
            len: u32::from(value) + 1,
            crc: 9,
        }),
        _ => Stored::Value([value].into()),
    }
}

fn absorb(rows: &Rowspace, model: &mut Model, changes: &[(u8, Option<u8>)], group: u64) {
    let stored = changes.iter().map(|(k, v)| (Key::from(key(*k)), v.map(stored_of)));
    rows.absorb(stored.collect(), upto(group));
    for (k, v) in changes {
        match v {
            Some(v) => drop(model.insert(key(*k), vec![*v])),
            None => drop(model.remove(&key(*k))),
        }
    }
}

fn expected(model: &Model) -> Vec<(Key, Stored)> {
    model.iter().map(|(k, v)| (k.clone().into(), stored_of(v[0]))).collect()
}

/// What counting everything again says.
fn counted(rows: &[(Key, Stored)]) -> Applied {
    let mut applied = Applied::empty(Mark::empty(ID));
    rows.iter().for_each(|(key, stored)| applied.add(audit, key, stored));
    applied
}

fn check_reads(rows: &Rowspace, model: &Model) {
    assert_eq!(rows.range(&[], None, usize::MAX / 2).expect("reads"), expected(model));
    for limit in [1, 3, 7] {
        let found = rows.range(&[1, 5], Some(&[2, 200]), limit).expect("reads");
        let all = expected(model).into_iter().filter(|(k, _)| **k >= [1, 5][..] && **k < [2, 200][..]);
        assert_eq!(found, all.take(limit).collect::<Vec<_>>());
    }
    for n in 0..24 {
        let stored = rows.read(&key(n)).expect("reads");
        assert_eq!(stored, model.get(&key(n)).map(|v| stored_of(v[0])));
    }
}

fn check_against_model(state: Arc<dyn StateStore>, groups: &[Vec<(u8, Option<u8>)>]) {
    let rows = Rowspace::new(state, audit, Applied::empty(Mark::empty(ID)));
    let mut model = Model::new();
    for (i, changes) in groups.iter().enumerate() {
        absorb(&rows, &mut model, changes, i as u64 + 1);
        check_reads(&rows, &model);
        if i % 3 == 2 {
            rows.checkpoint().expect("applies");
            check_reads(&rows, &model);
            let applied = rows.applied();
            let counted = counted(&expected(&model));
            assert_eq!((&applied.mark.totals, &applied.live), (&counted.mark.totals, &counted.live));
            assert_eq!(rows.dirty().bytes(), 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn memory_behaves_like_a_map(groups in any_groups()) {
        check_against_model(Arc::<MemoryState>::default(), &groups);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn sled_behaves_like_a_map(groups in any_groups()) {
        let dir = Scratch::new();
        check_against_model(Arc::new(opened(&dir)), &groups);
    }

    #[test]
    fn a_half_applied_checkpoint_is_applied_again(groups in any_groups(), cut in 0usize..20) {
        let dir = Scratch::new();
        let mut model = Model::new();
        let state = opened(&dir);
        let first = Layer::from_iter((0..20).map(|n| (key(n).into(), Some(stored_of(n)))));
        (0..20).for_each(|n| drop(model.insert(key(n), vec![n])));
        let applied = apply(&state, audit, Applied::empty(Mark::empty(ID)), &first, upto(1)).expect("applies");
        let mut layer = Layer::new();
        for (k, v) in groups.concat() {
            layer.insert(key(k).into(), v.map(stored_of));
            match v {
                Some(v) => drop(model.insert(key(k), vec![v])),
                None => drop(model.remove(&key(k))),
            }
        }
        // As `apply` does, killed after `cut` rows.
        let mut end = counted(&expected(&model));
        end.at(upto(2));
        state.begin(&end.mark).expect("begins");
        state.apply(&mut layer.iter().take(cut)).expect("applies");
        drop(state);
        let state = opened(&dir);
        let marks = state.marks().expect("usable").expect("finished once");
        prop_assert_eq!(&marks.applied, &applied.mark);
        let begun = marks.begun.expect("it was begun");
        prop_assert_eq!(&begun, &end.mark);
        state.apply(&mut layer.iter()).expect("applies again");
        state.finish(&begun).expect("finishes");
        prop_assert_eq!(state.range(&[], None, 1000).expect("reads"), expected(&model));
        let marks = state.marks().expect("usable").expect("finished");
        prop_assert_eq!((marks.applied, marks.begun), (end.mark, None));
    }
}

#[test]
fn the_shim_is_in_this_program() {
    let dir = Scratch::new();
    let before = shim::calls();
    opened(&dir).check_shim().expect("a flush is an fdatasync");
    assert!(shim::calls() > before);
}

#[test]
fn a_leftover_of_a_killed_start_does_not_brick_it() {
    let dir = Scratch::new();
    let state = opened(&dir);
    let layer = Layer::from_iter([(key(1).into(), Some(stored_of(1)))]);
    apply(&state, audit, Applied::empty(Mark::empty(ID)), &layer, upto(1)).expect("applies");
    drop(state);
    fs::write(dir.path().join("state/snap.00000000000FFFFF.generating"), [0; 16]).expect("write");
    let state = opened(&dir);
    assert_eq!(state.read(&key(1)).expect("reads"), Some(stored_of(1)));
    assert_eq!(state.side_files().expect("lists"), 0);
    drop(state);
    // Its snapshots only speed the start up.
    for name in disk_names(&dir).iter().filter(|name| name.starts_with("snap.")) {
        fs::write(dir.path().join("state").join(name), [7; 100]).expect("write");
    }
    assert_eq!(opened(&dir).read(&key(1)).expect("reads"), Some(stored_of(1)));
}

fn disk_names(dir: &Scratch) -> Vec<String> {
    crate::disk::names(&dir.path().join("state")).expect("lists")
}

#[test]
fn a_torn_configuration_is_unusable_and_moves_aside() {
    let dir = Scratch::new();
    drop(opened(&dir));
    let path = dir.path().join("state");
    fs::write(path.join("conf"), [0; 20]).expect("write");
    let options = SledOptions { patience: Duration::from_secs(60), ..SledOptions::default() };
    assert!(matches!(open(&path, &options).expect("io"), Err(Unusable(_))));
    let first = sled::move_aside(&path).expect("moved");
    assert!(first.exists() && !path.exists());
    drop(opened(&dir));
    std::thread::sleep(Duration::from_millis(2));
    let second = sled::move_aside(&path).expect("moved");
    assert!(second.exists() && !first.exists(), "one is kept");
}
