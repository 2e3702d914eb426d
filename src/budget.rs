//! Memory of one purpose, shared by many: who finds no room is refused, and nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many bytes, and how many of them are taken.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    /// A budget of that size.
    pub fn new(bytes_max: u64) -> Self {
        Self { held: AtomicU64::new(0), bytes_max }
    }

    /// Takes `bytes` of it; `None` if there are fewer.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let fits = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.bytes_max);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Share { budget: Arc::clone(self), bytes })
    }

    /// Bytes that are taken now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}

/// Bytes of a budget, until dropped. Goes wherever the bytes go.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_given_back() {
        let budget = Arc::new(Budget::new(10));
        let first = budget.take(6).expect("room");
        assert!(budget.take(5).is_none());
        let second = budget.take(4).expect("room");
        assert_eq!(budget.held(), 10);
        drop((first, second));
        assert_eq!(budget.held(), 0);
        assert!(budget.take(u64::MAX).is_none());
    }
}
