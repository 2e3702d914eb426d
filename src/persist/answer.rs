//! An answer's bytes, and what is read of them.
//!
//! An answer of text alone is version 1: the text, however it was cut into chunks. One with a JSON chunk is version 2:
//! its pieces in order, each a byte for its kind (0 text, 1 JSON), its length in bytes as four (the lowest first), and
//! the bytes. Neighbouring chunks of text are one piece.

use std::sync::Arc;

use super::read::DecodeError;
use super::{SECOND, VERSION};
use crate::output::{Chunk, ChunkKind};

/// Bytes before a piece of version 2.
const HEAD_BYTES: usize = 5;
const TEXT: u8 = 0;
const JSON: u8 = 1;

/// A stored answer: cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer(Kept);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Text(Arc<str>),
    /// Pieces of version 2, checked when they were read.
    Pieces(Arc<[u8]>),
}

/// Where a reading of an answer has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position(usize);

impl StoredAnswer {
    /// The answer that these chunks are.
    pub fn of(chunks: &[Chunk]) -> Self {
        if is_text(chunks) {
            return Self(Kept::Text(chunks.iter().map(|chunk| &*chunk.text).collect::<String>().into()));
        }
        let mut pieces = Vec::new();
        write_pieces(chunks, &mut pieces);
        Self(Kept::Pieces(pieces.into()))
    }

    /// The answer of a row's value.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let text = |bytes| str::from_utf8(bytes).map_err(|error| DecodeError::new(key, error.to_string()));
        let (version, body) = super::read::versioned_body_of(key, value, SECOND)?;
        if version == VERSION {
            return Ok(Self(Kept::Text(text(body)?.into())));
        }
        let mut at = 0;
        while at < body.len() {
            let piece = piece_at(body, at).ok_or_else(|| {
                DecodeError::new(key, format!("its piece at byte {at} is of no known kind, or cut short"))
            })?;
            text(piece.bytes)?;
            at = piece.end;
        }
        Ok(Self(Kept::Pieces(body.into())))
    }

    /// Bytes of its pieces.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Kept::Text(text) => text.len(),
            Kept::Pieces(pieces) => pieces.len(),
        }
    }

    /// The piece at a position, which is moved behind it; `None` at the end.
    pub fn next_piece(&self, position: &mut Position) -> Option<(ChunkKind, &str)> {
        match &self.0 {
            Kept::Text(text) => {
                let rest = text.get(position.0..).filter(|rest| !rest.is_empty())?;
                position.0 = text.len();
                Some((ChunkKind::Text, rest))
            }
            Kept::Pieces(pieces) => {
                let piece = piece_at(pieces, position.0)?;
                position.0 = piece.end;
                Some((piece.kind, str::from_utf8(piece.bytes).ok()?))
            }
        }
    }

    /// The piece at a position as a chunk of no tokens; a text that is all of the answer isn't copied.
    pub fn next_chunk(&self, position: &mut Position) -> Option<Chunk> {
        if let Kept::Text(text) = &self.0 {
            self.next_piece(position)?;
            return Some(Chunk::text(Arc::clone(text), 0));
        }
        let (kind, text) = self.next_piece(position)?;
        Some(Chunk { kind, text: text.into(), tokens: 0 })
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = (ChunkKind, &str)> {
        let mut position = Position::default();
        std::iter::from_fn(move || self.next_piece(&mut position))
    }
}

/// The value of the row that keeps these chunks.
pub(super) fn encode(chunks: &[Chunk]) -> Vec<u8> {
    let length: usize = chunks.iter().map(|chunk| chunk.text.len()).sum();
    let mut bytes = Vec::with_capacity(1 + length);
    if is_text(chunks) {
        bytes.push(VERSION);
        chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk.text.as_bytes()));
    } else {
        bytes.push(SECOND);
        write_pieces(chunks, &mut bytes);
    }
    bytes
}

fn is_text(chunks: &[Chunk]) -> bool {
    chunks.iter().all(|chunk| chunk.kind == ChunkKind::Text)
}

