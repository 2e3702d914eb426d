//! The two times in a frame: the wall clock's, which may be wrong, and the caller's, which only grows.

use std::time::Duration;

use super::tests::options;
use super::*;
use crate::journal::writer::Steps;
use crate::scratch::{Scratch, bytes_of_all};
use crate::state::StateKind;

const MINUTE_MS: u64 = 60_000;
const NOW_MS: u64 = 1_800_000_000_000;

fn at(wall_ms: fn() -> u64, clock_behind_max: Option<Duration>) -> StoreOptions {
    StoreOptions { wall_ms, clock_behind_max, ..options(StateKind::Sled) }
}

fn refusing(wall_ms: fn() -> u64) -> StoreOptions {
    at(wall_ms, Some(Duration::from_secs(600)))
}

fn now() -> u64 {
    NOW_MS
}

fn years_ahead() -> u64 {
    NOW_MS + 10 * 365 * 24 * 60 * MINUTE_MS
}

fn commit(store: &Store, at: u64) {
    let lsn = store.durable_lsn() + 1;
    let mut rows = Rows::default();
    rows.put(&[1, 1], &at.to_be_bytes());
    store.shared.commit(Some(Steps { first_lsn: lsn, last_lsn: lsn, count: 1, at }), rows);
}

#[test]
fn a_clock_that_was_accepted_stays_accepted() {
    let dir = Scratch::new();
    let (store, _) = Store::open(dir.path(), refusing(years_ahead)).expect("a new directory");
    commit(&store, 70);
    drop(store);
    for _ in 0..2 {
        let refused = Store::open(dir.path(), refusing(now)).err();
        let Some(Error::ClockBehind { by }) = refused else { panic!("{refused:?}") };
        assert_eq!(by.as_millis() as u64, years_ahead() - NOW_MS, "refusing changes nothing");
    }
    let (store, found) = Store::open(dir.path(), at(now, None)).expect("accepted");
    assert_eq!((found.written_at, found.at), (years_ahead(), 70));
    drop(store);
    let (store, found) = Store::open(dir.path(), refusing(now)).expect("it was accepted before");
    assert_eq!((found.written_at, found.at), (NOW_MS, 70), "what the caller had stays");
    commit(&store, 71);
    drop(store);
    let (_, found) = Store::open(dir.path(), refusing(|| NOW_MS - 9 * MINUTE_MS)).expect("nearly right");
    assert_eq!(found.at, 71);
}

#[test]
fn a_start_that_is_refused_for_its_clock_changes_nothing() {
    let dir = Scratch::new();
    let (store, _) = Store::open(dir.path(), refusing(years_ahead)).expect("a new directory");
    commit(&store, 1);
    store.settle().expect("settles");
    commit(&store, 2);
    let end = store.shared.tail.writer().end();
    // Killed, with a torn group, a file that isn't finished and a state that isn't right.
    let killed = dir.copy();
    let journal = killed.path().join("journal");
    let path = segment::path_of(&journal, end.segment);
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[end.offset as usize..][..100].fill(7);
    std::fs::write(&path, bytes).expect("writes");
    std::fs::write(journal.join("0000000099.segment.unfinished"), b"half").expect("writes");
    std::fs::write(killed.path().join("state/db"), b"not a sled").expect("writes");
    let before = bytes_of_all(killed.path());
    let refused = Store::open(killed.path(), refusing(now)).err();
    assert!(matches!(refused, Some(Error::ClockBehind { .. })), "{refused:?}");
    let after = bytes_of_all(killed.path());
    assert!(before.keys().eq(after.keys()), "{:?}", after.keys());
    assert!(before == after, "a file changed");
    let (_, found) = Store::open(killed.path(), at(now, None)).expect("accepted");
    assert_eq!((found.at, found.torn_tail.map(|torn| torn.blocks)), (2, Some(1)));
}

#[test]
fn a_clock_that_goes_back_while_it_runs_is_what_the_next_start_compares_with() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WALL: AtomicU64 = AtomicU64::new(0);
    let wall = || WALL.load(Ordering::Relaxed);
    WALL.store(years_ahead(), Ordering::Relaxed);
    let dir = Scratch::new();
    let (store, _) = Store::open(dir.path(), refusing(wall)).expect("a new directory");
    commit(&store, 5);
    WALL.store(NOW_MS, Ordering::Relaxed);
    commit(&store, 6);
    drop(store);
    let (_, found) = Store::open(dir.path(), refusing(now)).expect("the machine had set its clock");
    assert_eq!((found.written_at, found.at), (NOW_MS, 6));
}

#[test]
fn the_callers_time_never_goes_back() {
    let dir = Scratch::new();
    let (store, _) = Store::open(dir.path(), refusing(now)).expect("a new directory");
    commit(&store, 9);
    commit(&store, 4);
    // A group without steps belongs to the step before it.
    store.shared.commit(None, Rows::default());
    store.settle().expect("settles");
    drop(store);
    for _ in 0..2 {
        assert_eq!(Store::open(dir.path(), refusing(now)).expect("opens").1.at, 9);
    }
}
