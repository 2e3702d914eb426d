//! Placement: which job runs next, on which node (CORE sections 5 and 6).
//!
//! A job that comes names the best node with room for it, and a node with room takes the job that is next for it:
//! the order decides, whoever came. What one step may look at is bounded; the rest is for the next step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Coordinator;
use super::backlog::Selection;
use super::event::Tier;
use super::fleet::{Capacity, Place};
use super::job::{Job, Waits};
use super::limits::{CANDIDATES_MAX, PLACE_LOOKS_MAX};
use super::names::{LaneKey, NodeKey};
use super::score::{self, Load, Prefix, Score};
use super::slab::Key;
use super::suits::{Finding, Look};
use super::trace::{LOSERS_KEPT_MAX, Loss, PlacedBy};
use crate::ids::{JobId, NodeId};
use crate::time::Time;

/// Nodes that a job which came tries in turn, where another job turns out to be next for the best of them.
const ARRIVAL_TRIES_MAX: u32 = 4;
/// What asking about one job of the backlog counts as, in looks: it is found anew, and read for the first time.
const ASK_LOOKS: u32 = 4;
/// What a placement counts as, in looks: a step makes at most 80 of them, which is below two milliseconds even where
/// nothing of what they touch is in the processor's caches.
const PLACEMENT_LOOKS: u32 = 24;
/// What offering a node counts as, in looks, whether or not there is a job to ask about.
const OFFER_LOOKS: u32 = 4;

/// What may be placed.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// Jobs that came to wait in this step.
    pub(super) arrivals: VecDeque<JobId>,
    /// Nodes with room.
    offers: VecDeque<NodeKey>,
    offered: BTreeSet<NodeKey>,
    /// Lanes whose jobs may go on where there is room, each with the node that was offered last.
    woken: BTreeMap<LaneKey, Option<(Place, NodeKey)>>,
    /// Lanes whose next job lacked output budget: they look before anybody else does once some is free.
    first: BTreeSet<LaneKey>,
    /// Nodes that go on looking at the next tick.
    later: BTreeSet<NodeKey>,
    /// Nodes that are kept for a job which doesn't fit yet.
    blocked: BTreeSet<NodeKey>,
    /// Jobs that don't fit the output budget, by lane.
    pub(super) starved: BTreeMap<LaneKey, Starved>,
    /// Lanes that wait for output budget.
    pub(super) short: BTreeSet<LaneKey>,
}

/// A job that is next but doesn't fit the output budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Starved {
    pub(super) job: Key,
    pub(super) tier: Tier,
    pub(super) since: Time,
    /// Whether it was found to lack budget since some was freed: who isn't even asked for keeps nothing from others.
    pub(super) current: bool,
}

impl Placing {
    /// A node has room.
    pub(super) fn offer(&mut self, node: NodeKey) {
        if self.offered.insert(node) {
            self.offers.push_back(node);
        }
    }

    /// A lane's jobs may go on.
    pub(super) fn wake(&mut self, lane: LaneKey) {
        self.woken.insert(lane, None);
    }

    /// Output budget came back.
    pub(super) fn budget_freed(&mut self) {
        for (lane, starved) in &mut self.starved {
            starved.current = false;
            self.first.insert(*lane);
        }
        for lane in std::mem::take(&mut self.short) {
            self.wake(lane);
        }
    }

    /// A job no longer waits: what was kept for it is free.
    pub(super) fn forget(&mut self, key: Key, unfit: Option<Time>) {
        let before = self.starved.len();
        if before > 0 {
            self.starved.retain(|_, starved| starved.job != key);
        }
        let was_starved = self.starved.len() < before;
        if was_starved {
            self.budget_freed();
        }
        if was_starved || unfit.is_some() {
            for node in std::mem::take(&mut self.blocked) {
                self.offer(node);
            }
        }
    }

    /// A tick: nodes that had more to look at go on.
    pub(super) fn tick(&mut self) {
        for node in std::mem::take(&mut self.later) {
            self.offer(node);
        }
    }

