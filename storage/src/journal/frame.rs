//! A frame: what one group commit writes, at once, where nothing acknowledged lies.
//!
//! It starts on a multiple of 4 KiB and is followed by zeros up to the next one. Little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `SWBF` |
//! | 4 | 4 | CRC-32 of the segment's salt, then bytes 8..96 |
//! | 8 | 4 | number of the segment that it lies in |
//! | 12 | 4 | where in it this frame starts |
//! | 16 | 4 | length: these 96 bytes and the body, without the zeros behind; its lower half |
//! | 20 | 4 | CRC-32 of the segment's salt, then the body |
//! | 24 | 8 | group: 1 more than the frame before it |
//! | 32 | 8 | boot epoch |
//! | 40 | 8 | LSN of the first step in it; without steps, that of the last step before it |
//! | 48 | 8 | LSN of the last step in it, likewise |
//! | 56 | 8 | what the wall clock said when it was written, in milliseconds since 1970; it may go back |
//! | 64 | 4 | bytes of payloads |
//! | 68 | 4 | number of rows |
//! | 72 | 4 | number of steps |
//! | 76 | 4 | the upper half of the length |
//! | 80 | 8 | the caller's time of the last step in it ([`crate::Group::at`]); never less than the frame before it |
//! | 88 | 8 | zero |
//! | 96 | | payloads, one after another, then rows ([`crate::row`]) |
//!
//! In a segment of version 1 the head ends after 80 bytes, and the caller's time is 0.
//!
//! The salt is random and never leaves the box, so bytes that a client sent, found on a 4 KiB boundary inside a
//! torn frame, can't pass for a frame.

use crc32fast::Hasher;

use crate::bytes::Reader;
use crate::journal::rows::Rows;
use crate::journal::segment::Segment;
use crate::row::{RowChange, Stored, read_row, write_row};

const MAGIC: [u8; 4] = *b"SWBF";
/// Bytes in front of a frame's body, in segments that are made now.
pub(crate) const HEAD_BYTES: usize = 96;

/// Bytes in front of a frame's body in a segment of that version.
fn head_bytes(version: u32) -> usize {
    if version == 1 { 80 } else { HEAD_BYTES }
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u64,
    body_crc: u32,
    pub(crate) group: u64,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    pub(crate) written_at: u64,
    payload_bytes: u32,
    row_count: u32,
    pub(crate) steps: u32,
    pub(crate) at: u64,
}

/// What the writer knows of a frame before it is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    pub(crate) group: u64,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    pub(crate) written_at: u64,
    pub(crate) steps: u32,
    pub(crate) at: u64,
}

fn crc(salt: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(salt);
    hasher.update(bytes);
    hasher.finalize()
}

impl Head {
    fn write(&self, salt: &[u8], out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        let (len_low, len_high) = (self.len as u32, (self.len >> 32) as u32);
        let words = [self.segment, self.offset, len_low, self.body_crc];
        for (place, word) in out[8..24].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let longs = [self.group, self.epoch, self.first_lsn, self.last_lsn, self.written_at];
        for (place, long) in out[24..64].chunks_exact_mut(8).zip(longs) {
            place.copy_from_slice(&long.to_le_bytes());
        }
        let words = [self.payload_bytes, self.row_count, self.steps, len_high];
        for (place, word) in out[64..80].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out[80..88].copy_from_slice(&self.at.to_le_bytes());
        let head_crc = crc(salt, &out[8..HEAD_BYTES]);
        out[4..8].copy_from_slice(&head_crc.to_le_bytes());
    }

    /// The head of a frame at `offset` of `segment`, if one starts with these bytes. Says nothing of its body.
    pub(crate) fn read(segment: &Segment, offset: usize, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..head_bytes(segment.version))?;
        let mut r = Reader(bytes);
        if r.array()? != MAGIC || r.u32()? != crc(&segment.salt, &bytes[8..]) {
            return None;
        }
        let mut head = Self {
            segment: r.u32()?,
            offset: r.u32()?,
            len: u64::from(r.u32()?),
            body_crc: r.u32()?,
            group: r.u64()?,
            epoch: r.u64()?,
            first_lsn: r.u64()?,
            last_lsn: r.u64()?,
            written_at: r.u64()?,
            payload_bytes: r.u32()?,
            row_count: r.u32()?,
            steps: r.u32()?,
            at: 0,
        };
        if segment.version > 1 {
            head.len |= u64::from(r.u32()?) << 32;
            head.at = r.u64()?;
        }
        let end = (offset as u64).checked_add(head.len)?;
        let fits = head.len as usize >= bytes.len() && end <= segment.bytes;
        (head.segment == segment.number && head.offset as usize == offset && fits).then_some(head)
    }

    /// The frame's body, if it is intact. `bytes` start with the frame.
    pub(crate) fn body<'a>(&self, segment: &Segment, bytes: &'a [u8]) -> Option<Body<'a>> {
        let body = bytes.get(head_bytes(segment.version)..self.len as usize)?;
        if crc(&segment.salt, body) != self.body_crc {
            return None;
        }
        let (_, rows) = body.split_at_checked(self.payload_bytes as usize)?;
        Some(Body { rows, count: self.row_count })
    }
}

/// The rows of an intact frame.
pub(crate) struct Body<'a> {
    rows: &'a [u8],
    count: u32,
}

impl Body<'_> {
    /// The changes in order; `None` if these bytes were never written by this program.
    pub(crate) fn changes(&self) -> Option<Vec<RowChange>> {
        let mut r = Reader(self.rows);
        let changes: Option<Vec<_>> = (0..self.count).map(|_| read_row(&mut r)).collect();
        changes.filter(|_| r.is_empty())
    }
}

