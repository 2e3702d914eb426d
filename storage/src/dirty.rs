//! Rows that are in the journal and not yet in the state store: the last change of each key, deletions too.
//!
//! Two layers: what is being checkpointed, and what came since. Readers look here first, then at the state.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use crate::journal::writer::Durable;
use crate::row::{Key, RowChange, Stored};

/// Bytes counted for an entry beside its key and value.
const ENTRY_BYTES: usize = 96;

/// The last change of each key.
pub(crate) type Layer = BTreeMap<Key, Option<Stored>>;

/// The two layers.
#[derive(Default)]
pub(crate) struct Dirty {
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
    pub(crate) fn absorb(&mut self, changes: impl IntoIterator<Item = RowChange>, upto: Durable) {
        for (key, stored) in changes {
            self.newer_bytes += bytes_of(&key, stored.as_ref());
            match self.newer.entry(key) {
                Entry::Occupied(mut entry) => {
                    let old = entry.insert(stored);
                    self.newer_bytes -= bytes_of(entry.key(), old.as_ref());
                }
                Entry::Vacant(entry) => drop(entry.insert(stored)),
            }
        }
        self.upto = upto;
    }

    /// The last change of a row: `None` if it is the state's; `Some(None)` if it was deleted.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Option<Stored>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        self.newer.get(key).or_else(frozen).cloned()
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
