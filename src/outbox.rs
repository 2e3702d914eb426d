//! Messages on their way out of the core: two queues each, *now* and *by LSN* (CORE section 2).
//!
//! What acknowledges something leaves only once the step that it rests on is durable; the rest leaves at once.
//! Nothing relies on the mutual order of the two. Pushing never waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::coordinator::effect::When;
use crate::ids::Lsn;
use crate::sync::lock;

/// One receiver's messages.
pub struct Outbox<M> {
    queues: Mutex<Queues<M>>,
}

struct Queues<M> {
    now: VecDeque<M>,
    by_lsn: VecDeque<(Lsn, M)>,
    receiver: Option<Waker>,
    /// Who is woken, and at which commit: asking again before would only make a longer list of it.
    waits_for: Option<(Lsn, Waker)>,
    state: State,
}

/// Whether a bounded outbox still takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its receiver doesn't keep up: it takes nothing more.
    Overflowed,
    /// Its receiver is gone.
    Closed,
}

impl<M> Outbox<M> {
    /// An empty outbox.
    pub fn new() -> Arc<Self> {
        let (now, by_lsn) = (VecDeque::new(), VecDeque::new());
        let queues = Queues { now, by_lsn, receiver: None, waits_for: None, state: State::Open };
        Arc::new(Self { queues: Mutex::new(queues) })
    }

    /// Adds a message; the receiver hears of it at [`Outbox::wake`].
    pub fn push(&self, message: M, when: When) {
        let mut queues = lock(&self.queues);
        match when {
            When::Now => queues.now.push_back(message),
            When::Durable(lsn) => queues.by_lsn.push_back((lsn, message)),
        }
    }

    /// Adds a message to an outbox of at most `max`. Gives it back if there is no room, after which there never is any,
    /// or the receiver is gone.
    pub fn offer(&self, message: M, when: When, max: usize) -> Result<(), M> {
        let mut queues = lock(&self.queues);
        if queues.state == State::Open && queues.now.len() + queues.by_lsn.len() >= max {
            queues.state = State::Overflowed;
        }
        if queues.state != State::Open {
            return Err(message);
        }
        match when {
            When::Now => queues.now.push_back(message),
            When::Durable(lsn) => queues.by_lsn.push_back((lsn, message)),
        }
        Ok(())
    }

    /// Adds a message before all others.
    pub fn push_first(&self, message: M) {
        lock(&self.queues).now.push_front(message);
    }

    /// Whether a message found no room.
    pub fn has_overflowed(&self) -> bool {
        lock(&self.queues).state == State::Overflowed
    }

    /// The receiver leaves: nothing more is taken. Gives what it didn't take.
    pub fn close(&self) -> Vec<M> {
        let mut queues = lock(&self.queues);
        queues.state = State::Closed;
        let by_lsn = std::mem::take(&mut queues.by_lsn).into_iter().map(|(_, message)| message);
        std::mem::take(&mut queues.now).into_iter().chain(by_lsn).collect()
    }

    /// Takes back the first message that `matches`, if the receiver hasn't taken it; otherwise adds `instead`.
    pub fn take_back(&self, matches: impl Fn(&M) -> bool, instead: M) -> Option<M> {
        let mut queues = lock(&self.queues);
        if let Some(index) = queues.now.iter().position(&matches) {
            return queues.now.remove(index);
        }
        if let Some(index) = queues.by_lsn.iter().position(|(_, message)| matches(message)) {
            return queues.by_lsn.remove(index).map(|(_, message)| message);
        }
        if queues.state != State::Closed {
            queues.now.push_back(instead);
        }
        None
    }

    /// Wakes the receiver if it waits.
    pub fn wake(&self) {
        let receiver = lock(&self.queues).receiver.take();
        if let Some(waker) = receiver {
            waker.wake();
        }
    }

