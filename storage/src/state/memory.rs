//! The state store in memory: the oracle of the tests, and a choice for boxes whose rows all fit.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use crate::error::Result;
use crate::row::{Key, Stored};
use crate::state::StateStore;
use crate::state::mark::Mark;

/// Rows in memory. As it starts empty, it needs no mark: what is applied is known to whoever applied it.
#[derive(Default)]
pub(crate) struct MemoryState {
    rows: RwLock<BTreeMap<Key, Stored>>,
}

impl StateStore for MemoryState {
    fn read(&self, key: &[u8]) -> Result<Option<Stored>> {
        Ok(self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Stored)>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let found = rows.range::<[u8], _>(bounds).take(limit);
        Ok(found.map(|(key, stored)| (key.clone(), stored.clone())).collect())
    }

    fn begin(&self, _mark: &Mark) -> Result<()> {
        Ok(())
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = (&Key, &Option<Stored>)>) -> Result<()> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, stored) in changes {
            match stored {
                Some(stored) => drop(rows.insert(key.clone(), stored.clone())),
                None => drop(rows.remove(key)),
            }
        }
        Ok(())
    }

    fn finish(&self, _mark: &Mark) -> Result<()> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
