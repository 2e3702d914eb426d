//! Whether a job may run on a node right now: the last look before capacity is set aside.

use super::Counts;
use super::backlog::Suit;
use super::eligibility::lack;
use super::event::Tier;
use super::fleet::{Fleet, Node, Picky};
use super::job::{Job, Waits};
use super::limits::{FIT_WAIT, Limits};
use super::mutant::mutant;
use super::names::{LaneKey, ModelKey, Names, NodeKey};
use super::place::{Placing, Starved};
use super::slab::Key;
use super::spec::Origin;
use super::standing::Trust;
use super::subcloud::Subclouds;
use super::trace::Loss;
use crate::ids::ModelName;
use crate::time::Time;

/// What the look needs to see.
pub(super) struct Look<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) subclouds: &'a Subclouds,
    pub(super) models: &'a Names<ModelName, ModelKey>,
    pub(super) placing: &'a Placing,
    pub(super) counts: &'a Counts,
    pub(super) limits: &'a Limits,
    pub(super) now: Time,
}

/// Something that was found out while looking, to be acted on afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finding {
    /// Its TTL has passed.
    Expired(Key),
    /// It fits the node, but not what is free of it.
    Unfit(Key),
    /// It doesn't fit the output budget.
    Starved { key: Key, lane: LaneKey, tier: Tier },
    /// The output budget is kept for another.
    KeptFrom(LaneKey),
}

impl Look<'_> {
    /// Whether a job that is next may go to a node that has room.
    pub(super) fn suits(
        &self,
        node: &Node,
        at: NodeKey,
        job: &Job,
        key: Key,
        charged: Tier,
    ) -> (Suit, Option<Finding>) {
        if job.row.expires_at <= self.now {
            return (Suit::No, Some(Finding::Expired(key)));
        }
        if !self.may_run(node, job) || self.is_avoided(at, job) || !node.has_slot(job.need.model) {
            return (Suit::No, None);
        }
        if job.kv_tokens() > node.kv_tokens {
            return (Suit::No, None);
        }
        if !node.has_room(job.kv_tokens()) || must_wait_to_be_alone(node, job) {
            let waited = job.past.unfit_since.is_some_and(|since| self.now.since(since) >= FIT_WAIT);
            return (if waited { Suit::Block } else { Suit::No }, Some(Finding::Unfit(key)));
        }
        self.suits_budget(job, key, charged)
    }

    fn suits_budget(&self, job: &Job, key: Key, charged: Tier) -> (Suit, Option<Finding>) {
        let Waits::ForNode(place) = job.waits else { return (Suit::No, None) };
        let lane = place.lane;
        let bytes = output_bytes(job, self.limits);
        if self.counts.output_bytes_held + bytes > self.limits.output_budget_bytes {
            let mine = self.placing.starved.get(&lane).filter(|starved| starved.job == key);
            let waited = mine.is_some_and(|starved| self.now.since(starved.since) >= FIT_WAIT);
            let suit = if waited { Suit::Block } else { Suit::No };
            return (suit, Some(Finding::Starved { key, lane, tier: charged }));
        }
        let keeps = |starved: &Starved| {
            starved.current
                && starved.job != key
                && starved.tier <= charged
                && self.now.since(starved.since) >= FIT_WAIT
        };
        if self.placing.starved.values().any(keeps) {
            return (Suit::No, Some(Finding::KeptFrom(lane)));
        }
        (Suit::Yes, None)
    }

    /// Whether a node with room could take a job, and if not, what to tell of it in the trace.
    pub(super) fn fits(&self, node: &Node, at: NodeKey, job: &Job) -> Result<(), Option<Loss>> {
        if !self.may_run(node, job) || job.kv_tokens() > node.kv_tokens {
            return Err(None);
        }
        if self.is_avoided(at, job) {
            return Err(Some(Loss::FailedBefore));
        }
        let room = node.has_slot(job.need.model) && node.has_room(job.kv_tokens());
        if room && !must_wait_to_be_alone(node, job) { Ok(()) } else { Err(Some(Loss::NoRoom)) }
    }

    /// Whether a node may run a job at all, its own lists of nodes included.
    pub(super) fn may_run(&self, node: &Node, job: &Job) -> bool {
        if self.is_in_its_lane(node, job) {
            return true;
        }
        let lists = &job.row.spec.constraints;
        let listed = lists.allow.is_empty() || lists.allow.contains(node.id());
        // A blind job on the operator's own machine would find out nothing.
        let blind_on_own =
            matches!(*job.row.origin, Origin::Blind { .. }) && node.record.row().trust == Trust::Own;
        listed
            && !blind_on_own
            && !lists.deny.contains(node.id())
            && lack(node, &job.need, &self.models[job.need.model], self.subclouds, self.now).is_none()
    }

    /// Whether a job waits in a lane that the node is in because it may run whatever waits there.
    fn is_in_its_lane(&self, node: &Node, job: &Job) -> bool {
        let Waits::ForNode(place) = job.waits else { return false };
        node.lanes.binary_search(&place.lane).is_ok() && self.fleet.lanes.of(place.lane).picky == Picky::No
    }

    /// Whether a node failed this job while another could do it: then it waits for that one.
    fn is_avoided(&self, at: NodeKey, job: &Job) -> bool {
        !mutant!(FailedNodeRetried) && job.past.failed_on.contains(&at) && self.other_exists(job)
    }

    fn other_exists(&self, job: &Job) -> bool {
        let could = |key: NodeKey| {
            let node = self.fleet.node(key);
            !job.past.failed_on.contains(&key) && node.kv_tokens >= job.kv_tokens() && self.may_run(node, job)
        };
        let allow = &job.row.spec.constraints.allow;
        if !allow.is_empty() {
            return allow.iter().filter_map(|node| self.fleet.find(node)).any(could);
        }
        // It came from the lane of its need, and that knows who could: few, where most nodes can't.
        match self.fleet.lanes.with_need(&job.need) {
            Some(nodes) => nodes.eligible.iter().copied().any(could),
            None => self.fleet.serving(job.need.model).any(could),
        }
    }
}

/// A job that took the box down with it runs there again only by itself.
fn must_wait_to_be_alone(node: &Node, job: &Job) -> bool {
    job.row.box_cuts > 0 && node.is_local() && node.taken > 0
}

/// A job's share of the output budget: what its tokens may have, or as much as one job may have.
pub(super) fn output_bytes(job: &Job, limits: &Limits) -> u64 {
    let spec = &job.row.spec;
    spec.bytes_of(spec.output_tokens_max).min(limits.output_bytes_max).min(limits.output_budget_bytes)
}
