//! CORE section 5 by the letter: a list of jobs, scanned for every question.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::super::clock::TOKEN_SCALE;
use super::super::*;

/// A job that waits.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) lane: usize,
    pub(super) tier: Tier,
    pub(super) namespace: u32,
    pub(super) sequence: u64,
    /// The start it came back with.
    pub(super) stamp: Option<Stamp>,
    /// Its start in the standard tier.
    pub(super) aged_start: Option<AgedStart>,
    pub(super) waited: Span,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct NaiveLane {
    pub(super) home: Home,
    pub(super) is_picky: bool,
}

type ClockKey = (Environment, Tier, u32);

/// All there is to know.
pub(super) struct Naive {
    pub(super) lanes: Vec<NaiveLane>,
    pub(super) jobs: Vec<Job>,
    pub(super) paused: BTreeSet<Scope>,
    pub(super) starts: BTreeMap<ClockKey, (u64, i64)>,
    pub(super) dispatched: BTreeMap<(Environment, Tier), u64>,
    pub(super) weights: BTreeMap<u32, u32>,
    pub(super) batch_age: Span,
}

/// What was refused so far in a tier.
#[derive(Default)]
struct Refused {
    after: Option<(u64, u64)>,
    aged: BTreeMap<usize, u64>,
}

impl Naive {
    pub(super) fn new(lanes: Vec<NaiveLane>, batch_age: Span) -> Self {
        Self {
            lanes,
            jobs: Vec::new(),
            paused: BTreeSet::new(),
            starts: BTreeMap::new(),
            dispatched: BTreeMap::new(),
            weights: BTreeMap::new(),
            batch_age,
        }
    }

    pub(super) fn is_runnable(&self, job: &Job) -> bool {
        let model = self.lanes[job.lane].home.model;
        let scopes =
            [Scope::Model(model), Scope::Namespace(NamespaceKey::from(job.namespace)), Scope::Tier(job.tier)];
        scopes.iter().all(|scope| !self.paused.contains(scope))
    }

    fn clock_key(&self, job: &Job, tier: Tier) -> ClockKey {
        (self.lanes[job.lane].home.environment, tier, job.namespace)
    }

    fn backlogged(&self) -> BTreeSet<ClockKey> {
        self.jobs
            .iter()
            .filter(|job| self.is_runnable(job))
            .map(|job| self.clock_key(job, job.tier))
            .collect()
    }

    /// Does something, and lets those catch up who have something to place because of it.
    pub(super) fn change(&mut self, what: impl FnOnce(&mut Self)) {
        let before = self.backlogged();
        what(self);
        for key in self.backlogged().difference(&before) {
            let dispatched = self.dispatched.get(&(key.0, key.1)).copied().unwrap_or(0);
            let start = &mut self.starts.entry(*key).or_default().0;
            *start = dispatched.max(*start);
        }
    }

    pub(super) fn advance(&mut self, span: Span) {
        let runnable: Vec<bool> = self.jobs.iter().map(|job| self.is_runnable(job)).collect();
        for (job, _) in self.jobs.iter_mut().zip(runnable).filter(|(_, runnable)| *runnable) {
            job.waited = Span(job.waited.0 + span.0);
        }
    }

    fn start_of(&self, job: &Job, charged: Tier) -> u64 {
        let start = self.starts.get(&self.clock_key(job, charged)).map_or(0, |(start, _)| *start);
        if charged == job.tier {
            let returned = job.stamp.filter(|stamp| stamp.tier == job.tier);
            return returned.map_or(start, |stamp| stamp.start);
        }
        match job.aged_start.expect("an aged job was looked at") {
            AgedStart::FirstSeen(dispatched) => start.max(dispatched),
            AgedStart::Returned(start) => start,
        }
    }

    pub(super) fn dispatch(&mut self, number: u64, charged: Tier, cost: i64) -> Stamp {
        let at = self.jobs.iter().position(|job| job.number == number).expect("it waits");
        let job = self.jobs.remove(at);
        let (start, key) = (self.start_of(&job, charged), self.clock_key(&job, charged));
        let weight = u64::from(self.weights.get(&job.namespace).copied().unwrap_or(1));
        let (next, carry) = self.starts.entry(key).or_default();
        let due = cost + *carry;
        *carry = due.min(0);
        *next = (*next).max(start) + due.max(0) as u64 * TOKEN_SCALE / weight;
        let dispatched = self.dispatched.entry((key.0, charged)).or_default();
        *dispatched = start.max(*dispatched);
        Stamp { tier: charged, start }
    }

