//! Lanes: one per environment, model and constraint shape, and one *picky* lane per environment and model.
//!
//! A lane is an index and owns nobody's order. Lanes without jobs stay for their nodes' sake, until a new shape
//! needs their room.

use std::collections::{BTreeMap, BTreeSet};

use super::super::event::{Environment, Tier};
use super::super::names::{LaneKey, ModelKey, NamespaceKey, ShapeKey};
use super::super::slab::Key;
use super::Backlog;
use super::flow::{FlowKey, Offer};
use crate::time::{Span, Time};

/// Lanes of one environment and model, the picky one not counted.
pub(in crate::coordinator) const LANES_MAX: usize = 256;
/// How long a lane must have been empty before a new shape may take its room.
pub(in crate::coordinator) const LANE_IDLE: Span = Span::from_secs(60);

/// Where the jobs of a shape wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum LaneOf {
    /// In a lane that was there.
    Existing(LaneKey),
    /// In a new one. If another was evicted for it, that one's key is the new one's: forget it first.
    Created { lane: LaneKey, evicted: Option<LaneKey> },
}

/// What a lane is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::coordinator) struct Home {
    pub(in crate::coordinator) environment: Environment,
    pub(in crate::coordinator) model: ModelKey,
}

impl Home {
    /// Where tables keep what belongs to it.
    pub(super) fn index(self) -> usize {
        self.model.index() * 2 + self.environment as usize
    }
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) home: Home,
    /// `None` for the picky lane.
    pub(super) shape: Option<ShapeKey>,
    pub(super) tiers: [LaneTier; Tier::ALL.len()],
    pub(super) ages: Ages,
    /// Its flows, of all tiers.
    pub(super) flows: BTreeSet<FlowKey>,
    /// When it was last asked for or left by a job.
    pub(super) used_at: Time,
}

/// One tier of a lane.
#[derive(Debug, Default)]
pub(super) struct LaneTier {
    pub(super) waiting: u64,
    /// Those of them whose namespace is paused.
    pub(super) held: u64,
    /// Jobs that came back with a start, by that and sequence; those of paused namespaces left out.
    pub(super) returned: BTreeSet<(u64, Offer)>,
    /// The count of changes when a job last came to be offered here.
    pub(super) changed: u64,
}

/// The batch jobs of a lane by age.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// The oldest unstamped job of each flow and all that came back, by sequence; paused namespaces left out.
    pub(super) order: BTreeSet<(u64, FlowKey)>,
    /// The same by when they began to wait, on the model's clock: pauses of their namespaces make some younger than
    /// others that came later.
    pub(super) sinces: BTreeSet<(u64, u64, FlowKey)>,
    /// Where jobs stand in the standard tier since they were first seen to be aged, by sequence.
    pub(super) starts: BTreeMap<u64, AgedStart>,
}

/// The virtual start of an aged batch job in the standard tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgedStart {
    /// Its namespace's, but no earlier than the tier was when the job was first seen to be aged.
    FirstSeen(u64),
    /// What its dispatch there gave it.
    Returned(u64),
}

/// What an environment has of one model.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) shapes: BTreeMap<ShapeKey, LaneKey>,
    pub(super) picky: Option<LaneKey>,
    pub(super) tiers: [StockTier; Tier::ALL.len()],
}

/// One tier of it.
#[derive(Debug, Default)]
pub(super) struct StockTier {
    pub(super) waiting: u64,
    /// How many of the jobs are whose: keys of `Backlog::strands`.
    pub(super) strands: BTreeMap<NamespaceKey, Key>,
    /// Since when the model or the tier is paused.
    pub(super) stopped_at: Option<Time>,
    /// For how long it was paused before.
    pub(super) stopped: Span,
    /// The count of changes when it was last resumed.
    pub(super) changed: u64,
}

impl StockTier {
    /// Microseconds in which its jobs could be placed, from any fixed point on.
    pub(super) fn clock(&self, now: Time) -> u64 {
        self.stopped_at.unwrap_or(now).0.saturating_sub(self.stopped.0)
    }

    pub(super) fn stop(&mut self, now: Time) {
        self.stopped_at.get_or_insert(now);
    }

    pub(super) fn start(&mut self, now: Time, changes: u64) {
        if let Some(stopped_at) = self.stopped_at.take() {
            self.stopped = Span(self.stopped.0.saturating_add(now.since(stopped_at).0));
            self.changed = changes;
        }
    }
}

