//! What the box thinks of a node: its standing, what it has proven, and what it did wrong (SPEC section 3).
//!
//! Everything is kept by the node's *key*, not by its connection: a node that reconnects, and a box that restarts,
//! find the same record. Several causes can hold at once; each is its own fact, and the standing is derived from them,
//! so that ending one never ends another. Nothing here chooses nodes, frees capacity or moves credits.

mod conduct;
mod rules;
#[cfg(test)]
mod tests;
mod trials;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::event::Environment;
use crate::ids::{Digest, ModelName, Namespace, NodeId, Region};
use crate::time::Time;

pub use self::conduct::{Check, Conduct, Exclusion, Fault, Quality, Verdict};
pub use self::rules::{PenaltyRules, Weights};
pub use self::trials::{Trial, TrialDue};

/// Models whose test jobs are remembered for one node.
pub const MODELS_PER_NODE_MAX: usize = 64;
/// Ended exclusions that stay visible, the newest.
pub const EXCLUSIONS_KEPT_MAX: usize = 8;
/// Bytes of a stated cause.
pub const CAUSE_BYTES_MAX: usize = 256;

/// What a node may do, strongest first: of several causes the first in this list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The operator refuses it: no connection, no work, running work revoked and unpaid.
    Banned,
    /// The operator suspects it: no work, running work revoked, earnings locked until cleared.
    Frozen,
    /// Its own conduct closed it for a while; running work goes on.
    Excluded,
    /// Its socket or heartbeat is gone; running work is kept until its reservation's deadline.
    Away,
    /// It finishes what it has and leaves.
    Draining,
    /// Its owner or the operator wants no new work on it.
    Paused,
    /// It waits for a test job to pass.
    Untested,
    /// It takes work.
    Ready,
}

impl Standing {
    /// All, strongest first.
    pub const ALL: [Standing; 8] = [
        Standing::Banned,
        Standing::Frozen,
        Standing::Excluded,
        Standing::Away,
        Standing::Draining,
        Standing::Paused,
        Standing::Untested,
        Standing::Ready,
    ];

    /// The word that the API, the logs and the metrics use.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Banned => "banned",
            Standing::Frozen => "frozen",
            Standing::Excluded => "excluded",
            Standing::Away => "away",
            Standing::Draining => "draining",
            Standing::Paused => "paused",
            Standing::Untested => "untested",
            Standing::Ready => "ready",
        }
    }

    /// Whether clients' jobs may be placed.
    pub fn takes_work(self) -> bool {
        self == Standing::Ready
    }

    /// Whether test jobs may be placed: they are how an untested node becomes ready.
    pub fn takes_tests(self) -> bool {
        matches!(self, Standing::Ready | Standing::Untested)
    }

    /// Whether running work is taken away.
    pub fn revokes(self) -> bool {
        matches!(self, Standing::Banned | Standing::Frozen)
    }

    /// Whether the node may connect at all.
    pub fn may_connect(self) -> bool {
        self != Standing::Banned
    }
}

/// How far the operator trusts a node with prompts; a larger one includes the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Trust {
    /// Anyone's machine.
    #[default]
    Open,
    /// Someone whom the operator knows.
    Approved,
    /// The operator's own machine.
    Own,
}

impl Trust {
    /// All, least first.
    pub const ALL: [Trust; 3] = [Trust::Open, Trust::Approved, Trust::Own];

    /// The word that configurations, the API and logs use.
    pub fn word(self) -> &'static str {
        match self {
            Trust::Open => "open",
            Trust::Approved => "approved",
            Trust::Own => "own",
        }
    }
}

/// A set of environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Environments(u8);

impl Environments {
    /// None: the node gets no work.
    pub const NONE: Environments = Environments(0);

    /// Both.
    pub const BOTH: Environments = Environments(0b11);

    /// This one alone.
    pub const fn only(environment: Environment) -> Self {
        Self(1 << environment as u8)
    }

    /// These and that one.
    pub const fn with(self, environment: Environment) -> Self {
        Self(self.0 | Self::only(environment).0)
    }

    /// Whether that one is among them.
    pub const fn contains(self, environment: Environment) -> bool {
        self.0 & Self::only(environment).0 != 0
    }

    /// Those that are in both sets.
    pub const fn intersect(self, other: Environments) -> Self {
        Self(self.0 & other.0)
    }

    /// Them, one by one.
    pub fn iter(self) -> impl Iterator<Item = Environment> {
        Environment::ALL.into_iter().filter(move |environment| self.contains(*environment))
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Who wants something of a node. Each party ends only what it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Whose node it is, through its agent.
    Owner,
    /// Who runs the box.
    Operator,
}

impl Party {
    /// The word that the API and logs use.
    pub fn word(self) -> &'static str {
        match self {
            Party::Owner => "owner",
            Party::Operator => "operator",
        }
    }
}

/// Something ordered, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// When.
    pub since: Time,
    /// Why, in a sentence.
    pub cause: Arc<str>,
}

impl Order {
    fn new(cause: &str, since: Time) -> Self {
        Self { since, cause: bounded(cause) }
    }
}

/// A cause cut to [`CAUSE_BYTES_MAX`] at a character's border.
fn bounded(cause: &str) -> Arc<str> {
    cause[..cause.floor_char_boundary(CAUSE_BYTES_MAX)].into()
}

