//! The model checker's version of `src/sync.rs`: the same names, made of loom's types.
//!
//! Nothing here may order memory more than the real thing does, or a mistake would hide behind the model.
//! [`Arc`] is std's, for the real code has `self: &Arc<Self>`, which loom's can't be; loom doesn't see it,
//! so it orders nothing.

use loom::cell::UnsafeCell;
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use loom::sync::{Mutex, MutexGuard};
pub(crate) use std::sync::Arc;

/// A bounded queue with the steps of crossbeam's: a pusher claims a position, writes, then stamps the slot;
/// a popper claims the head, reads, then frees the slot.
///
/// Of the real one's orderings only those of the stamps are kept, which carry a value from its pusher to its
/// popper and a free slot back. Claims are relaxed here and sequentially consistent there.
pub(crate) struct ArrayQueue<T> {
    slots: Vec<Slot<T>>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

struct Slot<T> {
    /// `position` while free for it, `position + 1` while it holds its value.
    stamp: AtomicUsize,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: a value is reached only by the thread that claimed its position; loom checks just that.
unsafe impl<T: Send> Sync for ArrayQueue<T> {}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let slot = |position| Slot { stamp: AtomicUsize::new(position), value: UnsafeCell::new(None) };
        Self {
            slots: (0..capacity).map(slot).collect(),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    /// A refusal leaves the queue unusable, for the position stays claimed: whoever is refused gives up.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let position = self.tail.fetch_add(1, Ordering::Relaxed);
        // A read-modify-write sees the newest head and orders nothing: the real queue too is never
        // mistaken about being full (it has a fence for that).
        if position - self.head.fetch_add(0, Ordering::Relaxed) >= self.slots.len() {
            return Err(value);
        }
        let slot = &self.slots[position % self.slots.len()];
        while slot.stamp.load(Ordering::Acquire) != position {
            spin();
        }
        // SAFETY: the position is claimed and its slot free.
        slot.value.with_mut(|place| unsafe { *place = Some(value) });
        slot.stamp.store(position + 1, Ordering::Release);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut position = self.head.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[position % self.slots.len()];
            if slot.stamp.load(Ordering::Acquire) != position + 1 {
                return None;
            }
            let (order, on_failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.head.compare_exchange(position, position + 1, order, on_failure) {
                Ok(_) => {
                    // SAFETY: the position is claimed and its value was stamped.
                    let value = slot.value.with_mut(|place| unsafe { (*place).take() });
                    slot.stamp.store(position + self.slots.len(), Ordering::Release);
                    return value;
                }
                Err(now) => position = now,
            }
        }
    }

    /// As the real one: it compares the ends. Used by a should-fail variant only.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::SeqCst) == self.tail.load(Ordering::SeqCst)
    }
}

/// Interior mutability whose exclusive use loom checks.
pub(crate) struct ExclusiveCell<T>(UnsafeCell<T>);

impl<T> ExclusiveCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Runs `f` on the value; an access that overlaps another or isn't ordered after it fails the model.
    ///
    /// # Safety
    /// Nobody else may use the value meanwhile.
    pub(crate) unsafe fn with_mut<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: exclusive use is the caller's promise, and checked.
        self.0.with_mut(|value| f(unsafe { &mut *value }))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("loom's locks aren't poisoned")
}

/// Lets the other threads go on, as the checker needs to get through a spinning loop.
pub(crate) fn spin() {
    loom::thread::yield_now();
}

/// Fails the model; a model that fails already goes on failing.
pub(crate) fn ownership_lost() {
    assert!(std::thread::panicking(), "the right to drain was lost with events unstepped");
}