impl Lane {
    fn new(home: Home, shape: Option<ShapeKey>, now: Time) -> Self {
        Self {
            home,
            shape,
            tiers: Default::default(),
            ages: Ages::default(),
            flows: BTreeSet::new(),
            used_at: now,
        }
    }

    pub(super) fn is_picky(&self) -> bool {
        self.shape.is_none()
    }

    fn is_idle(&self, now: Time) -> bool {
        now.since(self.used_at) >= LANE_IDLE && self.tiers.iter().all(|tier| tier.waiting == 0)
    }
}

impl Backlog {
    /// The lane for jobs of this shape; the picky one for `None`, and when there are too many shapes.
    pub(in crate::coordinator) fn lane(&mut self, home: Home, shape: Option<ShapeKey>, now: Time) -> LaneOf {
        let stock = self.stock_mut(home, now);
        let known = shape.map_or(stock.picky, |shape| stock.shapes.get(&shape).copied());
        if let Some(lane) = known {
            self.lanes[lane.index()].used_at = now;
            return LaneOf::Existing(lane);
        }
        match shape {
            Some(_) if self.stocks[home.index()].shapes.len() < LANES_MAX => self.create(home, shape, now),
            Some(_) => match self.idle_lane(home, now) {
                Some(idle) => self.replace(idle, shape, now),
                None => self.lane(home, None, now),
            },
            None => self.create(home, None, now),
        }
    }

    fn create(&mut self, home: Home, shape: Option<ShapeKey>, now: Time) -> LaneOf {
        let place =
            u32::try_from(self.lanes.len()).expect("each model has few lanes, and models are bounded");
        let lane = LaneKey::from(place);
        self.lanes.push(Lane::new(home, shape, now));
        self.enter(home, shape, lane);
        LaneOf::Created { lane, evicted: None }
    }

    fn replace(&mut self, lane: LaneKey, shape: Option<ShapeKey>, now: Time) -> LaneOf {
        let Lane { home, shape: before, .. } = self.lanes[lane.index()];
        if let Some(before) = before {
            self.stocks[home.index()].shapes.remove(&before);
        }
        self.lanes[lane.index()] = Lane::new(home, shape, now);
        self.enter(home, shape, lane);
        LaneOf::Created { lane, evicted: Some(lane) }
    }

    fn enter(&mut self, home: Home, shape: Option<ShapeKey>, lane: LaneKey) {
        let stock = &mut self.stocks[home.index()];
        match shape {
            Some(shape) => {
                stock.shapes.insert(shape, lane);
            }
            None => stock.picky = Some(lane),
        }
    }

    fn idle_lane(&self, home: Home, now: Time) -> Option<LaneKey> {
        let lanes = self.stocks[home.index()].shapes.values();
        let idle = lanes.filter(|lane| self.lanes[lane.index()].is_idle(now));
        idle.min_by_key(|lane| (self.lanes[lane.index()].used_at, **lane)).copied()
    }

    /// What belongs to this environment and model; made on the first use, paused as the scopes say.
    pub(super) fn stock_mut(&mut self, home: Home, now: Time) -> &mut Stock {
        while self.stocks.len() <= home.index() {
            let model = ModelKey::from(self.stocks.len() as u32 / 2);
            let mut stock = Stock::default();
            for tier in Tier::ALL.into_iter().filter(|tier| self.stops(model, *tier)) {
                stock.tiers[tier as usize].stop(now);
            }
            self.stocks.push(stock);
        }
        &mut self.stocks[home.index()]
    }

    /// All lanes of an environment and model.
    pub(in crate::coordinator) fn lanes_of(&self, home: Home) -> impl Iterator<Item = LaneKey> {
        let stock = self.stocks.get(home.index());
        stock.into_iter().flat_map(|stock| stock.shapes.values().copied().chain(stock.picky))
    }

    /// The lane of an environment and model whose jobs are looked at one by one, if there is one.
    pub(in crate::coordinator) fn picky_lane(&self, home: Home) -> Option<LaneKey> {
        self.stocks.get(home.index())?.picky
    }

    /// A lane's shape; `None` for a picky one.
    pub(in crate::coordinator) fn shape_of(&self, lane: LaneKey) -> Option<ShapeKey> {
        self.lanes[lane.index()].shape
    }

    /// A lane's environment and model.
    #[cfg(test)]
    pub(in crate::coordinator) fn home_of(&self, lane: LaneKey) -> Home {
        self.lanes[lane.index()].home
    }
}
