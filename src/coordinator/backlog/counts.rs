//! How many jobs wait, for whom and where. Kept with every change; nothing here is counted by walking jobs.

use std::ops::Bound;

use super::super::event::{Environment, Tier};
use super::super::names::LaneKey;
#[cfg(test)]
use super::super::names::NamespaceKey;
use super::super::slab::Key;
use super::clock::Listing;
use super::flow::{Offer, Position};
use super::lane::{Home, Lane};
use super::{Backlog, ModelKey, Place};
use crate::time::Time;

/// What waits of a model in a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) struct View {
    pub(in crate::coordinator) home: Home,
    pub(in crate::coordinator) tier: Tier,
    pub(in crate::coordinator) jobs: u64,
}

impl Backlog {
    /// Jobs that wait.
    pub(in crate::coordinator) fn len(&self) -> u64 {
        self.jobs
    }

    /// Jobs of a namespace that wait.
    #[cfg(test)]
    pub(in crate::coordinator) fn waiting_of(&self, namespace: NamespaceKey) -> u64 {
        self.namespaces.get(namespace.index()).map_or(0, |standing| standing.waiting)
    }

    /// Jobs of a model that wait in a tier.
    pub(in crate::coordinator) fn waiting_in(&self, home: Home, tier: Tier) -> u64 {
        self.stocks.get(home.index()).map_or(0, |stock| stock.tiers[tier as usize].waiting)
    }

    /// Jobs of a model that wait in a tier or above it; a batch job counts as one however old it is.
    pub(in crate::coordinator) fn ahead(&self, home: Home, tier: Tier) -> u64 {
        let upper = &Tier::ALL[..=tier as usize];
        upper.iter().map(|tier| self.waiting_in(home, *tier)).sum()
    }

    /// Jobs that wait in a lane's tier.
    #[cfg(test)]
    pub(in crate::coordinator) fn waiting_in_lane(&self, lane: LaneKey, tier: Tier) -> u64 {
        self.lanes[lane.index()].tiers[tier as usize].waiting
    }

    /// Jobs that wait in a lane's tier and aren't paused.
    pub(in crate::coordinator) fn runnable_in_lane(&self, lane: LaneKey, tier: Tier) -> u64 {
        let Lane { home, tiers, .. } = &self.lanes[lane.index()];
        let counts = &tiers[tier as usize];
        let runnable = counts.waiting - counts.held;
        match runnable {
            0 => 0,
            _ if self.stocks[home.index()].tiers[tier as usize].stopped_at.is_some() => 0,
            _ => runnable,
        }
    }

    /// Whether a job in one of these lanes could be placed that is of this tier or above it.
    #[cfg(test)]
    pub(in crate::coordinator) fn runnable_at_or_above(&self, lanes: &[LaneKey], tier: Tier) -> bool {
        let upper = &Tier::ALL[..=tier as usize];
        lanes.iter().any(|lane| upper.iter().any(|tier| self.runnable_in_lane(*lane, *tier) > 0))
    }

    /// What waits, by environment, model and tier; what is empty is left out.
    pub(in crate::coordinator) fn views(&self) -> impl Iterator<Item = View> {
        let environments = [Environment::Mainnet, Environment::Testnet];
        let home =
            move |at: usize| Home { environment: environments[at % 2], model: ModelKey::from(at as u32 / 2) };
        let tiers = move |(at, stock): (usize, &super::Stock)| {
            let waiting = stock.tiers.each_ref().map(|tier| tier.waiting);
            let views = Tier::ALL.into_iter().zip(waiting).filter(|(_, jobs)| *jobs > 0);
            views.map(move |(tier, jobs)| View { home: home(at), tier, jobs })
        };
        self.stocks.iter().enumerate().flat_map(tiers)
    }

