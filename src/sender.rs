//! Pushing events and draining them: on the io thread at once, from other threads through a parked task.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::ThreadId;

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
    io_thread: ThreadId,
}

/// Where a turn waits for the drain task.
#[derive(Default)]
struct Parked {
    turn: Mutex<Option<Turn<Envelope, Driver>>>,
    task: Mutex<Option<Waker>>,
}

impl Sender {
    /// A sender into a new queue, made on the io thread. The drain task must run there for events of other
    /// threads to be stepped.
    pub fn new(capacity: usize, driver: Driver) -> Self {
        let io_thread = std::thread::current().id();
        Self { queue: Queue::new(capacity, driver), parked: Arc::default(), io_thread }
    }

    /// Pushes an event for which room was reserved. If nobody drains, this does: at once on the io thread;
    /// from any other by handing the turn to the drain task.
    pub fn push(&self, envelope: Envelope) {
        let Pushed::Ours(turn) = self.queue.push(envelope) else { return };
        if std::thread::current().id() != self.io_thread {
            self.park(turn);
        } else if let Some(rest) = turn.run(TURN_EVENTS) {
            self.park(rest);
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
