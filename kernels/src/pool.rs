//! A few persistent threads that share the parts of one task at a time. Knows nothing of what it computes,
//! and never starts a thread where one was asked for.
//!
//! A step of inference hands out some 200 tasks of 20 to 200 us, one after the other. Waking a sleeping
//! thread costs about as much as such a task, so workers spin for [`SPIN`] between tasks before they park.
//! A worker that wakes late is never waited for: a task closes when its parts are gone, and only workers
//! that entered before the close are waited on.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker looks for the next task before it parks.
const SPIN: Duration = Duration::from_micros(50);

/// A task is open: workers may enter.
const OPEN: u64 = 1 << 31;
/// The lower bits of the state count the workers inside; the upper ones, from here, number the task.
const GENERATION: u64 = 1 << 32;

type Task = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Task number, [`OPEN`], and the workers inside, in one word, so that entering is one exchange.
    state: AtomicU64,
    /// The task: written while closed and empty, read only by those who entered.
    task: UnsafeCell<Option<Task>>,
    parts: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `task` is the only field that is not Sync. It is written by the one caller (`run` takes
// `&mut self`) while the state is closed with no worker inside, and read by workers only between entering
// and leaving, which the state's acquire and release order.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is dereferenced only while the caller of `run` keeps the task alive.
unsafe impl Send for Shared {}

struct Worker {
    thread: Thread,
    parked: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

/// `threads` threads, the caller's included.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

impl Pool {
    /// A pool of `threads` in all: the caller of [`Pool::run`] is one of them, so 1 (or 0) starts none.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            parts: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut pool = Pool { shared, workers: Vec::new() };
        for n in 1..threads {
            let parked = Arc::new(AtomicBool::new(false));
            let (shared, flag) = (Arc::clone(&pool.shared), Arc::clone(&parked));
            let handle = std::thread::Builder::new()
                .name(format!("compute-{n}"))
                .spawn(move || work(&shared, &flag))?;
            pool.workers.push(Worker { thread: handle.thread().clone(), parked, handle: Some(handle) });
        }
        Ok(pool)
    }

    /// Threads in all, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(part)` once for each `part < parts`, on all threads, and returns when all are done.
    /// Which thread runs which part is open: a task must not let results depend on it. A panic in a part
    /// is raised again here, after all threads have left the task.
    pub fn run(&mut self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || parts < 2 {
            (0..parts).for_each(task);
            return;
        }
        self.open(parts, task);
        // Closing on drop: also where a part panics on this thread, nobody may be left inside.
        let close = Close { shared: &self.shared };
        take_parts(&self.shared, task);
        drop(close);
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a part of the task panicked");
    }

    fn open(&mut self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &self.shared;
        // SAFETY: the lifetime is erased, not extended: `Close` waits until no worker is inside before
        // `run` returns, so nobody holds the pointer longer than `task` lives.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Task>(task) };
        // SAFETY: the state is closed and empty here, so no worker reads the cell.
        unsafe { *shared.task.get() = Some(task) };
        shared.parts.store(parts, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        let generation = shared.state.load(Ordering::Relaxed) & !(GENERATION - 1);
        shared.state.store(generation.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.parked.swap(false, Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // Parts' panics are caught inside; a worker's own end carries no news.
                let _ = handle.join();
            }
        }
    }
}

/// Closes the task and waits for the workers inside.
struct Close<'a> {
    shared: &'a Shared,
}

impl Drop for Close<'_> {
    fn drop(&mut self) {
        // Parts that a panic left over must not be started by others.
        self.shared.next.store(usize::MAX / 2, Ordering::Relaxed);
        self.shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.shared.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins < 2_000 {
                std::hint::spin_loop();
            } else {
                // A worker inside may have lost its core; let it have this one.
                std::thread::yield_now();
            }
        }
    }
}

fn take_parts(shared: &Shared, task: &(dyn Fn(usize) + Sync)) {
    let parts = shared.parts.load(Ordering::Relaxed);
    loop {
        let part = shared.next.fetch_add(1, Ordering::Relaxed);
        if part >= parts {
            return;
        }
        task(part);
    }
}

fn work(shared: &Shared, parked: &AtomicBool) {
    let mut idle_since = Instant::now();
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let state = shared.state.load(Ordering::Acquire);
        if state & OPEN != 0 {
            enter(shared, state);
            idle_since = Instant::now();
        } else if idle_since.elapsed() < SPIN {
            (0..32).for_each(|_| std::hint::spin_loop());
        } else {
            park(shared, parked);
            idle_since = Instant::now();
        }
    }
}

fn enter(shared: &Shared, state: u64) {
    if shared.next.load(Ordering::Relaxed) >= shared.parts.load(Ordering::Relaxed) {
        std::hint::spin_loop();
        return;
    }
    if shared.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: entered: the caller keeps the task alive and the cell unwritten until this thread leaves.
    let task = unsafe { (*shared.task.get()).map(|task| &*task) };
    if let Some(task) = task
        && catch_unwind(AssertUnwindSafe(|| take_parts(shared, task))).is_err()
    {
        shared.panicked.store(true, Ordering::Relaxed);
    }
    shared.state.fetch_sub(1, Ordering::AcqRel);
}

fn park(shared: &Shared, parked: &AtomicBool) {
    parked.store(true, Ordering::SeqCst);
    // Between the flag and the park a task may have been opened: its caller sees the flag and unparks, or
    // this sees the open state.
    while parked.load(Ordering::SeqCst)
        && shared.state.load(Ordering::SeqCst) & OPEN == 0
        && !shared.stop.load(Ordering::SeqCst)
    {
        std::thread::park();
    }
    parked.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for parts in [0, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(parts, &|p| {
                        counts[p].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} {parts}");
                }
            }
        }
    }

    #[test]
    fn parked_workers_wake_again() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(2));
            let sum = AtomicUsize::new(0);
            pool.run(64, &|p| {
                sum.fetch_add(p, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 64 * 63 / 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(3).unwrap();
        for bad in [0, 5, 63] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|p| {
                    assert!(p != bad, "part {p}");
                    std::thread::sleep(Duration::from_micros(50));
                });
            }));
            assert!(outcome.is_err());
            let done = AtomicUsize::new(0);
            pool.run(10, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 10);
        }
    }
}