    /// The job of a model and tier with the smallest sequence. It asks every namespace that waits there, so it is
    /// for people who look, not for decisions.
    pub(in crate::coordinator) fn oldest(&self, home: Home, tier: Tier) -> Option<Key> {
        let stock = &self.stocks.get(home.index())?.tiers[tier as usize];
        let clock = &self.clocks[super::clock_index(home.environment, tier)];
        let members = stock.strands.keys().map(|namespace| &clock.members[namespace.index()]);
        let flows = members.flat_map(|member| member.flows.iter());
        let flows = flows.filter(|(lane, _)| self.lanes[lane.index()].home == home);
        let first = flows.filter_map(|(_, flow)| {
            let flow = &self.flows[*flow];
            let returned = flow.returned.first_key_value();
            let returned = returned.map(|(sequence, (_, job))| Offer { sequence: *sequence, key: job.key });
            returned.into_iter().chain(flow.head()).min()
        });
        first.min().map(|offer| offer.key)
    }

    /// Whether nothing waits in a lane.
    pub(in crate::coordinator) fn is_empty(&self, lane: LaneKey) -> bool {
        self.lanes[lane.index()].tiers.iter().all(|tier| tier.waiting == 0)
    }

    /// Jobs that wait in a lane after that one, at most so many, each with where it is.
    pub(in crate::coordinator) fn jobs_in(
        &self,
        lane: LaneKey,
        after: Option<Position>,
        most: usize,
    ) -> Vec<(Position, Key)> {
        let begin = after.map_or(Bound::Unbounded, |after| Bound::Included(after.flow));
        let flows = self.lanes[lane.index()].flows.range((begin, Bound::Unbounded));
        let jobs = flows.flat_map(|key| {
            let after = after.filter(|after| after.flow == *key).map(|after| after.sequence);
            let jobs = self.flows[*key].jobs_after(after, most).into_iter();
            jobs.map(|(sequence, job)| (Position { flow: *key, sequence }, job))
        });
        jobs.take(most).collect()
    }

    /// Every waiting job.
    pub(in crate::coordinator) fn keys(&self) -> impl Iterator<Item = Key> {
        let flows = self.flows.iter().map(|(_, flow)| flow);
        flows.flat_map(|flow| {
            let returned = flow.returned.values().map(|(_, job)| job.key);
            flow.queued.iter().map(|offer| offer.key).chain(returned)
        })
    }

    pub(super) fn count_in(&mut self, place: &Place) {
        let home = self.lanes[place.lane.index()].home;
        let standing = &mut self.namespaces[place.namespace.index()];
        let is_held = standing.listing == Listing::Paused;
        standing.waiting += 1;
        self.jobs += 1;
        let counts = &mut self.lanes[place.lane.index()].tiers[place.tier as usize];
        counts.waiting += 1;
        counts.held += u64::from(is_held);
        self.stocks[home.index()].tiers[place.tier as usize].waiting += 1;
        let strand = self.flows[place.flow].strand;
        self.strands[strand] += 1;
        if !self.paused_models.contains(&home.model) {
            self.open(super::clock_index(home.environment, place.tier), place.namespace, 1);
        }
    }

    pub(super) fn count_out(&mut self, place: &Place, now: Time) {
        let lane = &mut self.lanes[place.lane.index()];
        let standing = &mut self.namespaces[place.namespace.index()];
        lane.used_at = now;
        standing.waiting -= 1;
        self.jobs -= 1;
        let counts = &mut lane.tiers[place.tier as usize];
        counts.waiting -= 1;
        counts.held -= u64::from(standing.listing == Listing::Paused);
        let home = lane.home;
        let clock = &mut self.clocks[super::clock_index(home.environment, place.tier)];
        let member = &mut clock.members[place.namespace.index()];
        member.open -= u64::from(!self.paused_models.contains(&home.model));
        let strand = self.flows[place.flow].strand;
        self.strands[strand] -= 1;
        let stock = &mut self.stocks[home.index()].tiers[place.tier as usize];
        stock.waiting -= 1;
        if self.strands[strand] == 0 {
            stock.strands.remove(&place.namespace);
            self.strands.remove(strand);
        }
        if self.flows[place.flow].is_empty() {
            member.flows.remove(&place.lane);
            self.flows.remove(place.flow);
            lane.flows.remove(&place.flow);
        }
    }
}
