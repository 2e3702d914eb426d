//! What nodes say: joined, accepted, declined, completed, stopped; and what the driver found for them.
//!
//! Messages that name a reservation which isn't live change nothing but a counter.

use super::Coordinator;
use super::effect::{CancelCause, Effect, Usage};
use super::event::{
    Completion, Declined, ErrorClass, JobError, NodeHello, Progress, Revoked, Status, Stopped,
};
use super::fleet::{Began, Deadline, Ending, Left, Reservation, ReservationState};
use super::job::{JobState, TraceEvent};
use super::retry::Backoff;
use super::slab::Key;
use crate::ids::ReservationId;

impl Coordinator {
    pub(super) fn on_node_connected(&mut self, hello: NodeHello) {
        self.fleet.connect(hello, self.now);
        self.placeable.extend(self.fleet.models());
    }

    pub(super) fn on_accepted(&mut self, id: ReservationId) {
        let Some(reservation) = self.fleet.reservation_mut(id) else { return self.late() };
        if reservation.began == Began::Yes {
            return self.late();
        }
        reservation.began = Began::Yes;
        if reservation.state == ReservationState::Assigned {
            self.run(id);
        }
    }

    /// The node has begun: an assigned reservation runs.
    fn run(&mut self, id: ReservationId) {
        let reservation = self.fleet.reservation_mut(id).expect("the caller found it");
        reservation.state = ReservationState::Running;
        reservation.began = Began::Yes;
        let first_output_due = self.now + self.limits.first_output_timeout;
        reservation.first_output_due = first_output_due;
        let (attempt_due, job) = (reservation.attempt_due, reservation.job);
        // Looked at by then whether there is output, for once there is, the next piece is due sooner.
        let look_at = first_output_due.min(self.now + self.limits.progress_timeout);
        self.set_due_within(id, look_at, Deadline::FirstOutput, attempt_due);
        let key = job.expect("an assigned reservation has its job");
        let now = self.now;
        let job = &mut self.jobs[key];
        job.transition(JobState::Running);
        job.note(now, TraceEvent::Accepted);
        self.counts.jobs_reserved -= 1;
        self.counts.jobs_running += 1;
        self.touch(key);
    }

    fn set_due_within(
        &mut self,
        id: ReservationId,
        at: crate::time::Time,
        deadline: Deadline,
        attempt_due: crate::time::Time,
    ) {
        if attempt_due <= at {
            self.set_due(id, attempt_due, Deadline::Attempt);
        } else {
            self.set_due(id, at, deadline);
        }
    }

    pub(super) fn on_declined(&mut self, declined: Declined) {
        let id = declined.reservation;
        let Some(reservation) = self.fleet.reservation(id) else { return self.late() };
        match (&reservation.state, reservation.job) {
            (ReservationState::Running, _) => self.late(),
            // Closed like any other: a node may have written before it refused.
            (ReservationState::Assigned, _) => self.abandon(id, Ending::Declined(declined.reason)),
            _ => self.stopped_without_use(id),
        }
    }

    pub(super) fn on_undeliverable(&mut self, id: ReservationId) {
        let Some(reservation) = self.fleet.reservation(id) else { return };
        match (&reservation.state, reservation.job) {
            (ReservationState::Assigned, Some(key)) => {
                self.drop_reservation(id);
                let now = self.now;
                self.jobs[key].note(now, TraceEvent::TakenBack);
                self.requeue(key, Backoff::None);
            }
            _ => self.stopped_without_use(id),
        }
    }

    /// A stopping reservation ends, and the node had not begun.
    fn stopped_without_use(&mut self, id: ReservationId) {
        self.on_stopped(Stopped { reservation: id, input_tokens: 0, output_tokens: 0 });
    }

    pub(super) fn on_completed(&mut self, completion: Completion) {
        let id = completion.reservation;
        let Some(reservation) = self.fleet.reservation(id) else { return self.late() };
        match reservation.state {
            ReservationState::Assigned => {
                self.run(id);
                self.complete(completion);
            }
            ReservationState::Running => self.complete(completion),
            ReservationState::Stopping(_) => match completion.status {
                // What failed is not charged, whatever else ended it.
                Status::Failed(_) => self.stopped_without_use(id),
                Status::Succeeded(_) => {
                    let (input_tokens, output_tokens) = (completion.input_tokens, completion.output_tokens);
                    self.on_stopped(Stopped { reservation: id, input_tokens, output_tokens });
                }
            },
        }
    }

    fn complete(&mut self, completion: Completion) {
        let id = completion.reservation;
        match completion.status.clone() {
            Status::Succeeded(_) => self.succeed(completion),
            Status::Failed(error) => self.abandon(id, Ending::Failed(error)),
        }
    }

    /// The node is through with a reservation and there is no answer: its slot is free, its output is closed,
    /// and `Revoked` decides.
    fn abandon(&mut self, id: ReservationId, ending: Ending) {
        self.fleet.free_capacity(id);
        let reservation = self.fleet.reservation_mut(id).expect("the caller found it");
        reservation.state = ReservationState::Stopping(ending);
        self.effects.push(Effect::CloseOutput(id));
    }

    fn succeed(&mut self, completion: Completion) {
        let Status::Succeeded(reason) = completion.status else { return };
        let reservation = self.fleet.reservation_mut(completion.reservation).expect("the caller found it");
        // The answer stays within the budget until its client has left, but only what it is long.
        let share = std::mem::take(&mut reservation.output_bytes);
        let unread_bytes = share.min(completion.output_bytes);
        self.release_output(share - unread_bytes);
        let reservation = self.fleet.reservation_mut(completion.reservation).expect("the caller found it");
        let key = reservation.job.expect("a running reservation has its job");
        self.drop_reservation(completion.reservation);
        let row = &self.jobs[key].row;
        // The usage shown is the usage billed: the box's own count of the prompt, at most what was held.
        let usage = Usage {
            input_tokens: row.input_tokens,
            output_tokens: completion.output_tokens.min(row.output_tokens_max),
        };
        self.finish_served(key, Self::succeeded(reason, completion.chunks, usage, unread_bytes));
    }

