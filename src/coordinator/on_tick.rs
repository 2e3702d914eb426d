//! What time does: expiries, ends of backoffs, deadlines, and the looks that are due. A bounded number of them a tick.

use super::effect::{Effect, Row};
use super::fleet::{Deadline, ReservationState};
use super::job::{JobState, Waits};
use super::limits::{FALLBACK_SWEEP_MAX, KEYS_EXPIRED_MAX, TICK_TIMERS_MAX};
use super::mutant::mutant;
use super::names::LaneKey;
use super::slab::Key;
use super::{Coordinator, Timer};
use crate::ids::{JobId, ReservationId};
use crate::time::Span;

impl Coordinator {
    pub(super) fn on_tick(&mut self) {
        for _ in 0..TICK_TIMERS_MAX {
            let Some((_, timer)) = self.timers.due(self.now) else { break };
            match timer {
                Timer::Ttl(job) => self.ttl_due(job),
                Timer::Backoff(job) => {
                    if let Some(key) = self.job_keys.find(job) {
                        self.time_has_come(key);
                    }
                }
                Timer::Reservation(id) => self.deadline(id),
                Timer::Node(node) => self.node_due(node),
            }
        }
        self.sweep_deserted();
        self.expire_keys();
        self.placing.tick();
    }

    fn ttl_due(&mut self, job: JobId) {
        let Some(key) = self.job_keys.find(job) else { return };
        self.jobs[key].ttl_timer = None;
        if mutant!(TtlLateBehindBusyLane) && self.is_behind_busy_lane(key) {
            let timer = self.timers.set(self.now + Span::from_secs(30), Timer::Ttl(job));
            self.jobs[key].ttl_timer = Some(timer);
            return;
        }
        self.expire(key);
    }

    fn is_behind_busy_lane(&self, key: Key) -> bool {
        matches!(self.jobs[key].waits, Waits::ForNode(place) if self.fleet.lanes.of(place.lane).ready.is_empty())
    }

    fn deadline(&mut self, id: ReservationId) {
        let Some(reservation) = self.fleet.reservation_mut(id) else { return };
        reservation.timer = None;
        let stopping = matches!(reservation.state, ReservationState::Stopping(_));
        match reservation.due.1 {
            Deadline::Stop => self.stop_overdue(id),
            _ if stopping => {}
            Deadline::FirstOutput | Deadline::Progress => self.effects.push(Effect::CheckProgress(id)),
            deadline @ (Deadline::Accept | Deadline::Attempt) => self.overdue(id, deadline),
        }
    }

    /// Jobs in lanes that have no node left move to a model that stands in, where one can.
    fn sweep_deserted(&mut self) {
        let mut left = FALLBACK_SWEEP_MAX;
        let lanes: Vec<LaneKey> = self.deserted.iter().copied().collect();
        for lane in lanes {
            if !self.fleet.lanes.of(lane).eligible.is_empty() || self.backlog.is_empty(lane) {
                self.deserted.remove(&lane);
                continue;
            }
            for key in self.backlog.jobs_in(lane, left) {
                left -= 1;
                self.move_to_fallback(key);
            }
            if left == 0 {
                return;
            }
        }
    }

    fn move_to_fallback(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        assert!(row.state == JobState::Queued, "job {} waits in a lane", row.id);
        let further = (row.model_index + 1)..=row.spec.fallbacks.models.len() as u32;
        if further.into_iter().any(|index| self.reason_against(key, index).is_none()) {
            self.unfile(key);
            self.file(key);
            self.touch(key);
        }
    }

    fn expire_keys(&mut self) {
        let Self { keys, job_keys, now, .. } = self;
        let expired = keys.expire(*now, KEYS_EXPIRED_MAX, |job| job_keys.find(job).is_some());
        for key in expired {
            self.keep(Row::KeyForgotten(key));
        }
    }
}
