//! What waits, and in which order (CORE section 5): within an environment by tier, then virtual start, then sequence.
//!
//! Jobs wait in flows (one per lane, tier and namespace); each tier of an environment has one order of namespaces,
//! whatever the lanes. It knows neither nodes nor why a job waits: what doesn't wait isn't here, jobs in backoff
//! included. It never decides who runs a job; `select` only says which one is next.

mod check;
mod clock;
mod counts;
mod fifo;
mod flow;
mod lane;
mod order;
mod pause;
mod select;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::event::{Environment, Tier};
use super::names::{LaneKey, ModelKey, NamespaceKey};
use super::slab::{Key, Slab};
use crate::time::{Span, Time};

use self::clock::{Listing, TierClock, WEIGHT_MAX};
use self::fifo::Waiting;
use self::flow::{Flow, FlowKey, Offer};
use self::lane::{AgedStart, Lane, Stock};

pub(super) use self::counts::View;
pub(super) use self::flow::{Arrival, Place, Position, Seat, Stamp};
#[cfg(test)]
use self::lane::LANES_MAX;
pub(super) use self::lane::{Home, LaneOf};
use self::order::Progress;
pub(super) use self::pause::Scope;
#[cfg(test)]
use self::select::SKIPS_MAX;
pub(super) use self::select::{Cursor, Selection, Suit};

/// Every waiting job.
#[derive(Debug)]
pub(super) struct Backlog {
    lanes: Vec<Lane>,
    /// By environment and model.
    stocks: Vec<Stock>,
    flows: Slab<Flow>,
    /// Waiting jobs by environment, model, tier and namespace.
    strands: Slab<u64>,
    /// By environment and tier.
    clocks: Vec<TierClock>,
    namespaces: Vec<Standing>,
    paused_models: BTreeSet<ModelKey>,
    paused_tiers: BTreeSet<Tier>,
    batch_age: Span,
    jobs: u64,
    /// Counts each time that a job comes to be offered, so that a walk knows what it has missed.
    changes: u64,
    /// Room for the searches of an offer, by environment.
    progress: [Progress; 2],
}

/// What holds for a namespace in all tiers.
#[derive(Debug)]
struct Standing {
    weight: u32,
    listing: Listing,
    waiting: u64,
}

/// The place of a tier's clock.
fn clock_index(environment: Environment, tier: Tier) -> usize {
    environment as usize * Tier::ALL.len() + tier as usize
}

impl Backlog {
    /// Nothing waits. A batch job that could have been placed for longer than `batch_age` competes in `standard`.
    pub(super) fn new(batch_age: Span) -> Self {
        let clocks = (0..2 * Tier::ALL.len()).map(|_| TierClock::default()).collect();
        Self {
            lanes: Vec::new(),
            stocks: Vec::new(),
            flows: Slab::new(),
            strands: Slab::new(),
            clocks,
            namespaces: Vec::new(),
            paused_models: BTreeSet::new(),
            paused_tiers: BTreeSet::new(),
            batch_age,
            jobs: 0,
            changes: 0,
            progress: Default::default(),
        }
    }

    /// A namespace's share against others while both wait, 1 to `WEIGHT_MAX`; from its next dispatch on.
    pub(super) fn set_weight(&mut self, namespace: NamespaceKey, weight: u32) {
        self.know(namespace);
        self.namespaces[namespace.index()].weight = weight.clamp(1, WEIGHT_MAX);
    }

    /// That share; 1 for one that never had jobs nor settings.
    pub(super) fn weight(&self, namespace: NamespaceKey) -> u32 {
        self.namespaces.get(namespace.index()).map_or(1, |standing| standing.weight)
    }

    /// Lets a job wait.
    pub(super) fn insert(&mut self, arrival: Arrival, now: Time) -> Place {
        let Arrival { key, lane, tier, namespace, sequence, stamp, waited } = arrival;
        self.know(namespace);
        let flow_key = self.flow(lane, tier, namespace, now);
        let model_clock = self.model_clock(lane, tier, now);
        let flow = &self.flows[flow_key];
        let since = flow.clock(model_clock).saturating_sub(waited.0);
        let returned = stamp.filter(|stamp| stamp.tier == tier).map(|stamp| stamp.start);
        let place = Place { lane, tier, namespace, sequence, flow: flow_key, since, returned };
        self.count_in(&place);
        match returned {
            Some(start) => self.file_returned(&place, start, key),
            None => self.file_queued(&place, key),
        }
        if let Some(Stamp { start, .. }) = stamp.filter(|stamp| stamp.tier != tier) {
            self.lanes[lane.index()].ages.starts.insert(sequence, AgedStart::Returned(start));
        }
        self.relist(place.clock(self), namespace);
        place
    }

