//! Every timer of the core, driven by the tick. What fires: a queued job's TTL (it expires), the end of a
//! backoff (the job waits again), a reservation's current deadline (see `fleet::Deadline`).

use std::collections::BTreeSet;

use crate::ids::{JobId, ReservationId};
use crate::time::Time;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Ttl(JobId),
    Backoff(JobId),
    Reservation(ReservationId),
}

/// Timers in order of time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(Time, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Time, timer: Timer) {
        self.set.insert((at, timer));
    }

    pub(super) fn clear(&mut self, at: Time, timer: Timer) {
        self.set.remove(&(at, timer));
    }

    /// Takes the earliest timer that is due.
    pub(super) fn due(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = *self.set.first()?;
        if at > now {
            return None;
        }
        self.set.remove(&(at, timer));
        Some(timer)
    }

    pub(super) fn len(&self) -> u64 {
        self.set.len() as u64
    }

    pub(super) fn contains(&self, at: Time, timer: Timer) -> bool {
        self.set.contains(&(at, timer))
    }
}
