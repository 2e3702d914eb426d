//! Rows that are in the journal and not yet in the state store: the last change of each key, deletions too.
//!
//! Two layers: what is being checkpointed, and what came since. Readers look here first, then at the state.
//!
//! Putting rows into a layer takes longer than writing them to the journal, so nobody who waits for a commit waits for
//! it: a group's rows are first only [`HandedIn`], in order, where readers look before anywhere else. They are sorted
//! into the layers later, by whoever has time. They leave the queue under the lock of the layers: a reader that doesn't
//! find them there any more finds them in the layers. In a burst hundreds of thousands of rows wait there, so each has a
//! short *print* of its key, and a reader runs through the prints.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::journal::writer::Durable;
use crate::row::{Key, RowChange, Stored};

/// Bytes counted for an entry beside its key and value.
const ENTRY_BYTES: usize = 96;

/// The last change of each key.
pub(crate) type Layer = BTreeMap<Key, Option<Stored>>;

/// Rows that are sorted in while readers wait.
const PIECE_ROWS: usize = 128;

/// Rows of a group, in order.
pub(crate) struct Piece {
    changes: Vec<RowChange>,
    prints: Vec<u32>,
}

impl Piece {
    fn new(changes: Vec<RowChange>) -> Arc<Self> {
        let prints = changes.iter().map(|(key, _)| print(key)).collect();
        Arc::new(Self { changes, prints })
    }
}

/// A number that most other keys don't have.
fn print(key: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let add = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = key.as_chunks::<8>();
    let sum = words.iter().fold(key.len() as u64, |sum, word| add(sum, u64::from_le_bytes(*word)));
    (rest.iter().fold(sum, |sum, byte| add(sum, u64::from(*byte))) >> 32) as u32
}

/// A piece that waits, and the group if it is the last one of it.
pub(crate) type Handed = (Arc<Piece>, Option<Durable>);

/// Groups that are durable and not yet in the layers, the oldest first.
pub(crate) struct HandedIn {
    pieces: VecDeque<Handed>,
    rows: usize,
    bytes: usize,
    /// The last group that was ever handed in.
    upto: Durable,
}

impl HandedIn {
    /// Starts behind `upto`.
    pub(crate) fn new(upto: Durable) -> Self {
        Self { pieces: VecDeque::new(), rows: 0, bytes: 0, upto }
    }

    pub(crate) fn push(&mut self, pieces: Pieces, upto: Durable) {
        self.rows += pieces.rows;
        self.bytes += pieces.bytes;
        self.upto = upto;
        let last = pieces.pieces.len().saturating_sub(1);
        let ends = |n: usize| (n == last).then_some(upto);
        self.pieces.extend(pieces.pieces.into_iter().enumerate().map(|(n, piece)| (piece, ends(n))));
    }

    /// All of them, for a reader.
    pub(crate) fn pieces(&self) -> Vec<Arc<Piece>> {
        self.pieces.iter().map(|(piece, _)| Arc::clone(piece)).collect()
    }

    /// Rows of the oldest piece, if it is a whole group. Called when no group is halfway in.
    pub(crate) fn oldest_whole(&self) -> Option<usize> {
        self.pieces.front().filter(|(_, upto)| upto.is_some()).map(|(piece, _)| piece.changes.len())
    }

