//! A node as the core holds it: what it is, what it brought with its connection, and what it has taken on.

use super::super::backlog::Cursor;
use super::super::event::{Environment, Equipment, Heartbeat, NodeHello, Warmth};
use super::super::names::{LaneKey, ModelKey};
use super::super::slab::Key;
use super::super::standing::{Environments, Record, Standing};
use super::super::subcloud::NodeFacts;
use super::super::timers::TimerKey;
use super::ready::Place;
use super::speed::Pace;
use crate::credits::Credits;
use crate::ids::{
    Digest, GpuClass, ModelName, ModelVersion, NodeId, Region, ReservationId, RuntimeName, Session,
};
use crate::time::{Span, Time};

/// Tokens of a node's cache that are believed: sums over all its reservations stay far from overflow.
pub(in crate::coordinator) const KV_TOKENS_MAX: u64 = 1 << 40;

/// A node.
#[derive(Debug)]
pub(in crate::coordinator) struct Node {
    /// What survives: who it is, its trust, environments and conduct; and whether it is here.
    pub(in crate::coordinator) record: Record,
    /// Since when this connection, and when it was last heard of.
    pub(in crate::coordinator) connected_at: Time,
    pub(in crate::coordinator) heard_at: Time,
    /// The newest connection.
    pub(in crate::coordinator) session: Session,
    /// What it serves.
    pub(in crate::coordinator) models: Vec<Serving>,
    /// Where it wants to work; it does where it is registered, too.
    pub(in crate::coordinator) wants: Vec<Environment>,
    /// Jobs that it runs at once.
    pub(in crate::coordinator) slots: u32,
    pub(in crate::coordinator) taken: u32,
    /// Tokens of its cache, and those that reservations take.
    pub(in crate::coordinator) kv_tokens: u64,
    pub(in crate::coordinator) kv_taken: u64,
    pub(in crate::coordinator) memory_bytes: u64,
    pub(in crate::coordinator) gpu: Option<GpuClass>,
    pub(in crate::coordinator) region: Option<Region>,
    /// Its reservations that aren't gone.
    pub(in crate::coordinator) holds: Vec<Key>,
    /// Lanes that it may take work from, each with its place among those that have room.
    pub(in crate::coordinator) lanes: Vec<LaneKey>,
    /// For each of `lanes`, where it stands among those with room; `None` while it has none.
    pub(in crate::coordinator) ready_at: Vec<Option<Place>>,
    /// Where it goes on looking at the next tick.
    pub(in crate::coordinator) later: Option<Cursor>,
    /// The one timer of its deadlines: heartbeat, away, cooldown, next test.
    pub(in crate::coordinator) timer: Option<(Time, TimerKey)>,
    /// The test job that it runs.
    pub(in crate::coordinator) testing: Option<Key>,
    /// Whether a test job is due that only waits for a slot.
    pub(in crate::coordinator) test_waits: bool,
    /// No test job before this.
    pub(in crate::coordinator) test_not_before: Time,
    /// Set while it runs a job that must be alone.
    pub(in crate::coordinator) alone: Option<ReservationId>,
    /// Where it stood when it was last told, and its lanes were last made.
    pub(in crate::coordinator) stood: Standing,
    /// What this connection was last told that it has earned, by environment.
    pub(in crate::coordinator) earned: [Option<Credits>; 2],
}

/// A model that a node serves.
#[derive(Debug, Clone)]
pub(in crate::coordinator) struct Serving {
    pub(in crate::coordinator) model: ModelKey,
    pub(in crate::coordinator) version: Option<ModelVersion>,
    pub(in crate::coordinator) digest: Digest,
    pub(in crate::coordinator) runtime: Option<RuntimeName>,
    /// Where the configuration in force has it, and not under another digest.
    pub(in crate::coordinator) permitted: Environments,
    pub(in crate::coordinator) slots: u32,
    pub(in crate::coordinator) taken: u32,
    pub(in crate::coordinator) warmth: Warmth,
    /// How long loading it takes.
    pub(in crate::coordinator) load: Span,
    /// As measured.
    pub(in crate::coordinator) pace: Pace,
}

impl Node {
    /// A node that was never here.
    pub(in crate::coordinator) fn absent(record: Record, now: Time) -> Self {
        Self {
            record,
            connected_at: now,
            heard_at: now,
            session: Session::default(),
            models: Vec::new(),
            wants: Vec::new(),
            slots: 0,
            taken: 0,
            kv_tokens: 0,
            kv_taken: 0,
            memory_bytes: 0,
            gpu: None,
            region: None,
            holds: Vec::new(),
            lanes: Vec::new(),
            ready_at: Vec::new(),
            later: None,
            timer: None,
            testing: None,
            test_waits: false,
            test_not_before: Time::default(),
            alone: None,
            stood: Standing::Away,
            earned: [None; 2],
        }
    }

