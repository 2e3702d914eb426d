//! Recounts everything that the backlog keeps for speed from the flows alone, and says what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

use super::super::event::Tier;
use super::super::names::{LaneKey, ModelKey, NamespaceKey};
use super::clock::{Listing, Member};
use super::flow::Offer;
use super::lane::Lane;
use super::order::{Found, LaneSet, Offers};
use super::{Backlog, Flow, FlowKey, clock_index};

/// The lanes of members, as they say.
struct Lanes<'a>(&'a [Member]);

impl Offers for Lanes<'_> {
    fn lanes(&self, namespace: NamespaceKey) -> &LaneSet {
        &self.0[namespace.index()].lanes
    }

    fn first(&self, _: NamespaceKey) -> Option<(u64, FlowKey)> {
        None
    }

    fn is_passed(&self, _: &Found) -> bool {
        false
    }

    fn after(&self, _: FlowKey) -> Option<(u64, FlowKey)> {
        None
    }
}

type Heads = BTreeSet<(u64, LaneKey, FlowKey)>;

/// What the flows come to.
#[derive(Default)]
struct Recount {
    jobs: u64,
    flows_of: BTreeMap<LaneKey, BTreeSet<FlowKey>>,
    by_lane: BTreeMap<(LaneKey, Tier), u64>,
    held: BTreeMap<(LaneKey, Tier), u64>,
    by_namespace: BTreeMap<NamespaceKey, u64>,
    by_stock: BTreeMap<(usize, Tier), BTreeMap<NamespaceKey, u64>>,
    open: BTreeMap<(usize, NamespaceKey), u64>,
    heads: BTreeMap<(usize, NamespaceKey), Heads>,
    flows: BTreeMap<(usize, NamespaceKey), BTreeMap<LaneKey, FlowKey>>,
    returned: BTreeMap<(LaneKey, Tier), BTreeSet<(u64, Offer)>>,
    ages: BTreeMap<LaneKey, BTreeSet<(u64, FlowKey)>>,
    batch: BTreeMap<LaneKey, BTreeSet<u64>>,
}

impl Backlog {
    /// What is wrong, a sentence each; it walks every job.
    pub(in crate::coordinator) fn check(&self) -> Vec<String> {
        let mut recount = Recount::default();
        for (key, flow) in self.flows.iter() {
            self.recount(&mut recount, key, flow);
        }
        let mut faults = self.check_counts(&recount);
        faults.extend(self.flows.iter().flat_map(|(_, flow)| flow.queued.faults()));
        self.lanes.iter().enumerate().for_each(|(at, lane)| {
            faults.extend(self.check_lane(&recount, LaneKey::from(at as u32), lane));
        });
        for at in 0..self.stocks.len() {
            faults.extend(self.check_stock(&recount, at));
        }
        for clock in 0..self.clocks.len() {
            faults.extend(self.check_clock(&recount, clock));
        }
        faults
    }

    fn recount(&self, recount: &mut Recount, key: FlowKey, flow: &Flow) {
        let Flow { lane, tier, namespace, .. } = *flow;
        let home = self.lanes[lane.index()].home;
        let (clock, jobs) = (clock_index(home.environment, tier), flow.jobs());
        recount.jobs += jobs;
        *recount.by_lane.entry((lane, tier)).or_default() += jobs;
        *recount.by_namespace.entry(namespace).or_default() += jobs;
        *recount.by_stock.entry((home.index(), tier)).or_default().entry(namespace).or_default() += jobs;
        if !self.paused_models.contains(&home.model) {
            *recount.open.entry((clock, namespace)).or_default() += jobs;
        }
        recount.flows.entry((clock, namespace)).or_default().insert(lane, key);
        recount.flows_of.entry(lane).or_default().insert(key);
        let head = flow.head();
        recount
            .heads
            .entry((clock, namespace))
            .or_default()
            .extend(head.map(|head| (head.sequence, lane, key)));
        if tier == Tier::Batch {
            recount
                .batch
                .entry(lane)
                .or_default()
                .extend(flow.queued.iter().map(|offer| offer.sequence).chain(flow.returned.keys().copied()));
        }
        if self.namespaces[namespace.index()].listing == Listing::Paused {
            *recount.held.entry((lane, tier)).or_default() += jobs;
            return;
        }
        recount.returned.entry((lane, tier)).or_default().extend(flow.returned_offers());
        if tier == Tier::Batch {
            let ages = flow
                .returned
                .keys()
                .copied()
                .chain(head.map(|head| head.sequence))
                .map(|sequence| (sequence, key));
            recount.ages.entry(lane).or_default().extend(ages);
        }
    }

