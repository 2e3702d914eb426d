//! Pushing events and draining them: on the io thread at once, from other threads through a parked task.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::driver::{Driver, Envelope};
use crate::queue::{Pushed, Queue, Turn};
use crate::sync::lock;

/// Events that one turn steps before the io thread does something else.
const TURN_EVENTS: usize = 256;

/// Pushes events. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    queue: Arc<Queue<Envelope, Driver>>,
    parked: Arc<Parked>,
}

/// Where a turn waits for the drain task.
#[derive(Default)]
struct Parked {
    turn: Mutex<Option<Turn<Envelope, Driver>>>,
    task: Mutex<Option<Waker>>,
}

impl Sender {
    /// A sender into a new queue. The drain task must run for events of other threads to be stepped.
    pub fn new(capacity: usize, driver: Driver) -> Self {
        Self { queue: Queue::new(capacity, driver), parked: Arc::default() }
    }

    /// Pushes from the io thread, and drains if nobody does. Room for the event was reserved.
    pub fn push(&self, envelope: Envelope) {
        if let Pushed::Ours(turn) = self.queue.push(envelope)
            && let Some(rest) = turn.run(TURN_EVENTS)
        {
            self.park(rest);
        }
    }

    /// Pushes from any other thread: the io thread drains.
    pub fn push_from_thread(&self, envelope: Envelope) {
        if let Pushed::Ours(turn) = self.queue.push(envelope) {
            self.park(turn);
        }
    }

    /// Events pushed and not yet stepped.
    pub fn depth(&self) -> usize {
        self.queue.depth()
    }

    /// The task that drains what was parked. Runs for ever; must be dropped only when nothing is pending.
    pub async fn drain_parked(self) {
        std::future::poll_fn(|cx| {
            *lock(&self.parked.task) = Some(cx.waker().clone());
            let turn = lock(&self.parked.turn).take();
            if let Some(rest) = turn.and_then(|turn| turn.run(TURN_EVENTS)) {
                self.park(rest);
            }
            Poll::<()>::Pending
        })
        .await;
    }

    fn park(&self, turn: Turn<Envelope, Driver>) {
        let before = lock(&self.parked.turn).replace(turn);
        assert!(before.is_none(), "two turns at once: somebody drains without owning the drain");
        let task = lock(&self.parked.task).take();
        if let Some(waker) = task {
            waker.wake();
        }
    }
}
