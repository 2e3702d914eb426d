//! When to dial again: sooner at first, later and later, never at the same moment as everybody else.

use std::time::Duration;

use crate::wire::Advice;

/// The first wait, and the longest.
const SHORT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The same where something has to change first.
const LONG: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// A connection that worked for so long makes up for what went wrong before.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// The waits of one agent.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait, `chance` of 0 to `u64::MAX` being what is random in it; none if it would be of no use. Called
    /// once for each connection that ended.
    pub(super) fn wait(&mut self, advice: Advice, chance: u64) -> Option<Duration> {
        let (first, longest) = match advice {
            Advice::Retry => SHORT,
            Advice::RetryLater => LONG,
            Advice::GiveUp => return None,
        };
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.failures)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // Up to half of it off; but never sooner than in a minute where that was asked for.
        let millis = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
        let off = (u128::from(millis / 2) * u128::from(chance) / u128::from(u64::MAX)) as u64;
        let wait = Duration::from_millis(millis - off);
        Some(if advice == Advice::RetryLater { wait.max(first) } else { wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_with_up_to_half_off() {
        let mut backoff = Backoff::default();
        let mut waits = |advice, chance, count: usize| -> Vec<u64> {
            (0..count).map(|_| backoff.wait(advice, chance).expect("a wait").as_secs()).collect()
        };
        assert_eq!(waits(Advice::Retry, 0, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(Advice::Retry, u64::MAX, 1), [30]);
        backoff.reset();
        assert_eq!(backoff.wait(Advice::Retry, u64::MAX), Some(Duration::from_millis(500)));
        backoff.reset();
        assert_eq!(backoff.wait(Advice::RetryLater, u64::MAX), Some(Duration::from_secs(60)));
        assert_eq!(backoff.wait(Advice::RetryLater, 0), Some(Duration::from_secs(120)));
        assert_eq!(backoff.wait(Advice::GiveUp, 0), None);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.wait(Advice::Retry, 0), Some(Duration::from_secs(60)));
    }
}
