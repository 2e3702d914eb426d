//! Which job comes next for a node's lanes: by tier, then by virtual start, then by sequence.
//!
//! It proposes and asks; whether a job suits the node is the caller's to say. A lower tier is proposed only after
//! every head of the higher ones was refused, and a walk that is too long for one offer goes on from its cursor.

use std::ops::Bound;

use super::super::event::{Environment, Tier};
use super::super::mutant::mutant;
use super::super::names::{LaneKey, NamespaceKey};
use super::super::slab::{Key, Slab};
use super::clock::{Member, TierClock};
use super::flow::{FlowKey, Offer};
use super::lane::{AgedStart, Lane};
use super::order::{Found, LANES_EXACT_MAX, LaneSet, Offers, Progress};
use super::{Backlog, Flow, Stock, clock_index};
use crate::time::Time;

/// Jobs that one offer may ask about, and be refused.
pub(in crate::coordinator) const SKIPS_MAX: u32 = 32;

/// What a node says to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Suit {
    Yes,
    No,
    /// It would fit if the node were idle and has waited for long: nothing behind it gets this offer.
    Block,
}

/// What an offer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::coordinator) enum Selection {
    /// This job, to be charged in this tier.
    Job { key: Key, charged: Tier },
    /// No job in these lanes suits.
    Nothing,
    /// This job waits for room on the node.
    Blocked(Key),
    /// Too many were refused: the rest at the next tick.
    Later(Cursor),
}

/// Where a walk goes on. Good for the same lanes only; drop it when the node's lanes change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::coordinator) struct Cursor {
    tier: usize,
    /// The last start and job that were refused in that tier, aged batch jobs left out.
    after: Option<(u64, Offer)>,
    /// The last aged batch job that was refused, by lane.
    refused: Vec<(LaneKey, u64)>,
    /// The count of changes when the walk began: what came later may be before the cursor.
    began: u64,
}

/// A job that may be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    start: u64,
    offer: Offer,
}

/// The lanes of an offer that have something to place in a tier.
#[derive(Debug, Default)]
struct Reach {
    lanes: [LaneSet; 2],
}

impl Backlog {
    /// The next job for a node with these lanes (in ascending order), beginning at `from` if its last offer had to
    /// stop there. `suits` is told the tier that would be charged.
    pub(in crate::coordinator) fn select(
        &mut self,
        lanes: &[LaneKey],
        from: Option<Cursor>,
        now: Time,
        mut suits: impl FnMut(Key, Tier) -> Suit,
    ) -> Selection {
        let lower: &[Tier] = match (mutant!(TierIgnored), mutant!(BatchTakesSlot)) {
            (true, _) => &[Tier::Background, Tier::Batch, Tier::Standard],
            (false, true) => &[Tier::Batch],
            (false, false) => &[],
        };
        for tier in lower {
            let cursor = Cursor { tier: *tier as usize, ..self.top() };
            if let job @ Selection::Job { .. } = self.walk(lanes, Some(cursor), now, &mut suits) {
                return job;
            }
        }
        self.walk(lanes, from, now, suits)
    }

    fn walk(
        &mut self,
        lanes: &[LaneKey],
        from: Option<Cursor>,
        now: Time,
        suits: impl FnMut(Key, Tier) -> Suit,
    ) -> Selection {
        let mut progress = std::mem::take(&mut self.progress);
        let selection = self.walk_with(&mut progress, lanes, from, now, suits);
        self.progress = progress;
        selection
    }

    fn walk_with(
        &mut self,
        progress: &mut [Progress; 2],
        lanes: &[LaneKey],
        from: Option<Cursor>,
        now: Time,
        mut suits: impl FnMut(Key, Tier) -> Suit,
    ) -> Selection {
        // One that begins at the top has nothing to resume, and has missed nothing.
        let from =
            from.filter(|cursor| cursor.tier > 0 || cursor.after.is_some() || !cursor.refused.is_empty());
        let resumes = from.is_some();
        let mut cursor = match from {
            Some(cursor) if !self.has_changed(lanes, cursor.tier, cursor.began) => cursor,
            _ => self.top(),
        };
        let mut looks = 0;
        while cursor.tier < Tier::ALL.len() {
            let tier = Tier::ALL[cursor.tier];
            let reach = self.reach(lanes, tier);
            progress.iter_mut().for_each(Progress::reset);
            while let Some((candidate, aged)) = self.candidate(lanes, &reach, progress, &cursor, now) {
                if looks == SKIPS_MAX {
                    return Selection::Later(cursor);
                }
                looks += 1;
                let key = candidate.offer.key;
                match suits(key, tier) {
                    Suit::Yes => return Selection::Job { key, charged: tier },
                    Suit::Block => return Selection::Blocked(key),
                    Suit::No => cursor.refuse(candidate, aged),
                }
            }
            cursor.descend();
            if resumes && self.has_changed(lanes, cursor.tier, cursor.began) {
                return Selection::Later(self.top());
            }
        }
        Selection::Nothing
    }

