//! What lies where in a closed directory, and what its damage may come to, by the design: the state store is rebuilt
//! from a snapshot and the journal, a snapshot is one of two ways to the rows, and of the journal only what the newest
//! snapshot doesn't have is needed. Only there, and in headers and lengths of segments, may damage refuse a start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::scratch::files;

/// The unit of the journal.
pub const BLOCK: usize = 4096;
/// What a segment's header says, its checksum included.
const HEADER: usize = 64;
/// The shortest head of a frame that says all that is looked at here.
const HEAD: usize = 80;
const MAGIC: &[u8; 4] = b"SWBF";

/// A frame of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its group.
    pub group: u64,
    /// Its bytes in its segment, without the zeros behind them.
    pub bytes: Range<usize>,
}

/// The frames of each segment (by its path below the data directory), and the newest snapshot's group.
#[derive(Debug, Default)]
pub struct Layout {
    segments: BTreeMap<PathBuf, Vec<Frame>>,
    snapshot: u64,
}

/// How a file was harmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// These bytes aren't what they were.
    Bytes(Range<usize>),
    /// It ends here.
    Cut(usize),
}

/// What a start may make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum May {
    /// Nothing is lost: it must come up with everything.
    Recover,
    /// Likewise, but payloads in there may be refused, each by name.
    RecoverButPayloads,
    /// It may also refuse to start, and then names this file and an offset in this range.
    RefuseAt(Range<usize>),
    /// It may also be without the last group.
    LoseLast(Range<usize>),
    /// It is a secret: it must be refused by name, or be the same.
    RefuseSecret,
}

impl Layout {
    /// Of a data directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(data: &Path) -> io::Result<Self> {
        let mut layout = Self::default();
        for file in files(data)? {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(group) = name.strip_suffix(".snapshot").and_then(|group| group.parse().ok()) {
                layout.snapshot = layout.snapshot.max(group);
            } else if name.ends_with(".segment") {
                let frames = frames(&fs::read(data.join(&file))?);
                layout.segments.insert(file, frames);
            }
        }
        Ok(layout)
    }

    /// The newest frame, and the segment that it is in.
    pub fn last(&self) -> Option<(&Path, &Frame)> {
        let all = self.segments.iter().flat_map(|(path, frames)| frames.iter().map(|f| (path.as_path(), f)));
        all.max_by_key(|(_, frame)| frame.group)
    }

    /// The frames of a file; none if it isn't a segment.
    pub fn frames(&self, file: &Path) -> &[Frame] {
        self.segments.get(file).map_or(&[], Vec::as_slice)
    }

    /// What a harm may come to.
    pub fn may(&self, file: &Path, harm: &Harm) -> May {
        let name = file.to_string_lossy();
        if ["api.key", "key.pepper", "boot.secret", "box.key"].contains(&&*name) {
            return May::RefuseSecret;
        }
        if name == "store/format" {
            return May::RefuseAt(0..1);
        }
        let Some(frames) = self.segments.get(file) else { return May::Recover };
        let bytes = match harm {
            // It says how long it is, and nobody can say what was behind.
            Harm::Cut(at) => return May::RefuseAt(if *at < BLOCK + HEAD { 0..1 } else { *at..at + 1 }),
            Harm::Bytes(bytes) => bytes,
        };
        if bytes.start < HEADER {
            return May::RefuseAt(0..HEADER);
        }
        let hit = |frame: &&Frame| frame.bytes.start < bytes.end && bytes.start < frame.bytes.end;
        let Some(frame) = frames.iter().find(hit) else { return May::Recover };
        let blocks = frame.bytes.start..frame.bytes.end.next_multiple_of(BLOCK);
        match self.last() {
            Some((path, last)) if path == file && last == frame => May::LoseLast(blocks),
            _ if frame.group <= self.snapshot => May::RecoverButPayloads,
            _ => May::RefuseAt(blocks),
        }
    }
}

/// The frames of a segment: those that say that they lie in it, where they lie.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let mut frames = Vec::new();
    let mut at = BLOCK;
    while at + HEAD <= bytes.len() {
        let is_frame =
            bytes[at..].starts_with(MAGIC) && word(at + 8) == word(12) && word(at + 12) as usize == at;
        if !is_frame {
            at += BLOCK;
            continue;
        }
        let group = u64::from(word(at + 24)) | u64::from(word(at + 28)) << 32;
        let end = at + (word(at + 16) as usize | (word(at + 76) as usize) << 32);
        frames.push(Frame { group, bytes: at..end });
        at = end.next_multiple_of(BLOCK);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let frame = |group, bytes| Frame { group, bytes };
        let frames = vec![frame(7, 4096..9000), frame(8, 12288..12400), frame(9, 16384..16500)];
        let segments = BTreeMap::from([(PathBuf::from("store/journal/1.segment"), frames)]);
        Layout { segments, snapshot: 7 }
    }

    fn check(file: &str, harm: Harm, may: May) {
        assert_eq!(layout().may(Path::new(file), &harm), may, "{file} {harm:?}");
    }

    #[test]
    fn only_what_nothing_else_has_may_refuse_a_start() {
        let segment = "store/journal/1.segment";
        let bit = |at| Harm::Bytes(at..at + 1);
        for redundant in
            ["store/state/db", "store/snapshots/7.snapshot", "store/state.bad-1/db", "admin.token"]
        {
            check(redundant, bit(5), May::Recover);
            check(redundant, Harm::Cut(5), May::Recover);
        }
        check("store/format", bit(50), May::RefuseAt(0..1));
        check("boot.secret", bit(3), May::RefuseSecret);
        check("secrets.sums", bit(3), May::Recover);
        check(segment, bit(63), May::RefuseAt(0..64));
        check(segment, bit(64), May::Recover);
        check(segment, Harm::Cut(20_000), May::RefuseAt(20_000..20_001));
        check(segment, bit(8999), May::RecoverButPayloads);
        check(segment, bit(9000), May::Recover);
        check(segment, Harm::Bytes(8192..12288), May::RecoverButPayloads);
        check(segment, bit(12_288), May::RefuseAt(12_288..16_384));
        check(segment, bit(16_390), May::LoseLast(16_384..20_480));
        check(segment, bit(20_480), May::Recover);
    }

    #[test]
    fn frames_are_those_of_this_segment() {
        let mut bytes = vec![0; 5 * BLOCK];
        bytes[12] = 3;
        let mut put = |at: usize, segment: u8, length: u16, group: u8| {
            bytes[at..at + 4].copy_from_slice(MAGIC);
            bytes[at + 8] = segment;
            bytes[at + 12..at + 16].copy_from_slice(&(at as u32).to_le_bytes());
            bytes[at + 16..at + 18].copy_from_slice(&length.to_le_bytes());
            bytes[at + 24] = group;
        };
        put(BLOCK, 3, 5000, 1);
        put(3 * BLOCK, 3, 100, 2);
        put(4 * BLOCK, 2, 100, 9);
        let expected = [(1, BLOCK..BLOCK + 5000), (2, 3 * BLOCK..3 * BLOCK + 100)];
        assert_eq!(frames(&bytes), expected.map(|(group, bytes)| Frame { group, bytes }));
    }
}
