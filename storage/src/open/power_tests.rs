//! Power cuts on whole stores: of what was written and not yet synced, any 512-byte sectors may be missing.
//!
//! A cut during a checkpoint mixes sectors of sled's files from before and after, more than a disk could lose that
//! keeps what was synced in between. What comes up must be right, from sled or rebuilt.

use std::fs;
use std::path::Path;

use super::tests::{Model, opened, rows_of, step};
use super::*;
use crate::scratch::{Choices, Scratch};
use crate::state::StateKind;

/// Puts a random part of the sectors that differ back to what they were `before`, in the files below a directory.
fn lose_sectors(before: &Path, after: &Path, choices: &mut Choices) {
    for name in disk::names(after).expect("lists") {
        let (old, new) = (before.join(&name), after.join(&name));
        if new.is_dir() {
            lose_sectors(&old, &new, choices);
            continue;
        }
        // A segment that was made meanwhile was synced before it got its name.
        let Ok(old) = fs::read(&old) else { continue };
        let mut bytes = fs::read(&new).expect("read");
        for (i, sector) in bytes.chunks_mut(512).enumerate() {
            let was = old.get(i * 512..).unwrap_or_default();
            let was: Vec<u8> = was.iter().copied().chain(std::iter::repeat(0)).take(sector.len()).collect();
            if *sector != was && choices.below(2) == 0 {
                sector.copy_from_slice(&was);
            }
        }
        fs::write(&new, bytes).expect("write");
    }
}

#[test]
fn a_cut_during_a_commit_keeps_what_was_acknowledged() {
    let (dir, mut model, mut choices) = (Scratch::new(), Model::new(), Choices(0xcafe));
    let (store, _) = opened(dir.path(), StateKind::Sled);
    let mut torn = 0;
    for round in 0..25 {
        let (acknowledged, before) = (model.clone(), dir.copy());
        step(&store, &mut model, &mut choices);
        let cut = dir.copy();
        lose_sectors(&before.path().join("journal"), &cut.path().join("journal"), &mut choices);
        let (again, found) = opened(cut.path(), StateKind::Sled);
        let rows = rows_of(&again);
        assert!(rows == model || rows == acknowledged, "round {round}");
        torn += u32::from(found.torn_tail.is_some());
        if round % 10 == 9 {
            store.settle().expect("settles");
        }
    }
    assert!(torn > 0);
}

#[test]
fn a_cut_during_a_checkpoint_is_recovered_from_the_journal() {
    let (dir, mut model, mut choices) = (Scratch::new(), Model::new(), Choices(0xbeef));
    let (store, _) = opened(dir.path(), StateKind::Sled);
    let mut reached_sled = 0;
    for round in 0..12 {
        for _ in 0..10 {
            step(&store, &mut model, &mut choices);
        }
        let before = dir.copy();
        store.shared.checkpoint();
        for _ in 0..4 {
            let cut = dir.copy();
            lose_sectors(&before.path().join("state"), &cut.path().join("state"), &mut choices);
            let (again, found) = opened(cut.path(), StateKind::Sled);
            assert!(rows_of(&again) == model, "round {round}: {:?}", found.origin);
            reached_sled += u32::from(found.origin != Origin::State || found.replayed_groups > 0);
        }
        if round % 4 == 3 {
            store.settle().expect("settles");
        }
    }
    assert!(reached_sled > 0, "no cut undid anything of a checkpoint");
}