/// A frame laid out for its place: the bytes to write (whole blocks), and its rows with their payloads found.
pub(crate) struct LaidOut {
    pub(crate) head: Head,
    pub(crate) bytes: Vec<u8>,
    pub(crate) changes: Vec<RowChange>,
}

/// Bytes that a frame with these rows takes, without the zeros behind.
pub(crate) fn frame_bytes(rows: &Rows) -> usize {
    HEAD_BYTES + rows.bytes()
}

/// Lays a group out at `offset` of `segment`.
///
/// # Panics
/// When the frame doesn't fit the segment.
pub(crate) fn lay_out(segment: &Segment, offset: u32, label: Label, rows: Rows) -> LaidOut {
    let word = |len: usize| u32::try_from(len).expect("a group has less than 4 GiB of payloads and of rows");
    assert_eq!(segment.version, super::segment::VERSION, "frames go into segments of this version only");
    assert!(frame_bytes(&rows) + offset as usize <= segment.bytes as usize, "the writer looked for room");
    let payload_bytes = rows.payload_bytes();
    let (mut changes, mut bytes) = rows.into_parts();
    let payloads_at = offset + word(HEAD_BYTES);
    for (key, stored) in &mut changes {
        if let Some(Stored::Payload(at)) = stored {
            at.segment = segment.number;
            at.offset += payloads_at;
        }
        write_row(key, stored.as_ref(), &mut bytes);
    }
    let head = Head {
        segment: segment.number,
        offset,
        len: bytes.len() as u64,
        body_crc: crc(&segment.salt, &bytes[HEAD_BYTES..]),
        group: label.group,
        epoch: label.epoch,
        first_lsn: label.first_lsn,
        last_lsn: label.last_lsn,
        written_at: label.written_at,
        payload_bytes: word(payload_bytes),
        row_count: word(changes.len()),
        steps: label.steps,
        at: label.at,
    };
    head.write(&segment.salt, &mut bytes);
    bytes.resize(crate::disk::blocks(bytes.len()), 0);
    LaidOut { head, bytes, changes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::segment::Behind;
    use proptest::prelude::*;

    fn segment() -> Segment {
        Segment {
            version: 2,
            number: 7,
            bytes: 1 << 20,
            salt: [9; 16],
            behind: Behind::Zeros,
            first_group: None,
        }
    }

    fn label() -> Label {
        Label { group: 5, epoch: 4, first_lsn: 10, last_lsn: 12, written_at: 99, steps: 3, at: 77 }
    }

    fn any_rows() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Vec<u8>>)>> {
        let bytes = |len: std::ops::Range<usize>| proptest::collection::vec(any::<u8>(), len);
        let key = bytes(0..30).prop_map(|mut key| {
            key.insert(0, 1);
            key
        });
        proptest::collection::vec((key, proptest::option::of(bytes(0..6000))), 0..20)
    }

    /// Values above 4,096 bytes go in as payloads.
    fn rows_of(changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Rows {
        let mut rows = Rows::default();
        for (key, value) in changes {
            match value {
                None => rows.delete(key),
                Some(value) if value.len() > crate::row::VALUE_BYTES_MAX => rows.put_payload(key, value),
                Some(value) => rows.put(key, value),
            }
        }
        rows
    }

    proptest! {
        #[test]
        fn what_was_laid_out_is_read(changes in any_rows(), block in 1u32..8) {
            let (segment, offset) = (segment(), block * 4096);
            let laid = lay_out(&segment, offset, label(), rows_of(&changes));
            prop_assert_eq!(laid.bytes.len() % 4096, 0);
            let head = Head::read(&segment, offset as usize, &laid.bytes).expect("a frame");
            prop_assert_eq!(head, laid.head);
            let read = head.body(&segment, &laid.bytes).expect("intact").changes().expect("rows");
            prop_assert_eq!(&read, &laid.changes);
            for ((key, value), (read_key, stored)) in changes.iter().zip(&read) {
                prop_assert_eq!(&key[..], &read_key[..]);
                match (value, stored) {
                    (Some(value), Some(Stored::Payload(at))) => {
                        let start = (at.offset - offset) as usize;
                        prop_assert_eq!(&laid.bytes[start..start + at.len as usize], &value[..]);
                        prop_assert_eq!(crc32fast::hash(value), at.crc);
                    }
                    (Some(value), Some(Stored::Value(read))) => prop_assert_eq!(&value[..], &read[..]),
                    (None, None) => {}
                    _ => prop_assert!(false, "{value:?} became {stored:?}"),
                }
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(changes in any_rows(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let segment = segment();
            let mut laid = lay_out(&segment, 4096, label(), rows_of(&changes));
            let at = at.index(laid.head.len as usize);
            laid.bytes[at] ^= 1 << bit;
            let intact = Head::read(&segment, 4096, &laid.bytes).and_then(|head| {
                head.body(&segment, &laid.bytes).map(|_| ())
            });
            prop_assert_eq!(intact, None);
        }
    }

    #[test]
    fn a_frame_elsewhere_or_of_another_salt_is_none() {
        let laid = lay_out(&segment(), 4096, label(), Rows::default());
        assert!(Head::read(&segment(), 4096, &laid.bytes).is_some());
        assert_eq!(Head::read(&segment(), 8192, &laid.bytes), None);
        assert_eq!(Head::read(&Segment { number: 8, ..segment() }, 4096, &laid.bytes), None);
        assert_eq!(Head::read(&Segment { salt: [8; 16], ..segment() }, 4096, &laid.bytes), None);
    }
}
