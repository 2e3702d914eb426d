//! A journal that the first version wrote is read, and goes on in a segment of today's.

use std::fs;
use std::path::Path;

use super::open::{mend_tail, resume};
use super::rows::Rows;
use super::scan::scan;
use super::segment::{self, DirectoryId, Segment};
use super::writer::Steps;
use super::{JournalOptions, read_payload};
use crate::disk;
use crate::row::{PayloadRef, Stored, write_row};
use crate::scratch::Scratch;

const ID: DirectoryId = [8; 16];
const BYTES: usize = 64 << 10;
const PAYLOAD: [u8; 5000] = [0xab; 5000];

fn put(out: &mut Vec<u8>, numbers: &[u64], bytes: usize) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()[..bytes]));
}

/// A frame of version 1 at `offset`, byte by byte as its first writer made it.
fn frame(salt: [u8; 16], group: u64, offset: u32) -> Vec<u8> {
    let at = PayloadRef { segment: 1, offset: offset + 80, len: 5000, crc: crc32fast::hash(&PAYLOAD) };
    let mut body = PAYLOAD.to_vec();
    write_row(&[1, group as u8], Some(&Stored::Payload(at)), &mut body);
    let crc = |bytes: &[u8]| crc32fast::hash(&[&salt[..], bytes].concat());
    let mut head = Vec::new();
    put(&mut head, &[1, u64::from(offset), 80 + body.len() as u64, u64::from(crc(&body))], 4);
    put(&mut head, &[group, 3, group * 10, group * 10, 1_700_000_000_000 + group], 8);
    put(&mut head, &[5000, 1, 1, 0], 4);
    let mut bytes = b"SWBF".to_vec();
    put(&mut bytes, &[u64::from(crc(&head))], 4);
    bytes.extend(head);
    bytes.extend(body);
    bytes.resize(disk::blocks(bytes.len()), 0);
    bytes
}

/// A segment of version 1 with three groups, and an empty one behind it.
fn written_by_version_1(dir: &Path) {
    for number in [1u32, 2] {
        let salt = [number as u8; 16];
        let mut bytes = b"SWBXJRNL".to_vec();
        put(&mut bytes, &[1, u64::from(number)], 4);
        bytes.extend(ID);
        bytes.extend(salt);
        put(&mut bytes, &[BYTES as u64], 8);
        put(&mut bytes, &[0], 4);
        let crc = crc32fast::hash(&bytes);
        put(&mut bytes, &[u64::from(crc)], 4);
        bytes.resize(disk::BLOCK, 0);
        for group in (1..=3).filter(|_| number == 1) {
            let offset = bytes.len() as u32;
            bytes.extend(frame(salt, group, offset));
        }
        bytes.resize(BYTES, 0);
        fs::write(segment::path_of(dir, number), bytes).expect("writes");
    }
}

#[test]
fn a_journal_of_version_1_is_read_and_goes_on() {
    let dir = Scratch::new();
    let dir = dir.path();
    written_by_version_1(dir);
    let options = JournalOptions { segment_bytes: BYTES as u64, ..JournalOptions::default() };
    for start in 0..3u64 {
        let segments = segment::list(dir, ID).expect("lists");
        let mut groups = Vec::new();
        let survey = scan(dir, &segments, 0, &mut |frame| {
            for (_, stored) in frame.changes()? {
                if let Some(Stored::Payload(at)) = stored {
                    assert_eq!(read_payload(dir, at)?, PAYLOAD);
                }
            }
            groups.push((frame.head.group, frame.head.at));
            Ok(())
        })
        .expect("intact");
        let expected = [(1, 0), (2, 0), (3, 0), (4, 70), (5, 71)];
        assert_eq!(groups, expected[..3 + start as usize]);
        mend_tail(dir, &segments, &survey).expect("mends");
        let (_, tail) = resume(dir, ID, (segments, &survey), (&options, disk::unix_ms)).expect("resumes");
        let mut rows = Rows::default();
        rows.put_payload(&[1, 9], &PAYLOAD);
        let mut writer = tail.with_room(super::frame::frame_bytes(&rows));
        writer.write(Some(Steps { first_lsn: 50, last_lsn: 50 + start, count: 1, at: 70 + start }), rows);
        writer.sync();
        let versions: Vec<u32> =
            segment::list(dir, ID).expect("lists").iter().map(|Segment { version, .. }| *version).collect();
        assert_eq!(versions[..2], [1, segment::VERSION], "one that is empty isn't used");
    }
}
