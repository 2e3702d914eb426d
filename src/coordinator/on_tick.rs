//! What time does: expiries, ends of backoffs, deadlines, and the looks that are due. A bounded number of them a tick.

use super::effect::{Effect, Row};
use super::eligibility::FallsBack;
use super::fleet::{Deadline, Nodes, Picky, ReservationState};
use super::job::{JobState, Waits};
use super::limits::{FALLBACK_SWEEP_MAX, KEYS_EXPIRED_MAX, TICK_TIMERS_MAX};
use super::mutant::mutant;
use super::names::LaneKey;
use super::slab::Key;
use super::{Coordinator, Timer};
use crate::time::Span;

impl Coordinator {
    pub(super) fn on_tick(&mut self) {
        for _ in 0..TICK_TIMERS_MAX {
            let Some((_, timer)) = self.timers.due(self.now) else { break };
            match timer {
                // A job's timers are cleared when it leaves the queue, and a reservation's when it is gone.
                Timer::Ttl(key) => self.ttl_due(key),
                Timer::Backoff(key) => self.time_has_come(key),
                Timer::Reservation(key) => self.deadline(key),
                Timer::Node(node) => self.node_due(node),
            }
        }
        self.sweep_deserted();
        self.expire_keys();
        self.forget_old();
        self.placing.tick();
    }

    fn ttl_due(&mut self, key: Key) {
        self.jobs[key].ttl_timer = None;
        if mutant!(TtlLateBehindBusyLane) && self.is_behind_busy_lane(key) {
            let timer = self.timers.set(self.now + Span::from_secs(30), Timer::Ttl(key));
            self.jobs[key].ttl_timer = Some(timer);
            return;
        }
        self.expire(key);
    }

    fn is_behind_busy_lane(&self, key: Key) -> bool {
        matches!(self.jobs[key].waits, Waits::ForNode(place) if self.fleet.lanes.of(place.lane).ready.is_empty())
    }

    fn deadline(&mut self, key: Key) {
        let reservation = self.fleet.at_mut(key);
        reservation.timer = None;
        let id = reservation.id;
        let stopping = matches!(reservation.state, ReservationState::Stopping(_));
        match reservation.due.1 {
            Deadline::Stop => self.stop_overdue(id),
            _ if stopping => {}
            Deadline::FirstOutput | Deadline::Progress => self.effects.push(Effect::CheckProgress(id)),
            deadline @ (Deadline::Accept | Deadline::Attempt) => self.overdue(id, deadline),
        }
    }

    /// Jobs that nobody can serve on their model move to one that stands in, where somebody can: a few a tick, lane
    /// after lane. All are looked at again after a node joined or left.
    fn sweep_deserted(&mut self) {
        if std::mem::take(&mut self.nodes_moved) {
            let falls_back = |nodes: &Nodes| {
                nodes.picky == Picky::Yes
                    || nodes.need.shape.falls_back == FallsBack::Yes && nodes.eligible.is_empty()
            };
            let lanes = self.fleet.lanes.iter().filter(|(_, nodes)| falls_back(nodes));
            let waiting = lanes.filter(|(lane, _)| !self.backlog.is_empty(*lane));
            let lanes: Vec<LaneKey> = waiting.map(|(lane, _)| lane).collect();
            lanes.into_iter().for_each(|lane| self.deserted.look_at(lane));
        }
        let Some((lane, after)) = self.deserted.next() else { return };
        let jobs = self.backlog.jobs_in(lane, after, FALLBACK_SWEEP_MAX);
        let goes_on = jobs.last().filter(|_| jobs.len() == FALLBACK_SWEEP_MAX).map(|(position, _)| *position);
        for (_, key) in jobs {
            self.move_to_fallback(key);
        }
        self.deserted.looked(lane, goes_on);
    }

    /// Lets another model stand in for a waiting job's, if that is the way to get it served.
    fn move_to_fallback(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        assert!(row.state == JobState::Queued, "job {} waits in a lane", row.id);
        let (index, last) = (row.model_index, row.spec.fallbacks.models.len() as u32);
        let moves = index < last
            && !self.is_servable(key, index)
            && (index + 1..=last).any(|further| self.is_servable(key, further));
        if moves {
            self.jobs[key].past.waited = self.unfile(key);
            self.file(key);
            self.touch(key);
        }
    }

    fn expire_keys(&mut self) {
        let Self { keys, job_keys, now, .. } = self;
        let expired = keys.expire(*now, KEYS_EXPIRED_MAX, |job| job_keys.find(job).is_some());
        for (key, job) in expired {
            self.keep(Row::KeyForgotten(key));
            self.no_key_stands_for(job);
        }
    }
}
