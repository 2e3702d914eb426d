//! The nodes, what they have reserved, and which of them may take work from which lane.
//!
//! A node's taken slots are always the number of its reservations that occupy capacity. Nothing here decides: it
//! keeps the tables true and answers who could.

mod lanes;
mod node;
mod ready;
mod reservation;
mod speed;

use std::collections::{BTreeSet, VecDeque};

use super::effect::Why;
use super::eligibility::{self, Shape};
use super::event::{Equipment, NodeHello, Warmth};
use super::index::IdIndex;
use super::names::{LaneKey, ModelKey, Names, NodeKey, ShapeKey};
use super::slab::{Key, Slab};
use super::standing::{NodeRow, Record};
use super::subcloud::Subclouds;
use crate::ids::{ModelName, NodeId, ReservationId};
use crate::time::{Span, Time};

pub(super) use lanes::{LaneNodes, Nodes, Picky};
pub(super) use node::{Node, Serving};
pub(super) use ready::Place;
pub(super) use reservation::{Began, Capacity, Deadline, Ending, Left, Reservation, ReservationState};
pub(super) use speed::{ModelMeans, Sample};

/// Shapes of needs that can be told apart; jobs of others are looked at one by one.
const SHAPES_MAX: usize = 65_536;
/// Nodes that one step looks at for lanes that have just begun.
const FILL_NODES_MAX: usize = 1_024;

/// All nodes and reservations.
#[derive(Debug)]
pub(super) struct Fleet {
    names: Names<NodeId, NodeKey>,
    nodes: Vec<Node>,
    reservations: Slab<Reservation>,
    by_id: IdIndex<Key>,
    pub(super) lanes: LaneNodes,
    pub(super) shapes: Names<Shape, ShapeKey>,
    /// Nodes that serve a model, by model.
    by_model: Vec<BTreeSet<NodeKey>>,
    /// The smallest cache that a node brought for a model, by model, in tokens.
    kv_min: Vec<u64>,
    /// What was measured, by model.
    means: Vec<ModelMeans>,
    slots_taken: u64,
    slots_total: u64,
    here: u64,
    /// Nodes whose room changed in this step.
    touched: Vec<NodeKey>,
    /// Lanes that have begun and don't have all their nodes yet, each with the node that it looks at next. At most
    /// one entry for each lane.
    filling: VecDeque<(LaneKey, NodeKey)>,
    /// Nodes that this step may still look at for them.
    fill_left: usize,
}

impl Fleet {
    /// No nodes; at most so many ever.
    pub(super) fn new(nodes_max: usize) -> Self {
        Self {
            names: Names::new(nodes_max),
            nodes: Vec::new(),
            reservations: Slab::new(),
            by_id: IdIndex::default(),
            lanes: LaneNodes::default(),
            shapes: Names::new(SHAPES_MAX),
            by_model: Vec::new(),
            kv_min: Vec::new(),
            means: Vec::new(),
            slots_taken: 0,
            slots_total: 0,
            here: 0,
            touched: Vec::new(),
            filling: VecDeque::new(),
            fill_left: FILL_NODES_MAX,
        }
    }

    /// The node of that name.
    pub(super) fn find(&self, node: &NodeId) -> Option<NodeKey> {
        self.names.key(node)
    }

    /// Makes a node known; `None` when there are as many as may be.
    pub(super) fn admit(&mut self, row: NodeRow, now: Time) -> Option<NodeKey> {
        let key = self.names.intern(&row.node)?;
        assert!(key.index() == self.nodes.len(), "node {} was admitted twice", row.node);
        self.nodes.push(Node::absent(Record::from_row(row, now), now));
        Some(key)
    }

    pub(super) fn node(&self, key: NodeKey) -> &Node {
        &self.nodes[key.index()]
    }

    pub(super) fn node_mut(&mut self, key: NodeKey) -> &mut Node {
        &mut self.nodes[key.index()]
    }

