//! Group commit: one thread that commits the rows of many steps at once, then says up to which LSN.
//!
//! The rule that everything rests on: `on_durable(lsn)` is called only after every row of every step up to
//! `lsn` is kept and readable, and with ever larger numbers. Never drops a step, never reorders two. With a
//! [`Store`] *kept* means written and `fdatasync`ed; rows become bytes on this thread, by the caller's [`Codec`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::journal::rows::Rows;
use crate::journal::writer::Steps;
use crate::memory::MemoryStore;
use crate::mutant::{self, Mutant};
use crate::store::Store;

/// A key with its new value; `None` deletes it.
pub type Change<K, V> = (K, Option<V>);

/// The rows of one step.
pub struct Group<K, V> {
    /// The step's number; each appended group has a larger one.
    pub lsn: u64,
    /// When the step was taken, by the caller's clock, in the caller's unit. The largest one that is durable comes back
    /// at the next start ([`crate::Opened::at`]).
    pub at: u64,
    /// Its changes, in order.
    pub changes: Vec<Change<K, V>>,
}

/// Turns a caller's rows into bytes.
pub trait Codec<K, V>: Send + Sync + 'static {
    /// Puts the change's rows, in any number. Called on the committer's thread, in order.
    fn encode(&self, change: &Change<K, V>, rows: &mut Rows);

    /// About how many bytes the change will take. Called by whoever appends, so it must be cheap.
    fn bytes(&self, change: &Change<K, V>) -> usize;
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
    weigh: Box<Weigh<K, V>>,
    thread: Option<JoinHandle<()>>,
}

type Weigh<K, V> = dyn Fn(&Group<K, V>) -> usize + Send + Sync;

struct Shared<K, V> {
    waiting: Mutex<Waiting<K, V>>,
    changed: Condvar,
}

struct Waiting<K, V> {
    groups: VecDeque<Weighed<K, V>>,
    last: u64,
    bytes: usize,
    urgent: Urgency,
    oldest_at: Option<Instant>,
    closed: Closed,
    thread: Resting,
}

/// What the thread does while nothing waits.
#[derive(PartialEq, Eq)]
enum Resting {
    /// It looks by itself, within the lazy delay: telling it of a lazy step would only take time.
    Lightly,
    /// It is to be told.
    Deeply,
}

/// How often in a row the thread looks by itself and finds nothing before it wants to be told.
const LOOKS_MAX: u32 = 20;

struct Weighed<K, V> {
    group: Group<K, V>,
    bytes: usize,
}

/// How much of what waits goes into one commit. The first step always does.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    bytes: usize,
    steps: usize,
}

#[derive(PartialEq, Eq)]
enum Closed {
    No,
    Yes,
}

impl<K: Ord + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Committer<K, V> {
    /// Starts the thread on a store in memory. `on_durable` runs on it after each commit.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(
        store: MemoryStore<K, V>,
        options: CommitterOptions,
        on_durable: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let bounds = Bounds { bytes: usize::MAX, steps: usize::MAX };
        let commit = move |groups: Vec<Group<K, V>>| {
            store.apply(groups.into_iter().flat_map(|group| group.changes));
        };
        Self::spawn(options, (bounds, |_| 0), Work { commit, when_idle: || false }, on_durable)
    }
}

