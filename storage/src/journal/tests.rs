//! The start rules, on real files: truncated, torn, flipped, zeroed.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::open::{mend_tail, resume};
use super::rows::Rows;
use super::scan::{Next, Survey, read_groups, scan};
use super::segment::{self, Segment};
use super::tail::Tail;
use super::writer::Steps;
use super::*;
use crate::row::Stored;
use crate::scratch::{Choices, Scratch};

const ID: DirectoryId = [3; 16];
const SEGMENT_BYTES: u64 = 64 << 10;

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: SEGMENT_BYTES, ..JournalOptions::default() }
}

/// What a start finds: the groups above its base with their payloads, and the journal's end.
pub(super) struct Started {
    pub(super) groups: BTreeMap<u64, Vec<u8>>,
    pub(super) survey: Survey,
    pub(super) journal: Arc<Journal>,
    pub(super) tail: Tail,
}

use std::sync::Arc;

pub(super) fn start(dir: &Path) -> Result<Started> {
    start_from(dir, 0)
}

/// A start on a state that has the groups up to `base`.
pub(super) fn start_from(dir: &Path, base: u64) -> Result<Started> {
    disk::remove_unfinished(dir)?;
    let mut segments = segment::list(dir, ID)?;
    if segments.is_empty() {
        segments.push(Segment::create(dir, ID, 1, SEGMENT_BYTES)?);
    }
    let mut groups = BTreeMap::new();
    let survey = scan(dir, &segments, base, &mut |frame| {
        let changes = frame.changes()?;
        let (key, stored) = changes.first().expect("a row");
        let bytes = match stored.as_ref().expect("put") {
            Stored::Value(value) => value.to_vec(),
            Stored::Payload(at) => read_payload(dir, *at)?,
        };
        assert_eq!(key[1..], frame.head.group.to_be_bytes());
        groups.insert(frame.head.group, bytes);
        Ok(())
    })?;
    mend_tail(dir, &segments, &survey)?;
    let (journal, tail) = resume(dir, ID, (segments, &survey), (&options(), disk::unix_ms))?;
    Ok(Started { groups, survey, journal, tail })
}

/// Bytes of a group, of a length that depends on it: short values and payloads of several blocks.
pub(super) fn value_of(group: u64) -> Vec<u8> {
    let len = [10, 3000, 5000, 13_000, 100, 9000][group as usize % 6];
    (0..len).map(|i| (group as usize * 7 + i) as u8 | 1).collect()
}

pub(super) fn append(tail: &Tail) -> u64 {
    let group = tail.writer().durable().group + 1;
    let mut rows = Rows::default();
    let key: Vec<u8> = [1].into_iter().chain(group.to_be_bytes()).collect();
    let value = value_of(group);
    match value.len() {
        ..=4096 => rows.put(&key, &value),
        _ => rows.put_payload(&key, &value),
    }
    let mut writer = tail.with_room(frame::frame_bytes(&rows));
    writer.write(Some(Steps { first_lsn: group * 10, last_lsn: group * 10 + 3, count: 2, at: group }), rows);
    writer.sync();
    group
}

fn written(groups: u64) -> Scratch {
    let dir = Scratch::new();
    let started = start(dir.path()).expect("a new journal");
    for _ in 0..groups {
        append(&started.tail);
    }
    dir
}

fn check_groups(started: &Started, expected: u64) {
    let groups: Vec<u64> = started.groups.keys().copied().collect();
    assert_eq!(groups, (1..=expected).collect::<Vec<_>>());
    assert!(started.groups.iter().all(|(group, bytes)| *bytes == value_of(*group)));
    assert_eq!(started.tail.writer().durable().group, expected);
}

