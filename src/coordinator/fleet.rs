//! The nodes and what they have reserved.
//!
//! A node's taken slots are always the number of its reservations that occupy capacity. For now there is one
//! kind of node, the box itself; a node that joins again replaces itself.

use std::collections::BTreeMap;

use super::effect::NodeView;
use super::event::{JobError, NodeHello};
use super::slab::Key;
use crate::ids::{ModelName, NodeId, ReservationId};
use crate::time::Time;

/// A claim of a job on a node's capacity (CORE section 3).
#[derive(Debug, Clone)]
pub(super) struct Reservation {
    pub(super) id: ReservationId,
    /// The job that it works for; `None` once that goes on without it.
    pub(super) job: Option<Key>,
    pub(super) node: NodeId,
    pub(super) model: ModelName,
    pub(super) state: ReservationState,
    pub(super) capacity: Capacity,
    /// Whether the node ever said that it began.
    pub(super) began: Began,
    /// When its current deadline is due, and which that is.
    pub(super) due: (Time, Deadline),
    /// When the node was told.
    pub(super) assigned_at: Time,
    /// When the whole attempt is overdue.
    pub(super) attempt_due: Time,
    /// When the first output is overdue.
    pub(super) first_output_due: Time,
    /// Its share of the output budget; 0 once given back.
    pub(super) output_bytes: u64,
    /// Tokens that the box saw when it closed the output; what a cancel may be charged at most.
    pub(super) seen_tokens: u32,
}

/// Where a reservation stands; *gone* is its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReservationState {
    /// The node was told.
    Assigned,
    /// The node began.
    Running,
    /// Its output is closed; it waits for the node's word or the stop deadline.
    Stopping(Ending),
}

/// Why a reservation stops, and so what becomes of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The job is to end: when the node has stopped, it does.
    Cancel(Left),
    /// The node refused, in its words: the job is decided when the output is closed.
    Declined(String),
    /// The node doesn't have it any more: the job is decided when the output is closed.
    Lost,
    /// A failed result: the job is decided when the output is closed.
    Failed(JobError),
    /// A missed deadline: likewise.
    Overdue(Deadline),
}

/// Whether a cancel comes from a client that left, which is counted by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    ClientLeft,
    Stays,
}

/// Whether a reservation takes a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capacity {
    Taken,
    Free,
}

/// Whether a node began an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    Yes,
    No,
}

/// What a reservation must do in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    Accept,
    FirstOutput,
    Progress,
    Attempt,
    Stop,
}

impl Deadline {
    /// The word in traces.
    pub(super) fn word(self) -> &'static str {
        match self {
            Deadline::Accept => "accept",
            Deadline::FirstOutput => "first_output",
            Deadline::Progress => "progress",
            Deadline::Attempt => "attempt",
            Deadline::Stop => "stop",
        }
    }
}

/// All nodes and reservations.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    nodes: BTreeMap<NodeId, Node>,
    reservations: BTreeMap<ReservationId, Reservation>,
}

#[derive(Debug)]
struct Node {
    connected_at: Time,
    models: BTreeMap<ModelName, Slots>,
}

#[derive(Debug, Clone, Copy)]
struct Slots {
    total: u32,
    taken: u32,
}

/// The node that a job should run on, with the reasons.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) node: NodeId,
    pub(super) candidates: u32,
    pub(super) score: Vec<(&'static str, u64)>,
}

impl Fleet {
    /// A node joins.
    pub(super) fn connect(&mut self, hello: NodeHello, now: Time) {
        let slots = |taken, total| Slots { total, taken };
        let occupied = |model: &ModelName| {
            let occupies =
                |r: &&Reservation| r.node == hello.node && r.model == *model && r.capacity == Capacity::Taken;
            self.reservations.values().filter(occupies).count() as u32
        };
        let models = hello.models.iter().map(|o| (o.model.clone(), slots(occupied(&o.model), o.slots)));
        let node = Node { connected_at: now, models: models.collect() };
        self.nodes.insert(hello.node.clone(), node);
    }

    /// Whether any node serves a model.
    pub(super) fn serves(&self, model: &ModelName) -> bool {
        self.nodes.values().any(|node| node.models.contains_key(model))
    }

