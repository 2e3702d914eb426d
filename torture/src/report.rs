//! What a phase did and found. What it finds is shown at once, and how far it is every now and then: a run that is cut
//! short still says something.

use std::fmt;
use std::time::{Duration, Instant};

use crate::client::Mix;
use crate::finding::{End, Finding, Kind};

/// Findings that are shown of one trial.
const SHOWN_MAX: usize = 5;
/// Between two lines that say how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Who hears of findings as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Voice {
    /// Nobody: they are expected, or somebody else tells.
    #[default]
    Quiet,
    /// Whoever watches.
    Loud,
}

/// What was found in one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What led to it.
    pub trial: String,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// One phase's outcome.
#[derive(Debug, Default)]
pub struct Report {
    /// The phase.
    pub phase: String,
    /// What was done, in numbers.
    pub done: Vec<(&'static str, u64)>,
    /// Acknowledgements that were checked.
    pub mix: Mix,
    /// What was found.
    pub found: Vec<Found>,
    /// How long it took.
    pub took: Duration,
    voice: Voice,
    told: Option<Instant>,
}

impl Report {
    /// Of a phase that begins now.
    pub fn begin(phase: &str, voice: Voice) -> (Self, Instant) {
        let now = Instant::now();
        (Self { phase: phase.to_owned(), voice, told: Some(now), ..Self::default() }, now)
    }

    /// Adds to a number.
    pub fn count(&mut self, what: &'static str, number: u64) {
        match self.done.iter_mut().find(|(known, _)| *known == what) {
            Some((_, so_far)) => *so_far += number,
            None => self.done.push((what, number)),
        }
        if self.voice == Voice::Loud && self.told.is_some_and(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            println!("  so far: {self}");
        }
    }

    /// A number.
    pub fn counted(&self, what: &str) -> u64 {
        self.done.iter().find(|(known, _)| *known == what).map_or(0, |(_, number)| *number)
    }

    /// Adds what was found in one trial, if anything was.
    pub fn find(&mut self, trial: &str, findings: &[Finding]) {
        if findings.is_empty() {
            return;
        }
        let found = Found { trial: trial.to_owned(), findings: findings.to_vec() };
        if self.voice == Voice::Loud {
            println!("  FOUND by {}: {found}", self.phase);
        }
        self.found.push(found);
    }

    /// Trials in which the product did wrong.
    pub fn violations(&self) -> usize {
        self.found.iter().filter(|found| found.findings.iter().any(|one| one.kind != Kind::Rig)).count()
    }

    /// Trials that the rig couldn't do as it should.
    pub fn problems(&self) -> usize {
        self.found.len() - self.violations()
    }

    /// The first finding that a control is looked for by.
    pub fn met(&self, end: End) -> Option<&Finding> {
        let mut all = self.found.iter().flat_map(|found| found.findings.iter().map(|f| (&found.trial, f)));
        all.find(|(trial, finding)| end.is_met_by(trial, finding)).map(|(_, finding)| finding)
    }

    /// Ends it.
    pub fn end(mut self, begun: Instant) -> Self {
        self.took = begun.elapsed();
        self.told = None;
        self
    }

    /// Takes in another report of the same phase.
    pub fn add(&mut self, other: Report) {
        other.done.into_iter().for_each(|(what, number)| self.count(what, number));
        self.mix = self.mix.plus(other.mix);
        other.found.into_iter().for_each(|Found { trial, findings }| self.find(&trial, &findings));
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.findings.iter().take(SHOWN_MAX).map(Finding::to_string).collect();
        write!(f, "{}: {}", self.trial, shown.join("; "))?;
        match self.findings.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
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
        write!(f, " {} violations", self.violations())?;
        if self.problems() > 0 {
            write!(f, ", {} problems of the rig", self.problems())?;
        }
        if self.told.is_some() {
            return Ok(());
        }
        write!(f, ", {:.1} s", self.took.as_secs_f64())?;
        self.found.iter().take(10).try_for_each(|found| write!(f, "\n  FOUND {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Sought;

    #[test]
    fn what_is_wrong_with_the_rig_is_no_violation_and_finds_no_control() {
        let (mut report, begun) = Report::begin("cuts", Voice::Quiet);
        report.find("a", &[Kind::Rig.says("the disk is full of job 1")]);
        report.find("b", &[]);
        report.find("c", &[Kind::Wrong.says("job 2 is odd"), Kind::Lost.says("job 3 is lost")]);
        assert_eq!((report.violations(), report.problems()), (1, 1));
        let met = |kinds, trial, words| {
            let end = End::Found(Sought { kinds, trial, words });
            report.met(end).map(|finding| finding.text.as_str())
        };
        assert_eq!(met(&[Kind::Lost], "c", "job"), Some("job 3 is lost"));
        assert_eq!(met(&[Kind::Unopened], "c", "job"), None, "another kind isn't what the bug does");
        assert_eq!(met(&[Kind::Lost], "c", "deposit"), None, "nor are other words");
        assert_eq!(met(&[Kind::Lost], "a", "job"), None, "nor is another trial where it shows");
        assert_eq!(met(&[Kind::Lost], "", "deposit|job"), Some("job 3 is lost"));
        assert!(report.end(begun).to_string().contains("1 violations, 1 problems of the rig"));
    }
}
