//! What is said of many times: the middle, the mean, and the far end.

use std::time::{Duration, Instant};

/// Times of one kind of step, in nanoseconds.
#[derive(Debug, Default, Clone)]
pub struct Times(Vec<u64>);

impl Times {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        self.0.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Keeps the shorter of each two, of two runs that did the same in the same order.
    pub fn keep_shorter(&mut self, again: &Times) {
        assert_eq!(self.0.len(), again.0.len(), "the same world makes the same turns");
        self.0.iter_mut().zip(&again.0).for_each(|(mine, other)| *mine = (*mine).min(*other));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that a share of them doesn't exceed, in nanoseconds; 0 if there are none.
    pub fn percentile(&mut self, share: f64) -> u64 {
        self.0.sort_unstable();
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The middle one, in nanoseconds.
    pub fn median(&mut self) -> u64 {
        self.percentile(0.5)
    }

    /// The mean of those up to the 99.9th percentile, in nanoseconds: what lies beyond is mostly the machine's.
    pub fn mean(&mut self) -> u64 {
        let end = self.percentile(0.999);
        let (sum, count) = self
            .0
            .iter()
            .filter(|took| **took <= end)
            .fold((0_u64, 0_u64), |(sum, count), took| (sum + took, count + 1));
        sum.checked_div(count).unwrap_or(0)
    }

    /// The longest, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

/// What one look at the clock adds to a time that is taken with it.
pub fn clock_cost() -> u64 {
    let mut times = Times::default();
    for _ in 0..10_000 {
        let start = Instant::now();
        times.add(start.elapsed());
    }
    times.median()
}

/// The machine's own hiccups: gaps between looks at the clock that nothing else is done between, for that long.
pub fn hiccups(length: Duration) -> Times {
    let mut times = Times::default();
    let (start, mut before) = (Instant::now(), Instant::now());
    while before - start < length {
        let now = Instant::now();
        times.add(now - before);
        before = now;
    }
    times
}

/// Bytes of memory that this process has now.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4_096
}

/// Processor time that this thread has had: what other processes take is no part of it.
pub fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
