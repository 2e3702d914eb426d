//! What a node has proven: a test job for each model, and one after each exclusion.
//!
//! A passed test counts for the very digest that it ran with. A failed one is remembered too, so that a model that
//! doesn't work isn't tested without pause.

use super::conduct::{Fault, Verdict};
use super::rules::PenaltyRules;
use super::{MODELS_PER_NODE_MAX, Record};
use crate::ids::{Digest, ModelName};
use crate::time::Time;

/// What the last test job of a model showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It passed.
    Passed {
        /// With these bytes.
        digest: Digest,
        /// When.
        at: Time,
    },
    /// It failed.
    Failed {
        /// With these bytes.
        digest: Digest,
        /// How often in a row.
        times: u32,
        /// No further test before that.
        not_before: Time,
    },
}

/// Whether a test job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialDue {
    /// The node has proven what it must.
    No,
    /// It may be sent.
    Now,
    /// Not before that.
    At(Time),
}

impl Record {
    pub(super) fn has_passed_any(&self) -> bool {
        self.row.trials.values().any(|trial| matches!(trial, Trial::Passed { .. }))
    }

    /// Whether a test job of this model passed with these bytes.
    pub fn has_passed(&self, model: &ModelName, digest: Digest) -> bool {
        matches!(self.row.trials.get(model), Some(Trial::Passed { digest: tested, .. }) if *tested == digest)
    }

    /// Whether a test job of this model is due. After an exclusion one of any model does.
    pub fn trial_due(&self, model: &ModelName, digest: Digest, now: Time) -> TrialDue {
        if let Some(exclusion) = &self.row.exclusion {
            return if now < exclusion.until { TrialDue::At(exclusion.until) } else { TrialDue::Now };
        }
        match self.row.trials.get(model) {
            Some(Trial::Passed { digest: tested, .. }) if *tested == digest => TrialDue::No,
            Some(Trial::Failed { digest: tested, not_before, .. })
                if *tested == digest && now < *not_before =>
            {
                TrialDue::At(*not_before)
            }
            _ => TrialDue::Now,
        }
    }

    /// A test job passed. If it answers an exclusion whose cooldown is over, the node is let in again, and what it had
    /// proven of other models is void; a test that began before the exclusion answers nothing.
    pub fn on_test_passed(&mut self, model: &ModelName, digest: Digest, now: Time, rules: &PenaltyRules) {
        if self.cools_down(now) {
            return;
        }
        if self.row.exclusion.is_some() {
            self.row.trials.retain(|_, trial| matches!(trial, Trial::Failed { .. }));
            self.let_in(now, rules);
        }
        self.row.conduct.faults_in_a_row = 0;
        self.remember(model, Trial::Passed { digest, at: now });
    }

    /// A test job failed. A node that had nothing proven, or had to answer an exclusion, is excluded with the next
    /// longer cooldown; one that works for other models has a fault, and this model waits.
    pub fn on_test_failed(
        &mut self,
        model: &ModelName,
        digest: Digest,
        now: Time,
        rules: &PenaltyRules,
    ) -> Verdict {
        let times = match self.row.trials.get(model) {
            Some(Trial::Failed { digest: tested, times, .. }) if *tested == digest => times.saturating_add(1),
            _ => 1,
        };
        let not_before = now + rules.cooldown_after(times - 1);
        let unproven = self.row.exclusion.is_some() || !self.has_passed_any();
        let verdict = self.fault(Fault::FailedTest, now, rules);
        self.remember(model, Trial::Failed { digest, times, not_before });
        if unproven && verdict == Verdict::Noted && !self.cools_down(now) {
            return self.exclude(&format!("the test job of `{model}` failed"), now, rules);
        }
        verdict
    }

    pub(super) fn forget_failed_trials(&mut self) {
        self.row.trials.retain(|_, trial| matches!(trial, Trial::Passed { .. }));
    }

    /// Of more models than are kept, the one that passed longest ago goes: that costs a test job, while forgetting a
    /// failed one would let it be tried without pause.
    fn remember(&mut self, model: &ModelName, trial: Trial) {
        let trials = &mut self.row.trials;
        if trials.len() >= MODELS_PER_NODE_MAX && !trials.contains_key(model) {
            let age = |trial: &Trial| match *trial {
                Trial::Passed { at, .. } => (0, at),
                Trial::Failed { not_before, .. } => (1, not_before),
            };
            let oldest = trials.iter().min_by_key(|(_, trial)| age(trial)).map(|(name, _)| name.clone());
            trials.remove(&oldest.expect("a full map has an oldest entry"));
        }
        trials.insert(model.clone(), trial);
    }
}
