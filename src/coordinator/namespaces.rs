//! What is settled about each namespace, and how many jobs of it wait.

use super::command::{NamespaceSettings, Unrunnable, WEIGHT_MAX};
use super::limits::Limits;
use super::names::{Names, NamespaceKey};
use super::standing::Trust;
use crate::credits::Credits;
use crate::ids::Namespace;

/// What survives of a namespace: its settings.
pub type NamespaceRow = NamespaceSettings;

/// All namespaces that were ever seen.
#[derive(Debug)]
pub(super) struct Namespaces {
    names: Names<Namespace, NamespaceKey>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    settings: Settings,
    waiting: u64,
}

/// The settings that decisions look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) trust: Trust,
    pub(super) unrunnable: Unrunnable,
    pub(super) queue_jobs_max: u64,
}

impl Namespaces {
    /// None; at most so many ever.
    pub(super) fn new(names_max: usize) -> Self {
        Self { names: Names::new(names_max), entries: Vec::new() }
    }

    /// A namespace's key; `None` when there are as many as may be.
    pub(super) fn intern(&mut self, namespace: &Namespace, limits: &Limits) -> Option<NamespaceKey> {
        let key = self.names.intern(namespace)?;
        if key.index() == self.entries.len() {
            let settings = Settings {
                trust: limits.trust,
                unrunnable: limits.unrunnable,
                queue_jobs_max: limits.namespace_queue_jobs_max,
            };
            self.entries.push(Entry { settings, waiting: 0 });
        }
        Some(key)
    }

    pub(super) fn find(&self, namespace: &Namespace) -> Option<NamespaceKey> {
        self.names.key(namespace)
    }

    pub(super) fn settings(&self, key: NamespaceKey) -> Settings {
        self.entries[key.index()].settings
    }

    /// Takes over what was settled; weight and credit are the backlog's and the ledger's.
    pub(super) fn settle(&mut self, key: NamespaceKey, row: &NamespaceSettings) {
        let NamespaceSettings { trust, unrunnable, queue_jobs_max, .. } = *row;
        self.entries[key.index()].settings = Settings { trust, unrunnable, queue_jobs_max };
    }

    /// Jobs of it that wait, those whose time hasn't come included.
    pub(super) fn waiting(&self, key: NamespaceKey) -> u64 {
        self.entries[key.index()].waiting
    }

    pub(super) fn waiting_mut(&mut self, key: NamespaceKey) -> &mut u64 {
        &mut self.entries[key.index()].waiting
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = NamespaceKey> {
        (0..self.entries.len()).map(NamespaceKey::at)
    }

    pub(super) fn name(&self, key: NamespaceKey) -> &Namespace {
        &self.names[key]
    }
}

/// Whether settings make sense.
pub(super) fn are_valid(settings: &NamespaceSettings) -> bool {
    let credit = |line: &Option<Credits>| line.is_none_or(|line| line >= Credits::ZERO);
    (1..=WEIGHT_MAX).contains(&settings.weight) && settings.credit.iter().all(credit)
}