    /// Takes the oldest out, for [`Dirty::sort_in`] under the same lock of the layers.
    pub(crate) fn pop(&mut self) -> Option<Handed> {
        let popped = self.pieces.pop_front();
        if let Some((piece, _)) = &popped {
            self.rows -= piece.changes.len();
            self.bytes -= bytes_of_all(&piece.changes);
        }
        popped
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn upto(&self) -> Durable {
        self.upto
    }
}

/// A group's rows, cut up before anybody waits for a lock.
pub(crate) struct Pieces {
    pieces: Vec<Arc<Piece>>,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Pieces {
    /// At least one: the group counts even without rows.
    pub(crate) fn of(changes: Vec<RowChange>) -> Self {
        let (rows, bytes) = (changes.len(), bytes_of_all(&changes));
        let mut pieces = Vec::with_capacity(rows.div_ceil(PIECE_ROWS).max(1));
        if rows <= PIECE_ROWS {
            pieces.push(Piece::new(changes));
        } else {
            let mut changes = changes.into_iter();
            while changes.len() > 0 {
                pieces.push(Piece::new(changes.by_ref().take(PIECE_ROWS).collect()));
            }
        }
        Self { pieces, rows, bytes }
    }
}

/// The last change of a row in pieces that were handed in.
pub(crate) fn last_of<'a>(pieces: &'a [Arc<Piece>], key: &[u8]) -> Option<&'a Option<Stored>> {
    let wanted = print(key);
    pieces.iter().rev().filter(|piece| piece.prints.contains(&wanted)).find_map(|piece| {
        let newest = piece.changes.iter().rev().find(|(changed, _)| **changed == *key);
        newest.map(|(_, stored)| stored)
    })
}

/// The two layers.
#[derive(Default)]
pub(crate) struct Dirty {
    newer: Layer,
    frozen: Option<Arc<Layer>>,
    newer_bytes: usize,
    frozen_bytes: usize,
    /// The last group that is wholly in.
    upto: Durable,
}

fn bytes_of(key: &[u8], stored: Option<&Stored>) -> usize {
    ENTRY_BYTES + key.len() + stored.map_or(0, |stored| stored.with_body(<[u8]>::len))
}

/// Bytes that rows count for.
pub(crate) fn bytes_of_all(changes: &[RowChange]) -> usize {
    changes.iter().map(|(key, stored)| bytes_of(key, stored.as_ref())).sum()
}

impl Dirty {
    /// Starts behind `upto`.
    pub(crate) fn new(upto: Durable) -> Self {
        Self { upto, ..Self::default() }
    }

    /// Takes the piece behind the last one.
    pub(crate) fn sort_in(&mut self, (piece, upto): Handed) {
        // A reader that looked into the queue before may still have it.
        let changes =
            Arc::try_unwrap(piece).map_or_else(|piece| piece.changes.clone(), |piece| piece.changes);
        for (key, stored) in changes {
            self.newer_bytes += bytes_of(&key, stored.as_ref());
            self.insert(key, stored);
        }
        if let Some(upto) = upto {
            self.upto = upto;
        }
    }

    fn insert(&mut self, key: Key, stored: Option<Stored>) {
        match self.newer.entry(key) {
            Entry::Occupied(mut entry) => {
                let old = entry.insert(stored);
                self.newer_bytes -= bytes_of(entry.key(), old.as_ref());
            }
            Entry::Vacant(entry) => drop(entry.insert(stored)),
        }
    }

