//! What a run has touched: every kind of thing that can happen, and how often each check said something.
//!
//! A count of zero means that the simulator proves nothing about it, so the run fails. Nothing here decides anything
//! about the core.

use std::collections::BTreeMap;

/// Checks of an invariant or an oracle line below which a whole run proves too little.
pub(crate) const CHECKS_MIN: u64 = 1_000;

/// Groups of counts, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coverage {
    groups: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

/// What must have happened at least so often.
pub(crate) struct Demand {
    /// In which group.
    pub(crate) group: &'static str,
    /// Under which name.
    pub(crate) name: String,
    /// How often.
    pub(crate) least: u64,
}

impl Coverage {
    /// One more of it.
    pub(crate) fn count(&mut self, group: &'static str, name: &str) {
        self.add(group, name, 1);
    }

    /// Several more of it.
    pub(crate) fn add(&mut self, group: &'static str, name: &str, more: u64) {
        let counts = self.groups.entry(group).or_default();
        match counts.get_mut(name) {
            Some(count) => *count += more,
            None => drop(counts.insert(name.to_owned(), more)),
        }
    }

    /// How often it happened.
    pub(crate) fn of(&self, group: &str, name: &str) -> u64 {
        self.groups.get(group).and_then(|counts| counts.get(name)).copied().unwrap_or(0)
    }

    /// Adds what another thread counted.
    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (group, counts) in &other.groups {
            counts.iter().for_each(|(name, count)| self.add(group, name, *count));
        }
    }

    /// What was demanded and did not happen often enough.
    pub(crate) fn missing(&self, demands: &[Demand]) -> Vec<String> {
        let short = |demand: &&Demand| self.of(demand.group, &demand.name) < demand.least;
        demands
            .iter()
            .filter(short)
            .map(|d| {
                let count = self.of(d.group, &d.name);
                format!("{} / {}: {count}, at least {} are wanted", d.group, d.name, d.least)
            })
            .collect()
    }

    /// Invariants of the core itself that were checked too rarely.
    pub(crate) fn rare(&self, group: &str) -> Vec<String> {
        let counts = self.groups.get(group).into_iter().flatten();
        let rare = counts.filter(|(_, count)| **count < CHECKS_MIN);
        rare.map(|(name, count)| format!("{group} / {name}: {count}, at least {CHECKS_MIN} are wanted"))
            .collect()
    }

    /// Every group with its counts, as lines of a table.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (group, counts) in &self.groups {
            lines.push(format!("{group}:"));
            lines.extend(counts.iter().map(|(name, count)| format!("  {name:<52} {count:>14}")));
        }
        lines
    }
}