    /// Takes a job out that isn't to run: cancelled, expired.
    pub(super) fn remove(&mut self, place: &Place, now: Time) {
        self.take(place, now);
        self.relist(place.clock(self), place.namespace);
    }

    /// Takes a job out to run it and charges its namespace in the tier in which it was selected. The stamp is to
    /// come back with the job, should the attempt be lost.
    pub(super) fn dispatch(&mut self, place: &Place, charged: Tier, cost_tokens: u64, now: Time) -> Stamp {
        let start = self.start_of(place, charged);
        self.take(place, now);
        let weight = self.namespaces[place.namespace.index()].weight;
        let clock = clock_index(self.lanes[place.lane.index()].home.environment, charged);
        self.clocks[clock].charge(place.namespace, start, cost_tokens, weight);
        self.relist(clock, place.namespace);
        if charged != place.tier {
            self.relist(place.clock(self), place.namespace);
        }
        Stamp { tier: charged, start }
    }

    /// Corrects what a namespace was charged by `tokens`; below zero, it got less than it was charged for.
    pub(super) fn carry(
        &mut self,
        environment: Environment,
        tier: Tier,
        namespace: NamespaceKey,
        tokens: i64,
    ) {
        self.know(namespace);
        let member = &mut self.clocks[clock_index(environment, tier)].members[namespace.index()];
        member.carry = member.carry.saturating_add(tokens);
    }

    /// How long a waiting job could have been placed: pauses and earlier attempts don't count.
    pub(super) fn waited(&self, place: &Place, now: Time) -> Span {
        let clock = self.flows[place.flow].clock(self.model_clock(place.lane, place.tier, now));
        Span(clock.saturating_sub(place.since))
    }

    /// Makes room for a namespace in all tables.
    fn know(&mut self, namespace: NamespaceKey) {
        if namespace.index() < self.namespaces.len() {
            return;
        }
        let count = namespace.index() + 1;
        self.namespaces.resize_with(count, || Standing { weight: 1, listing: Listing::Open, waiting: 0 });
        self.clocks.iter_mut().for_each(|clock| clock.members.resize_with(count, Default::default));
    }

    fn model_clock(&self, lane: LaneKey, tier: Tier, now: Time) -> u64 {
        self.stocks[self.lanes[lane.index()].home.index()].tiers[tier as usize].clock(now)
    }

    /// The flow of a namespace in a lane and tier, a new one if need be.
    fn flow(&mut self, lane: LaneKey, tier: Tier, namespace: NamespaceKey, now: Time) -> FlowKey {
        let home = self.lanes[lane.index()].home;
        let clock = clock_index(home.environment, tier);
        if let Some(flow) = self.clocks[clock].members[namespace.index()].flows.get(&lane) {
            return *flow;
        }
        let stock = &mut self.stocks[home.index()].tiers[tier as usize];
        let strand = *stock.strands.entry(namespace).or_insert_with(|| self.strands.insert(0));
        let paused = self.namespaces[namespace.index()].listing == Listing::Paused;
        let flow = Flow {
            lane,
            tier,
            namespace,
            strand,
            queued: Default::default(),
            returned: Default::default(),
            excluded: 0,
            held_at: paused.then(|| stock.clock(now)),
        };
        let flow = self.flows.insert(flow);
        self.clocks[clock].members[namespace.index()].flows.insert(lane, flow);
        self.lanes[lane.index()].flows.insert(flow);
        flow
    }

    fn file_queued(&mut self, place: &Place, key: Key) {
        let flow = &mut self.flows[place.flow];
        let before = flow.head();
        flow.queued.insert(place.sequence, Waiting { key, since: place.since });
        self.rehead(place, before);
        if self.lanes[place.lane.index()].is_picky() {
            self.note_change(place);
        }
    }

    fn file_returned(&mut self, place: &Place, start: u64, key: Key) {
        let flow = &mut self.flows[place.flow];
        let waits = flow.returned.insert(place.sequence, (start, Waiting { key, since: place.since }));
        assert!(waits.is_none(), "sequence {} waits twice in {:?}", place.sequence, place.lane);
        if flow.held_at.is_none() {
            self.offer_returned(place.flow, start, Offer { sequence: place.sequence, key });
        }
        self.note_change(place);
    }

