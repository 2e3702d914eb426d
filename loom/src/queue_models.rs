//! What must hold of the queue, whatever the interleaving. Included once for the real source and once for
//! each variant of it.

use std::sync::atomic::AtomicUsize as Counter;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex as Record};
use std::task::Waker;

use loom::sync::Notify;
use loom::thread;

use super::queue::{Machine, Permit, Pushed, Queue, Room, Turn};
use crate::sync::{Mutex, lock};
use crate::tests::{Parked, explore};

/// One event: who pushed it, and which of its own it is.
struct Event {
    producer: usize,
    serial: usize,
    _room: Option<Permit>,
}

impl Event {
    fn new(producer: usize, serial: usize) -> Self {
        Self { producer, serial, _room: None }
    }
}

/// What was stepped. A record of std's, which loom doesn't see: it orders nothing.
type Steps = Arc<Record<Stepped>>;

#[derive(Default)]
struct Stepped {
    /// Producer and serial, in the order of the steps.
    events: Vec<(usize, usize)>,
    unflushed: usize,
}

/// A machine that remembers. It pushes nothing.
struct Recorder(Steps);

impl Machine<Event> for Recorder {
    fn step(&mut self, event: Event) {
        let mut stepped = self.0.lock().expect("whole");
        stepped.unflushed += 1;
        stepped.events.push((event.producer, event.serial));
    }

    fn flush(&mut self) {
        self.0.lock().expect("whole").unflushed = 0;
    }
}

fn queue(capacity: usize) -> (Arc<Queue<Event, Recorder>>, Steps) {
    let steps = Steps::default();
    (Queue::new(capacity, Recorder(Arc::clone(&steps))), steps)
}

fn push_and_drain(queue: &Arc<Queue<Event, Recorder>>, event: Event, budget: usize) {
    let mut pushed = queue.push(event);
    while let Pushed::Ours(turn) = pushed {
        pushed = turn.run(budget).map_or(Pushed::Elsewhere, Pushed::Ours);
    }
}

/// Every event exactly once, each producer's in its order, and none left.
fn check_steps(queue: &Queue<Event, Recorder>, steps: &Steps, pushes: &[usize]) {
    let steps = steps.lock().expect("whole");
    for (producer, pushes) in pushes.iter().enumerate() {
        let own = steps.events.iter().filter(|event| event.0 == producer);
        let serials: Vec<_> = own.map(|event| event.1).collect();
        let all: Vec<_> = (0..*pushes).collect();
        assert_eq!(serials, all, "of producer {producer}, events are lost, repeated or out of order");
    }
    assert_eq!(steps.unflushed, 0, "a batch wasn't flushed");
    assert_eq!(queue.depth(), 0, "events are still counted");
}

/// Threads that push, one number of events each, and drain when it falls to them.
pub fn pushers(preemptions: usize, pushes: &'static [usize], budget: usize) {
    explore(preemptions, move || {
        let (queue, steps) = queue(pushes.iter().sum());
        let push_all = move |queue: &Arc<Queue<_, _>>, producer: usize| {
            for serial in 0..pushes[producer] {
                push_and_drain(queue, Event::new(producer, serial), budget);
            }
        };
        let spawn = |producer| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || push_all(&queue, producer))
        };
        let others: Vec<_> = (1..pushes.len()).map(spawn).collect();
        push_all(&queue, 0);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        check_steps(&queue, &steps, pushes);
    });
}

/// Where a turn waits for the drainer that is parked there: the scheme of `sender.rs`.
#[derive(Default)]
struct Place {
    turn: Mutex<Option<Turn<Event, Recorder>>>,
    task: Mutex<Option<Waker>>,
}

/// Drainers, and what tells them that all is done.
struct Drainers {
    places: Vec<Place>,
    steps: Steps,
    total: usize,
}

impl Drainers {
    fn new(count: usize, steps: &Steps, total: usize) -> Arc<Self> {
        let places = (0..count).map(|_| Place::default()).collect();
        Arc::new(Self { places, steps: Arc::clone(steps), total })
    }

