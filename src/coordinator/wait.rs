//! How jobs wait: for their time, or in a lane for a node; and which lanes there are.

use super::backlog::{Arrival, Home, LaneOf};
use super::effect::Why;
use super::eligibility::{FallsBack, Need, Shape};
use super::event::Environment;
use super::fleet::Picky;
use super::job::{JobState, Waits};
use super::mutant::mutant;
use super::names::LaneKey;
use super::rare::Rare;
use super::slab::Key;
use super::standing::Trust;
use super::trace::TraceEvent;
use super::{Coordinator, Timer};
use crate::time::Span;

impl Coordinator {
    /// Lets a queued job wait: for its time if that hasn't come, else for a node.
    pub(super) fn file(&mut self, key: Key) {
        let job = &self.jobs[key];
        assert!(
            job.row.state == JobState::Queued,
            "job {} waits in state {}",
            job.row.id,
            job.row.state.word()
        );
        let (expires_at, not_before) = (job.row.expires_at, job.row.not_before);
        let ttl_timer = self.timers.set(expires_at, Timer::Ttl(key));
        self.jobs[key].ttl_timer = Some(ttl_timer);
        *self.namespaces.waiting_mut(self.jobs[key].namespace) += 1;
        self.counts.jobs_queued += 1;
        if not_before > self.now {
            let timer = self.timers.set(not_before, Timer::Backoff(key));
            self.jobs[key].waits = Waits::ForTime(timer);
        } else {
            self.enqueue(key);
        }
    }

    /// Lets a queued job wait for a node, from now on.
    pub(super) fn enqueue(&mut self, key: Key) {
        self.choose_model(key);
        let need = self.need_of(key);
        let lane = self.lane_for(key, &need);
        let sequence = self.next_sequence(key);
        let job = &mut self.jobs[key];
        job.need = need;
        job.row.sequence = sequence;
        let (row, namespace) = (&job.row, job.namespace);
        let (tier, sequence, stamp, waited) = (row.spec.tier, row.sequence, job.past.stamp, job.past.waited);
        let arrival = Arrival { key, lane, tier, namespace, sequence, stamp, waited };
        let place = self.backlog.insert(arrival, self.now);
        job.waits = Waits::ForNode(place.seat());
        // Nobody can serve it yet, on this model or another: whoever comes may serve the other.
        if job.need.shape.falls_back == FallsBack::Yes && self.fleet.lanes.of(lane).eligible.is_empty() {
            self.deserted.look_at(lane);
        }
        self.placing.arrivals.push_back(row.id);
    }

    /// A job's place among all, by when it could first have been placed; it keeps that for life.
    fn next_sequence(&mut self, key: Key) -> u64 {
        match self.jobs[key].row.sequence {
            0 => {
                self.sequences_given += 1;
                self.sequences_given
            }
            given => given,
        }
    }

    fn need_of(&self, key: Key) -> Need {
        let job = &self.jobs[key];
        let mut need = Need::of(&job.row.spec, job.need.model, job.row.model_index);
        if mutant!(EnvironmentIgnoredOnRequeue) && job.row.attempts > 0 {
            need.environment = match need.environment {
                Environment::Mainnet => Environment::Testnet,
                Environment::Testnet => Environment::Mainnet,
            };
        }
        need
    }

    /// The lane that a job waits in. One with lists of nodes, or that a node failed, is looked at by itself.
    fn lane_for(&mut self, key: Key, need: &Need) -> LaneKey {
        let job = &self.jobs[key];
        let lists = &job.row.spec.constraints;
        let listed = !lists.allow.is_empty() || !lists.deny.is_empty();
        let alone = job.row.box_cuts > 0;
        // What may be too large for a node mustn't stand in the way of what isn't.
        let large = self.fleet.may_be_too_large(need.model, job.kv_tokens());
        let ordinary = !listed && !alone && !large && job.past.failed_on.is_empty();
        let shape = if ordinary { self.fleet.shapes.intern(&need.shape) } else { None };
        // The lane of its need knows its nodes, though it waits elsewhere.
        if !ordinary {
            self.lane_of_need(need);
        }
        let home = Home { environment: need.environment, model: need.model };
        match self.backlog.lane(home, shape, self.now) {
            LaneOf::Existing(lane) => lane,
            LaneOf::Created { lane, evicted } => {
                let (need, picky) = match self.backlog.shape_of(lane) {
                    Some(_) => (need.clone(), Picky::No),
                    None => (Need { shape: any_shape(), ..need.clone() }, Picky::Yes),
                };
                self.begin_lane(lane, evicted, need, picky);
                lane
            }
        }
    }

    /// Sees to it that there is a lane with the nodes for a need.
    fn lane_of_need(&mut self, need: &Need) {
        let Some(shape) = self.fleet.shapes.intern(&need.shape) else { return };
        let home = Home { environment: need.environment, model: need.model };
        if self.fleet.lanes.with_need(need).is_some() {
            return;
        }
        if let LaneOf::Created { lane, evicted } = self.backlog.lane(home, Some(shape), self.now) {
            match self.backlog.shape_of(lane) {
                Some(_) => self.begin_lane(lane, evicted, need.clone(), Picky::No),
                None => self.begin_lane(lane, None, Need { shape: any_shape(), ..need.clone() }, Picky::Yes),
            }
        }
    }

    fn begin_lane(&mut self, lane: LaneKey, evicted: Option<LaneKey>, need: Need, picky: Picky) {
        if let Some(evicted) = evicted {
            self.fleet.drop_lane(evicted);
            self.placing.lane_ended(evicted);
            self.deserted.forget(evicted);
        }
        let name = self.models[need.model].clone();
        self.fleet.lanes.begin(lane, need, picky);
        self.fleet.fill_lane(lane, &name, &self.subclouds, self.now);
        // The job that the lane began for looks there next.
        self.settle_touched();
    }

