//! What many share: who finds no room is refused, and nobody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::ids::Namespace;
use crate::sync::lock;

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

/// For whom a part of a [`Commons`] is taken: a namespace, or the operator.
pub type Holder = Option<Namespace>;

/// So many bytes, or places, that namespaces share. Each may have half of them, so that none takes all; but whoever has
/// nothing yet gets whatever is free, so that one large thing can be had at all.
#[derive(Debug)]
pub struct Commons {
    taken: Mutex<Taken>,
    units_max: u64,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    /// Whoever has nothing isn't in it.
    by_holder: HashMap<Holder, u64>,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Whoever asked has its half.
    Holder,
    /// All together have all.
    Whole,
}

impl Commons {
    /// One of that many bytes or places.
    pub fn new(units_max: u64) -> Self {
        Self { taken: Mutex::default(), units_max }
    }

    /// Takes some for `holder`.
    ///
    /// # Errors
    /// When there are fewer, or it would have too many.
    pub fn take(self: &Arc<Self>, holder: &Holder, units: u64) -> Result<Part, Full> {
        let mut taken = lock(&self.taken);
        let own = taken.by_holder.get(holder).copied().unwrap_or(0);
        if own > 0 && own.saturating_add(units) > self.units_max.div_ceil(2) {
            return Err(Full::Holder);
        }
        if taken.all.saturating_add(units) > self.units_max {
            return Err(Full::Whole);
        }
        taken.all += units;
        *taken.by_holder.entry(holder.clone()).or_default() += units;
        drop(taken);
        Ok(Part { commons: Arc::clone(self), holder: holder.clone(), units })
    }

    /// What is taken now, of all.
    pub fn held(&self) -> u64 {
        lock(&self.taken).all
    }
}

/// A part of a [`Commons`], until dropped. Goes wherever goes what it was taken for.
#[derive(Debug)]
pub struct Part {
    commons: Arc<Commons>,
    holder: Holder,
    units: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut taken = lock(&self.commons.taken);
        taken.all -= self.units;
        if let Some(own) = taken.by_holder.get_mut(&self.holder) {
            *own -= self.units;
            if *own == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
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

    #[test]
    fn nobody_takes_the_half_of_the_others() {
        let commons = Arc::new(Commons::new(10));
        let [one, other] = ["one", "other"].map(|name| Some(Namespace::named(name)));
        let take = |holder: &Holder, units| commons.take(holder, units);
        let first = take(&one, 3).expect("room");
        let second = take(&one, 2).expect("up to its half");
        assert_eq!(take(&one, 1).err(), Some(Full::Holder));
        let third = take(&other, 4).expect("its own half");
        assert_eq!(take(&None, 2).err(), Some(Full::Whole));
        let last = take(&None, 1).expect("the operator's");
        assert_eq!((commons.held(), take(&other, 1).err()), (10, Some(Full::Whole)));
        drop((first, second, third, last));
        assert_eq!(commons.held(), 0);
        // Whoever has nothing may have more than half, at once.
        let large = take(&one, 9).expect("room");
        assert_eq!((take(&one, 1).err(), take(&other, 2).err()), (Some(Full::Holder), Some(Full::Whole)));
        assert_eq!(take(&other, u64::MAX).err(), Some(Full::Whole));
        drop(large);
        assert!(lock(&commons.taken).by_holder.is_empty(), "nobody is remembered");
    }
}