fn write_pieces(chunks: &[Chunk], bytes: &mut Vec<u8>) {
    let together = |a: &Chunk, b: &Chunk| a.kind == ChunkKind::Text && b.kind == ChunkKind::Text;
    for piece in chunks.chunk_by(together) {
        let length: usize = piece.iter().map(|chunk| chunk.text.len()).sum();
        let kind = piece.first().map_or(ChunkKind::Text, |chunk| chunk.kind);
        // An output has far fewer bytes than four can count.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        bytes.push(if kind == ChunkKind::Text { TEXT } else { JSON });
        bytes.extend_from_slice(&length.to_le_bytes());
        piece.iter().for_each(|chunk| bytes.extend_from_slice(chunk.text.as_bytes()));
    }
}

struct Piece<'a> {
    kind: ChunkKind,
    bytes: &'a [u8],
    end: usize,
}

fn piece_at(pieces: &[u8], at: usize) -> Option<Piece<'_>> {
    let head = pieces.get(at..at + HEAD_BYTES)?;
    let kind = match *head.first()? {
        TEXT => ChunkKind::Text,
        JSON => ChunkKind::Json,
        _ => return None,
    };
    let length = u32::from_le_bytes(head.get(1..)?.try_into().ok()?) as usize;
    let begin = at + HEAD_BYTES;
    let end = begin.checked_add(length)?;
    Some(Piece { kind, bytes: pieces.get(begin..end)?, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 1] = [0];

    fn pieces(answer: &StoredAnswer) -> Vec<(ChunkKind, &str)> {
        answer.pieces().collect()
    }

    #[test]
    fn text_alone_is_version_1_and_the_rest_version_2() {
        let text = ["Hé", "", "llo"].map(|text| Chunk::text(text, 1));
        let value = encode(&text);
        assert_eq!(value, [b"\x01".as_slice(), "Héllo".as_bytes()].concat());
        let answer = StoredAnswer::decode(&KEY, &value).expect("version 1 is read");
        assert_eq!(answer, StoredAnswer::of(&text));
        assert_eq!(pieces(&answer), [(ChunkKind::Text, "Héllo")]);
        let mixed =
            [Chunk::text("a", 1), Chunk::text("b", 1), Chunk::json("{}", 1), Chunk::json("{\"x\":1}", 1)];
        let value = encode(&mixed);
        // These bytes are out: they may never change.
        let golden = b"\x02\x00\x02\x00\x00\x00ab\x01\x02\x00\x00\x00{}\x01\x07\x00\x00\x00{\"x\":1}";
        assert_eq!(value, golden);
        let answer = StoredAnswer::decode(&KEY, golden).expect("version 2 is read");
        assert_eq!(answer, StoredAnswer::of(&mixed));
        let expected = [(ChunkKind::Text, "ab"), (ChunkKind::Json, "{}"), (ChunkKind::Json, "{\"x\":1}")];
        assert_eq!(pieces(&answer), expected);
        let mut position = Position::default();
        let chunks: Vec<_> = std::iter::from_fn(|| answer.next_chunk(&mut position)).collect();
        assert_eq!(chunks.iter().map(|chunk| (chunk.kind, &*chunk.text)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let refused = |value: &[u8]| StoredAnswer::decode(&KEY, value).expect_err("no answer").problem;
        assert!(refused(b"").contains("empty"));
        assert!(refused(b"\x03x").contains("version 3"));
        assert!(refused(b"\x01\xff").contains("utf-8"));
        for cut in [
            &b"\x02\x00\x02\x00\x00\x00a"[..],
            b"\x02\x00",
            b"\x02\x02\x00\x00\x00\x00",
            b"\x02\x00\xff\xff\xff\xff",
        ] {
            assert!(refused(cut).contains("its piece at byte 0"), "{cut:?}");
        }
        assert!(refused(b"\x02\x00\x01\x00\x00\x00\xff").contains("utf-8"));
        assert_eq!(pieces(&StoredAnswer::decode(&KEY, b"\x02").expect("of no pieces")), []);
        assert_eq!(pieces(&StoredAnswer::of(&[])), []);
    }
}