#[test]
fn groups_come_back_over_many_segments_and_go_on() {
    let dir = Scratch::new();
    for round in 0..4u64 {
        let started = start(dir.path()).expect("starts");
        check_groups(&started, round * 20);
        assert_eq!(started.survey.debris, []);
        for _ in 0..20 {
            append(&started.tail);
        }
        assert_eq!(started.tail.writer().durable().lsn, (round + 1) * 200 + 3);
    }
    let started = start(dir.path()).expect("starts");
    let segments = started.journal.segments();
    assert!(segments.len() > 3);
    for (from, to) in [(0, 80), (17, 43), (42, 42), (79, 80)] {
        let mut seen = Vec::new();
        let mut visit = |frame: scan::Frame<'_>| {
            seen.push(frame.head.group);
            Ok(Next::Go)
        };
        read_groups(dir.path(), &segments, (from, to), &mut visit).expect("reads");
        assert_eq!(seen, (from + 1..=to).collect::<Vec<_>>());
    }
}

/// The frames of all segments, in order: file and bytes.
fn frames(dir: &Path) -> Vec<(PathBuf, Range<usize>)> {
    frames_from(dir, 0)
}

/// Those of groups above `base`.
pub(super) fn frames_from(dir: &Path, base: u64) -> Vec<(PathBuf, Range<usize>)> {
    let segments = segment::list(dir, ID).expect("segments");
    let mut frames = Vec::new();
    scan(dir, &segments, base, &mut |frame| {
        let start = frame.head.offset as usize;
        frames.push((
            segment::path_of(dir, frame.head.segment),
            start..start + disk::blocks(frame.head.len as usize),
        ));
        Ok(())
    })
    .expect("intact");
    frames
}

pub(super) fn edit(path: &Path, f: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    f(&mut bytes);
    fs::write(path, bytes).expect("write");
}

#[test]
fn a_power_cut_leaves_any_sectors_of_the_last_group_and_all_before_it() {
    let mut choices = Choices(0x5eed);
    for groups in [1, 2, 5, 6, 13, 20] {
        let dir = written(groups);
        let frames = frames(dir.path());
        let (path, range) = frames.last().expect("a frame");
        for _ in 0..12 {
            let cut = dir.copy();
            let path = cut.path().join(path.file_name().expect("name"));
            let mut lost = 0;
            edit(&path, |bytes| {
                for sector in range.clone().step_by(512) {
                    if choices.below(3) == 0 {
                        bytes[sector..sector + 512].fill(0);
                        lost += 1;
                    }
                }
            });
            let started = start(cut.path()).expect("a torn tail is mended");
            let last = started.tail.writer().durable().group;
            assert!(last == groups || (lost > 0 && last == groups - 1), "{last} of {groups}");
            check_groups(&started, last);
            append(&started.tail);
            drop(started);
            let again = start(cut.path()).expect("starts again");
            assert_eq!(again.survey.debris, []);
            check_groups(&again, last + 1);
        }
    }
}

#[test]
fn damage_before_the_last_group_is_refused_by_file_and_offset() {
    let dir = written(20);
    let frames = frames(dir.path());
    let mut choices = Choices(0xbad);
    for _ in 0..60 {
        let hit = choices.below(frames.len() - 1);
        let (path, range) = &frames[hit];
        let damaged = dir.copy();
        let path = damaged.path().join(path.file_name().expect("name"));
        let kind = choices.below(3);
        edit(&path, |bytes| match kind {
            0 => bytes[range.start + choices.below(80)] ^= 1 << choices.below(8),
            1 => bytes[range.clone()].fill(0),
            _ => bytes[range.start..range.start + 4096].fill(0),
        });
        let refused = start(damaged.path()).map(|started| started.tail.writer().durable().group);
        match refused {
            Err(Error::Damaged { path: named, offset, .. }) => {
                assert_eq!(named, path);
                assert!(range.contains(&(offset as usize)), "{offset} is outside {range:?} (kind {kind})");
            }
            other => panic!("group {} was hit: {other:?}", hit + 1),
        }
    }
}