    fn check_counts(&self, recount: &Recount) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(differs("waiting jobs", &self.jobs, &recount.jobs));
        for (at, standing) in self.namespaces.iter().enumerate() {
            let counted = recount.by_namespace.get(&NamespaceKey::from(at as u32)).copied().unwrap_or(0);
            faults.extend(differs(
                format_args!("waiting jobs of namespace {at}"),
                &standing.waiting,
                &counted,
            ));
        }
        let empty = self.flows.iter().filter(|(_, flow)| flow.is_empty());
        faults.extend(empty.map(|(_, flow)| format!("a flow in {:?} is kept without jobs", flow.lane)));
        let held = |flow: &Flow| self.namespaces[flow.namespace.index()].listing == Listing::Paused;
        let wrong = self.flows.iter().filter(|(_, flow)| flow.held_at.is_some() != held(flow));
        faults
            .extend(wrong.map(|(_, flow)| format!("{:?} and its flow disagree on a pause", flow.namespace)));
        faults
    }

    fn check_lane(&self, recount: &Recount, key: LaneKey, lane: &Lane) -> Vec<String> {
        let mut faults = Vec::new();
        for (tier, counts) in Tier::ALL.into_iter().zip(&lane.tiers) {
            let of = |table: &BTreeMap<(LaneKey, Tier), u64>| table.get(&(key, tier)).copied().unwrap_or(0);
            faults.extend(differs(
                format_args!("jobs in {key:?} {tier:?}"),
                &counts.waiting,
                &of(&recount.by_lane),
            ));
            faults.extend(differs(
                format_args!("held in {key:?} {tier:?}"),
                &counts.held,
                &of(&recount.held),
            ));
            let returned = recount.returned.get(&(key, tier)).unwrap_or(const { &BTreeSet::new() });
            faults.extend(differs(format_args!("returned in {key:?} {tier:?}"), &counts.returned, returned));
        }
        let ages = recount.ages.get(&key).unwrap_or(const { &BTreeSet::new() });
        faults.extend(differs(format_args!("ages in {key:?}"), &lane.ages.order, ages));
        let since = |(sequence, flow): &(u64, FlowKey)| {
            let since = self.flows[*flow].job(*sequence)?.since + self.flows[*flow].excluded;
            Some((since, *sequence, *flow))
        };
        let sinces = ages.iter().filter_map(since).collect();
        faults.extend(differs(format_args!("since when in {key:?}"), &lane.ages.sinces, &sinces));
        let batch = recount.batch.get(&key).unwrap_or(const { &BTreeSet::new() });
        let stray = lane.ages.starts.keys().filter(|sequence| !batch.contains(sequence));
        faults.extend(stray.map(|sequence| format!("{key:?} keeps the start of {sequence}, which is gone")));
        let flows = recount.flows_of.get(&key).unwrap_or(const { &BTreeSet::new() });
        faults.extend(differs(format_args!("flows of {key:?}"), &lane.flows, flows));
        let stock = &self.stocks[lane.home.index()];
        let entry = lane.shape.map_or(stock.picky, |shape| stock.shapes.get(&shape).copied());
        faults.extend(differs("the lane of a shape", &entry, &Some(key)));
        faults
    }

    fn check_stock(&self, recount: &Recount, at: usize) -> Vec<String> {
        let mut faults = Vec::new();
        for (tier, stock) in Tier::ALL.into_iter().zip(&self.stocks[at].tiers) {
            let counted = recount.by_stock.get(&(at, tier)).cloned().unwrap_or_default();
            let kept: BTreeMap<NamespaceKey, u64> =
                stock.strands.iter().map(|(namespace, strand)| (*namespace, self.strands[*strand])).collect();
            faults.extend(differs(format_args!("strands of stock {at} {tier:?}"), &kept, &counted));
            faults.extend(differs("jobs of a stock", &stock.waiting, &counted.values().sum()));
            let stops = self.stops(ModelKey::from(at as u32 / 2), tier);
            faults.extend(differs("whether a stock is stopped", &stock.stopped_at.is_some(), &stops));
        }
        faults
    }

    fn check_clock(&self, recount: &Recount, at: usize) -> Vec<String> {
        let clock = &self.clocks[at];
        let mut faults = clock.order.faults(&Lanes(&clock.members));
        let mut ranks = BTreeSet::new();
        for (place, member) in clock.members.iter().enumerate() {
            let key = (at, NamespaceKey::from(place as u32));
            let heads = recount.heads.get(&key).cloned().unwrap_or_default();
            let kept: Vec<_> =
                member.heads.iter().map(|head| (head.sequence, head.lane, head.flow)).collect();
            faults.extend(differs("heads", &kept, &heads.iter().copied().collect()));
            let mut lanes = LaneSet::default();
            heads.iter().for_each(|(_, lane, _)| lanes.insert(*lane));
            faults.extend(differs("lanes of a namespace", &member.lanes, &lanes));
            faults.extend(differs(
                "flows",
                &member.flows,
                &recount.flows.get(&key).cloned().unwrap_or_default(),
            ));
            faults.extend(differs("open jobs", &member.open, &recount.open.get(&key).copied().unwrap_or(0)));
            let is_open = self.namespaces[place].listing == Listing::Open;
            let listed = heads.first().filter(|_| is_open).map(|(sequence, ..)| (member.start, *sequence));
            faults.extend(differs("the rank of a namespace", &member.listed, &listed));
            ranks.extend(listed.map(|(start, sequence)| (start, sequence, key.1)));
        }
        let kept: Vec<_> =
            clock.order.ranks().map(|rank| (rank.start, rank.sequence, rank.namespace)).collect();
        faults.extend(differs("the order of namespaces", &kept, &ranks.into_iter().collect()));
        faults
    }
}

fn differs<T: PartialEq + Debug>(what: impl Display, kept: &T, counted: &T) -> Option<String> {
    (kept != counted).then(|| format!("{what}: kept {kept:?}, but there are {counted:?}"))
}