    fn hand_over(&self, to: usize, turn: Turn<Event, Recorder>) {
        let before = lock(&self.places[to].turn).replace(turn);
        assert!(before.is_none(), "two turns");
        self.wake(to);
    }

    fn wake(&self, drainer: usize) {
        let task = lock(&self.places[drainer].task).take();
        if let Some(waker) = task {
            waker.wake();
        }
    }

    /// A drainer: it takes its turn, and hands what is over its budget to the next drainer.
    fn drain(&self, me: usize, budget: usize) {
        let next = (me + 1) % self.places.len();
        let parked = Arc::new(Parked(Notify::new()));
        loop {
            *lock(&self.places[me].task) = Some(Waker::from(Arc::clone(&parked)));
            let turn = lock(&self.places[me].turn).take();
            if let Some(rest) = turn.and_then(|turn| turn.run(budget)) {
                self.hand_over(next, rest);
            }
            if self.steps.lock().expect("whole").events.len() == self.total {
                // The next drainer may be parked still.
                return self.wake(next);
            }
            parked.0.wait();
        }
    }
}

/// Threads that push and may not drain, and parked drainers that do.
pub fn hand_off(preemptions: usize, pushes: &'static [usize], drainers: usize, budget: usize) {
    explore(preemptions, move || {
        let total = pushes.iter().sum();
        let (queue, steps) = queue(total);
        let driver = Drainers::new(drainers, &steps, total);
        let push_all = |producer: usize| {
            let (queue, driver) = (Arc::clone(&queue), Arc::clone(&driver));
            move || {
                for serial in 0..pushes[producer] {
                    if let Pushed::Ours(turn) = queue.push(Event::new(producer, serial)) {
                        driver.hand_over(0, turn);
                    }
                }
            }
        };
        let drain = |me| {
            let driver = Arc::clone(&driver);
            thread::spawn(move || driver.drain(me, budget))
        };
        let mut others: Vec<_> = (0..drainers).map(drain).collect();
        others.extend((1..pushes.len()).map(|producer| thread::spawn(push_all(producer))));
        push_all(0)();
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        check_steps(&queue, &steps, pushes);
    });
}

/// New work is refused at its bound; an event with room of its own always gets in; all room returns.
///
/// The ring is as large as the two rooms together, so a permit that comes back too early overfills it.
pub fn room(preemptions: usize, attempts: usize) {
    let (accepted, refused) = (Arc::new(Counter::new(0)), Arc::new(Counter::new(0)));
    let counters = (Arc::clone(&accepted), Arc::clone(&refused));
    explore(preemptions, move || {
        let (requests, disconnects) = (Room::new(1), Room::new(1));
        let (queue, steps) = queue(requests.max() + disconnects.max());
        let disconnect = disconnects.take().expect("nobody took it");
        let before = counters.0.load(Relaxed);
        let ask = |producer: usize| {
            let (queue, requests, counters) = (Arc::clone(&queue), Arc::clone(&requests), counters.clone());
            move || {
                for serial in 0..attempts {
                    match requests.take() {
                        Some(permit) => {
                            let event = Event { producer, serial, _room: Some(permit) };
                            push_and_drain(&queue, event, usize::MAX);
                            counters.0.fetch_add(1, Relaxed);
                        }
                        None => _ = counters.1.fetch_add(1, Relaxed),
                    }
                }
            }
        };
        let others = [thread::spawn(ask(1)), thread::spawn(ask(2))];
        let event = Event { producer: 0, serial: 0, _room: Some(disconnect) };
        push_and_drain(&queue, event, usize::MAX);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        assert_eq!(queue.depth(), 0);
        let steps = steps.lock().expect("whole").events.len();
        assert_eq!(steps, 1 + counters.0.load(Relaxed) - before, "what was let in was stepped");
        assert_eq!((requests.taken(), disconnects.taken()), (0, 0), "room was lost");
    });
    assert!(accepted.load(Relaxed) > 0 && refused.load(Relaxed) > 0, "the model reached both ends");
}
