//! What waits, and in which order: tier, then the namespace that was served least, then sequence (CORE section 5).
//!
//! A *lane* holds the waiting jobs of one model in one environment. Namespaces share a tier by work done:
//! start-time fair queueing on tokens. Jobs in backoff are not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::{Environment, Tier};
use super::job::JobRow;
use super::slab::Key;
use crate::ids::{ModelName, Namespace};
use crate::time::Time;

/// Every waiting job.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lanes: BTreeMap<(Environment, ModelName), Lane>,
    clocks: BTreeMap<(Environment, Tier), TierClock>,
    jobs: u64,
}

/// The waiting jobs of one model.
#[derive(Debug, Default)]
struct Lane {
    tiers: [Flows; Tier::ALL.len()],
}

/// The waiting jobs of one tier, by namespace, in sequence.
#[derive(Debug, Default)]
struct Flows {
    by_namespace: BTreeMap<Namespace, BTreeMap<u64, Waiting>>,
    jobs: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    key: Key,
    submitted_at: Time,
    virtual_start: Option<u64>,
}

/// Where a job stands among others of its namespace, and among namespaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) sequence: u64,
    /// The key of its last dispatch, if it comes back from one; otherwise its namespace's counts.
    pub(super) virtual_start: Option<u64>,
}

/// Virtual time of one tier.
#[derive(Debug, Default)]
struct TierClock {
    /// The largest start that was dispatched.
    dispatched: u64,
    namespaces: BTreeMap<Namespace, NamespaceClock>,
}

/// Virtual time of one namespace in one tier, in tokens.
#[derive(Debug, Default, Clone, Copy)]
struct NamespaceClock {
    start: u64,
    /// What is still to be given back (below zero) or charged with the next dispatch.
    carry: i64,
    waiting: u64,
}

impl Backlog {
    /// Lets a job wait.
    pub(super) fn insert(&mut self, row: &JobRow, place: Place, key: Key) {
        let clock = self.clocks.entry((row.environment, row.tier)).or_default();
        let dispatched = clock.dispatched;
        let namespace = clock.namespaces.entry(row.namespace.clone()).or_default();
        if namespace.waiting == 0 {
            namespace.start = namespace.start.max(dispatched);
        }
        namespace.waiting += 1;
        let lane = self.lanes.entry((row.environment, Arc::clone(&row.model))).or_default();
        let flows = &mut lane.tiers[row.tier as usize];
        let Place { sequence, virtual_start } = place;
        let waiting = Waiting { key, submitted_at: row.submitted_at, virtual_start };
        let before = flows.by_namespace.entry(row.namespace.clone()).or_default().insert(sequence, waiting);
        assert!(before.is_none(), "job {} waits twice", row.id);
        flows.jobs += 1;
        self.jobs += 1;
    }

    /// Takes a job out, wherever it stands.
    pub(super) fn remove(&mut self, row: &JobRow, sequence: u64) {
        let lane_key = (row.environment, Arc::clone(&row.model));
        let lane = self.lanes.get_mut(&lane_key).expect("a waiting job has a lane");
        let flows = &mut lane.tiers[row.tier as usize];
        let flow = flows.by_namespace.get_mut(&row.namespace).expect("a waiting job has a flow");
        flow.remove(&sequence).expect("a waiting job is in its flow");
        if flow.is_empty() {
            flows.by_namespace.remove(&row.namespace);
        }
        flows.jobs -= 1;
        if lane.tiers.iter().all(|flows| flows.jobs == 0) {
            self.lanes.remove(&lane_key);
        }
        self.jobs -= 1;
        self.clock_of(row).waiting -= 1;
    }

    /// Takes a job out to run it, and charges its namespace's virtual time. Returns the start to stamp it with.
    pub(super) fn dispatch(&mut self, row: &JobRow, place: Place) -> u64 {
        self.remove(row, place.sequence);
        let cost = expected_cost(row);
        let clock = self.clock_of(row);
        let start = clock.start;
        let charge = cost.saturating_add(clock.carry);
        clock.start = clock.start.saturating_add(charge.max(0) as u64);
        clock.carry = charge.min(0);
        let tier = self.clocks.entry((row.environment, row.tier)).or_default();
        tier.dispatched = tier.dispatched.max(start);
        place.virtual_start.unwrap_or(start)
    }

    /// Corrects the charge of a dispatch by `tokens` (below zero: the namespace got less than it was charged).
    pub(super) fn carry(&mut self, row: &JobRow, tokens: i64) {
        let clock = self.clock_of(row);
        clock.carry = clock.carry.saturating_add(tokens);
    }

    /// The job of a model that comes next.
    pub(super) fn next(&self, environment: Environment, model: &ModelName) -> Option<Key> {
        let lane = self.lanes.get(&(environment, Arc::clone(model)))?;
        Tier::ALL.iter().find_map(|tier| {
            let clock = self.clocks.get(&(environment, *tier))?;
            let head = |(namespace, flow): (&Namespace, &BTreeMap<u64, Waiting>)| {
                let (sequence, waiting) = flow.first_key_value()?;
                let start = waiting.virtual_start.unwrap_or(clock.namespaces.get(namespace)?.start);
                Some((start, *sequence, waiting.key))
            };
            lane.tiers[*tier as usize].by_namespace.iter().filter_map(head).min().map(|(_, _, key)| key)
        })
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> u64 {
        self.jobs
    }

    /// Jobs of this model and of this tier or a higher one that wait.
    pub(super) fn ahead(&self, environment: Environment, model: &ModelName, tier: Tier) -> u64 {
        let lane = self.lanes.get(&(environment, Arc::clone(model)));
        lane.map_or(0, |lane| lane.tiers[..=tier as usize].iter().map(|flows| flows.jobs).sum())
    }

    /// Every lane's tiers that are not empty: model, tier, jobs, the oldest submit.
    pub(super) fn views(&self) -> impl Iterator<Item = (&ModelName, Tier, u64, Time)> {
        self.lanes.iter().flat_map(|((_, model), lane)| {
            let filled = Tier::ALL.iter().zip(&lane.tiers).filter(|(_, flows)| flows.jobs > 0);
            filled.map(move |(tier, flows)| (model, *tier, flows.jobs, flows.oldest()))
        })
    }

    /// Every waiting job's key.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let flows = self.lanes.values().flat_map(|lane| lane.tiers.iter());
        flows.flat_map(|flows| flows.by_namespace.values()).flat_map(|flow| flow.values()).map(|w| w.key)
    }

    fn clock_of(&mut self, row: &JobRow) -> &mut NamespaceClock {
        let clock = self.clocks.entry((row.environment, row.tier)).or_default();
        clock.namespaces.entry(row.namespace.clone()).or_default()
    }
}

impl Flows {
    fn oldest(&self) -> Time {
        let waiting = self.by_namespace.values().flat_map(|flow| flow.values());
        waiting.map(|waiting| waiting.submitted_at).min().unwrap_or_default()
    }
}

/// What a dispatch charges: every token that the job may use.
pub(super) fn expected_cost(row: &JobRow) -> i64 {
    i64::from(row.input_tokens) + i64::from(row.output_tokens_max)
}
