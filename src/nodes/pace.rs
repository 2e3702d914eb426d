//! How many messages a peer may send that are about nothing: a bucket that fills at a steady rate.

use std::time::Instant;

use crate::wire::STRAY_MESSAGES_PER_SECOND_MAX;

/// Seconds' worth of messages that may come at once.
const BURST_S: u32 = 5;

/// What one connection may still send.
pub(super) struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    const FULL: f64 = (BURST_S * STRAY_MESSAGES_PER_SECOND_MAX) as f64;

    /// One that has sent nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: Self::FULL, at: now }
    }

    /// Takes one message; whether it was allowed.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + since * f64::from(STRAY_MESSAGES_PER_SECOND_MAX)).min(Self::FULL);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_a_flood_is_not() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        assert_eq!((0..2_000).filter(|_| pace.take(begun)).count(), 1_000);
        let later = begun + Duration::from_millis(100);
        assert_eq!((0..100).filter(|_| pace.take(later)).count(), 20);
        let mut steady = Pace::new(begun);
        assert!((0..10_000).all(|at| steady.take(begun + Duration::from_millis(5 * at))));
    }
}
