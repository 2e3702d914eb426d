//! A state store in memory: the newest value of every key.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::committer::Change;

/// The newest committed value of every key. Cheap to clone; clones share the rows.
pub struct MemoryStore<K, V> {
    rows: Arc<RwLock<BTreeMap<K, V>>>,
}

impl<K, V> Clone for MemoryStore<K, V> {
    fn clone(&self) -> Self {
        Self { rows: Arc::clone(&self.rows) }
    }
}

impl<K: Ord, V> Default for MemoryStore<K, V> {
    fn default() -> Self {
        Self { rows: Arc::default() }
    }
}

impl<K: Ord, V: Clone> MemoryStore<K, V> {
    /// The committed value of a key.
    pub fn read(&self, key: &K) -> Option<V> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values in key order: what recovery loads.
    pub fn values(&self) -> Vec<V> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Applies changes in order; the last write of a key wins.
    pub(crate) fn apply(&self, changes: impl Iterator<Item = Change<K, V>>) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
    }
}
