//! Pausing stops placement, and with it age and virtual time, for a model, a tier or a namespace, in any overlap.
//!
//! A scope touches what it is about (lanes, or namespaces, or a namespace's flows), never single queued jobs.

use super::super::event::{Environment, Tier};
use super::super::names::{ModelKey, NamespaceKey};
use super::clock::Listing;
use super::{Backlog, FlowKey, Home, Offer, clock_index};
use crate::time::Time;

const ENVIRONMENTS: [Environment; 2] = [Environment::Mainnet, Environment::Testnet];

/// What an operator may pause, in both environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::coordinator) enum Scope {
    Model(ModelKey),
    Namespace(NamespaceKey),
    Tier(Tier),
}

impl Backlog {
    /// Nothing in this scope is placed until it is resumed; pausing twice is pausing once.
    pub(in crate::coordinator) fn pause(&mut self, scope: Scope, now: Time) {
        if self.is_paused(scope) {
            return;
        }
        match scope {
            Scope::Model(model) => self.pause_model(model, now),
            Scope::Namespace(namespace) => self.pause_namespace(namespace, now),
            Scope::Tier(tier) => {
                self.paused_tiers.insert(tier);
                self.stocks.iter_mut().for_each(|stock| stock.tiers[tier as usize].stop(now));
            }
        }
    }

    /// What is in this scope may be placed again, unless another scope holds it.
    pub(in crate::coordinator) fn resume(&mut self, scope: Scope, now: Time) {
        if !self.is_paused(scope) {
            return;
        }
        self.changes += 1;
        match scope {
            Scope::Model(model) => self.resume_model(model, now),
            Scope::Namespace(namespace) => self.resume_namespace(namespace, now),
            Scope::Tier(tier) => self.resume_tier(tier, now),
        }
    }

    pub(in crate::coordinator) fn is_paused(&self, scope: Scope) -> bool {
        match scope {
            Scope::Model(model) => self.paused_models.contains(&model),
            Scope::Tier(tier) => self.paused_tiers.contains(&tier),
            Scope::Namespace(namespace) => {
                let standing = self.namespaces.get(namespace.index());
                standing.is_some_and(|standing| standing.listing == Listing::Paused)
            }
        }
    }

    /// A scope that keeps such a job from being placed.
    pub(in crate::coordinator) fn explain_paused(
        &self,
        model: ModelKey,
        namespace: NamespaceKey,
        tier: Tier,
    ) -> Option<Scope> {
        let scopes = [Scope::Model(model), Scope::Namespace(namespace), Scope::Tier(tier)];
        scopes.into_iter().find(|scope| self.is_paused(*scope))
    }

    /// Whether a model's jobs of a tier are paused, whoever has sent them.
    pub(super) fn stops(&self, model: ModelKey, tier: Tier) -> bool {
        self.paused_models.contains(&model) || self.paused_tiers.contains(&tier)
    }

    fn pause_model(&mut self, model: ModelKey, now: Time) {
        self.paused_models.insert(model);
        for environment in ENVIRONMENTS {
            let Some(stock) = self.stocks.get_mut(Home { environment, model }.index()) else { return };
            for (tier, stock) in Tier::ALL.into_iter().zip(&mut stock.tiers) {
                stock.stop(now);
                let members = &mut self.clocks[clock_index(environment, tier)].members;
                for (namespace, strand) in &stock.strands {
                    members[namespace.index()].open -= self.strands[*strand];
                }
            }
        }
    }

    fn resume_model(&mut self, model: ModelKey, now: Time) {
        self.paused_models.remove(&model);
        for environment in ENVIRONMENTS {
            for tier in Tier::ALL {
                let home = Home { environment, model };
                let Some(stock) = self.stocks.get_mut(home.index()) else { return };
                let stock = &mut stock.tiers[tier as usize];
                if !self.paused_tiers.contains(&tier) {
                    stock.start(now, self.changes);
                }
                let strands = std::mem::take(&mut stock.strands);
                for (namespace, strand) in &strands {
                    self.open(clock_index(environment, tier), *namespace, self.strands[*strand]);
                }
                self.stocks[home.index()].tiers[tier as usize].strands = strands;
            }
        }
    }

