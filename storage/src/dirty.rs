//! Rows that are in the journal and not yet in the state store: the last change of each key, deletions too.
//!
//! Two layers: what is being checkpointed, and what came since. Readers look here first, then at the state.
//!
//! Putting rows into a layer takes about as long as writing them to the journal, so nobody who waits for a commit waits
//! for it: a group's rows are first only [`HandedIn`], in order, where readers look before anywhere else. They are sorted
//! into the layers later, by whoever has time, and leave the queue only when the layers have them.

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

/// The rows of a group, in order, and the group.
pub(crate) type Handed = (Arc<Vec<RowChange>>, Durable);

/// Groups that are durable and not yet in the layers, the oldest first.
pub(crate) struct HandedIn {
    groups: VecDeque<Handed>,
    rows: usize,
    bytes: usize,
    /// The last group that was ever handed in.
    upto: Durable,
}

impl HandedIn {
    /// Starts behind `upto`.
    pub(crate) fn new(upto: Durable) -> Self {
        Self { groups: VecDeque::new(), rows: 0, bytes: 0, upto }
    }

    pub(crate) fn push(&mut self, changes: Vec<RowChange>, bytes: usize, upto: Durable) {
        self.rows += changes.len();
        self.bytes += bytes;
        self.upto = upto;
        self.groups.push_back((Arc::new(changes), upto));
    }

    /// All of them, for a reader.
    pub(crate) fn groups(&self) -> Vec<Arc<Vec<RowChange>>> {
        self.groups.iter().map(|(changes, _)| Arc::clone(changes)).collect()
    }

    /// The oldest, which stays until it is [`HandedIn::pop`]ped.
    pub(crate) fn oldest(&self) -> Option<Handed> {
        self.groups.front().cloned()
    }

    /// The layers have all of the oldest.
    pub(crate) fn pop(&mut self) {
        if let Some((changes, _)) = self.groups.pop_front() {
            self.rows -= changes.len();
            self.bytes -= bytes_of_all(&changes);
        }
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

/// The last change of a row in groups that were handed in.
pub(crate) fn last_of<'a>(groups: &'a [Arc<Vec<RowChange>>], key: &[u8]) -> Option<&'a Option<Stored>> {
    let newest_first = groups.iter().rev().flat_map(|changes| changes.iter().rev());
    newest_first.filter(|(changed, _)| **changed == *key).map(|(_, stored)| stored).next()
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

    /// Takes rows of the group behind the last one.
    pub(crate) fn sort_in(&mut self, changes: &[RowChange]) {
        for (key, stored) in changes {
            self.newer_bytes += bytes_of(key, stored.as_ref());
            self.insert(key.clone(), stored.clone());
        }
    }

    /// All rows up to this group are in.
    pub(crate) fn reached(&mut self, upto: Durable) {
        self.upto = upto;
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
        handed_in: &[Arc<Vec<RowChange>>],
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
        let handed_in = handed_in.iter().flat_map(|changes| changes.iter());
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
            let mut half_in = 0;
            for turn in 0..60 {
                match choices.below(8) {
                    0 => {
                        // A part of the oldest, which readers still find in the queue.
                        if let Some((changes, upto)) = queue.oldest() {
                            let until = (half_in + choices.below(4)).min(changes.len());
                            dirty.sort_in(&changes[half_in..until]);
                            half_in = until;
                            if until == changes.len() {
                                dirty.reached(upto);
                                queue.pop();
                                half_in = 0;
                            }
                        }
                    }
                    1 if dirty.frozen.is_none() && half_in == 0 => drop(dirty.freeze()),
                    2 => {
                        // What was frozen is the state's from now on.
                        if let Some(gone) = dirty.thaw() {
                            let newer = dirty.range(&queue.groups(), (&[], None), 1000);
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
                        queue.push(changes.clone(), bytes_of_all(&changes), Durable::default());
                    }
                }
                let groups = queue.groups();
                for n in 0..12 {
                    let found = last_of(&groups, &key(n)).cloned().or_else(|| dirty.read(&key(n)));
                    assert_eq!(found, model.get(&key(n)).cloned(), "seed {seed}, turn {turn}");
                }
                let (from, to, limit) = (choices.below(6), 6 + choices.below(6), 1 + choices.below(9));
                let expected = model.range(key(from)..key(to)).take(limit);
                let expected: Layer = expected.map(|(key, stored)| (key.clone(), stored.clone())).collect();
                let found = dirty.range(&groups, (&key(from), Some(&key(to))), limit);
                assert_eq!(found, expected, "seed {seed}, turn {turn}");
            }
            let bytes = dirty.newer.iter().map(|(key, stored)| bytes_of(key, stored.as_ref())).sum::<usize>();
            assert_eq!(dirty.newer_bytes(), bytes);
            while queue.oldest().is_some() {
                queue.pop();
            }
            assert_eq!((queue.rows(), queue.bytes()), (0, 0));
        }
    }
}