/// What survives a restart: the row of a node's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Whose key it is.
    pub node: NodeId,
    /// How far it is trusted.
    pub trust: Trust,
    /// What it is registered for.
    pub environments: Environments,
    /// Whose namespace its earnings can go to.
    pub owner: Option<Namespace>,
    /// Where it stands, if that is known.
    pub region: Option<Region>,
    /// Who paused it, and since when.
    pub paused: BTreeMap<Party, Time>,
    /// Who drains it, and since when.
    pub draining: BTreeMap<Party, Time>,
    /// The operator's suspicion.
    pub frozen: Option<Order>,
    /// The operator's refusal.
    pub banned: Option<Order>,
    /// The exclusion in force, or over but not yet answered by a passed test job.
    pub exclusion: Option<Exclusion>,
    /// Ended exclusions, oldest first, at most [`EXCLUSIONS_KEPT_MAX`].
    pub exclusions: VecDeque<Exclusion>,
    /// What test jobs showed, by model, at most [`MODELS_PER_NODE_MAX`].
    pub trials: BTreeMap<ModelName, Trial>,
    /// Reliability, and what it was made of.
    pub conduct: Conduct,
    /// What blind and validation jobs showed.
    pub quality: Quality,
}

impl NodeRow {
    /// A key that was never seen before.
    pub fn new(node: NodeId, trust: Trust, environments: Environments) -> Self {
        Self {
            node,
            trust,
            environments,
            owner: None,
            region: None,
            paused: BTreeMap::new(),
            draining: BTreeMap::new(),
            frozen: None,
            banned: None,
            exclusion: None,
            exclusions: VecDeque::new(),
            trials: BTreeMap::new(),
            conduct: Conduct::default(),
            quality: Quality::default(),
        }
    }
}

/// Whether the node is connected. Of this moment only, so it is no part of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    Away { since: Time },
}

/// A node's record: what survives, and whether it is here.
#[derive(Debug, Clone)]
pub struct Record {
    row: NodeRow,
    presence: Presence,
}

impl Record {
    /// From what survived. The node is away until it connects: a restart of the box cut every socket.
    pub fn from_row(row: NodeRow, now: Time) -> Self {
        Self { row, presence: Presence::Away { since: now } }
    }

    /// What must survive; to be written after every change.
    pub fn row(&self) -> &NodeRow {
        &self.row
    }

    /// What the node may do now.
    pub fn standing(&self, now: Time) -> Standing {
        let holds = |standing: &Standing| match standing {
            Standing::Banned => self.row.banned.is_some(),
            Standing::Frozen => self.row.frozen.is_some(),
            Standing::Excluded => self.row.exclusion.as_ref().is_some_and(|e| now < e.until),
            Standing::Away => self.presence != Presence::Here,
            Standing::Draining => !self.row.draining.is_empty(),
            Standing::Paused => !self.row.paused.is_empty(),
            Standing::Untested => self.row.exclusion.is_some() || !self.has_passed_any(),
            Standing::Ready => true,
        };
        *Standing::ALL.iter().find(|standing| holds(standing)).expect("`Ready` always holds")
    }

    /// What the node may do now for a model of this digest.
    pub fn standing_for(&self, model: &ModelName, digest: Digest, now: Time) -> Standing {
        match self.standing(now) {
            Standing::Ready if !self.has_passed(model, digest) => Standing::Untested,
            standing => standing,
        }
    }

    /// When the standing changes without anything happening: the end of a cooldown.
    pub fn changes_at(&self, now: Time) -> Option<Time> {
        self.row.exclusion.as_ref().map(|e| e.until).filter(|until| *until > now)
    }

    /// Since when it is away; `None` while it is here.
    pub fn away_since(&self) -> Option<Time> {
        match self.presence {
            Presence::Here => None,
            Presence::Away { since } => Some(since),
        }
    }

    /// It connected. Only absence ends: every other fact belongs to the key, or a node could shed it by reconnecting.
    pub fn on_connected(&mut self) {
        // mutant: CooldownForgotten (here: `self.row.exclusion = None`)
        self.presence = Presence::Here;
    }

    /// Its socket or heartbeat is gone; a second report of the same absence doesn't renew it.
    pub fn on_away(&mut self, now: Time) {
        if self.presence == Presence::Here {
            self.presence = Presence::Away { since: now };
        }
    }

    /// It left for good after a drain, which ends the drain.
    pub fn on_left(&mut self, now: Time) {
        self.row.draining.clear();
        self.on_away(now);
    }

    /// No new work. Repeating it keeps the first time.
    pub fn pause(&mut self, by: Party, now: Time) {
        self.row.paused.entry(by).or_insert(now);
    }

    /// This party's pause ends; the other's stays.
    pub fn resume(&mut self, by: Party) {
        self.row.paused.remove(&by);
    }

    /// No new work, and it leaves when it is done.
    pub fn drain(&mut self, by: Party, now: Time) {
        self.row.draining.entry(by).or_insert(now);
    }

    /// The operator suspects it.
    pub fn freeze(&mut self, cause: &str, now: Time) {
        self.row.frozen.get_or_insert_with(|| Order::new(cause, now));
    }

    /// The suspicion is cleared.
    pub fn unfreeze(&mut self) {
        self.row.frozen = None;
    }

    /// The operator refuses it.
    pub fn ban(&mut self, cause: &str, now: Time) {
        self.row.banned.get_or_insert_with(|| Order::new(cause, now));
    }

    /// The refusal ends. What the node had proven is void: it starts as a new one.
    pub fn unban(&mut self) {
        if self.row.banned.take().is_some() {
            self.row.trials.clear();
        }
    }

    /// The operator sets how far it is trusted.
    pub fn set_trust(&mut self, trust: Trust) {
        self.row.trust = trust;
    }

    /// It is registered for these from now on.
    pub fn set_environments(&mut self, environments: Environments) {
        self.row.environments = environments;
    }

    /// Its earnings can go to this namespace.
    pub fn set_owner(&mut self, owner: Option<Namespace>) {
        self.row.owner = owner;
    }

    /// It stands there.
    pub fn set_region(&mut self, region: Option<Region>) {
        self.row.region = region;
    }
}