    /// The number and charged tier of the first that suits, and how many were looked at.
    pub(super) fn select(
        &mut self,
        lanes: &[usize],
        suits: impl Fn(u64) -> Suit,
    ) -> (Option<(u64, Tier, Suit)>, u32) {
        let mut looks = 0;
        for tier in Tier::ALL {
            let mut refused = Refused::default();
            while let Some((_, sequence, number, aged)) = self.next(lanes, tier, &refused) {
                looks += 1;
                match suits(number) {
                    Suit::No => {}
                    suit => return (Some((number, tier, suit)), looks),
                }
                match aged {
                    Some(lane) => drop(refused.aged.insert(lane, sequence)),
                    None => refused.after = Some((self.start_of(&self.job(number), tier), sequence)),
                }
            }
        }
        (None, looks)
    }

    pub(super) fn job(&self, number: u64) -> Job {
        self.jobs.iter().find(|job| job.number == number).cloned().expect("it waits")
    }

    fn next(
        &mut self,
        lanes: &[usize],
        tier: Tier,
        refused: &Refused,
    ) -> Option<(u64, u64, u64, Option<usize>)> {
        let runnable = self.jobs.iter().filter(|job| lanes.contains(&job.lane) && self.is_runnable(job));
        let own = runnable.filter(|job| job.tier == tier && self.is_head(job));
        let own = own.map(|job| (self.start_of(job, tier), job.sequence, job.number, None));
        let own = own.filter(|(start, sequence, ..)| Some((*start, *sequence)) > refused.after).min();
        let aged = lanes.iter().filter(|_| tier == Tier::Standard);
        let aged: Vec<_> =
            aged.filter_map(|lane| self.aged(*lane, refused.aged.get(lane).copied())).collect();
        own.into_iter().chain(aged).min()
    }

    /// Whether it may be looked at although others of its flow wait before it.
    fn is_head(&self, job: &Job) -> bool {
        self.lanes[job.lane].is_picky || self.is_next(job, None)
    }

    /// Whether nobody of its flow is before it, those left out that were refused.
    fn is_next(&self, job: &Job, refused: Option<u64>) -> bool {
        let queued = |job: &Job| job.stamp.is_none_or(|stamp| stamp.tier != job.tier);
        let before = |other: &Job| {
            (other.lane, other.tier, other.namespace) == (job.lane, job.tier, job.namespace)
                && queued(other)
                && other.sequence < job.sequence
                && Some(other.sequence) > refused
        };
        !queued(job) || !self.jobs.iter().any(before)
    }

    fn aged(&mut self, lane: usize, refused: Option<u64>) -> Option<(u64, u64, u64, Option<usize>)> {
        if refused.is_some() && !self.lanes[lane].is_picky {
            return None;
        }
        let batch = self.jobs.iter().filter(|job| job.lane == lane && job.tier == Tier::Batch);
        let batch = batch.filter(|job| self.is_runnable(job) && Some(job.sequence) > refused);
        let aged = batch.filter(|job| job.waited > self.batch_age && self.is_next(job, refused));
        // Pauses of its namespace make a job younger than others that came later.
        let oldest = match self.lanes[lane].is_picky {
            true => aged.min_by_key(|job| job.sequence)?.clone(),
            false => aged.min_by_key(|job| (Reverse(job.waited), job.sequence))?.clone(),
        };
        let key = (self.lanes[lane].home.environment, Tier::Standard);
        let dispatched = self.dispatched.get(&key).copied().unwrap_or(0);
        let job = self.jobs.iter_mut().find(|job| job.number == oldest.number)?;
        job.aged_start.get_or_insert(AgedStart::FirstSeen(dispatched));
        let job = job.clone();
        Some((self.start_of(&job, Tier::Standard), job.sequence, job.number, Some(lane)))
    }

    pub(super) fn waiting(&self, which: impl Fn(&Job) -> bool) -> u64 {
        self.jobs.iter().filter(|job| which(job)).count() as u64
    }
}
