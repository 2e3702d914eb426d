//! The bounded event queue and the right to drain it (CORE section 1).
//!
//! Whoever pushes into an idle queue owns the drain and steps events until none is left: in effect a lock
//! that nobody waits for. Imports only std, crossbeam and `sync`, for loom runs this very file. Never blocks,
//! never awaits, and never lets an ownership get lost: a dropped [`Turn`] ends the process.

use crate::sync::{Arc, ArrayQueue, AtomicUsize, ExclusiveCell, Ordering, spin};

/// What is drained into: stepped by one owner at a time.
pub trait Machine<E> {
    /// Handles one event.
    fn step(&mut self, event: E);
    /// Ends a batch of steps: wake-ups and system calls, coalesced.
    fn flush(&mut self);
}

/// A bounded lock-free queue in front of a machine.
pub struct Queue<E, M> {
    ring: ArrayQueue<E>,
    /// Events pushed and not yet stepped. Whoever moves it from 0 owns the machine until it is 0 again.
    pending: AtomicUsize,
    machine: ExclusiveCell<M>,
}

// SAFETY: the machine is reached only through a `Turn`, of which there is at most one (see `push`), and the
// acquire-release chain on `pending` orders one owner's accesses before the next owner's.
unsafe impl<E: Send, M: Send> Sync for Queue<E, M> {}

/// What a push asks of its caller.
#[must_use]
pub enum Pushed<E, M> {
    /// Somebody drains already and will step the event.
    Elsewhere,
    /// The caller owns the drain now and must run it, or hand it to somebody who does.
    Ours(Turn<E, M>),
}

impl<E, M: Machine<E>> Queue<E, M> {
    /// A queue for `capacity` events: the sum of all room that is handed out for it.
    pub fn new(capacity: usize, machine: M) -> Arc<Self> {
        Arc::new(Self {
            ring: ArrayQueue::new(capacity),
            pending: AtomicUsize::new(0),
            machine: ExclusiveCell::new(machine),
        })
    }

    /// Adds an event for which room was reserved.
    ///
    /// # Panics
    /// When the ring is full: then room was handed out twice, and going on would lose an event.
    pub fn push(self: &Arc<Self>, event: E) -> Pushed<E, M> {
        assert!(self.ring.push(event).is_ok(), "event ring full although room is reserved at the door");
        if self.pending.fetch_add(1, Ordering::AcqRel) == 0 {
            return Pushed::Ours(Turn { queue: Arc::clone(self), seen: 1 });
        }
        Pushed::Elsewhere
    }

    /// Events pushed and not yet stepped.
    pub fn depth(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    fn pop(&self) -> E {
        loop {
            // The event was counted, so it is here, or right behind a push that another thread has begun.
            if let Some(event) = self.ring.pop() {
                return event;
            }
            spin();
        }
    }
}

/// The right and the duty to drain.
#[must_use]
pub struct Turn<E, M> {
    queue: Arc<Queue<E, M>>,
    /// Events that are known to be there and are ours to step; 0 only once ownership is released.
    seen: usize,
}

impl<E, M: Machine<E>> Turn<E, M> {
    /// Steps events until the queue is empty (`None`), or until about `budget` of them are stepped: then the
    /// rest is for whoever takes the turn that is returned.
    pub fn run(mut self, budget: usize) -> Option<Self> {
        let mut stepped = 0;
        while stepped < budget {
            let batch = self.seen.min(budget - stepped);
            self.step_batch(batch);
            stepped += batch;
            // Release orders this owner's writes before the next owner's reads; acquire makes the events
            // that were counted meanwhile visible to the next batch.
            let before = self.queue.pending.fetch_sub(batch, Ordering::AcqRel);
            self.seen = before - batch;
            if self.seen == 0 {
                return None;
            }
        }
        Some(self)
    }

    fn step_batch(&mut self, batch: usize) {
        // SAFETY: a `Turn` exists only while `pending` > 0 belongs to it, so this is the only access.
        unsafe {
            self.queue.machine.with_mut(|machine| {
                for _ in 0..batch {
                    machine.step(self.queue.pop());
                }
                machine.flush();
            });
        }
    }
}

impl<E, M> Drop for Turn<E, M> {
    fn drop(&mut self) {
        if self.seen > 0 {
            // The event loop would stand still for ever. Recovery is proven; half-alive is worse.
            crate::sync::ownership_lost();
        }
    }
}

/// Room for events of one kind, reserved before what causes them is let in.
pub struct Room {
    taken: AtomicUsize,
    max: usize,
}

impl Room {
    /// Room for `max` events.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// Takes room for one event, if there is any.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            if taken == self.max {
                return None;
            }
            match self.taken.compare_exchange_weak(taken, taken + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(Permit(Arc::clone(self))),
                Err(now) => taken = now,
            }
        }
    }

    /// Events that room is taken for.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Events that there is room for in all.
    pub fn max(&self) -> usize {
        self.max
    }
}

/// Room for one event; travels with it and returns when the event is popped.
pub struct Permit(Arc<Room>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
