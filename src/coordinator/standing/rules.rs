//! How hard misconduct is punished. Values only; what they do is `conduct.rs`'s.

use super::conduct::Fault;
use crate::time::Span;

/// The whole of a score, in per mille.
pub(super) const WHOLE: u32 = 1_000;

/// How much each fault takes from the reliability score, in per mille of the whole score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// [`Fault::AttemptFailed`]
    pub attempt_failed: u32,
    /// [`Fault::TimedOut`]
    pub timed_out: u32,
    /// [`Fault::Died`]
    pub died: u32,
    /// [`Fault::FailedCheck`]
    pub failed_check: u32,
    /// [`Fault::FailedTest`]
    pub failed_test: u32,
    /// [`Fault::BadSignature`], [`Fault::ForeignReservation`] and [`Fault::UnissuedReservation`]: never an accident.
    pub forged: u32,
}

impl Weights {
    /// What one fault takes.
    pub fn of(&self, fault: Fault) -> u32 {
        match fault {
            Fault::AttemptFailed => self.attempt_failed,
            Fault::TimedOut => self.timed_out,
            Fault::Died => self.died,
            Fault::FailedCheck => self.failed_check,
            Fault::FailedTest => self.failed_test,
            Fault::BadSignature | Fault::ForeignReservation | Fault::UnissuedReservation => self.forged,
        }
    }
}

/// When a node is excluded, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PenaltyRules {
    /// What each fault takes.
    pub weights: Weights,
    /// What each settled job gives back, in per mille of the whole score.
    pub success_repair: u32,
    /// Time in which what is missing from the score halves by itself.
    pub half_life: Span,
    /// A score below this, in per mille, excludes at the next fault.
    pub exclude_below: u32,
    /// So many faults in a row exclude.
    pub failures_in_a_row_max: u32,
    /// The first cooldown; doubles with each further one.
    pub cooldown: Span,
    /// The longest cooldown.
    pub cooldown_max: Span,
    /// So long after its reinstatement a node's earlier exclusions no longer lengthen the next cooldown.
    pub forgive_after: Span,
    /// A share of passed checks below this, in per mille, excludes.
    pub quality_min: u32,
    /// Checks before the share says anything.
    pub quality_checks_min: u32,
    /// So many answers that were proven wrong exclude.
    pub lies_max: u32,
}

impl Default for PenaltyRules {
    fn default() -> Self {
        Self {
            weights: Weights {
                attempt_failed: 60,
                timed_out: 80,
                died: 100,
                failed_check: 150,
                failed_test: 100,
                forged: 300,
            },
            success_repair: 5,
            half_life: Span::from_secs(3_600),
            exclude_below: 500,
            failures_in_a_row_max: 5,
            cooldown: Span::from_secs(60),
            cooldown_max: Span::from_secs(86_400),
            forgive_after: Span::from_secs(7 * 86_400),
            quality_min: 800,
            quality_checks_min: 10,
            lies_max: 2,
        }
    }
}

impl PenaltyRules {
    /// Sentences on what is wrong with them; none if nothing is.
    pub fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        for (name, value) in [
            ("failures_in_a_row_max", u64::from(self.failures_in_a_row_max)),
            ("half_life", self.half_life.0),
            ("cooldown", self.cooldown.0),
            ("quality_checks_min", u64::from(self.quality_checks_min)),
            ("lies_max", u64::from(self.lies_max)),
        ] {
            if value == 0 {
                flaws.push(format!("penalties.{name} is 0: set it to at least 1"));
            }
        }
        for (name, value) in [("exclude_below", self.exclude_below), ("quality_min", self.quality_min)] {
            if value > WHOLE {
                flaws.push(format!(
                    "penalties.{name} is {value}: it is in per mille, set it to at most {WHOLE}"
                ));
            }
        }
        if self.cooldown > self.cooldown_max {
            flaws.push(
                "penalties.cooldown is longer than penalties.cooldown_max: raise the latter".to_owned(),
            );
        }
        flaws
    }

    /// How long the cooldown is after so many earlier exclusions that count.
    pub fn cooldown_after(&self, earlier: u32) -> Span {
        let doubled = u128::from(self.cooldown.0) << earlier.min(64);
        Span(u64::try_from(doubled).unwrap_or(u64::MAX).min(self.cooldown_max.0))
    }
}
