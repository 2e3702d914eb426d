//! Which nodes each lane has: all that may run its jobs, and in order of their score those that have room.
//!
//! Kept up to date when a node or the set of lanes changes, so that nobody ever scans all nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::eligibility::Need;
use super::super::names::{LaneKey, NodeKey};
use super::ready::Ready;

/// The nodes of all lanes.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct LaneNodes {
    lanes: Vec<Option<Nodes>>,
    /// Lanes whose jobs all have one need, by that.
    by_need: BTreeMap<Need, LaneKey>,
}

/// The nodes of one lane.
#[derive(Debug)]
pub(in crate::coordinator) struct Nodes {
    pub(in crate::coordinator) need: Need,
    /// Whether its jobs are looked at one by one: then every node that serves the model is here.
    pub(in crate::coordinator) picky: Picky,
    /// Nodes that may run its jobs, now or when they are free.
    pub(in crate::coordinator) eligible: BTreeSet<NodeKey>,
    /// Those with a slot.
    pub(in crate::coordinator) ready: Ready,
}

/// Whether a lane's jobs are each looked at by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Picky {
    Yes,
    No,
}

impl LaneNodes {
    /// A lane begins, without nodes.
    pub(in crate::coordinator) fn begin(&mut self, lane: LaneKey, need: Need, picky: Picky) {
        if self.lanes.len() <= lane.index() {
            self.lanes.resize_with(lane.index() + 1, || None);
        }
        if picky == Picky::No {
            self.by_need.insert(need.clone(), lane);
        }
        let nodes = Nodes { need, picky, eligible: BTreeSet::new(), ready: Ready::default() };
        self.lanes[lane.index()] = Some(nodes);
    }

    /// A lane ends; its nodes are given back.
    pub(in crate::coordinator) fn end(&mut self, lane: LaneKey) -> Option<Nodes> {
        let nodes = self.lanes.get_mut(lane.index())?.take()?;
        if nodes.picky == Picky::No {
            self.by_need.remove(&nodes.need);
        }
        Some(nodes)
    }

    /// The lane whose jobs all have that need.
    pub(in crate::coordinator) fn with_need(&self, need: &Need) -> Option<&Nodes> {
        self.by_need.get(need).map(|lane| self.of(*lane))
    }

    /// A lane's nodes.
    pub(in crate::coordinator) fn of(&self, lane: LaneKey) -> &Nodes {
        self.lanes[lane.index()].as_ref().expect("a lane in use has begun")
    }

    pub(in crate::coordinator) fn of_mut(&mut self, lane: LaneKey) -> &mut Nodes {
        self.lanes[lane.index()].as_mut().expect("a lane in use has begun")
    }

    /// All lanes.
    pub(in crate::coordinator) fn iter<'a>(&'a self) -> impl Iterator<Item = (LaneKey, &'a Nodes)> {
        let begun = |(at, nodes): (usize, &'a Option<Nodes>)| Some((LaneKey::at(at), nodes.as_ref()?));
        self.lanes.iter().enumerate().filter_map(begun)
    }
}