    /// The next message that may leave.
    pub fn poll_next(&self, cx: &mut Context<'_>, commits: &Commits) -> Poll<M> {
        let mut queues = lock(&self.queues);
        if let Some(message) = queues.now.pop_front() {
            return Poll::Ready(message);
        }
        if queues.poll_front(cx, commits).is_ready()
            && let Some((_, message)) = queues.by_lsn.pop_front()
        {
            return Poll::Ready(message);
        }
        queues.receiver = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<M> Queues<M> {
    /// Ready once the first message that waits for its commit may leave.
    fn poll_front(&mut self, cx: &mut Context<'_>, commits: &Commits) -> Poll<()> {
        let Some((lsn, _)) = self.by_lsn.front() else { return Poll::Pending };
        let is_asked = |(asked, waker): &(Lsn, Waker)| asked == lsn && waker.will_wake(cx.waker());
        if self.waits_for.as_ref().is_some_and(is_asked) {
            return if commits.durable() >= *lsn { Poll::Ready(()) } else { Poll::Pending };
        }
        // Registers before it looks, so that a commit between the two isn't missed.
        let ready = commits.poll(cx, *lsn);
        if ready.is_pending() {
            self.waits_for = Some((*lsn, cx.waker().clone()));
        }
        ready
    }
}

/// How far the store is, and who waits for it to get further.
#[derive(Default)]
pub struct Commits {
    durable: AtomicU64,
    waiting: Mutex<BTreeMap<(u64, u64), Waker>>,
    registered: AtomicU64,
    /// Woken by the committer; walks the list on the io thread.
    releaser: Mutex<Option<Waker>>,
    /// Tells the committer that somebody waits for what was lazy.
    hurry: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Commits {
    /// The last durable step.
    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Called by the committer: everything up to `lsn` is durable and readable.
    pub fn advance(&self, lsn: u64) {
        self.durable.store(lsn, Ordering::Release);
        // One wake-up of the io thread, whoever many wait: waking a thread is what costs.
        let releaser = lock(&self.releaser).take();
        if let Some(waker) = releaser {
            waker.wake();
        }
    }

    /// Names what tells the committer that somebody waits; the first one counts.
    pub fn hurry_by(&self, hurry: impl Fn() + Send + Sync + 'static) {
        let _ = self.hurry.set(Box::new(hurry));
    }

    /// Ready once `lsn` is durable, which is made urgent: its step may have been lazy.
    pub fn poll_urgent(&self, cx: &Context<'_>, lsn: Lsn) -> Poll<()> {
        let ready = self.poll(cx, lsn);
        if let (Poll::Pending, Some(hurry)) = (ready, self.hurry.get()) {
            hurry();
        }
        ready
    }

    /// Ready once `lsn` is durable.
    pub fn poll(&self, cx: &Context<'_>, lsn: Lsn) -> Poll<()> {
        if self.durable() >= lsn {
            return Poll::Ready(());
        }
        let turn = self.registered.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert((lsn.0, turn), cx.waker().clone());
        if self.durable() >= lsn {
            lock(&self.waiting).remove(&(lsn.0, turn));
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// The task that wakes, in LSN order, whoever waited for what has become durable. Runs for ever.
    pub async fn release(&self) {
        std::future::poll_fn(|cx| {
            *lock(&self.releaser) = Some(cx.waker().clone());
            self.wake_durable();
            Poll::<()>::Pending
        })
        .await;
    }

    fn wake_durable(&self) {
        let mut waiting = lock(&self.waiting);
        let later = waiting.split_off(&(self.durable().0 + 1, 0));
        let due = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        due.into_values().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(outbox: &Outbox<u32>, commits: &Commits) -> Option<u32> {
        match outbox.poll_next(&mut Context::from_waker(Waker::noop()), commits) {
            Poll::Ready(message) => Some(message),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_acknowledges_waits_for_its_commit() {
        let (outbox, commits) = (Outbox::new(), Commits::default());
        outbox.push(1, When::Durable(Lsn(5)));
        outbox.push(2, When::Now);
        outbox.push(3, When::Durable(Lsn(6)));
        assert_eq!((poll(&outbox, &commits), poll(&outbox, &commits)), (Some(2), None));
        commits.advance(5);
        assert_eq!((poll(&outbox, &commits), poll(&outbox, &commits)), (Some(1), None));
        commits.advance(9);
        assert_eq!(poll(&outbox, &commits), Some(3));
    }

    #[test]
    fn who_asks_again_before_its_commit_is_on_the_list_once() {
        let (outbox, commits) = (Outbox::new(), Commits::default());
        outbox.push(1, When::Durable(Lsn(5)));
        assert_eq!((poll(&outbox, &commits), poll(&outbox, &commits)), (None, None));
        assert_eq!(lock(&commits.waiting).len(), 1);
        commits.advance(5);
        commits.wake_durable();
        assert_eq!(poll(&outbox, &commits), Some(1));
        outbox.push(2, When::Durable(Lsn(7)));
        assert_eq!(poll(&outbox, &commits), None);
        assert_eq!(lock(&commits.waiting).len(), 1, "the next one is asked for");
    }

    #[test]
    fn a_message_is_taken_back_only_while_it_is_here() {
        let (outbox, commits) = (Outbox::new(), Commits::default());
        outbox.push(1, When::Durable(Lsn(1)));
        assert_eq!(outbox.take_back(|m| *m == 1, 9), Some(1));
        assert_eq!(outbox.take_back(|m| *m == 1, 9), None);
        assert_eq!(poll(&outbox, &commits), Some(9));
    }
}