    /// The eligible node with the smallest score. Its one term: how long the queue at that node makes one wait,
    /// which is zero where a slot is free, plus the share of its slots that are taken.
    pub(super) fn choose(&self, model: &ModelName, service_us: u64) -> Option<Choice> {
        let free = |(id, node): (&NodeId, &Node)| {
            let slots = node.models.get(model).filter(|slots| slots.taken < slots.total)?;
            let load = service_us * u64::from(slots.taken) / u64::from(slots.total);
            Some((load, id.clone()))
        };
        let candidates = self.nodes.iter().filter_map(free);
        let mut looked_at = 0;
        let best = candidates.inspect(|_| looked_at += 1).min()?;
        Some(Choice { node: best.1, candidates: looked_at, score: vec![("load_us", best.0)] })
    }

    /// Sets capacity aside.
    pub(super) fn reserve(&mut self, reservation: Reservation) {
        assert!(reservation.capacity == Capacity::Taken, "a reservation begins by taking a slot");
        self.slots_mut(&reservation).taken += 1;
        let before = self.reservations.insert(reservation.id, reservation);
        assert!(before.is_none(), "a reservation id was given twice");
    }

    /// Gives a reservation's slot back, once.
    pub(super) fn free_capacity(&mut self, id: ReservationId) {
        let Some(reservation) = self.reservations.get_mut(&id) else { return };
        if reservation.capacity == Capacity::Taken {
            reservation.capacity = Capacity::Free;
            let reservation = reservation.clone();
            self.slots_mut(&reservation).taken -= 1;
        }
    }

    /// Removes a reservation: it is *gone*, and its id changes nothing from now on.
    pub(super) fn remove(&mut self, id: ReservationId) -> Option<Reservation> {
        self.free_capacity(id);
        self.reservations.remove(&id)
    }

    pub(super) fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(&id)
    }

    pub(super) fn reservation_mut(&mut self, id: ReservationId) -> Option<&mut Reservation> {
        self.reservations.get_mut(&id)
    }

    pub(super) fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// Reservations that are not gone.
    pub(super) fn len(&self) -> u64 {
        self.reservations.len() as u64
    }

    /// Slots in all.
    pub(super) fn slots_total(&self) -> u64 {
        self.slots().map(|slots| u64::from(slots.total)).sum()
    }

    /// Slots for one model.
    pub(super) fn slots_of(&self, model: &ModelName) -> u64 {
        self.nodes
            .values()
            .filter_map(|node| node.models.get(model))
            .map(|slots| u64::from(slots.total))
            .sum()
    }

    /// Slots taken.
    pub(super) fn slots_taken(&self) -> u64 {
        self.slots().map(|slots| u64::from(slots.taken)).sum()
    }

    /// Nodes that are here.
    pub(super) fn nodes(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Every model that some node serves.
    pub(super) fn models(&self) -> Vec<ModelName> {
        let mut models: Vec<_> = self.nodes.values().flat_map(|node| node.models.keys().cloned()).collect();
        models.sort();
        models.dedup();
        models
    }

    /// Slots taken per node and model, as kept.
    pub(super) fn taken(&self) -> impl Iterator<Item = (&NodeId, &ModelName, u32)> {
        self.nodes.iter().flat_map(|(id, node)| node.models.iter().map(move |(m, s)| (id, m, s.taken)))
    }

    /// The nodes as the operator sees them.
    pub(super) fn views(&self) -> Vec<NodeView> {
        let view = |(id, node): (&NodeId, &Node)| NodeView {
            node: id.clone(),
            connected_at: node.connected_at,
            models: node.models.iter().map(|(model, s)| (model.clone(), s.total, s.taken)).collect(),
        };
        self.nodes.iter().map(view).collect()
    }

    fn slots(&self) -> impl Iterator<Item = &Slots> {
        self.nodes.values().flat_map(|node| node.models.values())
    }

    fn slots_mut(&mut self, reservation: &Reservation) -> &mut Slots {
        let node = self.nodes.get_mut(&reservation.node).expect("a reservation's node is known");
        node.models.get_mut(&reservation.model).expect("a reservation's model is served by its node")
    }
}
