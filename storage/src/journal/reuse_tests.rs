//! The start rules in segments whose files were used before: behind the last frame lies anything, old frames too.

use std::fs;
use std::path::Path;

use super::frame::Head;
use super::segment::{self, Behind, Segment};
use super::tests::{Started, append, edit, frames_from, start, start_from, value_of};
use super::*;
use crate::scratch::Scratch;

/// What a disk takes at once.
const SECTOR: usize = 512;

fn check(started: &Started, (base, last): (u64, u64), what: &str) {
    let groups: Vec<u64> = started.groups.keys().copied().collect();
    assert_eq!(groups, (base + 1..=last).collect::<Vec<_>>(), "{what}");
    assert!(started.groups.iter().all(|(group, bytes)| *bytes == value_of(*group)), "{what}");
}

/// A journal whose end lies in a segment that is used again; its base, and the segments that were removed.
fn used_again() -> (Scratch, Started, u64, Vec<Segment>) {
    let dir = Scratch::new();
    let started = start(dir.path()).expect("a new journal");
    let mut removed = Vec::new();
    loop {
        let last = append(&started.tail);
        let segments = started.journal.segments();
        let (current, old) = segments.split_last().expect("one");
        for segment in old {
            started.journal.remove(segment).expect("removes");
            removed.push(segment.clone());
        }
        if current.behind == Behind::Anything && current.first_group == Some(last) {
            return (dir, started, last - 1, removed);
        }
    }
}

/// Whether a whole frame of a removed segment lies behind `end`.
fn old_frame_behind(path: &Path, end: usize, removed: &[Segment]) -> bool {
    let bytes = fs::read(path).expect("reads");
    let whole = |segment: &Segment, at: usize| {
        let head = Head::read(segment, at, &bytes[at..]);
        head.is_some_and(|head| head.body(segment, &bytes[at..]).is_some())
    };
    (end..bytes.len()).step_by(disk::BLOCK).any(|at| removed.iter().any(|segment| whole(segment, at)))
}

/// The last group is torn at every sector, from either end, over what the file held when it was another segment.
#[test]
fn a_torn_group_over_old_frames_is_told_from_the_groups_before_it() {
    let (dir, started, base, removed) = used_again();
    let mut over_old_frames = 0;
    for _ in 0..6 {
        let before = dir.copy();
        let last = append(&started.tail);
        let (path, range) = frames_from(dir.path(), base).pop().expect("a frame");
        let name = path.file_name().expect("a name").to_owned();
        // A segment that wasn't made ahead.
        let Ok(old) = fs::read(before.path().join(&name)) else { continue };
        let new = fs::read(&path).expect("reads");
        let segment = started.journal.segments().pop().expect("the one that is written");
        let head = Head::read(&segment, range.start, &new[range.start..]).expect("a frame");
        let frame = range.start..range.start + head.len as usize;
        over_old_frames += u32::from(old_frame_behind(&path, range.end, &removed));
        for cut in range.clone().step_by(SECTOR).skip(1) {
            for (kept, lost) in [(range.start..cut, cut..range.end), (cut..range.end, range.start..cut)] {
                let torn = dir.copy();
                let mut expected = last;
                edit(&torn.path().join(&name), |bytes| {
                    bytes[lost.clone()].copy_from_slice(&old[lost.clone()]);
                    // The zeros behind the frame say nothing.
                    if bytes[frame.clone()] != new[frame.clone()] {
                        expected = last - 1;
                    }
                });
                let what = format!("group {last} at {range:?}, only {kept:?} was written");
                let again = start_from(torn.path(), base).unwrap_or_else(|error| panic!("{what}: {error}"));
                check(&again, (base, expected), &what);
                if (cut / SECTOR).is_multiple_of(3) {
                    let next = append(&again.tail);
                    drop(again);
                    let again = start_from(torn.path(), base).expect("goes on");
                    assert_eq!(again.survey.debris, [], "{what}");
                    check(&again, (base, next), &what);
                }
            }
        }
    }
    assert!(over_old_frames > 0, "no old frame lay behind a group");
}

/// Nothing of the last group was written, and old frames lie where it was to go.
#[test]
fn old_frames_behind_the_end_are_none() {
    let (dir, started, base, removed) = used_again();
    let path = segment::path_of(dir.path(), started.tail.writer().end().segment);
    let mut over_old_frames = 0;
    for _ in 0..4 {
        let last = append(&started.tail);
        let end = started.tail.writer().end();
        if segment::path_of(dir.path(), end.segment) != path {
            break;
        }
        over_old_frames += u32::from(old_frame_behind(&path, end.offset as usize, &removed));
        let killed = dir.copy();
        let again = start_from(killed.path(), base).expect("intact");
        assert_eq!((again.survey.debris.as_slice(), again.survey.end), (&[][..], end));
        check(&again, (base, last), "killed");
    }
    assert!(over_old_frames > 0, "no old frame lay behind a group");
}