    /// The last change of a row: `None` if it is the state's; `Some(None)` if it was deleted.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Option<Stored>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        self.newer.get(key).or_else(frozen).cloned()
    }

    /// The first `limit` last changes from `from` on, below `to` where given, with those that were handed in.
    pub(crate) fn range(
        &self,
        handed_in: &[Arc<Piece>],
        (from, to): (&[u8], Option<&[u8]>),
        limit: usize,
    ) -> Layer {
        if to.is_some_and(|to| to <= from) {
            return Layer::new();
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let older = self.frozen.iter().flat_map(|frozen| frozen.range::<[u8], _>(bounds)).take(limit);
        let newer = self.newer.range::<[u8], _>(bounds).take(limit);
        let mut merged: Layer =
            older.chain(newer).map(|(key, stored)| (key.clone(), stored.clone())).collect();
        let within = |key: &[u8]| from <= key && to.is_none_or(|to| key < to);
        let handed_in = handed_in.iter().flat_map(|piece| piece.changes.iter());
        merged.extend(handed_in.filter(|(key, _)| within(key)).cloned());
        // Behind the first `limit`, one layer may hide changes of the other.
        while merged.len() > limit {
            merged.pop_last();
        }
        merged
    }

    /// Takes what is there for a checkpoint: the rows, and the group they are as of.
    ///
    /// # Panics
    /// While another checkpoint runs.
    pub(crate) fn freeze(&mut self) -> (Arc<Layer>, Durable) {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let layer = Arc::new(std::mem::take(&mut self.newer));
        self.frozen = Some(Arc::clone(&layer));
        self.frozen_bytes = std::mem::take(&mut self.newer_bytes);
        (layer, self.upto)
    }

    /// What was frozen is in the state.
    pub(crate) fn thaw(&mut self) -> Option<Arc<Layer>> {
        self.frozen_bytes = 0;
        self.frozen.take()
    }

    /// Bytes that came since the last checkpoint began.
    pub(crate) fn newer_bytes(&self) -> usize {
        self.newer_bytes
    }

    /// Bytes of both layers.
    pub(crate) fn bytes(&self) -> usize {
        self.newer_bytes + self.frozen_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Choices;

    fn key(number: usize) -> Key {
        Box::new([1, number as u8])
    }

    /// Whatever is sorted in or frozen, readers see the last change of every key.
    #[test]
    fn readers_see_the_last_changes_wherever_they_are() {
        for seed in 1..40 {
            let (mut dirty, mut queue) = (Dirty::default(), HandedIn::new(Durable::default()));
            let (mut model, mut choices) = (Layer::new(), Choices(seed * 7919));
            for turn in 0..60 {
                match choices.below(8) {
                    0 => {
                        // Half of the time a reader still has it.
                        let readers = (choices.below(2) == 0).then(|| queue.pieces());
                        queue.pop().into_iter().for_each(|oldest| dirty.sort_in(oldest));
                        drop(readers);
                    }
                    1 if dirty.frozen.is_none() && queue.oldest_whole().is_some() => drop(dirty.freeze()),
                    2 => {
                        // What was frozen is the state's from now on.
                        if let Some(gone) = dirty.thaw() {
                            let newer = dirty.range(&queue.pieces(), (&[], None), 1000);
                            model.retain(|key, _| !gone.contains_key(key) || newer.contains_key(key));
                        }
                    }
                    _ => {
                        let changes: Vec<RowChange> = (0..[choices.below(6), 300]
                            [usize::from(choices.below(9) == 0)])
                            .map(|_| {
                                let value = Stored::Value(Box::new([choices.below(256) as u8]));
                                (key(choices.below(12)), (choices.below(4) > 0).then_some(value))
                            })
                            .collect();
                        model.extend(changes.iter().cloned());
                        queue.push(Pieces::of(changes), Durable::default());
                    }
                }
                let pieces = queue.pieces();
                for n in 0..12 {
                    let found = last_of(&pieces, &key(n)).cloned().or_else(|| dirty.read(&key(n)));
                    assert_eq!(found, model.get(&key(n)).cloned(), "seed {seed}, turn {turn}");
                }
                let (from, to, limit) = (choices.below(6), 6 + choices.below(6), 1 + choices.below(9));
                let expected = model.range(key(from)..key(to)).take(limit);
                let expected: Layer = expected.map(|(key, stored)| (key.clone(), stored.clone())).collect();
                let found = dirty.range(&pieces, (&key(from), Some(&key(to))), limit);
                assert_eq!(found, expected, "seed {seed}, turn {turn}");
            }
            let bytes = dirty.newer.iter().map(|(key, stored)| bytes_of(key, stored.as_ref())).sum::<usize>();
            assert_eq!(dirty.newer_bytes(), bytes);
            while queue.pop().is_some() {}
            assert_eq!((queue.rows(), queue.bytes()), (0, 0));
        }
    }
}