    fn top(&self) -> Cursor {
        Cursor { tier: 0, after: None, refused: Vec::new(), began: self.changes }
    }

    /// Whether something came to be offered in the tiers before `tier` that a walk begun then can't have seen.
    fn has_changed(&self, lanes: &[LaneKey], tier: usize, began: u64) -> bool {
        let changed = |lane: &LaneKey| {
            let Lane { home, tiers, .. } = &self.lanes[lane.index()];
            let stock = &self.stocks[home.index()];
            (0..tier.min(tiers.len())).any(|at| tiers[at].changed.max(stock.tiers[at].changed) > began)
        };
        lanes.iter().any(changed)
    }

    fn reach(&self, lanes: &[LaneKey], tier: Tier) -> Reach {
        let mut reach = Reach::default();
        for lane in lanes.iter().filter(|lane| self.runnable_in_lane(**lane, tier) > 0) {
            reach.lanes[self.lanes[lane.index()].home.environment as usize].insert(*lane);
        }
        reach
    }

    /// The next one after the cursor, and whose lane's age it comes by if it isn't of this tier.
    fn candidate(
        &mut self,
        lanes: &[LaneKey],
        reach: &Reach,
        progress: &mut [Progress; 2],
        cursor: &Cursor,
        now: Time,
    ) -> Option<(Candidate, Option<LaneKey>)> {
        let mainnet = self.first_queued(lanes, reach, progress, Environment::Mainnet, cursor);
        let testnet = self.first_queued(lanes, reach, progress, Environment::Testnet, cursor);
        let returned = self.first_returned(lanes, cursor);
        let own = mainnet.into_iter().chain(testnet).chain(returned).min().map(|own| (own, None));
        if Tier::ALL[cursor.tier] != Tier::Standard {
            return own;
        }
        let aged = lanes.iter().filter_map(|lane| Some((self.aged(*lane, cursor, now)?, Some(*lane)))).min();
        own.into_iter().chain(aged).min()
    }

    fn first_queued(
        &mut self,
        asked: &[LaneKey],
        reach: &Reach,
        progress: &mut [Progress; 2],
        environment: Environment,
        cursor: &Cursor,
    ) -> Option<Candidate> {
        let reach = &reach.lanes[environment as usize];
        if reach.is_empty() {
            return None;
        }
        let clock = clock_index(environment, Tier::ALL[cursor.tier]);
        let Self { clocks, lanes, stocks, flows, .. } = self;
        let TierClock { members, order, .. } = &mut clocks[clock];
        let search = Search { members, asked, reach, cursor, lanes, stocks, flows };
        let from = cursor.after.map_or(0, |(start, _)| start);
        let progress = &mut progress[environment as usize];
        let (start, sequence, flow) = order.first(reach, from, &search, progress)?;
        let key = flows[flow].queued.get(sequence).expect("a head waits in its flow").key;
        Some(Candidate { start, offer: Offer { sequence, key } })
    }

    fn first_returned(&self, lanes: &[LaneKey], cursor: &Cursor) -> Option<Candidate> {
        let first = |lane: &LaneKey| {
            let returned = &self.lanes[lane.index()].tiers[cursor.tier].returned;
            if returned.is_empty() || self.runnable_in_lane(*lane, Tier::ALL[cursor.tier]) == 0 {
                return None;
            }
            let after =
                cursor.after.map_or(Bound::Unbounded, |(start, offer)| Bound::Excluded((start, offer)));
            let (start, offer) = returned.range((after, Bound::Unbounded)).next()?;
            Some(Candidate { start: *start, offer: *offer })
        };
        lanes.iter().filter_map(first).min()
    }

    /// The batch job of a lane that has waited longest, if it is aged; in a picky lane, the first aged one that wasn't
    /// refused.
    fn aged(&mut self, lane_key: LaneKey, cursor: &Cursor, now: Time) -> Option<Candidate> {
        let lane = &self.lanes[lane_key.index()];
        let clock = self.ripening(lane, now)?;
        let refused = cursor.refused.iter().find(|(refused, _)| *refused == lane_key);
        let (sequence, flow) = match refused {
            refused if lane.is_picky() => {
                self.first_aged(lane, refused.map(|(_, sequence)| *sequence), clock)?
            }
            None => lane.ages.sinces.first().map(|(_, sequence, flow)| (*sequence, *flow))?,
            Some(_) => return None,
        };
        let namespace = self.flows[flow].namespace;
        let job = self.flows[flow].job(sequence)?;
        let dispatched = self.clocks[clock_index(lane.home.environment, Tier::Standard)].dispatched;
        let starts = &mut self.lanes[lane_key.index()].ages.starts;
        starts.entry(sequence).or_insert(AgedStart::FirstSeen(dispatched));
        let start = self.aged_start(lane_key, namespace, sequence);
        Some(Candidate { start, offer: Offer { sequence, key: job.key } })
    }

