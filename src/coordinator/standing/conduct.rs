//! What a node did wrong: the reliability score, the quality score, and the exclusions that follow from them.
//!
//! Against a node counts what SPEC section 5 lists (a bad signature; an unissued reservation of this boot epoch; a live
//! one of another key), and attempts that failed by its fault, timed out or were lost. Late, duplicate and unknown
//! messages, terminal errors, declines and cancels are no faults, and have no name here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::rules::{PenaltyRules, WHOLE};
use super::{EXCLUSIONS_KEPT_MAX, Order, Record, bounded};
use crate::time::{Span, Time};

/// The score is kept a thousand times finer than it shows, so that many small steps add up.
const FINE: u32 = 1_000;
/// Checks after which old ones count half: the share follows what the node does now.
const QUALITY_WINDOW_CHECKS: u32 = 256;

/// Something that counts against a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An attempt failed with an error of class node.
    AttemptFailed,
    /// A deadline passed: acceptance, first token, progress or result.
    TimedOut,
    /// It was lost while it ran a job.
    Died,
    /// A result broke its own structure, and was rejected.
    FailedCheck,
    /// A test job failed.
    FailedTest,
    /// A statement's signature isn't its key's.
    BadSignature,
    /// It named a live reservation that belongs to another key.
    ForeignReservation,
    /// It named a reservation of this boot epoch that was never issued.
    UnissuedReservation,
}

impl Fault {
    /// All.
    pub const ALL: [Fault; 8] = [
        Fault::AttemptFailed,
        Fault::TimedOut,
        Fault::Died,
        Fault::FailedCheck,
        Fault::FailedTest,
        Fault::BadSignature,
        Fault::ForeignReservation,
        Fault::UnissuedReservation,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::AttemptFailed => "an attempt failed by the node's fault",
            Fault::TimedOut => "an attempt passed its deadline",
            Fault::Died => "the node was lost while it ran a job",
            Fault::FailedCheck => "a result contradicted itself",
            Fault::FailedTest => "a test job failed",
            Fault::BadSignature => "a signature wasn't the key's",
            Fault::ForeignReservation => "it named another node's reservation",
            Fault::UnissuedReservation => "it named a reservation that was never issued",
        })
    }
}

/// What a fault led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is on record.
    Noted,
    /// The node gets no work until then, and after that a test job first.
    Excluded {
        /// The end of the cooldown.
        until: Time,
    },
}

/// A time without work, with its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// From when, and why, in a sentence that the node's owner reads.
    pub order: Order,
    /// The end of its cooldown.
    pub until: Time,
}

/// Reliability as it is kept. The score at a time is `1000 - ceil(missing(t) / 1000)`, where `missing` halves with
/// every half-life: with `q` whole half-lives `H` since `as_of` and a remainder `r`,
/// `missing(t) = (missing >> q) * (2H - r) / 2H`: exact at whole half-lives, a straight line between them, never rising.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conduct {
    /// What was missing from the whole score at `as_of`, in millionths of it.
    pub missing: u32,
    /// When the last fault was counted in.
    pub as_of: Time,
    /// Faults since the last settled job, passed test job or exclusion.
    pub faults_in_a_row: u32,
    /// Every fault that there was, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Jobs that it settled.
    pub settled_jobs: u64,
    /// Earlier exclusions that lengthen the next cooldown.
    pub cooldowns_counted: u32,
    /// When it last was let in again.
    pub reinstated_at: Option<Time>,
}

impl Conduct {
    fn missing_at(&self, now: Time, half_life: Span) -> u32 {
        let (elapsed, half_life) = (now.since(self.as_of).0, half_life.0.max(1));
        let halved =
            self.missing.checked_shr(u32::try_from(elapsed / half_life).unwrap_or(u32::MAX)).unwrap_or(0);
        let (twice, rest) = (u128::from(half_life) * 2, u128::from(elapsed % half_life));
        u32::try_from((u128::from(halved) * (twice - rest)).div_ceil(twice)).expect("no more than it was")
    }

    /// The reliability score, in per mille.
    pub fn score(&self, now: Time, rules: &PenaltyRules) -> u32 {
        WHOLE - self.missing_at(now, rules.half_life).div_ceil(FINE)
    }

    fn count_in(&mut self, fault: Fault, now: Time, rules: &PenaltyRules) {
        let more = rules.weights.of(fault).saturating_mul(FINE);
        self.missing = self.missing_at(now, rules.half_life).saturating_add(more).min(WHOLE * FINE);
        self.as_of = self.as_of.max(now);
        self.faults_in_a_row = self.faults_in_a_row.saturating_add(1);
        let count = self.faults.entry(fault).or_default();
        *count = count.saturating_add(1);
    }

    /// The repair shrinks with time like what it repairs: taking it off the amount as it stood at `as_of` needs no
    /// rounding at every settled job.
    fn repair(&mut self, rules: &PenaltyRules) {
        self.missing = self.missing.saturating_sub(rules.success_repair.saturating_mul(FINE));
        self.faults_in_a_row = 0;
        self.settled_jobs = self.settled_jobs.saturating_add(1);
    }

    /// Starts again halfway between a clean score and exclusion, unless it already stands better.
    fn start_again(&mut self, now: Time, rules: &PenaltyRules) {
        let halfway = WHOLE.saturating_sub(rules.exclude_below) * FINE / 2;
        self.missing = self.missing_at(now, rules.half_life).min(halfway);
        self.as_of = self.as_of.max(now);
        self.faults_in_a_row = 0;
        self.reinstated_at = Some(now);
    }
}

/// What blind and validation jobs showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quality {
    /// Checks that the score stands on.
    pub checks: u32,
    /// Those of them that passed.
    pub passed: u32,
    /// All checks that there were.
    pub checks_ever: u64,
    /// Those of them that failed.
    pub failed_ever: u64,
    /// Answers that were proven wrong since it was last let in.
    pub lies: u32,
}

