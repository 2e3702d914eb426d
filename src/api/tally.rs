//! What the edges refused and answered: a counter for each bound, so that the operator sees it bite.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// Counters of the inference listener.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections that were refused, for their address had its share.
    pub(super) connections_refused: Counter,
    /// Requests whose head hyper didn't take: malformed, or too large.
    pub(super) heads_refused: Counter,
    /// Connections that didn't come to TLS where it is spoken.
    pub(super) tls_refused: Counter,
    /// Requests without a valid key.
    pub(super) keys_refused: Counter,
    /// Requests that came from a host or an origin which isn't let in.
    pub(super) origins_refused: Counter,
    /// Bodies that were too large, too slow, or one too many.
    pub(super) bodies_refused: Counter,
    /// Answers by the first digit of their status.
    answers: [Counter; CLASSES.len()],
}

const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Tally {
    /// Counts an answer.
    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).checked_sub(2);
        if let Some(counter) = class.and_then(|class| self.answers.get(class)) {
            counter.add();
        }
    }

    /// Answers by class.
    pub(super) fn answers(&self) -> [(&'static str, u64); CLASSES.len()] {
        std::array::from_fn(|class| (CLASSES[class], self.answers[class].count()))
    }
}

/// Something that only goes up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Once more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let tally = Tally::default();
        for status in [100, 200, 204, 404, 503, 599, 999] {
            tally.answered(StatusCode::from_u16(status).expect("a status"));
        }
        assert_eq!(tally.answers(), [("2xx", 2), ("3xx", 0), ("4xx", 1), ("5xx", 2)]);
    }
}
