//! How long a job has surely been able to run: nothing ages while it is paused (CORE section 5).
//!
//! A lower bound: a spell of any pause that may have held a job counts, and what was before a restart doesn't, for
//! rows don't tell how old a job was.

use std::collections::BTreeSet;

use switchbox::coordinator::command::Scope;
use switchbox::coordinator::event::Tier;
use switchbox::time::{Span, Time};

use super::book::JobFacts;

/// When what was paused.
#[derive(Debug, Default)]
pub(super) struct Ages {
    spells: Vec<Spell>,
    /// When the box last started.
    up_since: Time,
}

#[derive(Debug)]
struct Spell {
    scope: Scope,
    from: Time,
    /// `None` while it lasts.
    until: Option<Time>,
}

impl Ages {
    /// What is paused after a step.
    pub(super) fn note(&mut self, paused: &BTreeSet<Scope>, now: Time) {
        let open = self.spells.iter_mut().filter(|spell| spell.until.is_none());
        open.filter(|spell| !paused.contains(&spell.scope)).for_each(|spell| spell.until = Some(now));
        for scope in paused {
            if !self.spells.iter().any(|spell| spell.until.is_none() && spell.scope == *scope) {
                self.spells.push(Spell { scope: scope.clone(), from: now, until: None });
            }
        }
    }

    /// The box started again.
    pub(super) fn restarted(&mut self, now: Time) {
        self.up_since = now;
    }

    /// The tier that a job surely competes in at a time.
    pub(super) fn sure_tier(&self, job: &JobFacts, now: Time, batch_age: Span) -> Tier {
        let from = job.submitted_at.max(job.not_before).max(self.up_since);
        let paused: u64 = self
            .spells
            .iter()
            .filter(|spell| may_hold(&spell.scope, job))
            .map(|spell| spell.until.unwrap_or(now).min(now).since(spell.from.max(from)).0)
            .sum();
        match job.spec.tier {
            Tier::Batch if now.since(from).0 > batch_age.0.saturating_add(paused) => Tier::Standard,
            tier => tier,
        }
    }
}

/// Whether a pause may have held a job, whichever of its models it waited for.
fn may_hold(scope: &Scope, job: &JobFacts) -> bool {
    match scope {
        Scope::Model(model) => {
            job.model == *model || job.spec.model == *model || job.spec.fallbacks.models.contains(model)
        }
        Scope::Namespace(namespace) => job.spec.namespace == *namespace,
        Scope::Tier(tier) => job.spec.tier == *tier,
    }
}
