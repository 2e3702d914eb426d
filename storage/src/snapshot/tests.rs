//! Snapshots against a plain map; every flip of a file is refused.

use std::fs;

use proptest::prelude::*;

use super::file::{SnapshotReader, verify};
use super::merge::write_next;
use super::*;
use crate::dirty::Layer;
use crate::journal::writer::Durable;
use crate::row::{Key, PayloadRef, Stored};
use crate::scratch::Scratch;

const ID: [u8; 16] = [5; 16];

fn audit(_key: &[u8], value: &[u8]) -> i128 {
    value.iter().map(|byte| i128::from(*byte)).sum()
}

fn upto(group: u64) -> Durable {
    Durable { group, lsn: group * 10, epoch: 3, written_at: 0, at: 0 }
}

fn rows_of(dir: &Path, group: u64) -> Vec<(Key, Stored)> {
    let mut reader = SnapshotReader::open(dir, ID, group, audit).expect("opens");
    let mut rows = Vec::new();
    while let Some(block) = reader.next_block().expect("reads") {
        rows.extend(block);
    }
    rows
}

fn any_layer() -> impl Strategy<Value = Layer> {
    let key = (1u8..4, 0u8..30).prop_map(|(table, n)| Key::from([table, n]));
    let value = proptest::collection::vec(any::<u8>(), 0..3000).prop_map(|value| Stored::Value(value.into()));
    let payload =
        any::<u32>().prop_map(|n| Stored::Payload(PayloadRef { segment: n, offset: n, len: n, crc: n }));
    let stored = proptest::option::weighted(0.7, prop_oneof![value, payload]);
    proptest::collection::btree_map(key, stored, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn each_is_the_one_before_with_what_changed(layers in proptest::collection::vec(any_layer(), 1..5)) {
        let dir = Scratch::new();
        let mut model = Layer::new();
        for (i, layer) in layers.into_iter().enumerate() {
            let (base, group) = (i as u64 * 7, (i as u64 + 1) * 7);
            model.extend(layer.clone());
            model.retain(|_, stored| stored.is_some());
            let mark = write_next(dir.path(), ID, audit, base, (layer, upto(group))).expect("writes");
            let expected: Vec<_> = model.iter().map(|(k, s)| (k.clone(), s.clone().expect("kept"))).collect();
            prop_assert_eq!(rows_of(dir.path(), group), expected);
            prop_assert_eq!(mark.totals.all_rows(), model.len() as u64);
            prop_assert_eq!((mark.group, mark.lsn, mark.epoch), (group, group * 10, 3));
            let sum: i128 = model.iter().map(|(key, stored)| match stored {
                Some(Stored::Value(value)) => audit(key, value),
                _ => 0,
            }).sum();
            prop_assert_eq!(mark.totals.audit, sum);
            keep_newest(dir.path()).expect("removes");
            prop_assert_eq!(list(dir.path()).expect("lists").len(), (i + 1).min(2));
        }
    }
}

#[test]
fn every_flip_and_every_truncation_is_refused() {
    let dir = Scratch::new();
    let layer =
        (0..300u16).map(|n| (Key::from([1, (n >> 8) as u8, n as u8]), Some(Stored::Value([7; 700].into()))));
    write_next(dir.path(), ID, audit, 0, (layer.collect(), upto(9))).expect("writes");
    let path = path_of(dir.path(), 9);
    let whole = fs::read(&path).expect("read");
    verify(&path, ID, 9, audit).expect("whole");
    let mut places: Vec<usize> = (0..whole.len()).step_by(199).collect();
    places.extend(whole.len() - 80..whole.len());
    for at in places {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).expect("write");
        let refused = verify(&path, ID, 9, audit);
        assert!(
            matches!(&refused, Err(Error::Damaged { path: named, .. }) if *named == path),
            "{at}: {refused:?}"
        );
        fs::write(&path, &whole[..at]).expect("write");
        assert!(verify(&path, ID, 9, audit).is_err(), "cut at {at}");
    }
    fs::write(&path, [&whole[..], &[0]].concat()).expect("write");
    assert!(verify(&path, ID, 9, audit).is_err(), "something follows");
    fs::write(&path, &whole).expect("write");
    assert!(verify(&path, [6; 16], 9, audit).is_err(), "of another directory");
}

#[test]
fn nothing_is_trimmed_before_there_are_two() {
    assert_eq!(
        [trim_group(&[]), trim_group(&[5]), trim_group(&[5, 9]), trim_group(&[5, 9, 12])],
        [0, 0, 5, 9]
    );
}
