//! The box's own time: wall clock at the start, then monotonic. The only place that reads a clock for the core.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Time;

/// A clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started_at: Time,
    started: Instant,
}

impl Clock {
    /// A clock that starts at the wall clock's time.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_at = Time(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX));
        Self { started_at, started: Instant::now() }
    }

    /// As [`Clock::start`], but not before `floor`: what was written before isn't later than now.
    pub fn start_at_least(floor: Time) -> Self {
        let clock = Self::start();
        Self { started_at: clock.started_at.max(floor), ..clock }
    }

    /// Now.
    pub fn now(&self) -> Time {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Time(self.started_at.0.saturating_add(micros))
    }

    /// When the clock was started.
    pub fn started_at(&self) -> Time {
        self.started_at
    }
}