    fn next_offer(&mut self) -> Option<NodeKey> {
        let node = self.offers.pop_front()?;
        self.offered.remove(&node);
        Some(node)
    }

    /// A lane ended.
    pub(super) fn lane_ended(&mut self, lane: LaneKey) {
        self.woken.remove(&lane);
        self.first.remove(&lane);
        self.starved.remove(&lane);
        self.short.remove(&lane);
    }
}

/// How a job came to a node: who else was looked at.
#[derive(Debug, Default)]
struct Considered {
    candidates: u32,
    losers: Vec<(NodeId, Loss)>,
    /// Those that couldn't take it at all: told of where there is room after the slower ones.
    unable: Vec<(NodeId, Loss)>,
    #[cfg(any(test, feature = "mutants"))]
    compared: Option<super::Comparison>,
}

/// What an offer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    Took,
    Nothing,
}

impl Coordinator {
    /// Places what can be placed since something changed.
    pub(super) fn place(&mut self) {
        let mut looks = if self.places() { PLACE_LOOKS_MAX } else { 0 };
        self.fill_lanes();
        if looks > 0 {
            self.send_waiting_tests();
        }
        if !self.placing.arrivals.is_empty() {
            // A job that comes chooses among nodes with room, and this step may have given some to a better one.
            self.settle_touched();
        }
        while looks > 0 {
            if let Some(lane) = self.placing.first.pop_first() {
                self.place_woken(lane, None, &mut looks);
            } else if let Some(job) = self.placing.arrivals.pop_front() {
                self.place_arrival(job, &mut looks);
            } else if let Some(node) = self.placing.next_offer() {
                self.offer(node, &mut looks, None);
            } else if let Some((lane, after)) = self.placing.woken.pop_first() {
                self.place_woken(lane, after, &mut looks);
            } else {
                break;
            }
        }
        self.settle_touched();
    }

    /// Lanes that have begun get more of their nodes, and look there.
    fn fill_lanes(&mut self) {
        while let Some(lane) = self.fleet.fills_next() {
            let name = self.models[self.fleet.lanes.of(lane).need.model].clone();
            self.fleet.fill(lane, &name, &self.subclouds, self.now);
            self.settle_touched();
            self.placing.wake(lane);
        }
        self.fleet.restart_filling();
    }

    /// Puts nodes whose room changed into their places among those that have some.
    pub(super) fn settle_touched(&mut self) {
        let touched = self.fleet.take_touched();
        let (rules, now) = (&self.limits.penalties, self.now);
        for key in &touched {
            self.fleet.settle(*key, |node, serving, means| score::place(node, serving, means, rules, now));
        }
        self.fleet.keep_touched(touched);
    }

    fn place_arrival(&mut self, id: JobId, looks: &mut u32) {
        *looks = looks.saturating_sub(1);
        for _ in 0..ARRIVAL_TRIES_MAX {
            // An offer may have found it expired, after the node took another.
            let Some(key) = self.job_keys.find(id) else { return };
            let Waits::ForNode(place) = self.jobs[key].waits else { return };
            let Some((node, considered)) = self.best_node(key, place.lane, looks) else {
                if *looks == 0 {
                    self.placing.arrivals.push_front(id);
                }
                return;
            };
            let offered = self.offer(node, looks, Some((key, considered)));
            if *looks > 0 && offered == Offered::Nothing {
                // The node has its reasons, and whatever ends them wakes the lane.
                return;
            }
            if *looks == 0 {
                break;
            }
        }
        // Others went before it: it goes on with the next step, for nobody else will offer what is left.
        let key = self.job_keys.find(id);
        if key.is_some_and(|key| matches!(self.jobs[key].waits, Waits::ForNode(_))) {
            self.placing.arrivals.push_back(id);
        }
    }