#[test]
fn every_flip_is_recovered_or_refused() {
    let dir = written(9);
    let last = frames(dir.path()).last().expect("a frame").clone();
    let paths: Vec<PathBuf> =
        disk::names(dir.path()).expect("names").iter().map(|n| dir.path().join(n)).collect();
    let mut choices = Choices(0xf11b);
    for _ in 0..150 {
        let damaged = dir.copy();
        let path = &paths[choices.below(paths.len())];
        let at = choices.below(SEGMENT_BYTES as usize);
        let file = damaged.path().join(path.file_name().expect("name"));
        edit(&file, |bytes| bytes[at] ^= 1 << choices.below(8));
        match start(damaged.path()) {
            // Zeros behind a frame may flip, and so may the last group, which is then as good as torn.
            Ok(started) if *path == last.0 && last.1.contains(&at) => {
                let reached = started.tail.writer().durable().group;
                assert!(reached >= 8);
                check_groups(&started, reached);
            }
            Ok(started) => check_groups(&started, 9),
            Err(Error::Damaged { path: named, .. }) => assert_eq!(named, file),
            Err(Error::Newer { path: named, .. }) => assert_eq!(named, file),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let dir = written(9);
    for name in disk::names(dir.path()).expect("names") {
        for len in [0, 1, 63, 64, 4096, 4097, 20_000, SEGMENT_BYTES as usize - 1] {
            let damaged = dir.copy();
            let file = damaged.path().join(&name);
            edit(&file, |bytes| bytes.truncate(len));
            let refused = start(damaged.path()).map(|started| started.tail.writer().durable().group);
            assert!(
                matches!(&refused, Err(Error::Damaged { path, .. }) if *path == file),
                "{len}: {refused:?}"
            );
        }
    }
}

#[test]
fn a_missing_segment_is_a_gap_above_the_base_only() {
    let dir = written(40);
    let segments = segment::list(dir.path(), ID).expect("segments");
    let second = segments[1].clone();
    fs::remove_file(segment::path_of(dir.path(), second.number)).expect("remove");
    let segments = segment::list(dir.path(), ID).expect("segments");
    let first_after = segments[1].first_group.expect("groups");
    let scan_from = |base| scan(dir.path(), &segments, base, &mut |_| Ok(())).map(|survey| survey.end);
    assert!(matches!(scan_from(0), Err(Error::Damaged { .. })));
    assert!(matches!(scan_from(first_after - 2), Err(Error::Damaged { .. })));
    scan_from(first_after - 1).expect("what is missing lies below the base");
    scan_from(40).expect("nothing is needed");
    let survey = scan(dir.path(), &segments, 40, &mut |_| Ok(())).expect("intact");
    survey.reaches(dir.path(), 40, "the test").expect("it does");
    assert!(matches!(survey.reaches(dir.path(), 41, "the test"), Err(Error::Damaged { .. })));
}

#[test]
fn old_segments_are_told_by_their_last_group() {
    let dir = written(40);
    let started = start(dir.path()).expect("starts");
    let segments = started.journal.segments();
    let last_of_first = segments[1].first_group.expect("groups") - 1;
    assert_eq!(started.journal.up_to(last_of_first - 1), []);
    let old = started.journal.up_to(last_of_first);
    assert_eq!(old, segments[..1]);
    assert_eq!(started.journal.up_to(1000).len(), segments.len() - 1, "never the one being written");
    started.journal.remove(&segments[0]).expect("removed");
    assert_eq!(started.journal.segments(), segments[1..]);
    let at = crate::row::PayloadRef { segment: segments[0].number, offset: 4096, len: 1, crc: 0 };
    assert!(started.journal.payload(at).is_err());
}

#[test]
fn a_forged_frame_in_a_torn_payload_stays_a_payload() {
    // A client sends back what it saw of a journal elsewhere: a real frame, on a 4 KiB boundary.
    let foreign = written(3);
    let foreign_frame = fs::read(segment::path_of(foreign.path(), 1)).expect("read")[4096..8192].to_vec();
    let dir = Scratch::new();
    let started = start(dir.path()).expect("starts");
    append(&started.tail);
    let end = started.tail.writer().end().offset as usize;
    let payload = foreign_frame.repeat(4);
    let mut rows = Rows::default();
    let shifted: Vec<u8> = payload.iter().copied().cycle().skip(80).take(payload.len()).collect();
    rows.put_payload(&[1, 1], &shifted);
    started.tail.writer().write(None, rows);
    drop(started);
    edit(&segment::path_of(dir.path(), 1), |bytes| bytes[end..end + 512].fill(0));
    let started = start(dir.path()).expect("only torn");
    check_groups(&started, 1);
    assert!(!started.survey.debris.is_empty());
}
