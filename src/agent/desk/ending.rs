//! How attempts end before they are through: because the box says so, or because the node leaves.

use std::time::Instant;

use super::{Desk, Mode};
use crate::agent::hold::{Cause, Ended, Hold, Phase, Sent};
use crate::coordinator::event::Wish;
use crate::ids::ReservationId;
use crate::wire::{FromAgent, to_box};

impl Desk {
    /// The box doesn't want an attempt any more.
    pub(in crate::agent) fn on_stop(&mut self, reservation: ReservationId) {
        let Some(hold) = self.holds.get(&reservation) else { return };
        match &hold.phase {
            Phase::Running => self.stop(reservation, Cause::Unwanted),
            // The result crosses the stop.
            Phase::Ended(Ended { sent: Sent::Yes, .. }) | Phase::Stopping(Cause::Unwanted) => {}
            Phase::Stopping(Cause::Leaving) => self.stop(reservation, Cause::Unwanted),
            Phase::Ended(Ended { result, sent: Sent::No, .. }) => {
                let (input, output) = (result.statement.input_tokens, result.statement.output_tokens);
                self.say_stopped(reservation, input, output);
            }
        }
    }

    pub(super) fn stop(&mut self, reservation: ReservationId, cause: Cause) {
        let Some(hold) = self.holds.get_mut(&reservation) else { return };
        hold.phase = Phase::Stopping(cause);
        if cause == Cause::Unwanted {
            // Nobody reads it any more.
            hold.output.close();
        }
        self.attempts.stop(reservation);
    }

    /// The owner's wish, kept and told.
    pub(in crate::agent) fn set_mode(&mut self, mode: Mode) {
        if mode == self.mode || self.mode == Mode::Draining {
            return;
        }
        self.mode = mode;
        self.wish(match mode {
            Mode::Working => Wish::Resume,
            Mode::Paused => Wish::Pause,
            Mode::Draining => Wish::Drain,
        });
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        self.say(FromAgent::Wish(to_box::Wished { wish }));
    }

    /// Gives back every attempt of which the box has seen nothing: another node may begin it at once.
    pub(in crate::agent) fn hand_back(&mut self) {
        self.stop_those(Cause::Unwanted, |hold| !hold.has_shown());
    }

    /// Stops everything that runs: what was seen of it ends in failed results.
    pub(in crate::agent) fn stop_all(&mut self) {
        self.hand_back();
        self.stop_those(Cause::Leaving, |_| true);
    }

    /// Stops attempts that have run since before `since`: no box waits for them any more.
    pub(in crate::agent) fn stop_overdue(&mut self, since: Instant) {
        self.stop_those(Cause::Unwanted, |hold| hold.since < since);
    }

    fn stop_those(&mut self, cause: Cause, which: impl Fn(&Hold) -> bool) {
        let those: Vec<ReservationId> = self
            .holds
            .iter()
            .filter(|(_, hold)| matches!(hold.phase, Phase::Running) && which(hold))
            .map(|(reservation, _)| *reservation)
            .collect();
        those.into_iter().for_each(|reservation| self.stop(reservation, cause));
    }
}
