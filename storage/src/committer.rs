//! Group commit: one thread that commits the rows of many steps at once, then says up to which LSN.
//!
//! The rule that everything rests on: `on_durable(lsn)` is called only after every row of every step up to
//! `lsn` is kept and readable, and with ever larger numbers. Never drops a step, never reorders two.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::memory::MemoryStore;

/// A key with its new value; `None` deletes it.
pub type Change<K, V> = (K, Option<V>);

/// The rows of one step.
pub struct Group<K, V> {
    /// The step's number; each appended group has a larger one.
    pub lsn: u64,
    /// Its changes, in order.
    pub changes: Vec<Change<K, V>>,
}

/// Whether somebody waits for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits: commit at once.
    Urgent,
    /// Nobody waits yet: commit within the lazy delay, or with the next urgent step.
    Lazy,
}

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitterOptions {
    /// The longest that a lazy step waits.
    pub lazy_delay: Duration,
}

impl Default for CommitterOptions {
    fn default() -> Self {
        Self { lazy_delay: Duration::from_millis(5) }
    }
}

/// The sending side of the committer thread. The thread ends, with everything committed, when it is dropped.
pub struct Committer<K, V> {
    shared: Arc<Shared<K, V>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<K, V> {
    waiting: Mutex<Waiting<K, V>>,
    changed: Condvar,
}

struct Waiting<K, V> {
    groups: Vec<Group<K, V>>,
    urgent: Urgency,
    oldest_at: Option<Instant>,
    closed: Closed,
}

#[derive(PartialEq, Eq)]
enum Closed {
    No,
    Yes,
}

impl<K: Ord + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Committer<K, V> {
    /// Starts the thread. `on_durable` runs on it after each commit.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(
        store: MemoryStore<K, V>,
        options: CommitterOptions,
        on_durable: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let waiting =
            Waiting { groups: Vec::new(), urgent: Urgency::Lazy, oldest_at: None, closed: Closed::No };
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), changed: Condvar::new() });
        let thread = {
            let shared = Arc::clone(&shared);
            let run = move || shared.run(&store, &options, &on_durable);
            std::thread::Builder::new().name("committer".into()).spawn(|| abort_on_panic(run))?
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over the rows of a step. Never waits for the commit.
    ///
    /// # Panics
    /// When steps come out of order.
    pub fn append(&self, group: Group<K, V>, urgency: Urgency) {
        let mut waiting = self.shared.lock();
        let last = waiting.groups.last().map_or(0, |group| group.lsn);
        assert!(group.lsn > last, "step {} handed to the committer after step {last}", group.lsn);
        let first = waiting.groups.is_empty();
        if first {
            waiting.oldest_at = Some(Instant::now());
        }
        waiting.groups.push(group);
        let news = waiting.raise(urgency);
        drop(waiting);
        if first || news {
            self.shared.changed.notify_one();
        }
    }

    /// Somebody waits now for what was lazy.
    pub fn hurry(&self) {
        self.shared.hurry();
    }

    /// [`Committer::hurry`] for those who don't have the committer.
    pub fn hurrier(&self) -> impl Fn() + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.hurry()
    }

    /// Steps handed over and not yet committed.
    pub fn backlog(&self) -> usize {
        self.shared.lock().groups.len()
    }
}

impl<K, V> Drop for Committer<K, V> {
    fn drop(&mut self) {
        self.shared.lock().closed = Closed::Yes;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread aborts the process rather than panic, so there is no error to pass on.
            let _ = thread.join();
        }
    }
}

impl<K, V> Waiting<K, V> {
    /// Raises the urgency; true if that is news.
    fn raise(&mut self, urgency: Urgency) -> bool {
        let news = urgency == Urgency::Urgent && self.urgent == Urgency::Lazy && !self.groups.is_empty();
        if news {
            self.urgent = Urgency::Urgent;
        }
        news
    }
}

impl<K, V> Shared<K, V> {
    fn hurry(&self) {
        if self.lock().raise(Urgency::Urgent) {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord, V: Clone> Shared<K, V> {
    fn run(&self, store: &MemoryStore<K, V>, options: &CommitterOptions, on_durable: &dyn Fn(u64)) {
        while let Some(groups) = self.next_groups(options.lazy_delay) {
            let last = groups.last().map_or(0, |group| group.lsn);
            store.apply(groups.into_iter().flat_map(|group| group.changes));
            on_durable(last);
        }
    }

    /// Waits until a commit is due and takes everything that waits; `None` when closed and empty.
    fn next_groups(&self, lazy_delay: Duration) -> Option<Vec<Group<K, V>>> {
        let mut waiting = self.lock();
        loop {
            let due = waiting.oldest_at.map(|at| at + lazy_delay);
            let now = Instant::now();
            let closed = waiting.closed == Closed::Yes;
            match due {
                None if closed => return None,
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(due) if closed || waiting.urgent == Urgency::Urgent || due <= now => {
                    waiting.urgent = Urgency::Lazy;
                    waiting.oldest_at = None;
                    return Some(std::mem::take(&mut waiting.groups));
                }
                Some(due) => {
                    let wait = self.changed.wait_timeout(waiting, due - now);
                    waiting = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// Runs the committer; a panic in it ends the process, for nothing could be acknowledged any more.
fn abort_on_panic(run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        eprintln!("switchbox: the committer panicked (a bug): aborting, a restart recovers");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn started(lazy_delay: Duration) -> (Committer<u32, u32>, MemoryStore<u32, u32>, mpsc::Receiver<u64>) {
        let (sender, durable) = mpsc::channel();
        let store = MemoryStore::default();
        let send = move |lsn| sender.send(lsn).expect("the test still listens");
        let committer = Committer::start(store.clone(), CommitterOptions { lazy_delay }, send);
        (committer.expect("thread"), store, durable)
    }

    fn group(lsn: u64, key: u32, value: Option<u32>) -> Group<u32, u32> {
        Group { lsn, changes: vec![(key, value)] }
    }

    #[test]
    fn acknowledges_only_what_is_readable_and_in_order() {
        let (committer, store, durable) = started(Duration::from_secs(3600));
        committer.append(group(1, 7, Some(1)), Urgency::Lazy);
        committer.append(group(2, 8, Some(2)), Urgency::Lazy);
        assert!(durable.try_recv().is_err(), "lazy steps wait");
        committer.append(group(3, 7, None), Urgency::Urgent);
        let mut last = 0;
        while last < 3 {
            let lsn = durable.recv().expect("committed");
            assert!(lsn > last);
            last = lsn;
        }
        assert_eq!((store.read(&7), store.read(&8), store.len()), (None, Some(2), 1));
    }

    #[test]
    fn hurry_commits_what_was_lazy_and_drop_commits_the_rest() {
        let (committer, store, durable) = started(Duration::from_secs(3600));
        committer.append(group(5, 1, Some(1)), Urgency::Lazy);
        committer.hurry();
        assert_eq!(durable.recv(), Ok(5));
        committer.append(group(6, 2, Some(2)), Urgency::Lazy);
        drop(committer);
        assert_eq!((durable.recv(), store.values()), (Ok(6), vec![1, 2]));
    }

    #[test]
    fn a_lazy_step_is_committed_by_the_timer() {
        let (committer, _, durable) = started(Duration::from_millis(1));
        committer.append(group(1, 1, Some(1)), Urgency::Lazy);
        assert_eq!(durable.recv(), Ok(1));
        assert_eq!(committer.backlog(), 0);
    }
}