impl<K: Send + 'static, V: Send + 'static> Committer<K, V> {
    /// Starts the thread on a durable store. `on_durable` runs on it after each `fdatasync`, when the rows can be
    /// read. Steps go on behind [`crate::Opened::lsn`]. An error of the disk ends the process.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start_durable(
        store: Store,
        codec: impl Codec<K, V>,
        options: CommitterOptions,
        on_durable: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let journal = &store.shared.options.journal;
        let last = store.durable_lsn();
        // What a change takes is an estimate, so a group of small steps stays well within a segment.
        let bytes = journal.group_bytes.min(journal.group_bytes_max() / 4);
        let bounds = Bounds { bytes, steps: journal.group_steps };
        let codec = Arc::new(codec);
        let weigh = {
            let codec = Arc::clone(&codec);
            move |group: &Group<K, V>| group.changes.iter().map(|change| codec.bytes(change)).sum()
        };
        let rows = store.clone();
        let mut memory = Vec::new();
        let commit = move |groups: Vec<Group<K, V>>| {
            memory = commit_to(&store, &*codec, &groups, std::mem::take(&mut memory));
        };
        let when_idle = move || rows.shared.rows.sort_one_in();
        let committer = Self::spawn(options, (bounds, weigh), Work { commit, when_idle }, on_durable)?;
        committer.shared.lock().last = last;
        Ok(committer)
    }

    fn spawn(
        options: CommitterOptions,
        (bounds, weigh): (Bounds, impl Fn(&Group<K, V>) -> usize + Send + Sync + 'static),
        mut work: Work<impl FnMut(Vec<Group<K, V>>) + Send + 'static, impl Fn() -> bool + Send + 'static>,
        on_durable: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let waiting = Waiting {
            groups: VecDeque::new(),
            last: 0,
            bytes: 0,
            urgent: Urgency::Lazy,
            oldest_at: None,
            closed: Closed::No,
            thread: Resting::Lightly,
        };
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), changed: Condvar::new() });
        let thread = {
            let shared = Arc::clone(&shared);
            let run = move || shared.run(&options, bounds, &mut work, &on_durable);
            std::thread::Builder::new().name("committer".into()).spawn(|| abort_on_panic(run))?
        };
        Ok(Self { shared, weigh: Box::new(weigh), thread: Some(thread) })
    }

    /// Hands over the rows of a step. Never waits for the commit.
    ///
    /// # Panics
    /// When steps come out of order.
    pub fn append(&self, group: Group<K, V>, urgency: Urgency) {
        let bytes = (self.weigh)(&group);
        let mut waiting = self.shared.lock();
        let last = waiting.last;
        assert!(group.lsn > last, "step {} handed to the committer after step {last}", group.lsn);
        let first = waiting.groups.is_empty();
        if first {
            waiting.oldest_at = Some(Instant::now());
        }
        waiting.last = group.lsn;
        waiting.bytes += bytes;
        waiting.groups.push_back(Weighed { group, bytes });
        let news = waiting.raise(urgency);
        let is_deep = first && waiting.thread == Resting::Deeply;
        drop(waiting);
        if is_deep || news {
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

    /// Steps handed over and not yet being committed.
    pub fn backlog(&self) -> usize {
        self.shared.lock().groups.len()
    }

    /// About how many bytes those steps will take; 0 on a store in memory.
    pub fn backlog_bytes(&self) -> usize {
        self.shared.lock().bytes
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

    /// Takes what goes into one commit; what is left over is due at once.
    fn take(&mut self, bounds: Bounds) -> Vec<Group<K, V>> {
        let (mut bytes, mut taken) = (0, Vec::new());
        while let Some(next) = self.groups.front() {
            bytes += next.bytes;
            if !taken.is_empty() && (bytes > bounds.bytes || taken.len() >= bounds.steps) {
                break;
            }
            self.bytes -= next.bytes;
            taken.extend(self.groups.pop_front().map(|weighed| weighed.group));
        }
        if self.groups.is_empty() {
            self.urgent = Urgency::Lazy;
            self.oldest_at = None;
        } else {
            self.urgent = Urgency::Urgent;
        }
        taken
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

    fn run(
        &self,
        options: &CommitterOptions,
        bounds: Bounds,
        work: &mut Work<impl FnMut(Vec<Group<K, V>>), impl Fn() -> bool>,
        on_durable: &dyn Fn(u64),
    ) {
        while let Some(groups) = self.next_groups(options.lazy_delay, bounds) {
            let last = groups.last().map_or(0, |group| group.lsn);
            if mutant::planted(Mutant::AcknowledgeBeforeCommit) {
                on_durable(last);
                // As long as a sync takes: the other order would hardly ever show.
                std::thread::sleep(Duration::from_millis(1));
            }
            (work.commit)(groups);
            on_durable(last);
            while self.lock().groups.is_empty() && (work.when_idle)() {}
        }
    }

    /// Waits until a commit is due and takes what goes into it; `None` when closed and empty.
    fn next_groups(&self, lazy_delay: Duration, bounds: Bounds) -> Option<Vec<Group<K, V>>> {
        let mut waiting = self.lock();
        let mut looks = 0;
        loop {
            let due = waiting.oldest_at.map(|at| at + lazy_delay);
            let now = Instant::now();
            let closed = waiting.closed == Closed::Yes;
            match due {
                None if closed => return None,
                None if looks < LOOKS_MAX => {
                    looks += 1;
                    let wait = self.changed.wait_timeout(waiting, lazy_delay);
                    waiting = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    waiting.thread = Resting::Deeply;
                    waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    waiting.thread = Resting::Lightly;
                }
                Some(due) if closed || waiting.urgent == Urgency::Urgent || due <= now => {
                    return Some(waiting.take(bounds));
                }
                Some(due) => {
                    let wait = self.changed.wait_timeout(waiting, due - now);
                    waiting = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// What the thread does besides waiting and telling.
struct Work<C, I> {
    /// Makes steps durable and readable.
    commit: C,
    /// Does a little of what can wait; says whether more is left.
    when_idle: I,
}

/// Memory for a frame that is kept: that of one huge step isn't worth it.
const FRAME_BYTES_KEPT: usize = 8 << 20;

/// Commits steps. Takes and gives memory for a frame.
fn commit_to<K, V>(
    store: &Store,
    codec: &impl Codec<K, V>,
    groups: &[Group<K, V>],
    memory: Vec<u8>,
) -> Vec<u8> {
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return memory };
    let at = groups.iter().map(|group| group.at).max().unwrap_or(0);
    let steps = Steps { first_lsn: first.lsn, last_lsn: last.lsn, count: groups.len() as u32, at };
    let mut rows = Rows::in_memory_of(memory);
    for change in groups.iter().flat_map(|group| &group.changes) {
        codec.encode(change, &mut rows);
    }
    let mut memory = store.shared.commit(Some(steps), rows);
    memory.shrink_to(FRAME_BYTES_KEPT);
    memory
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
        Group { lsn, at: 0, changes: vec![(key, value)] }
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

    #[test]
    fn a_thread_that_rests_deeply_is_told_of_a_lazy_step() {
        let (committer, _, durable) = started(Duration::from_millis(1));
        for lsn in 1..=3 {
            while committer.shared.lock().thread == Resting::Lightly {
                std::thread::sleep(Duration::from_millis(1));
            }
            committer.append(group(lsn, 1, Some(1)), Urgency::Lazy);
            assert_eq!(durable.recv(), Ok(lsn));
        }
    }
}