    /// Takes a job out of all tables but the order, which is brought up to date with `relist`.
    fn take(&mut self, place: &Place, now: Time) {
        let Place { flow: flow_key, sequence, .. } = *place;
        let flow = &mut self.flows[flow_key];
        let before = flow.head();
        match place.returned {
            Some(start) => {
                let (_, job) = flow.returned.remove(&sequence).expect("a returned job waits in its flow");
                self.withdraw_returned(flow_key, start, Offer { sequence, key: job.key }, job.since);
            }
            None => drop(flow.queued.remove(sequence).expect("a queued job waits in its flow")),
        }
        self.rehead(place, before);
        if place.tier == Tier::Batch {
            self.lanes[place.lane.index()].ages.starts.remove(&sequence);
        }
        self.count_out(place, now);
    }

    /// Follows a change of a flow's first job in what is kept of it.
    fn rehead(&mut self, place: &Place, before: Option<Offer>) {
        let flow = &self.flows[place.flow];
        let (head, is_open) = (flow.head(), flow.held_at.is_none());
        if head == before {
            return;
        }
        let clock = place.clock(self);
        let member = &mut self.clocks[clock].members[place.namespace.index()];
        let sequence = |offer: Offer| offer.sequence;
        member.rehead(place.lane, place.flow, before.map(sequence), head.map(sequence));
        if place.tier == Tier::Batch && is_open {
            before.inspect(|before| {
                // It may be the one that was taken out.
                let waits = self.flows[place.flow].job(before.sequence);
                self.withdraw_age(place.flow, before.sequence, waits.map_or(place.since, |job| job.since));
            });
            head.inspect(|head| self.offer_age(place.flow, head.sequence));
        }
        self.note_change(place);
    }

    fn offer_returned(&mut self, flow_key: FlowKey, start: u64, offer: Offer) {
        let Flow { lane, tier, .. } = self.flows[flow_key];
        self.lanes[lane.index()].tiers[tier as usize].returned.insert((start, offer));
        if tier == Tier::Batch {
            self.offer_age(flow_key, offer.sequence);
        }
    }

    fn withdraw_returned(&mut self, flow_key: FlowKey, start: u64, offer: Offer, since: u64) {
        let Flow { lane, tier, .. } = self.flows[flow_key];
        self.lanes[lane.index()].tiers[tier as usize].returned.remove(&(start, offer));
        if tier == Tier::Batch {
            self.withdraw_age(flow_key, offer.sequence, since);
        }
    }

    fn offer_age(&mut self, flow_key: FlowKey, sequence: u64) {
        let flow = &self.flows[flow_key];
        let since = flow.job(sequence).expect("who is offered waits").since.saturating_add(flow.excluded);
        let ages = &mut self.lanes[flow.lane.index()].ages;
        ages.order.insert((sequence, flow_key));
        ages.sinces.insert((since, sequence, flow_key));
    }

    fn withdraw_age(&mut self, flow_key: FlowKey, sequence: u64, since: u64) {
        let flow = &self.flows[flow_key];
        let since = since.saturating_add(flow.excluded);
        let ages = &mut self.lanes[flow.lane.index()].ages;
        ages.order.remove(&(sequence, flow_key));
        ages.sinces.remove(&(since, sequence, flow_key));
    }

    fn note_change(&mut self, place: &Place) {
        self.changes += 1;
        self.lanes[place.lane.index()].tiers[place.tier as usize].changed = self.changes;
    }

    fn relist(&mut self, clock: usize, namespace: NamespaceKey) {
        self.clocks[clock].relist(namespace, self.namespaces[namespace.index()].listing);
    }

    /// The virtual start that a dispatch takes.
    fn start_of(&self, place: &Place, charged: Tier) -> u64 {
        if charged != place.tier {
            return self.aged_start(place.lane, place.namespace, place.sequence);
        }
        let member = &self.clocks[place.clock(self)].members[place.namespace.index()];
        place.returned.unwrap_or(member.start)
    }

    /// The virtual start of an aged batch job in the standard tier.
    fn aged_start(&self, lane: LaneKey, namespace: NamespaceKey, sequence: u64) -> u64 {
        let Lane { home, ages, .. } = &self.lanes[lane.index()];
        let clock = &self.clocks[clock_index(home.environment, Tier::Standard)];
        let member = &clock.members[namespace.index()];
        match ages.starts.get(&sequence) {
            Some(AgedStart::Returned(start)) => *start,
            Some(AgedStart::FirstSeen(dispatched)) => member.start.max(*dispatched),
            None => member.start.max(clock.dispatched),
        }
    }
}

impl Place {
    fn clock(&self, backlog: &Backlog) -> usize {
        clock_index(backlog.lanes[self.lane.index()].home.environment, self.tier)
    }
}
