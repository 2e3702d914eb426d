//! One file of a disk that loses power: what is in it, and what may be of that on disk.

use std::collections::BTreeMap;

use crate::choices::Choices;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// A sector's bytes.
type Sector = [u8; SECTOR];

/// A file. Times are the disk's.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    now: Vec<u8>,
    kept: Vec<u8>,
    /// Sectors written since the last sync: each state that they were left in, with its time.
    dirty: BTreeMap<usize, Vec<(u64, Sector)>>,
    /// Lengths since the last sync, with their times.
    lengths: Vec<(u64, usize)>,
    /// Sectors of failed syncs, and what may be there.
    doubtful: BTreeMap<usize, Vec<Sector>>,
}

/// What a cut leaves of a file.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Sectors that no sync had made stay, and that did.
    pub(super) kept: usize,
    /// And that didn't.
    pub(super) lost: usize,
}

impl File {
    /// One that is on disk as it is.
    pub(super) fn kept(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), kept: bytes, ..Self::default() }
    }

    /// What is in it.
    pub(super) fn now(&self) -> &[u8] {
        &self.now
    }

    /// A sector as it is now, zeros behind the end.
    fn sector(bytes: &[u8], number: usize) -> Sector {
        let mut sector = [0; SECTOR];
        let from = (number * SECTOR).min(bytes.len());
        let part = &bytes[from..bytes.len().min(from + SECTOR)];
        sector[..part.len()].copy_from_slice(part);
        sector
    }

    /// Bytes are written.
    pub(super) fn write(&mut self, clock: u64, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.now.resize(end, 0);
            self.lengths.push((clock, end));
        }
        self.now[offset..end].copy_from_slice(bytes);
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            let sector = Self::sector(&self.now, number);
            self.dirty.entry(number).or_default().push((clock, sector));
        }
    }

    /// It becomes so long.
    pub(super) fn set_length(&mut self, clock: u64, length: usize) {
        let before = self.now.len();
        self.now.resize(length, 0);
        self.lengths.push((clock, length));
        for number in length / SECTOR..before.div_ceil(SECTOR) {
            let sector = Self::sector(&self.now, number);
            self.dirty.entry(number).or_default().push((clock, sector));
        }
    }

    fn put(bytes: &mut Vec<u8>, number: usize, sector: &Sector) {
        let from = number * SECTOR;
        if bytes.len() < from + SECTOR {
            bytes.resize(from + SECTOR, 0);
        }
        bytes[from..from + SECTOR].copy_from_slice(sector);
    }

    /// What had been written by then stays.
    pub(super) fn keep(&mut self, begun: u64) {
        let newest = self.lengths.iter().rfind(|(at, _)| *at <= begun);
        let length = newest.map_or(self.kept.len(), |(_, length)| *length);
        self.lengths.retain(|(at, _)| *at > begun);
        let mut left = BTreeMap::new();
        for (number, mut states) in std::mem::take(&mut self.dirty) {
            let newer = states.iter().position(|(at, _)| *at > begun).unwrap_or(states.len());
            if let Some((_, sector)) = newer.checked_sub(1).and_then(|last| states.get(last)) {
                Self::put(&mut self.kept, number, sector);
                self.doubtful.remove(&number);
            }
            states.drain(..newer);
            if !states.is_empty() {
                left.insert(number, states);
            }
        }
        self.dirty = left;
        self.kept.resize(length, 0);
    }

    /// What had been written by then may or may not be on disk, and the kernel has forgotten that it isn't.
    pub(super) fn doubt(&mut self, begun: u64) {
        for (number, states) in &mut self.dirty {
            let newer = states.iter().position(|(at, _)| *at > begun).unwrap_or(states.len());
            let doubtful = self.doubtful.entry(*number).or_default();
            doubtful.extend(states.drain(..newer).map(|(_, sector)| sector));
        }
        self.dirty.retain(|_, states| !states.is_empty());
    }

    /// What may be on disk, if a cut keeps what isn't synced so many times in a thousand.
    pub(super) fn cut(&self, in_thousand: u32, choices: &mut Choices) -> Piece {
        let (mut bytes, mut kept) = (self.kept.clone(), 0);
        let mut length = bytes.len();
        if let Some((_, newest)) = self.lengths.last()
            && choices.in_thousand(in_thousand)
        {
            let any = self.lengths[choices.below(self.lengths.len())].1;
            length = if choices.in_thousand(800) { *newest } else { any };
        }
        for (number, states) in &self.doubtful {
            if choices.in_thousand(in_thousand) {
                Self::put(&mut bytes, *number, choices.one_of(states));
            }
        }
        for (number, states) in &self.dirty {
            if choices.in_thousand(in_thousand) {
                let newest = states.len() - 1;
                let chosen = if choices.in_thousand(800) { newest } else { choices.below(states.len()) };
                Self::put(&mut bytes, *number, &states[chosen].1);
                kept += 1;
            }
        }
        bytes.resize(length, 0);
        Piece { bytes, kept, lost: self.dirty.len() - kept }
    }
}