    /// Takes over what it serves; what was measured of a model stays with it.
    pub(super) fn offer(&mut self, models: Vec<Serving>) {
        let before = std::mem::take(&mut self.models);
        self.models = models;
        for serving in &mut self.models {
            if let Some(known) = before.iter().find(|known| known.model == serving.model) {
                serving.taken = known.taken;
                serving.pace = known.pace;
            }
        }
        // A model that is no longer offered stays until its reservations are gone.
        let offered: Vec<ModelKey> = self.models.iter().map(|serving| serving.model).collect();
        let gone = before.into_iter().filter(|s| s.taken > 0 && !offered.contains(&s.model));
        self.models.extend(gone.map(|serving| Serving { slots: 0, ..serving }));
        self.later = None;
    }

    /// Takes over what it has for its jobs.
    pub(super) fn equip(&mut self, equipment: &Equipment) {
        let Equipment { slots, kv_tokens, memory_bytes, gpu, region } = equipment;
        self.slots = *slots;
        self.kv_tokens = (*kv_tokens).min(KV_TOKENS_MAX);
        self.memory_bytes = *memory_bytes;
        self.gpu.clone_from(gpu);
        self.region.clone_from(region);
    }

    /// Takes over what else a connection brings.
    pub(super) fn arrive(&mut self, hello: &NodeHello, now: Time) {
        self.record.on_connected();
        (self.connected_at, self.heard_at) = (now, now);
        self.session = hello.session;
        self.wants.clone_from(&hello.environments);
        self.slots = hello.slots;
        self.kv_tokens = hello.kv_tokens.min(KV_TOKENS_MAX);
        self.memory_bytes = hello.memory_bytes;
        self.gpu.clone_from(&hello.gpu);
        self.region.clone_from(&hello.region);
        self.later = None;
        self.earned = [None; 2];
    }

    /// Who it is.
    pub(in crate::coordinator) fn id(&self) -> &NodeId {
        &self.record.row().node
    }

    pub(in crate::coordinator) fn is_here(&self) -> bool {
        self.record.away_since().is_none()
    }

    /// Notes that it was heard of. Says whether the models in its memory changed.
    pub(in crate::coordinator) fn heard(&mut self, beat: &Heartbeat, warm: &[ModelKey], now: Time) -> bool {
        if beat.session != self.session {
            return false;
        }
        self.heard_at = now;
        let mut changed = false;
        for serving in &mut self.models {
            let warmth = if warm.contains(&serving.model) { Warmth::Warm } else { Warmth::Cold };
            changed |= std::mem::replace(&mut serving.warmth, warmth) != warmth;
        }
        changed
    }

    pub(in crate::coordinator) fn serving(&self, model: ModelKey) -> Option<&Serving> {
        self.models.iter().find(|serving| serving.model == model)
    }

    pub(in crate::coordinator) fn serving_mut(&mut self, model: ModelKey) -> Option<&mut Serving> {
        self.models.iter_mut().find(|serving| serving.model == model)
    }

    /// Whether it has a slot for a job of this model.
    pub(in crate::coordinator) fn has_slot(&self, model: ModelKey) -> bool {
        self.taken < self.slots
            && self.alone.is_none()
            && self.serving(model).is_some_and(|serving| serving.taken < serving.slots)
    }

    /// Whether it has a slot for any model.
    pub(in crate::coordinator) fn has_any_slot(&self) -> bool {
        self.taken < self.slots && self.alone.is_none()
    }

    /// Whether its cache has room for so many tokens.
    pub(in crate::coordinator) fn has_room(&self, kv_tokens: u64) -> bool {
        self.kv_taken.saturating_add(kv_tokens) <= self.kv_tokens
    }

    /// What subclouds' policies look at.
    pub(in crate::coordinator) fn facts(&self) -> NodeFacts {
        NodeFacts {
            trust: self.record.row().trust,
            region: self.region.clone(),
            memory_bytes: self.memory_bytes,
            gpu: self.gpu.clone(),
        }
    }

    /// Whether it is the box itself.
    pub(in crate::coordinator) fn is_local(&self) -> bool {
        *self.id() == NodeId::local()
    }

    /// Whether it works in an environment: it wants to, and is registered for it.
    pub(in crate::coordinator) fn works_in(&self, environment: Environment) -> bool {
        self.wants.contains(&environment) && self.record.row().environments.contains(environment)
    }

    /// Whether it may run a model's jobs there, as far as offers, registration and configurations go.
    pub(in crate::coordinator) fn may_serve(&self, serving: &Serving, environment: Environment) -> bool {
        serving.slots > 0 && serving.permitted.contains(environment) && self.works_in(environment)
    }

    /// Where it stands for a model: the box itself needs no test, for its models were loaded before it was asked.
    pub(in crate::coordinator) fn standing_for(
        &self,
        serving: &Serving,
        name: &ModelName,
        now: Time,
    ) -> Standing {
        match self.record.standing_for(name, serving.digest, now) {
            Standing::Untested if self.is_local() && self.record.row().exclusion.is_none() => Standing::Ready,
            standing => standing,
        }
    }
}
