//! Virtual time: how much of a tier each namespace has had (CORE section 5).
//!
//! It knows tokens and weights and where a namespace's oldest jobs are; it doesn't know why a job waits or runs.

use std::collections::BTreeMap;

use super::super::mutant::mutant;
use super::super::names::{LaneKey, NamespaceKey};
use super::flow::FlowKey;
use super::order::{LaneSet, Order, Rank};

/// Virtual time of one token at weight 1. Divisible by every weight up to 10; a token at weight 1,000 is still 5.
pub(super) const TOKEN_SCALE: u64 = 5_040;
/// The largest weight of a namespace; the smallest is 1.
pub(super) const WEIGHT_MAX: u32 = 1_000;

/// One tier of one environment.
#[derive(Debug, Default)]
pub(super) struct TierClock {
    /// The largest virtual start that was dispatched.
    pub(super) dispatched: u64,
    /// By namespace key.
    pub(super) members: Vec<Member>,
    /// The members that have a job to offer, paused namespaces left out.
    pub(super) order: Order,
}

/// One namespace in one tier of one environment.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// The virtual start of its next dispatch.
    pub(super) start: u64,
    /// Tokens still to be charged with the next dispatch, or (below zero) to be given back.
    pub(super) carry: i64,
    /// Its waiting jobs of models that aren't paused.
    pub(super) open: u64,
    /// Where its flows with unstamped jobs are.
    pub(super) lanes: LaneSet,
    /// The oldest unstamped job of each of its flows, in sequence.
    pub(super) heads: Vec<Head>,
    /// All its flows.
    pub(super) flows: BTreeMap<LaneKey, FlowKey>,
    /// The rank under which the order has it.
    pub(super) listed: Option<(u64, u64)>,
}

/// The oldest unstamped job of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sequence: u64,
    pub(super) lane: LaneKey,
    pub(super) flow: FlowKey,
}

/// Whether a namespace may be in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    Open,
    Paused,
}

impl TierClock {
    /// Charges a dispatch that began at `start`, and what was carried over with it.
    pub(super) fn charge(&mut self, namespace: NamespaceKey, start: u64, tokens: u64, weight: u32) {
        let member = &mut self.members[namespace.index()];
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        let due = tokens.saturating_add(member.carry);
        member.carry = due.min(0);
        let weight = if mutant!(WeightIgnored) { 1 } else { weight };
        let cost = (due.max(0) as u64).saturating_mul(TOKEN_SCALE) / u64::from(weight);
        member.start = member.start.max(start).saturating_add(cost);
        self.dispatched = self.dispatched.max(start);
    }

    /// Whether a namespace has something to place and starts before what was last dispatched.
    pub(super) fn is_behind(&self, namespace: NamespaceKey) -> bool {
        let member = &self.members[namespace.index()];
        member.open > 0 && member.start < self.dispatched
    }

    /// A namespace that had nothing to offer, and so no claim, begins where the tier is.
    pub(super) fn catch_up(&mut self, namespace: NamespaceKey) {
        let member = &mut self.members[namespace.index()];
        member.start = member.start.max(self.dispatched);
    }

    /// Brings the order up to what the member says of itself.
    pub(super) fn relist(&mut self, namespace: NamespaceKey, listing: Listing) {
        let member = &mut self.members[namespace.index()];
        let head = member.heads.first().filter(|_| listing == Listing::Open);
        let wanted = head.map(|head| (member.start, head.sequence));
        let rank = |(start, sequence)| Rank { start, sequence, namespace };
        match (member.listed, wanted) {
            (Some(listed), Some(wanted)) if listed == wanted => {
                self.order.relane(rank(wanted), &member.lanes);
            }
            (listed, wanted) => {
                listed.map(rank).inspect(|listed| self.order.remove(*listed));
                wanted.map(rank).inspect(|wanted| self.order.insert(*wanted, &member.lanes));
            }
        }
        member.listed = wanted;
    }
}

impl Member {
    /// A flow of it has this head now, in place of the one before. Only what is between the two is moved: a
    /// namespace may wait in hundreds of lanes.
    pub(super) fn rehead(&mut self, lane: LaneKey, flow: FlowKey, before: Option<u64>, head: Option<u64>) {
        let place = |heads: &[Head], sequence| heads.partition_point(|head| head.sequence < sequence);
        let from = before.map_or(self.heads.len(), |before| place(&self.heads, before));
        match (before, head) {
            (None, None) => return,
            (None, Some(sequence)) => {
                self.heads.push(Head { sequence, lane, flow });
                self.lanes.insert(lane);
            }
            (Some(before), _) => {
                let found = self.heads.get(from).copied();
                assert_eq!(found, Some(Head { sequence: before, lane, flow }), "the head of a flow");
            }
        }
        let Some(sequence) = head else {
            self.heads.remove(from);
            self.lanes = LaneSet::default();
            self.heads.iter().for_each(|head| self.lanes.insert(head.lane));
            return;
        };
        let below = place(&self.heads[..from], sequence);
        self.heads[from].sequence = sequence;
        if below < from {
            self.heads[below..=from].rotate_right(1);
        } else {
            let above = from + 1 + place(&self.heads[from + 1..], sequence);
            self.heads[from..above].rotate_left(1);
        }
    }
}