    /// All nodes that were ever known.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.nodes.iter().enumerate().map(|(at, node)| (NodeKey::at(at), node))
    }

    /// A node joins with what it brings.
    pub(super) fn arrive(&mut self, key: NodeKey, hello: &NodeHello, models: Vec<Serving>, now: Time) {
        let node = &mut self.nodes[key.index()];
        if !node.is_here() {
            self.here += 1;
        }
        self.slots_total -= u64::from(node.slots);
        node.arrive(hello, now);
        self.slots_total += u64::from(node.slots);
        self.offer(key, models);
    }

    /// A node has that for its jobs now.
    pub(super) fn equip(&mut self, key: NodeKey, equipment: &Equipment) {
        let node = &mut self.nodes[key.index()];
        self.slots_total -= u64::from(node.slots);
        node.equip(equipment);
        self.slots_total += u64::from(node.slots);
    }

    /// A node serves these models now.
    pub(super) fn offer(&mut self, key: NodeKey, models: Vec<Serving>) {
        let node = &mut self.nodes[key.index()];
        for serving in &node.models {
            self.by_model[serving.model.index()].remove(&key);
        }
        node.offer(models);
        for serving in &node.models {
            let at = serving.model.index();
            if self.by_model.len() <= at {
                self.by_model.resize_with(at + 1, BTreeSet::new);
                self.kv_min.resize(at + 1, u64::MAX);
            }
            self.by_model[at].insert(key);
        }
        self.recount_models(key);
        self.touched.push(key);
    }

    /// Slots by model as its reservations take them: some may be older than what the node brought now.
    fn recount_models(&mut self, key: NodeKey) {
        let Self { nodes, reservations, .. } = self;
        let node = &mut nodes[key.index()];
        node.models.iter_mut().for_each(|serving| serving.taken = 0);
        let held: Vec<ModelKey> = node
            .holds
            .iter()
            .map(|held| &reservations[*held])
            .filter(|reservation| reservation.capacity == Capacity::Taken)
            .filter_map(|reservation| reservation.model)
            .collect();
        for model in held {
            if let Some(serving) = node.serving_mut(model) {
                serving.taken += 1;
            }
        }
    }

    /// A node's connection is gone.
    pub(super) fn depart(&mut self, key: NodeKey, now: Time) {
        let node = &mut self.nodes[key.index()];
        if node.is_here() {
            node.record.on_away(now);
            self.here -= 1;
        }
    }

    /// Nodes that serve a model, in whatever state.
    pub(super) fn serving(&self, model: ModelKey) -> impl Iterator<Item = NodeKey> {
        self.by_model.get(model.index()).into_iter().flatten().copied()
    }

    /// A node may take work of a model: what is too large for it mustn't stand in the way of what isn't.
    pub(super) fn note_cache(&mut self, key: NodeKey, model: ModelKey) {
        let min = &mut self.kv_min[model.index()];
        *min = (*min).min(self.nodes[key.index()].kv_tokens);
    }

    /// Whether a job of so many tokens may be too large for some node that serves its model.
    pub(super) fn may_be_too_large(&self, model: ModelKey, kv_tokens: u64) -> bool {
        self.kv_min.get(model.index()).is_some_and(|min| kv_tokens > *min)
    }

    /// What was measured of a model.
    pub(super) fn means(&self, model: ModelKey) -> ModelMeans {
        self.means.get(model.index()).copied().unwrap_or_default()
    }

    pub(super) fn means_mut(&mut self, model: ModelKey) -> &mut ModelMeans {
        if self.means.len() <= model.index() {
            self.means.resize(model.index() + 1, ModelMeans::default());
        }
        &mut self.means[model.index()]
    }

    /// Slots for one model, on nodes that are here.
    pub(super) fn slots_of(&self, model: ModelKey) -> u64 {
        let here = self.serving(model).map(|key| self.node(key)).filter(|node| node.is_here());
        here.filter_map(|node| node.serving(model)).map(|serving| u64::from(serving.slots)).sum()
    }

    /// Puts a reservation into the tables; it takes its capacity.
    pub(super) fn reserve(&mut self, reservation: Reservation) -> Key {
        assert!(reservation.capacity == Capacity::Taken, "a reservation begins by taking a slot");
        let (id, node) = (reservation.id, reservation.node);
        self.take(&reservation);
        let key = self.reservations.insert(reservation);
        self.nodes[node.index()].holds.push(key);
        let before = self.by_id.insert(id, key);
        assert!(before.is_none(), "reservation {id} was given twice");
        key
    }

    fn take(&mut self, reservation: &Reservation) {
        let node = &mut self.nodes[reservation.node.index()];
        node.taken += 1;
        node.kv_taken += reservation.kv_tokens;
        if let Some(serving) = reservation.model.and_then(|model| node.serving_mut(model)) {
            serving.taken += 1;
        }
        self.slots_taken += 1;
        self.touched.push(reservation.node);
    }

    /// Gives a reservation's capacity back, once.
    pub(super) fn free_capacity(&mut self, id: ReservationId) {
        let Some(key) = self.by_id.find(id) else { return };
        let reservation = &mut self.reservations[key];
        if std::mem::replace(&mut reservation.capacity, Capacity::Free) == Capacity::Free {
            return;
        }
        let (at, model, kv_tokens) = (reservation.node, reservation.model, reservation.kv_tokens);
        let node = &mut self.nodes[at.index()];
        node.taken -= 1;
        node.kv_taken -= kv_tokens;
        // What was refused for want of room may fit now: it looks from the top again.
        node.later = None;
        if let Some(serving) = model.and_then(|model| node.serving_mut(model)) {
            serving.taken -= 1;
        }
        self.slots_taken -= 1;
        self.touched.push(at);
    }

    /// Removes a reservation: it is *gone*, and its id changes nothing from now on.
    pub(super) fn remove(&mut self, id: ReservationId) -> Option<Reservation> {
        self.free_capacity(id);
        let key = self.by_id.remove(id)?;
        let reservation = self.reservations.remove(key);
        self.nodes[reservation.node.index()].holds.retain(|held| *held != key);
        Some(reservation)
    }

    pub(super) fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.by_id.find(id).map(|key| &self.reservations[key])
    }

    pub(super) fn reservation_mut(&mut self, id: ReservationId) -> Option<&mut Reservation> {
        let key = self.by_id.find(id)?;
        Some(&mut self.reservations[key])
    }

    /// The place of a reservation, good until it is gone.
    pub(super) fn place_of(&self, id: ReservationId) -> Option<Key> {
        self.by_id.find(id)
    }

    /// The reservation at a place.
    pub(super) fn at_mut(&mut self, place: Key) -> &mut Reservation {
        &mut self.reservations[place]
    }

    pub(super) fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.iter().map(|(_, reservation)| reservation)
    }

    /// Reservations of a node that aren't gone.
    pub(super) fn held_by(&self, node: NodeKey) -> impl Iterator<Item = &Reservation> {
        self.nodes[node.index()].holds.iter().map(|key| &self.reservations[*key])
    }

    /// Reservations that are not gone.
    pub(super) fn len(&self) -> u64 {
        self.reservations.len() as u64
    }

    /// Slots in all, taken, and nodes that are here.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        (self.slots_total, self.slots_taken, self.here)
    }

    /// A node whose heartbeats were missed is heard of again on the same connection.
    pub(super) fn came_back(&mut self, key: NodeKey) {
        let node = &mut self.nodes[key.index()];
        if !node.is_here() {
            node.record.on_connected();
            self.here += 1;
        }
    }

    /// Whatever a node says shows that it is there; but what comes late of a connection that ended shows nothing.
    pub(super) fn spoke(&mut self, key: NodeKey, now: Time) {
        let node = &mut self.nodes[key.index()];
        if node.is_here() {
            node.heard_at = now;
        }
    }

    /// Something about a node changed that its score rests on.
    pub(super) fn touch(&mut self, key: NodeKey) {
        self.touched.push(key);
    }

    /// How long loading a model takes on a node that doesn't have it in memory.
    pub(super) fn cold_load(&self, key: NodeKey, model: Option<ModelKey>) -> Span {
        let serving = model.and_then(|model| self.node(key).serving(model));
        serving.filter(|serving| serving.warmth == Warmth::Cold).map_or(Span::default(), |s| s.load)
    }

    /// Takes the nodes whose room changed in this step.
    pub(super) fn take_touched(&mut self) -> Vec<NodeKey> {
        std::mem::take(&mut self.touched)
    }

    /// Gives the emptied list back, so that it needn't grow again.
    pub(super) fn keep_touched(&mut self, mut list: Vec<NodeKey>) {
        list.clear();
        if self.touched.is_empty() {
            self.touched = list;
        }
    }

    /// What a node lacks for a lane.
    pub(super) fn lacks(
        &self,
        key: NodeKey,
        lane: LaneKey,
        name: &ModelName,
        subclouds: &Subclouds,
        now: Time,
    ) -> Option<Why> {
        let nodes = self.lanes.of(lane);
        match nodes.picky {
            Picky::Yes => eligibility::lack_any(self.node(key), &nodes.need, name, now),
            Picky::No => eligibility::lack(self.node(key), &nodes.need, name, subclouds, now),
        }
    }

    /// A lane has begun: gives it its nodes, as far as this step goes; the rest come with the next steps.
    pub(super) fn fill_lane(&mut self, lane: LaneKey, name: &ModelName, subclouds: &Subclouds, now: Time) {
        self.filling.push_front((lane, NodeKey::at(0)));
        self.fill(lane, name, subclouds, now);
    }

    /// The lane that gets more nodes next, while this step may look at any.
    pub(super) fn fills_next(&self) -> Option<LaneKey> {
        self.filling.front().filter(|_| self.fill_left > 0).map(|(lane, _)| *lane)
    }

    /// The next step may look at as many nodes for new lanes as any.
    pub(super) fn restart_filling(&mut self) {
        self.fill_left = FILL_NODES_MAX;
    }

    /// Gives the lane that is next more of its nodes.
    pub(super) fn fill(&mut self, lane: LaneKey, name: &ModelName, subclouds: &Subclouds, now: Time) {
        let Some((next, from)) = self.filling.pop_front() else { return };
        assert!(next == lane, "{next:?} gets its nodes before {lane:?}");
        let of_model = self.by_model.get(self.lanes.of(lane).need.model.index());
        let mut rest = of_model.into_iter().flat_map(|nodes| nodes.range(from..));
        let nodes: Vec<NodeKey> = rest.by_ref().take(self.fill_left).copied().collect();
        let goes_on_at = rest.next().copied();
        self.fill_left -= nodes.len();
        for key in nodes {
            let is_there = self.node(key).lanes.binary_search(&lane).is_ok();
            if !is_there && self.lacks(key, lane, name, subclouds, now).is_none() {
                self.join(key, lane);
                self.touched.push(key);
            }
        }
        if let Some(at) = goes_on_at {
            self.filling.push_front((lane, at));
        }
    }

    /// A lane ended: its nodes don't look there any more.
    pub(super) fn drop_lane(&mut self, lane: LaneKey) {
        let Some(nodes) = self.lanes.end(lane) else { return };
        self.filling.retain(|(filling, _)| *filling != lane);
        for key in nodes.eligible {
            let node = &mut self.nodes[key.index()];
            if let Some(at) = node.lanes.iter().position(|l| *l == lane) {
                node.lanes.remove(at);
                node.ready_at.remove(at);
                node.later = None;
            }
        }
    }

    fn join(&mut self, key: NodeKey, lane: LaneKey) {
        self.lanes.of_mut(lane).eligible.insert(key);
        let node = &mut self.nodes[key.index()];
        // In ascending order, as the backlog wants them.
        let at = node.lanes.partition_point(|known| *known < lane);
        node.lanes.insert(at, lane);
        node.ready_at.insert(at, None);
        // Where it went on looking was among other lanes.
        node.later = None;
    }

    /// Takes a node out of all its lanes.
    pub(super) fn leave_lanes(&mut self, key: NodeKey) {
        let node = &mut self.nodes[key.index()];
        node.later = None;
        let (left, ready_at) = (std::mem::take(&mut node.lanes), std::mem::take(&mut node.ready_at));
        for (lane, place) in left.into_iter().zip(ready_at) {
            let nodes = self.lanes.of_mut(lane);
            nodes.eligible.remove(&key);
            if let Some(place) = place {
                nodes.ready.remove(place, key);
            }
        }
    }

    /// Puts a node into those of `lanes` that it may take work from.
    pub(super) fn join_lanes(
        &mut self,
        key: NodeKey,
        lanes: impl Iterator<Item = LaneKey>,
        name: &ModelName,
        subclouds: &Subclouds,
        now: Time,
    ) {
        for lane in lanes {
            if self.lacks(key, lane, name, subclouds, now).is_none() {
                self.join(key, lane);
            }
        }
        self.touched.push(key);
    }

    /// Moves a node to its place among those with room, in each of its lanes. `place` gives that in a model's.
    pub(super) fn settle(&mut self, key: NodeKey, place: impl Fn(&Node, &Serving, ModelMeans) -> Place) {
        let Self { nodes, lanes, means, .. } = self;
        let node = &mut nodes[key.index()];
        let mut ready_at = std::mem::take(&mut node.ready_at);
        for (lane, before) in node.lanes.iter().zip(&mut ready_at) {
            let of_lane = lanes.of_mut(*lane);
            let model = of_lane.need.model;
            let serving = node.serving(model).filter(|_| node.has_slot(model));
            let mean = means.get(model.index()).copied().unwrap_or_default();
            let after = serving.map(|serving| place(node, serving, mean));
            if *before == after {
                continue;
            }
            if let Some(before) = *before {
                of_lane.ready.remove(before, key);
            }
            if let Some(after) = after {
                of_lane.ready.insert(after, key);
            }
            *before = after;
        }
        node.ready_at = ready_at;
    }

    /// Whether a model is in a node's memory once a job of it has run there.
    pub(super) fn warm(&mut self, key: NodeKey, model: ModelKey) {
        if let Some(serving) = self.nodes[key.index()].serving_mut(model) {
            let before = std::mem::replace(&mut serving.warmth, Warmth::Warm);
            if before == Warmth::Cold {
                self.touch(key);
            }
        }
    }
}
