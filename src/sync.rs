//! The synchronisation primitives that `queue.rs` and `output.rs` are written against. The loom crate
//! includes those two files with its own version of this module, so that the model checker runs the real code.

pub(crate) use crossbeam::queue::ArrayQueue;
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

/// Interior mutability whose exclusive use is proven elsewhere (by a [`crate::queue::Turn`]).
pub(crate) struct ExclusiveCell<T>(std::cell::UnsafeCell<T>);

impl<T> ExclusiveCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Runs `f` on the value.
    ///
    /// # Safety
    /// Nobody else may use the value meanwhile.
    pub(crate) unsafe fn with_mut<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: exclusive use is the caller's promise.
        f(unsafe { &mut *self.0.get() })
    }
}

/// Locks; a poisoned lock is used as it is, for what these locks guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A short wait for another thread that is between two instructions of its push.
pub(crate) fn spin() {
    std::hint::spin_loop();
}

/// Ends the process: the right to drain was dropped with events unstepped.
pub(crate) fn ownership_lost() -> ! {
    eprintln!("switchbox: the event drain was lost (a bug, or a panic in it): aborting, a restart recovers");
    std::process::abort();
}