    /// A lane's jobs may go on: its nodes are offered, the best first, a few at a time and as long as any job waits.
    fn place_woken(&mut self, lane: LaneKey, after: Option<(Place, NodeKey)>, looks: &mut u32) {
        if self.backlog.is_empty(lane) {
            return;
        }
        let ready = &self.fleet.lanes.of(lane).ready;
        let nodes: Vec<_> = ready.after(after).take(CANDIDATES_MAX).collect();
        let goes_on = nodes.len() == CANDIDATES_MAX;
        let mut last = after;
        for at in nodes {
            if *looks == 0 {
                self.placing.woken.insert(lane, last);
                return;
            }
            self.offer(at.1, looks, None);
            last = Some(at);
        }
        if goes_on {
            self.placing.woken.insert(lane, last);
        }
    }

    /// The best node with room for a job, of the first few of its lane and those that may have its beginning.
    fn best_node(&self, key: Key, lane: LaneKey, looks: &mut u32) -> Option<(NodeKey, Considered)> {
        let job = &self.jobs[key];
        let look = self.look();
        let mut considered = Considered::default();
        let mut scored: Vec<(i64, NodeKey, Score)> = Vec::with_capacity(CANDIDATES_MAX);
        let [first, second] = self.affinity.nodes(job.need.model, *job.row.spec.prefix);
        let listed: Vec<NodeKey> =
            job.row.spec.constraints.allow.iter().filter_map(|node| self.fleet.find(node)).collect();
        // Among those of its own need, where it waits beside jobs of others.
        let nodes = self.fleet.lanes.with_need(&job.need).unwrap_or_else(|| self.fleet.lanes.of(lane));
        let ordered = nodes.ready.in_turn();
        let near = [first, second].into_iter().flatten();
        for (at, node) in near.chain(listed).chain(ordered).enumerate() {
            if scored.len() >= CANDIDATES_MAX || *looks == 0 {
                break;
            }
            *looks -= 1;
            if at > 0 && scored.iter().any(|(_, known, _)| *known == node) {
                continue;
            }
            match look.fits(self.fleet.node(node), node, job) {
                Ok(()) => {
                    let score = self.score_of(node, job);
                    scored.push((score.sum(), node, score));
                }
                Err(loss) => considered.cannot(self.fleet.node(node).id(), loss),
            }
        }
        scored.sort_by_key(|(sum, node, _)| (*sum, *node));
        considered.candidates = scored.len() as u32;
        for (_, node, score) in scored.iter().skip(1) {
            considered.lose(self.fleet.node(*node).id(), Loss::Slower(*score));
        }
        for (node, loss) in std::mem::take(&mut considered.unable) {
            considered.lose(&node, loss);
        }
        let node = scored.first()?.1;
        #[cfg(any(test, feature = "mutants"))]
        {
            considered.compared = self.compare(key, scored[0].0);
        }
        Some((node, considered))
    }

    /// A node's score for a job.
    pub(super) fn score_of(&self, key: NodeKey, job: &Job) -> Score {
        let (node, model) = (self.fleet.node(key), job.need.model);
        let Some(serving) = node.serving(model) else { return Score::default() };
        let means = self.fleet.means(model);
        let near = self.affinity.nodes(model, *job.row.spec.prefix).contains(&Some(key));
        let load = Load {
            input_tokens: job.row.spec.input_tokens,
            output_tokens: job.row.spec.output_tokens_max.min(means.typical_tokens().1.max(16)),
            prefix: if near { Prefix::Cached } else { Prefix::Unknown },
        };
        score::score(node, serving, means, load, &self.limits.penalties, self.now)
    }

