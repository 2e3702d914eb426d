//! Rows that are in the journal and not yet in the state store: the last change of each key, deletions too.
//!
//! Two layers: what is being checkpointed, and what came since. Readers look here first, then at the state.
//!
//! Putting rows into a layer takes about as long as writing them to the journal, so it isn't done while somebody waits:
//! a group's rows are first only *handed in*, in order, where readers see them too, and are sorted in later, by whoever
//! has time ([`Dirty::sort_in`]).

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

/// Rows that may be handed in and not yet be sorted in: readers look through all of them.
pub(crate) const HANDED_IN_ROWS_MAX: usize = 8192;

/// The two layers.
#[derive(Default)]
pub(crate) struct Dirty {
    /// Newer than both layers; in order.
    handed_in: VecDeque<std::vec::IntoIter<RowChange>>,
    handed_in_rows: usize,
    newer: Layer,
    frozen: Option<Arc<Layer>>,
    newer_bytes: usize,
    frozen_bytes: usize,
    /// The last group whose rows are in.
    upto: Durable,
}

fn bytes_of(key: &[u8], stored: Option<&Stored>) -> usize {
    ENTRY_BYTES + key.len() + stored.map_or(0, |stored| stored.with_body(<[u8]>::len))
}

impl Dirty {
    /// Starts behind `upto`.
    pub(crate) fn new(upto: Durable) -> Self {
        Self { upto, ..Self::default() }
    }

    /// Takes the rows of a group that is durable.
    pub(crate) fn absorb(&mut self, changes: Vec<RowChange>, upto: Durable) {
        self.newer_bytes += changes.iter().map(|(key, stored)| bytes_of(key, stored.as_ref())).sum::<usize>();
        self.handed_in_rows += changes.len();
        self.handed_in.push_back(changes.into_iter());
        self.upto = upto;
        if self.handed_in_rows > HANDED_IN_ROWS_MAX {
            self.sort_in(self.handed_in_rows - HANDED_IN_ROWS_MAX);
        }
    }

    /// Rows that were handed in and aren't sorted in.
    pub(crate) fn handed_in_rows(&self) -> usize {
        self.handed_in_rows
    }

    /// Sorts so many rows in, the oldest first. What readers see doesn't change.
    pub(crate) fn sort_in(&mut self, rows: usize) {
        for _ in 0..rows {
            let Some(group) = self.handed_in.front_mut() else { return };
            match group.next() {
                Some((key, stored)) => {
                    self.handed_in_rows -= 1;
                    self.insert(key, stored);
                }
                None => drop(self.handed_in.pop_front()),
            }
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
        let handed_in = self.handed_in.iter().rev().flat_map(|group| group.as_slice().iter().rev());
        let newest = handed_in.filter(|(changed, _)| **changed == *key).map(|(_, stored)| stored).next();
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        newest.or_else(|| self.newer.get(key)).or_else(frozen).cloned()
    }

    /// The first `limit` last changes from `from` on, below `to` where given.
    pub(crate) fn range(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Layer {
        if to.is_some_and(|to| to <= from) {
            return Layer::new();
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let older = self.frozen.iter().flat_map(|frozen| frozen.range::<[u8], _>(bounds)).take(limit);
        let newer = self.newer.range::<[u8], _>(bounds).take(limit);
        let mut merged: Layer =
            older.chain(newer).map(|(key, stored)| (key.clone(), stored.clone())).collect();
        let within = |key: &[u8]| from <= key && to.is_none_or(|to| key < to);
        let handed_in = self.handed_in.iter().flat_map(|group| group.as_slice());
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
        while !self.handed_in.is_empty() {
            self.sort_in(HANDED_IN_ROWS_MAX);
        }
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

    /// The last group whose rows are in.
    pub(crate) fn upto(&self) -> Durable {
        self.upto
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

    /// Whatever is handed in, sorted in or frozen, readers see the last change of every key.
    #[test]
    fn readers_see_the_last_changes_wherever_they_are() {
        for seed in 1..40 {
            let (mut dirty, mut model, mut choices) = (Dirty::default(), Layer::new(), Choices(seed * 7919));
            for turn in 0..60 {
                match choices.below(8) {
                    0 => dirty.sort_in(choices.below(9)),
                    1 if dirty.frozen.is_none() => {
                        let (layer, _) = dirty.freeze();
                        assert_eq!(*layer, model, "seed {seed}, turn {turn}");
                    }
                    2 => {
                        // What was frozen is the state's from now on.
                        if let Some(gone) = dirty.thaw() {
                            let newer: Layer = dirty.range(&[], None, 1000);
                            model.retain(|key, _| !gone.contains_key(key) || newer.contains_key(key));
                        }
                    }
                    _ => {
                        let changes: Vec<RowChange> = (0..choices.below(6))
                            .map(|_| {
                                let value = Stored::Value(Box::new([choices.below(256) as u8]));
                                (key(choices.below(12)), (choices.below(4) > 0).then_some(value))
                            })
                            .collect();
                        model.extend(changes.iter().cloned());
                        dirty.absorb(changes, Durable::default());
                    }
                }
                (0..12).for_each(|n| assert_eq!(dirty.read(&key(n)), model.get(&key(n)).cloned()));
                let (from, to, limit) = (choices.below(6), 6 + choices.below(6), 1 + choices.below(9));
                let expected = model.range(key(from)..key(to)).take(limit);
                let expected: Layer = expected.map(|(key, stored)| (key.clone(), stored.clone())).collect();
                let found = dirty.range(&key(from), Some(&key(to)), limit);
                assert_eq!(found, expected, "seed {seed}, turn {turn}");
            }
            dirty.sort_in(usize::MAX);
            let bytes = dirty.newer.iter().map(|(key, stored)| bytes_of(key, stored.as_ref())).sum::<usize>();
            assert_eq!((dirty.newer_bytes(), dirty.handed_in_rows()), (bytes, 0));
        }
    }
}