    /// What a batch job of this lane must have begun before to be aged, if there may be one.
    fn ripening(&self, lane: &Lane, now: Time) -> Option<u64> {
        let (eldest_since, ..) = *lane.ages.sinces.first()?;
        let stock = &self.stocks[lane.home.index()].tiers[Tier::Batch as usize];
        let clock = stock.clock(now).checked_sub(self.batch_age.0)?;
        let is_paused = stock.stopped_at.is_some();
        (!is_paused && (eldest_since < clock || lane.is_picky())).then_some(clock)
    }

    /// The first aged batch job of a picky lane after the one that was refused, by sequence. Only heads are kept in
    /// that order, so whoever has one before it is asked for the next.
    fn first_aged(&self, lane: &Lane, refused: Option<u64>, clock: u64) -> Option<(u64, FlowKey)> {
        let mut best: Option<(u64, FlowKey)> = None;
        for (head, flow_key) in &lane.ages.order {
            if best.is_some_and(|(sequence, _)| sequence < *head) {
                break;
            }
            let flow = &self.flows[*flow_key];
            let sequence = match refused {
                Some(refused) if *head <= refused => flow.queued_after(refused).map(|offer| offer.sequence),
                _ => Some(*head),
            };
            let is_aged = |sequence: &u64| {
                flow.job(*sequence).is_some_and(|job| job.since.saturating_add(flow.excluded) < clock)
            };
            let aged = sequence.filter(is_aged).map(|sequence| (sequence, *flow_key));
            best = best.into_iter().chain(aged).min();
        }
        best
    }
}

impl Cursor {
    fn refuse(&mut self, candidate: Candidate, aged: Option<LaneKey>) {
        match aged {
            None => self.after = Some((candidate.start, candidate.offer)),
            Some(lane) => {
                self.refused.retain(|(refused, _)| *refused != lane);
                self.refused.push((lane, candidate.offer.sequence));
            }
        }
    }

    fn descend(&mut self) {
        self.tier += 1;
        self.after = None;
        self.refused.clear();
    }
}

/// What the order of a tier is asked for an offer.
struct Search<'a> {
    members: &'a [Member],
    asked: &'a [LaneKey],
    reach: &'a LaneSet,
    cursor: &'a Cursor,
    lanes: &'a [Lane],
    stocks: &'a [Stock],
    flows: &'a Slab<Flow>,
}

impl Search<'_> {
    /// A folded set is exact while lanes are few; beyond that, the lane itself is looked for.
    fn reaches(&self, lane: LaneKey) -> bool {
        let is_asked = || {
            let stock = &self.stocks[self.lanes[lane.index()].home.index()];
            self.asked.binary_search(&lane).is_ok() && stock.tiers[self.cursor.tier].stopped_at.is_none()
        };
        self.reach.contains(lane) && (self.lanes.len() <= LANES_EXACT_MAX || is_asked())
    }
}

impl Offers for Search<'_> {
    fn lanes(&self, namespace: NamespaceKey) -> &LaneSet {
        &self.members[namespace.index()].lanes
    }

    fn first(&self, namespace: NamespaceKey) -> Option<(u64, FlowKey)> {
        let member = &self.members[namespace.index()];
        let after = self.cursor.after.filter(|(start, _)| *start == member.start);
        let mut best: Option<(u64, FlowKey)> = None;
        for head in member.heads.iter().filter(|head| self.reaches(head.lane)) {
            let Some((_, refused)) = after.filter(|(_, refused)| head.sequence <= refused.sequence) else {
                return best.into_iter().chain([(head.sequence, head.flow)]).min();
            };
            if self.lanes[head.lane.index()].is_picky() {
                let next = self.flows[head.flow].queued_after(refused.sequence);
                best = best.into_iter().chain(next.map(|next| (next.sequence, head.flow))).min();
            }
        }
        best
    }
    fn is_passed(&self, (start, sequence, _): &Found) -> bool {
        self.cursor.after.is_some_and(|(after, refused)| (*start, *sequence) <= (after, refused.sequence))
    }

    fn after(&self, flow: FlowKey) -> Option<(u64, FlowKey)> {
        let namespace = self.flows[flow].namespace;
        let start = self.members[namespace.index()].start;
        // What began before is passed for good.
        self.cursor.after.filter(|(after, _)| *after == start).and_then(|_| self.first(namespace))
    }
}
