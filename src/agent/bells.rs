//! Which attempts have something to send. A runtime that writes to an output rings its attempt's bell, from whatever
//! thread; the agent's task looks only at those that rang.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::ids::ReservationId;
use crate::sync::lock;

/// The bells of all attempts.
#[derive(Default)]
pub(super) struct Bells {
    rung: Mutex<Rung>,
}

#[derive(Default)]
struct Rung {
    /// In the order in which they rang; each attempt at most once.
    order: VecDeque<Arc<Bell>>,
    listener: Option<Waker>,
}

/// The bell of one attempt, as the waker that its output knows.
pub(super) struct Bell {
    reservation: ReservationId,
    bells: Arc<Bells>,
    is_rung: AtomicBool,
}

impl Bells {
    /// A bell for an attempt.
    pub(super) fn bell(self: &Arc<Self>, reservation: ReservationId) -> Arc<Bell> {
        Arc::new(Bell { reservation, bells: Arc::clone(self), is_rung: AtomicBool::new(false) })
    }

    /// An attempt whose bell rang since it was last named here. Look at its output after this: what comes later rings
    /// again.
    pub(super) fn next(&self) -> Option<ReservationId> {
        let bell = lock(&self.rung).order.pop_front()?;
        bell.is_rung.store(false, Ordering::Release);
        Some(bell.reservation)
    }

    /// Wakes `listener` at the next ring.
    pub(super) fn listen(&self, listener: &Waker) {
        let mut rung = lock(&self.rung);
        if rung.order.is_empty() {
            rung.listener = Some(listener.clone());
        } else {
            drop(rung);
            listener.wake_by_ref();
        }
    }

    /// Nobody is waiting for what rang so far.
    pub(super) fn silence(&self) {
        while self.next().is_some() {}
    }
}

impl Bell {
    /// Names the attempt once more.
    pub(super) fn ring(self: &Arc<Self>) {
        if self.is_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let listener = {
            let mut rung = lock(&self.bells.rung);
            rung.order.push_back(Arc::clone(self));
            rung.listener.take()
        };
        if let Some(waker) = listener {
            waker.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_once_until_it_was_heard() {
        let bells = Arc::new(Bells::default());
        let id = |counter| ReservationId { epoch: 1, counter };
        let (one, two) = (bells.bell(id(1)), bells.bell(id(2)));
        two.ring();
        Waker::from(Arc::clone(&one)).wake();
        one.ring();
        assert_eq!([bells.next(), bells.next(), bells.next()], [Some(id(2)), Some(id(1)), None]);
        one.ring();
        assert_eq!(bells.next(), Some(id(1)));
        two.ring();
        bells.silence();
        assert_eq!(bells.next(), None);
    }
}
