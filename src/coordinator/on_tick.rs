//! What time does: expiries, ends of backoffs, deadlines. A bounded number of them a tick.

use super::Coordinator;
use super::effect::{Effect, End};
use super::fleet::{Deadline, ReservationState};
use super::job::JobState;
use super::limits::TICK_TIMERS_MAX;
use super::timers::Timer;
use crate::ids::ReservationId;

impl Coordinator {
    pub(super) fn on_tick(&mut self) {
        for _ in 0..TICK_TIMERS_MAX {
            let Some(timer) = self.timers.due(self.now) else { return };
            match timer {
                Timer::Ttl(job) => {
                    if let Some(key) = self.job_keys.get(&job).copied() {
                        self.finish_unserved(key, JobState::Expired, End::Expired);
                    }
                }
                Timer::Backoff(job) => {
                    if let Some(key) = self.job_keys.get(&job).copied() {
                        self.backoff_over(key);
                    }
                }
                Timer::Reservation(id) => self.deadline(id),
            }
        }
    }

    fn deadline(&mut self, id: ReservationId) {
        let Some(reservation) = self.fleet.reservation(id) else { return };
        let stopping = matches!(reservation.state, ReservationState::Stopping(_));
        match reservation.due.1 {
            Deadline::Stop => self.stop_overdue(id),
            _ if stopping => {}
            Deadline::FirstOutput | Deadline::Progress => self.effects.push(Effect::CheckProgress(id)),
            deadline @ (Deadline::Accept | Deadline::Attempt) => self.overdue(id, deadline),
        }
    }
}