    pub(super) fn on_stopped(&mut self, stopped: Stopped) {
        let id = stopped.reservation;
        let Some(reservation) = self.fleet.reservation_mut(id) else { return self.late() };
        match &reservation.state {
            ReservationState::Stopping(Ending::Cancel(_)) => {
                let reservation = self.drop_reservation(id).expect("just found");
                self.end_cancelled(&reservation, stopped);
            }
            ReservationState::Stopping(Ending::Overdue(_)) if reservation.job.is_none() => {
                self.drop_reservation(id);
            }
            // The output is being closed; `Revoked` comes next, and decides.
            ReservationState::Stopping(_) => self.late(),
            // A hand-back: the node stopped unasked.
            ReservationState::Assigned | ReservationState::Running => self.abandon(id, Ending::Lost),
        }
    }

    /// Ends the job of a cancelled reservation with what it may be charged (SPEC section 6).
    fn end_cancelled(&mut self, reservation: &Reservation, stopped: Stopped) {
        let Some(key) = reservation.job else { return };
        let row = &self.jobs[key].row;
        let cause = row.cancel_requested.expect("a cancel sets it");
        let charged = cause == CancelCause::Client && reservation.began == Began::Yes;
        let usage = if charged {
            Usage {
                input_tokens: stopped.input_tokens.min(row.input_tokens),
                output_tokens: stopped.output_tokens.min(reservation.seen_tokens).min(row.output_tokens_max),
            }
        } else {
            Usage::default()
        };
        self.finish_served(key, Self::cancelled(cause, usage));
    }

    /// The stop deadline passed without the node's word: nothing is charged.
    pub(super) fn stop_overdue(&mut self, id: ReservationId) {
        let Some(reservation) = self.drop_reservation(id) else { return };
        if let Some(key) = reservation.job {
            let cause =
                self.jobs[key].row.cancel_requested.expect("only a cancel keeps its job while stopping");
            self.finish_served(key, Self::cancelled(cause, Usage::default()));
        }
    }

    /// A reservation missed a deadline: its output is closed, then its job is decided.
    pub(super) fn overdue(&mut self, id: ReservationId, deadline: Deadline) {
        let Some(reservation) = self.fleet.reservation_mut(id) else { return };
        reservation.state = ReservationState::Stopping(Ending::Overdue(deadline));
        self.effects.push(Effect::CloseOutput(id));
        self.stop(id);
    }

    pub(super) fn on_revoked(&mut self, revoked: Revoked) {
        let id = revoked.reservation;
        let Some(reservation) = self.fleet.reservation_mut(id) else { return };
        reservation.seen_tokens = revoked.written_tokens;
        let bytes = std::mem::take(&mut reservation.output_bytes);
        self.release_output(bytes);
        let reservation = self.fleet.reservation_mut(id).expect("just found");
        let (state, key) = (reservation.state.clone(), reservation.job);
        let Some(key) = key else { return };
        let ReservationState::Stopping(ending) = state else { return };
        let now = self.now;
        let (delivered, written) = (revoked.delivered, revoked.written);
        self.jobs[key].note(now, TraceEvent::Revoked { delivered, written });
        match ending {
            Ending::Cancel(left) => self.count_departure(left, written),
            Ending::Failed(error) => {
                self.drop_reservation(id);
                self.attempt_failed(key, error, delivered);
            }
            Ending::Declined(reason) => {
                self.drop_reservation(id);
                self.attempt_declined(key, reason, delivered);
            }
            Ending::Lost => {
                self.drop_reservation(id);
                self.attempt_lost(key, delivered);
            }
            Ending::Overdue(deadline) => self.revoked_overdue(id, key, deadline, delivered),
        }
    }

    fn revoked_overdue(&mut self, id: ReservationId, key: Key, deadline: Deadline, delivered: u32) {
        self.fleet.reservation_mut(id).expect("just found").job = None;
        let now = self.now;
        self.jobs[key].note(now, TraceEvent::TimedOut { deadline: deadline.word() });
        let message = format!("the node missed the {} deadline", deadline.word());
        self.attempt_failed(key, JobError { class: ErrorClass::Transient, message }, delivered);
    }

    fn count_departure(&mut self, left: Left, written: u32) {
        match (left, written) {
            (Left::Stays, _) => {}
            (Left::ClientLeft, 0) => self.counts.disconnects_prefill += 1,
            (Left::ClientLeft, _) => self.counts.disconnects_decode += 1,
        }
    }

    pub(super) fn on_progress(&mut self, progress: Progress) {
        let id = progress.reservation;
        let Some(reservation) = self.fleet.reservation(id) else { return };
        if reservation.state != ReservationState::Running {
            return;
        }
        let attempt_due = reservation.attempt_due;
        let due = progress.last_at.map(|at| at + self.limits.progress_timeout);
        match due {
            None if reservation.first_output_due <= self.now => self.overdue(id, Deadline::FirstOutput),
            None => {
                let due = reservation.first_output_due;
                self.set_due_within(id, due, Deadline::FirstOutput, attempt_due);
            }
            Some(due) if due <= self.now => self.overdue(id, Deadline::Progress),
            Some(due) => self.set_due_within(id, due, Deadline::Progress, attempt_due),
        }
    }

    fn late(&mut self) {
        self.counts.late_messages += 1;
    }
}