    /// Lets a node take what is next for it, as long as it has room. `came` is the job that asked for it.
    fn offer(&mut self, node: NodeKey, looks: &mut u32, mut came: Option<(Key, Considered)>) -> Offered {
        let mut offered = Offered::Nothing;
        // Jobs that it gave back, whose `Revoked` comes next, go before whoever came later: it is offered again then.
        if self.fleet.held_by(node).any(|held| held.capacity == Capacity::Free && held.job.is_some()) {
            return offered;
        }
        *looks = looks.saturating_sub(OFFER_LOOKS).max(1);
        let mut from = self.fleet.node_mut(node).later.take();
        while *looks > 0 && self.fleet.node(node).has_any_slot() && self.fleet.node(node).is_here() {
            let mut findings = Vec::new();
            let selection = self.select(node, from.take(), looks, &mut findings);
            let expired = self.act_on(findings);
            match selection {
                // Who stood behind one that has expired goes before whoever was found instead.
                _ if expired > 0 => {}
                Selection::Job { key, charged } => {
                    let asked = came.take_if(|(asking, _)| *asking == key).map(|(_, considered)| considered);
                    let by = if asked.is_some() { PlacedBy::Job } else { PlacedBy::Node };
                    let considered = asked.unwrap_or(Considered { candidates: 1, ..Considered::default() });
                    #[cfg(any(test, feature = "mutants"))]
                    self.comparisons.iter_mut().for_each(|all| all.extend(considered.compared.clone()));
                    self.reserve(key, node, charged, by, considered.candidates, considered.losers);
                    *looks = looks.saturating_sub(PLACEMENT_LOOKS);
                    offered = Offered::Took;
                }
                Selection::Nothing => break,
                Selection::Blocked(_) => {
                    self.placing.blocked.insert(node);
                    break;
                }
                Selection::Later(cursor) => {
                    self.fleet.node_mut(node).later = Some(cursor);
                    self.placing.later.insert(node);
                    break;
                }
            }
        }
        if *looks == 0 && self.fleet.node(node).has_any_slot() {
            self.placing.offer(node);
        }
        offered
    }

    /// The job that is next for a node.
    fn select(
        &mut self,
        key: NodeKey,
        from: Option<super::backlog::Cursor>,
        looks: &mut u32,
        findings: &mut Vec<Finding>,
    ) -> Selection {
        let Self { backlog, jobs, fleet, subclouds, models, placing, counts, limits, now, .. } = self;
        let look = Look { fleet, subclouds, models, placing, counts, limits, now: *now };
        let node = fleet.node(key);
        backlog.select(&node.lanes, from, *now, |job_key, charged| {
            *looks = looks.saturating_sub(ASK_LOOKS);
            let (suit, finding) = look.suits(node, key, &jobs[job_key], job_key, charged);
            findings.extend(finding);
            suit
        })
    }

    pub(super) fn look(&self) -> Look<'_> {
        let Self { fleet, subclouds, models, placing, counts, limits, now, .. } = self;
        Look { fleet, subclouds, models, placing, counts, limits, now: *now }
    }

    /// Does what was found out while looking. Says how many jobs ended by it.
    fn act_on(&mut self, findings: Vec<Finding>) -> u32 {
        let mut expired = 0;
        for finding in findings {
            match finding {
                // The tick hasn't come to it yet, but it must not be dispatched any more.
                Finding::Expired(key) => {
                    // It may have been looked at twice: in its own tier, and as one that has aged.
                    if self.jobs.get(key).is_some() {
                        self.expire(key);
                        expired += 1;
                    }
                }
                Finding::Unfit(key) => {
                    if self.jobs.get(key).is_some() {
                        self.jobs[key].past.unfit_since.get_or_insert(self.now);
                    }
                }
                Finding::Starved { key, lane, tier } => {
                    self.placing.short.insert(lane);
                    let new = Starved { job: key, tier, since: self.now, current: true };
                    let starved = self.placing.starved.entry(lane).or_insert(new);
                    if starved.job != key {
                        *starved = new;
                    }
                    starved.current = true;
                }
                Finding::KeptFrom(lane) => {
                    self.placing.short.insert(lane);
                }
            }
        }
        expired
    }
}

impl Considered {
    fn lose(&mut self, node: &NodeId, loss: Loss) {
        if self.losers.len() < LOSERS_KEPT_MAX {
            self.losers.push((node.clone(), loss));
        }
    }

    fn cannot(&mut self, node: &NodeId, loss: Option<Loss>) {
        if let Some(loss) = loss.filter(|_| self.unable.len() < LOSERS_KEPT_MAX) {
            self.unable.push((node.clone(), loss));
        }
    }
}
