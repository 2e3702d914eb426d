//! What a cut leaves of small disks.

use super::*;
use crate::scratch::{On, Scratch};
use std::collections::BTreeSet;

fn made(inode: u64, name: &str) -> Record {
    Record::FileMade { inode, name: name.into() }
}

fn written(inode: u64, offset: u64, byte: u8, length: usize) -> Record {
    Record::Written { inode, offset, bytes: vec![byte; length] }
}

fn disk(records: &[Record]) -> Disk {
    let mut disk = Disk::new();
    records.iter().for_each(|record| disk.apply(record).expect("fits"));
    disk
}

/// The contents of a file over many cuts; `None` where it isn't there.
fn cuts(disk: &Disk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let (mut choices, mut seen) = (Choices::new(3), BTreeSet::new());
    for _ in 0..200 {
        let scratch = Scratch::new(On::Memory);
        disk.cut(&mut choices, scratch.path()).expect("written");
        seen.insert(std::fs::read(scratch.join(name)).ok());
    }
    seen
}

fn synced(token: u64, inode: u64) -> [Record; 2] {
    [Record::SyncBegins { token, inode }, Record::Synced { token }]
}

#[test]
fn what_is_synced_stays_and_its_name_only_with_its_directory() {
    let [begins, ends] = synced(1, 9);
    let mut records = vec![made(9, "a"), written(9, 0, 7, 600), begins, ends];
    let seen = cuts(&disk(&records), "a");
    assert_eq!(seen, BTreeSet::from([None, Some(vec![7; 600])]));
    records.extend(synced(2, 1));
    assert_eq!(cuts(&disk(&records), "a"), BTreeSet::from([Some(vec![7; 600])]));
}

#[test]
fn sectors_that_are_not_synced_come_in_any_mixture() {
    let mut records = vec![made(9, "a"), written(9, 0, 1, 1024)];
    records.extend(synced(1, 9).into_iter().chain(synced(2, 1)));
    records.push(written(9, 0, 2, 1024));
    let seen = cuts(&disk(&records), "a");
    let mixtures = [(1, 1), (1, 2), (2, 1), (2, 2)];
    let expected = mixtures.map(|(a, b)| Some([[a; 512], [b; 512]].concat()));
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_write_during_a_sync_is_not_covered_by_it() {
    let mut records = vec![made(9, "a"), written(9, 0, 1, 512)];
    records.extend(synced(1, 1));
    records.push(Record::SyncBegins { token: 2, inode: 9 });
    records.push(written(9, 0, 2, 512));
    records.push(Record::Synced { token: 2 });
    let seen = cuts(&disk(&records), "a");
    assert_eq!(seen, BTreeSet::from([Some(vec![1; 512]), Some(vec![2; 512])]));
}

#[test]
fn a_failed_sync_leaves_doubt_that_only_another_write_ends() {
    let mut records = vec![made(9, "a"), written(9, 0, 1, 512)];
    records.extend(synced(1, 9).into_iter().chain(synced(2, 1)));
    records.push(written(9, 0, 2, 512));
    records.extend([Record::SyncBegins { token: 3, inode: 9 }, Record::SyncFailed { token: 3 }]);
    records.extend(synced(4, 9));
    let either = BTreeSet::from([Some(vec![1; 512]), Some(vec![2; 512])]);
    assert_eq!(cuts(&disk(&records), "a"), either, "a later sync says nothing");
    records.push(written(9, 0, 2, 512));
    records.extend(synced(5, 9));
    assert_eq!(cuts(&disk(&records), "a"), BTreeSet::from([Some(vec![2; 512])]));
}

#[test]
fn a_disk_that_is_begun_with_keeps_what_is_on_it() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new(On::Memory);
    std::fs::create_dir(scratch.join("d")).expect("made");
    std::fs::write(scratch.join("d/a"), [1; 512]).expect("written");
    let inode = std::fs::metadata(scratch.join("d/a")).expect("there").ino();
    let mut disk = Disk::of(scratch.path()).expect("reads");
    assert_eq!(cuts(&disk, "d/a"), BTreeSet::from([Some(vec![1; 512])]));
    disk.apply(&written(inode, 0, 2, 512)).expect("fits");
    assert_eq!(cuts(&disk, "d/a"), BTreeSet::from([Some(vec![1; 512]), Some(vec![2; 512])]));
}

#[test]
fn a_segment_that_was_another_one_is_known_when_it_is_torn() {
    let mut records = vec![made(9, "1.segment")];
    let renamed = |from: &str, to: &str| Record::Renamed { from: from.into(), to: to.into() };
    let torn = |records: &[Record]| {
        let (disk, scratch) = (disk(records), Scratch::new(On::Memory));
        let cut = |seed: u64| disk.cut(&mut Choices::new(seed), &scratch.join(&seed.to_string()));
        (0..100).filter(|seed| cut(*seed).expect("written").torn_reused).count()
    };
    records.push(written(9, 0, 1, 1024));
    assert_eq!(torn(&records), 0, "it was never another one");
    records.push(renamed("1.segment", "1.segment.unfinished"));
    records.push(renamed("1.segment.unfinished", "2.segment"));
    records.extend(synced(2, 1));
    assert!(torn(&records) > 5);
    records.extend(synced(1, 9));
    assert_eq!(torn(&records), 0, "it is whole");
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let mut records = vec![made(9, "a.unfinished"), written(9, 0, 1, 512)];
    records.extend(synced(1, 9).into_iter().chain(synced(2, 1)));
    records.push(Record::Renamed { from: "a.unfinished".into(), to: "a".into() });
    let disk = disk(&records);
    let (there, before) = (cuts(&disk, "a"), cuts(&disk, "a.unfinished"));
    let either = BTreeSet::from([None, Some(vec![1; 512])]);
    assert_eq!((there, before), (either.clone(), either));
    let scratch = Scratch::new(On::Memory);
    for seed in 0..50 {
        let target = scratch.join(&seed.to_string());
        disk.cut(&mut Choices::new(seed), &target).expect("written");
        assert_eq!(std::fs::read_dir(target).expect("lists").count(), 1);
    }
}