    fn resume_tier(&mut self, tier: Tier, now: Time) {
        self.paused_tiers.remove(&tier);
        for at in 0..self.stocks.len() {
            if !self.paused_models.contains(&ModelKey::from(at as u32 / 2)) {
                self.stocks[at].tiers[tier as usize].start(now, self.changes);
            }
        }
        for clock in ENVIRONMENTS.map(|environment| clock_index(environment, tier)) {
            for namespace in (0..self.namespaces.len() as u32).map(NamespaceKey::from) {
                self.catch_up(clock, namespace);
            }
        }
    }

    fn pause_namespace(&mut self, namespace: NamespaceKey, now: Time) {
        self.know(namespace);
        self.namespaces[namespace.index()].listing = Listing::Paused;
        for clock in 0..self.clocks.len() {
            self.relist(clock, namespace);
            for flow in self.flows_of(clock, namespace) {
                self.hold(flow, now);
            }
        }
    }

    fn resume_namespace(&mut self, namespace: NamespaceKey, now: Time) {
        self.namespaces[namespace.index()].listing = Listing::Open;
        for clock in 0..self.clocks.len() {
            self.catch_up(clock, namespace);
            self.relist(clock, namespace);
            for flow in self.flows_of(clock, namespace) {
                self.release(flow, now);
            }
        }
    }

    fn flows_of(&self, clock: usize, namespace: NamespaceKey) -> Vec<FlowKey> {
        self.clocks[clock].members[namespace.index()].flows.values().copied().collect()
    }

    fn hold(&mut self, flow_key: FlowKey, now: Time) {
        let flow = &self.flows[flow_key];
        let (lane, tier, jobs, head) = (flow.lane, flow.tier, flow.jobs(), flow.head());
        let returned = flow.returned_offers();
        self.lanes[lane.index()].tiers[tier as usize].held += jobs;
        for (start, offer) in returned {
            let since = self.since(flow_key, offer);
            self.withdraw_returned(flow_key, start, offer, since);
        }
        if let Some(head) = head.filter(|_| tier == Tier::Batch) {
            self.withdraw_age(flow_key, head.sequence, self.since(flow_key, head));
        }
        self.flows[flow_key].held_at = Some(self.model_clock(lane, tier, now));
    }

    fn since(&self, flow_key: FlowKey, offer: Offer) -> u64 {
        self.flows[flow_key].job(offer.sequence).expect("who is offered waits").since
    }

    fn release(&mut self, flow_key: FlowKey, now: Time) {
        let flow = &self.flows[flow_key];
        let (lane, tier, jobs, head) = (flow.lane, flow.tier, flow.jobs(), flow.head());
        let returned = flow.returned_offers();
        let model_clock = self.model_clock(lane, tier, now);
        self.flows[flow_key].release(model_clock);
        let counts = &mut self.lanes[lane.index()].tiers[tier as usize];
        counts.held -= jobs;
        counts.changed = self.changes;
        for (start, offer) in returned {
            self.offer_returned(flow_key, start, offer);
        }
        if let Some(head) = head.filter(|_| tier == Tier::Batch) {
            self.offer_age(flow_key, head.sequence);
        }
    }

    /// More of a namespace's jobs may be placed as far as their model goes.
    pub(super) fn open(&mut self, clock: usize, namespace: NamespaceKey, jobs: u64) {
        let member = &mut self.clocks[clock].members[namespace.index()];
        let was_open = member.open > 0;
        member.open += jobs;
        if !was_open {
            self.catch_up(clock, namespace);
        }
    }

    /// A namespace that had nothing to place has something now, if no scope holds it back still.
    fn catch_up(&mut self, clock: usize, namespace: NamespaceKey) {
        let is_open = self.namespaces[namespace.index()].listing == Listing::Open;
        let is_held = self.paused_tiers.contains(&Tier::ALL[clock % Tier::ALL.len()]);
        if is_open && !is_held && self.clocks[clock].is_behind(namespace) {
            self.clocks[clock].catch_up(namespace);
            self.relist(clock, namespace);
        }
    }
}
