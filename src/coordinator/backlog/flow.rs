//! A flow: the jobs of one namespace that wait in one lane and tier, by sequence.
//!
//! It knows nothing of other flows. Its clock counts only the time in which its jobs could have been placed.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::event::Tier;
use super::super::names::{LaneKey, NamespaceKey};
use super::super::slab::Key;
use super::fifo::{Fifo, Waiting};
use crate::time::Span;

/// A job that begins to wait, or waits again.
#[derive(Debug, Clone, Copy)]
pub(in crate::coordinator) struct Arrival {
    pub(in crate::coordinator) key: Key,
    pub(in crate::coordinator) lane: LaneKey,
    pub(in crate::coordinator) tier: Tier,
    pub(in crate::coordinator) namespace: NamespaceKey,
    /// Its place among all jobs, by when it could first have been placed; it keeps that for life.
    pub(in crate::coordinator) sequence: u64,
    /// What its last dispatch gave it, if it comes back from one.
    pub(in crate::coordinator) stamp: Option<Stamp>,
    /// How long it could have been placed before, in all (see `Backlog::waited`).
    pub(in crate::coordinator) waited: Span,
}

/// The virtual start of a dispatch, and the tier that was charged for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) struct Stamp {
    pub(in crate::coordinator) tier: Tier,
    pub(in crate::coordinator) start: u64,
}

/// Where a waiting job is. Good until the job is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) struct Place {
    pub(in crate::coordinator) lane: LaneKey,
    pub(in crate::coordinator) tier: Tier,
    pub(in crate::coordinator) namespace: NamespaceKey,
    pub(in crate::coordinator) sequence: u64,
    pub(super) flow: FlowKey,
    pub(super) since: u64,
    /// The start it came back with, where that is of its own tier.
    pub(super) returned: Option<u64>,
}

/// What of a place isn't known from its job: a million jobs keep this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) struct Seat {
    pub(in crate::coordinator) lane: LaneKey,
    flow: FlowKey,
    since: u64,
    returned: Option<u64>,
}

impl Place {
    /// What is kept of it with the job.
    pub(in crate::coordinator) fn seat(&self) -> Seat {
        Seat { lane: self.lane, flow: self.flow, since: self.since, returned: self.returned }
    }
}

impl Seat {
    /// The place of a job of this tier, namespace and sequence.
    pub(in crate::coordinator) fn place(self, tier: Tier, namespace: NamespaceKey, sequence: u64) -> Place {
        let Self { lane, flow, since, returned } = self;
        Place { lane, tier, namespace, sequence, flow, since, returned }
    }
}

/// A job among those of a lane, in an order that stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) struct Position {
    pub(super) flow: FlowKey,
    pub(super) sequence: u64,
}

/// The key of a flow.
pub(super) type FlowKey = Key;

/// A job that may be proposed, with its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Offer {
    pub(super) sequence: u64,
    pub(super) key: Key,
}

/// The jobs of one namespace in one lane and tier.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) lane: LaneKey,
    pub(super) tier: Tier,
    pub(super) namespace: NamespaceKey,
    /// The count of its environment, model, tier and namespace.
    pub(super) strand: Key,
    /// Jobs that take their namespace's virtual start, by sequence.
    pub(super) queued: Fifo,
    /// Jobs that came back from a dispatch and keep the start it gave them, by sequence.
    pub(super) returned: BTreeMap<u64, (u64, Waiting)>,
    /// Microseconds of the model's clock in which the namespace was paused.
    pub(super) excluded: u64,
    /// The model's clock when the namespace was paused, while it is.
    pub(super) held_at: Option<u64>,
}

impl Flow {
    /// Its oldest unstamped job.
    pub(super) fn head(&self) -> Option<Offer> {
        self.queued.first()
    }

    pub(super) fn jobs(&self) -> u64 {
        (self.queued.len() + self.returned.len()) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs() == 0
    }

    /// The flow's clock, in microseconds, when the model's clock shows `model_clock`.
    pub(super) fn clock(&self, model_clock: u64) -> u64 {
        self.held_at.unwrap_or(model_clock).saturating_sub(self.excluded)
    }

    /// The namespace may be served again.
    pub(super) fn release(&mut self, model_clock: u64) {
        if let Some(held_at) = self.held_at.take() {
            self.excluded = self.excluded.saturating_add(model_clock.saturating_sub(held_at));
        }
    }

    /// Its jobs that came back, with their starts.
    pub(super) fn returned_offers(&self) -> Vec<(u64, Offer)> {
        let offer = |(sequence, (start, job)): (&u64, &(u64, Waiting))| {
            (*start, Offer { sequence: *sequence, key: job.key })
        };
        self.returned.iter().map(offer).collect()
    }

    /// At most so many of its jobs, in sequence, after that one.
    pub(super) fn jobs_after(&self, after: Option<u64>, most: usize) -> Vec<(u64, Key)> {
        let queued = self.queued.iter_after(after).take(most).map(|offer| (offer.sequence, offer.key));
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let returned = self.returned.range((begin, Bound::Unbounded)).take(most);
        let returned = returned.map(|(sequence, (_, waiting))| (*sequence, waiting.key));
        let mut jobs: Vec<_> = queued.chain(returned).collect();
        jobs.sort_unstable();
        jobs.truncate(most);
        jobs
    }

    /// A job of it, by sequence.
    pub(super) fn job(&self, sequence: u64) -> Option<Waiting> {
        let returned = || self.returned.get(&sequence).map(|(_, waiting)| *waiting);
        self.queued.get(sequence).or_else(returned)
    }

    /// Its oldest unstamped job after that sequence.
    pub(super) fn queued_after(&self, sequence: u64) -> Option<Offer> {
        self.queued.after(sequence)
    }
}
