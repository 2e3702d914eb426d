//! What a phase did and found.

use std::fmt;
use std::time::{Duration, Instant};

use crate::client::Mix;

/// Violations that are shown of one trial.
const SHOWN_MAX: usize = 5;

/// One phase's outcome.
#[derive(Debug, Default)]
pub struct Report {
    /// The phase.
    pub phase: String,
    /// What was done, in numbers.
    pub done: Vec<(&'static str, u64)>,
    /// Acknowledgements that were checked.
    pub mix: Mix,
    /// What was found, each with what led to it.
    pub found: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Of a phase that begins now.
    pub fn begin(phase: &str) -> (Self, Instant) {
        (Self { phase: phase.to_owned(), ..Self::default() }, Instant::now())
    }

    /// Adds to a number.
    pub fn count(&mut self, what: &'static str, number: u64) {
        match self.done.iter_mut().find(|(known, _)| *known == what) {
            Some((_, so_far)) => *so_far += number,
            None => self.done.push((what, number)),
        }
    }

    /// A number.
    pub fn counted(&self, what: &str) -> u64 {
        self.done.iter().find(|(known, _)| *known == what).map_or(0, |(_, number)| *number)
    }

    /// Adds what was found in one trial, if anything was.
    pub fn find(&mut self, trial: &str, wrong: &[String]) {
        if wrong.is_empty() {
            return;
        }
        let more = wrong.len().saturating_sub(SHOWN_MAX);
        let mut text = format!("{trial}: {}", wrong[..wrong.len().min(SHOWN_MAX)].join("; "));
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        self.found.push(text);
    }

    /// Ends it.
    pub fn end(mut self, begun: Instant) -> Self {
        self.took = begun.elapsed();
        self
    }

    /// Takes in another report of the same phase.
    pub fn add(&mut self, other: Report) {
        other.done.into_iter().for_each(|(what, number)| self.count(what, number));
        self.mix = self.mix.plus(other.mix);
        self.found.extend(other.found);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}", self.phase)?;
        for (what, number) in &self.done {
            write!(f, " {number} {what},")?;
        }
        let Mix { accepted, answered, cancelled, deposited } = self.mix;
        if self.mix.total() > 0 {
            let all = self.mix.total();
            write!(
                f,
                " {all} acknowledgements ({accepted} 202s, {answered} results, {cancelled} cancels, {deposited} \
                 deposits),"
            )?;
        }
        write!(f, " {} violations, {:.1} s", self.found.len(), self.took.as_secs_f64())?;
        self.found.iter().take(10).try_for_each(|found| write!(f, "\n  FOUND {found}"))
    }
}