/// How a blind or validation job came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// As it should.
    Passed,
    /// Not so, which may be chance.
    Failed,
    /// The answer was proven to be wrong.
    Lied,
}

impl Quality {
    /// The share of passed checks, in per mille; whole while there was none.
    pub fn score(&self) -> u32 {
        (u64::from(self.passed) * u64::from(WHOLE))
            .checked_div(u64::from(self.checks))
            .map_or(WHOLE, |s| s as u32)
    }

    fn count_in(&mut self, check: Check) {
        if self.checks >= QUALITY_WINDOW_CHECKS {
            // Failures are rounded down, so that ageing alone never lowers the score.
            let failed = (self.checks - self.passed) / 2;
            self.checks /= 2;
            self.passed = self.checks - failed;
        }
        let (passed, failed) = if check == Check::Passed { (1, 0) } else { (0, 1) };
        self.checks += 1;
        self.passed += passed;
        self.checks_ever = self.checks_ever.saturating_add(1);
        self.failed_ever = self.failed_ever.saturating_add(failed);
        if check == Check::Lied {
            self.lies = self.lies.saturating_add(1);
        }
    }

    fn start_again(&mut self) {
        (self.checks, self.passed, self.lies) = (0, 0, 0);
    }
}

impl Record {
    /// The reliability score, in per mille.
    pub fn reliability(&self, now: Time, rules: &PenaltyRules) -> u32 {
        self.row.conduct.score(now, rules)
    }

    /// Counts a fault. One during a cooldown is noted but doesn't lengthen it: work that was running when the
    /// exclusion began is often lost for the same cause.
    pub fn fault(&mut self, fault: Fault, now: Time, rules: &PenaltyRules) -> Verdict {
        self.row.conduct.count_in(fault, now, rules);
        if self.cools_down(now) {
            return Verdict::Noted;
        }
        let score = self.reliability(now, rules);
        let in_a_row = self.row.conduct.faults_in_a_row;
        if in_a_row >= rules.failures_in_a_row_max.max(1) {
            self.exclude(&format!("{in_a_row} faults in a row; the last: {fault}"), now, rules)
        } else if score < rules.exclude_below {
            let least = rules.exclude_below;
            self.exclude(
                &format!("reliability fell to {score} of 1000 (least: {least}); the last: {fault}"),
                now,
                rules,
            )
        } else {
            Verdict::Noted
        }
    }

    /// Counts a job that the node brought to its end.
    pub fn on_settled(&mut self, rules: &PenaltyRules) {
        self.row.conduct.repair(rules);
    }

    /// Counts a blind or validation job's outcome.
    pub fn on_check(&mut self, check: Check, now: Time, rules: &PenaltyRules) -> Verdict {
        self.row.quality.count_in(check);
        let Quality { checks, passed, lies, .. } = self.row.quality;
        if self.cools_down(now) {
            return Verdict::Noted;
        }
        if lies >= rules.lies_max.max(1) {
            return self.exclude(&format!("{lies} of its answers were proven wrong"), now, rules);
        }
        if checks < rules.quality_checks_min || self.row.quality.score() >= rules.quality_min {
            return Verdict::Noted;
        }
        let failed = checks - passed;
        self.exclude(&format!("{failed} of its last {checks} quality checks failed"), now, rules)
    }

    /// The operator lets it in again at once and with a clean score: what it had proven counts again, and what failed its
    /// test may be tried now. How often it was excluded stays on record, and in the next cooldown.
    pub fn reinstate(&mut self, now: Time) {
        self.row.conduct.missing = 0;
        self.row.conduct.faults_in_a_row = 0;
        self.row.conduct.reinstated_at = Some(now);
        self.forget_failed_trials();
        self.end_exclusion(now);
    }

    /// A passed test job after the cooldown.
    pub(super) fn let_in(&mut self, now: Time, rules: &PenaltyRules) {
        self.row.conduct.start_again(now, rules);
        self.end_exclusion(now);
    }

    pub(super) fn cools_down(&self, now: Time) -> bool {
        self.row.exclusion.as_ref().is_some_and(|e| now < e.until)
    }

    pub(super) fn exclude(&mut self, cause: &str, now: Time, rules: &PenaltyRules) -> Verdict {
        let conduct = &mut self.row.conduct;
        let good_since = conduct.reinstated_at.filter(|_| self.row.exclusion.is_none());
        if good_since.is_some_and(|since| now.since(since) >= rules.forgive_after) {
            conduct.cooldowns_counted = 0;
        }
        let until = now + rules.cooldown_after(conduct.cooldowns_counted);
        conduct.cooldowns_counted = conduct.cooldowns_counted.saturating_add(1);
        conduct.faults_in_a_row = 0;
        let order = Order { since: now, cause: bounded(cause) };
        if let Some(earlier) = self.row.exclusion.replace(Exclusion { order, until }) {
            self.keep(earlier);
        }
        Verdict::Excluded { until }
    }

    fn end_exclusion(&mut self, now: Time) {
        self.row.quality.start_again();
        if let Some(mut ended) = self.row.exclusion.take() {
            ended.until = ended.until.min(now);
            self.keep(ended);
        }
    }

    fn keep(&mut self, ended: Exclusion) {
        self.row.exclusions.push_back(ended);
        while self.row.exclusions.len() > EXCLUSIONS_KEPT_MAX {
            self.row.exclusions.pop_front();
        }
    }

    /// Why it is excluded, if it is or its test job is still due.
    pub fn cause(&self) -> Option<&Arc<str>> {
        self.row.exclusion.as_ref().map(|e| &e.order.cause)
    }
}