    /// Lets another model stand in where nobody could serve the job's now, and somebody the other.
    fn choose_model(&mut self, key: Key) {
        while !self.jobs[key].row.spec.fallbacks.models.is_empty() {
            let index = self.jobs[key].row.model_index;
            if index as usize >= self.jobs[key].row.spec.fallbacks.models.len()
                || self.is_servable(key, index)
            {
                return;
            }
            let further = (index + 1)..=self.jobs[key].row.spec.fallbacks.models.len() as u32;
            let Some(next) = further.into_iter().find(|next| self.is_servable(key, *next)) else { return };
            self.fall_back(key, next);
        }
    }

    /// Whether some node that is ready could serve a job on the model of that index.
    pub(super) fn is_servable(&self, key: Key, index: u32) -> bool {
        let job = &self.jobs[key];
        let spec = &job.row.spec;
        let name = spec.model_at(index);
        let nodes =
            self.models.key(name).and_then(|model| self.fleet.lanes.with_need(&Need::of(spec, model, index)));
        let could = |key: &super::names::NodeKey| {
            let node = self.fleet.node(*key);
            job.kv_tokens() <= node.kv_tokens && is_listed(spec, node.id())
        };
        // The lane of that need, where there is one, knows who could.
        match nodes {
            Some(nodes) => nodes.eligible.iter().any(could),
            None => self.reason_against(key, index).is_none(),
        }
    }

    /// Moves a job to a model that stands in.
    pub(super) fn fall_back(&mut self, key: Key, index: u32) {
        let name = self.jobs[key].row.spec.model_at(index).clone();
        let Some(model) = self.models.intern(&name) else { return };
        let now = self.now;
        let job = &mut self.jobs[key];
        job.row.model_index = index;
        job.row.failed_on_model = 0;
        job.need.model = model;
        job.note(now, TraceEvent::FellBack { model: name });
        self.counts.fell_back += 1;
    }

    /// Why no node could serve a job on the model of that index, even when it is free; `None` if one could. Of all
    /// nodes, how far the one that came furthest got.
    pub(super) fn reason_against(&self, key: Key, index: u32) -> Option<Why> {
        let job = &self.jobs[key];
        let spec = &job.row.spec;
        let name = spec.model_at(index);
        let Some(model) = self.models.key(name) else { return Some(Why::NoNodeServesModel) };
        let need = Need::of(spec, model, index);
        let mut furthest = Why::NoNodeServesModel;
        for node in self.fleet.serving(model).map(|node| self.fleet.node(node)) {
            let why = match super::eligibility::lack(node, &need, name, &self.subclouds, self.now) {
                Some(Why::NoNodeReady) | None if !is_listed(spec, node.id()) => Why::NoNodeAllowed,
                None if job.kv_tokens() > node.kv_tokens => Why::TooLargeForEveryNode,
                None => return None,
                Some(why) => why,
            };
            furthest = furthest.max(why);
        }
        Some(furthest)
    }

    /// Why no node could serve a job on the model that was asked for; `None` if one could, or could on another.
    pub(super) fn reason_against_all(&self, key: Key) -> Option<Why> {
        let fallbacks = 1..=self.jobs[key].row.spec.fallbacks.models.len() as u32;
        let nobody = fallbacks.into_iter().all(|index| !self.is_servable(key, index));
        self.reason_against(key, 0).filter(|_| nobody)
    }

    /// Undoes `file`.
    pub(super) fn leave_queue(&mut self, key: Key) {
        let job = &mut self.jobs[key];
        if let Some(timer) = job.ttl_timer.take() {
            self.timers.clear(timer);
        }
        job.waits = Waits::Not;
        *self.namespaces.waiting_mut(job.namespace) -= 1;
        self.counts.jobs_queued -= 1;
    }

    /// Takes a queued job out of wherever it waits. Says how long it could have been placed so far.
    pub(super) fn unfile(&mut self, key: Key) -> Span {
        let job = &mut self.jobs[key];
        let mut waited = job.past.waited;
        match std::mem::replace(&mut job.waits, Waits::Not) {
            Waits::Not => panic!("job {} waits nowhere", job.row.id),
            Waits::ForTime(timer) => self.timers.clear(timer),
            Waits::ForNode(seat) => {
                let place = job.place_of(seat);
                waited = self.backlog.waited(&place, self.now);
                self.backlog.remove(&place, self.now);
                // It may have been the one that the others waited behind.
                self.placing.wake(place.lane);
            }
        }
        let unfit = self.jobs[key].past.unfit_since;
        if unfit.is_some() {
            self.jobs[key].past.unfit_since = None;
        }
        self.placing.forget(key, unfit);
        self.leave_queue(key);
        waited
    }

    /// A job's time has come: it waits for a node.
    pub(super) fn time_has_come(&mut self, key: Key) {
        self.enqueue(key);
        self.touch(key);
    }
}

fn is_listed(spec: &super::event::JobSpec, node: &crate::ids::NodeId) -> bool {
    let lists = &spec.constraints;
    (lists.allow.is_empty() || lists.allow.contains(node)) && !lists.deny.contains(node)
}

/// The shape of a lane whose jobs are looked at one by one.
fn any_shape() -> Shape {
    use super::eligibility::StandsIn;
    Shape {
        trust: Trust::Open,
        particulars: Rare::default(),
        falls_back: FallsBack::No,
        stands_in: StandsIn::No,
    }
}
