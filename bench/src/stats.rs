//! Percentiles and medians.

use std::time::Duration;

/// Times of one slice of load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) rate: f64,
}

impl Times {
    /// Of answers that came within `counted`, each after so many nanoseconds. Sorts them.
    pub(crate) fn of(nanos: &mut [u64], counted: Duration) -> Self {
        Self {
            rate: nanos.len() as f64 / counted.as_secs_f64(),
            p50_us: percentile(nanos, 0.50) as f64 / 1e3,
            p99_us: percentile(nanos, 0.99) as f64 / 1e3,
            p999_us: percentile(nanos, 0.999) as f64 / 1e3,
        }
    }
}

/// The value that a share of the values doesn't exceed. Sorts them. 0 if there are none.
pub(crate) fn percentile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle value, or the mean of the two in the middle. NaN if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// The median over rounds of each number.
pub(crate) fn median_times(rounds: &[Times]) -> Times {
    Times {
        p50_us: median(rounds.iter().map(|times| times.p50_us)),
        p99_us: median(rounds.iter().map(|times| times.p99_us)),
        p999_us: median(rounds.iter().map(|times| times.p999_us)),
        rate: median(rounds.iter().map(|times| times.rate)),
    }
}

/// The median over rounds of each ratio of two that were measured in the same round.
pub(crate) fn median_ratios(rounds: &[Times], floors: &[Times]) -> Times {
    let pairs = || rounds.iter().zip(floors);
    Times {
        p50_us: median(pairs().map(|(times, floor)| times.p50_us / floor.p50_us)),
        p99_us: median(pairs().map(|(times, floor)| times.p99_us / floor.p99_us)),
        p999_us: median(pairs().map(|(times, floor)| times.p999_us / floor.p999_us)),
        rate: median(pairs().map(|(times, floor)| times.rate / floor.rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!((percentile(&mut values, 0.5), percentile(&mut values, 0.99)), (50, 99));
        assert_eq!(percentile(&mut [7], 0.99), 7);
        assert_eq!(percentile(&mut [], 0.5), 0);
    }

    #[test]
    fn times_are_in_microseconds() {
        let mut nanos: Vec<u64> = (1..=10_000).rev().map(|us| us * 1_000).collect();
        let times = Times::of(&mut nanos, Duration::from_secs(2));
        assert_eq!((times.p50_us, times.p99_us, times.p999_us), (5_000.0, 9_900.0, 9_990.0));
        assert_eq!(times.rate, 5_000.0);
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
