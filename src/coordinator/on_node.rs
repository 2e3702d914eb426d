//! What nodes say of reservations: accepted, declined, completed, stopped; and what the driver found for them.
//!
//! Messages that name a reservation which isn't live change nothing but a counter, and cost an honest node nothing.

use super::Coordinator;
use super::effect::{Effect, NodeMessage, Row, Usage, When};
use super::event::{
    Completion, Declined, Discredited, ErrorClass, FinishReason, JobError, Progress, Revoked, Status, Stopped,
};
use super::fleet::{Began, Deadline, Ending, Left, Reservation, ReservationState};
use super::job::{AttemptOutcome, JobState};
use super::mutant::mutant;
use super::names::NodeKey;
use super::retry::{Backoff, Remains};
use super::slab::Key;
use super::standing::Fault;
use super::trace::TraceEvent;
use crate::ids::{NodeId, ReservationId};
use crate::time::Time;

impl Coordinator {
    /// Whether a message about a reservation comes from the node that has it. If not, it changes nothing; and only
    /// what an honest node can't have said counts against its sender.
    fn is_from_its_node(&mut self, sender: &NodeId, id: ReservationId) -> bool {
        let Some(from) = self.fleet.find(sender) else { return false };
        self.fleet.spoke(from, self.now);
        let brought = |reservation: &Reservation| {
            matches!(reservation.state, ReservationState::Stopping(Ending::Nobody))
        };
        match self.fleet.reservation(id).map(|reservation| (reservation.node, brought(reservation))) {
            Some((node, _)) if node == from => true,
            // What another node only claims to have had is nobody's, and says nothing against whoever names it.
            Some((_, true)) => {
                self.counts.late_messages += 1;
                false
            }
            Some(_) => {
                self.counts.foreign_messages += 1;
                self.fault(from, Fault::ForeignReservation);
                false
            }
            None => {
                self.counts.late_messages += 1;
                if self.was_never_issued(id) {
                    self.fault(from, Fault::UnissuedReservation);
                }
                false
            }
        }
    }

    /// Whether a reservation's id is of this epoch and was not given yet.
    pub(super) fn was_never_issued(&self, id: ReservationId) -> bool {
        let of_earlier = mutant!(EarlierEpochStruck) && id.epoch < self.boot.epoch;
        let issued = (1..=self.reservations_made).contains(&id.counter);
        of_earlier || id.epoch == self.boot.epoch && !issued
    }

    pub(super) fn on_accepted(&mut self, sender: &NodeId, id: ReservationId) {
        if !self.is_from_its_node(sender, id) {
            return;
        }
        let reservation = self.fleet.reservation_mut(id).expect("it is its node's");
        if reservation.began == Began::Yes {
            return self.late();
        }
        reservation.began = Began::Yes;
        reservation.began_at = self.now;
        if reservation.state == ReservationState::Assigned {
            self.run(id);
        }
    }

    /// The node has begun: an assigned reservation runs.
    pub(super) fn run(&mut self, id: ReservationId) {
        let now = self.now;
        let reservation = self.fleet.reservation_mut(id).expect("the caller found it");
        reservation.state = ReservationState::Running;
        reservation.began = Began::Yes;
        reservation.began_at = now;
        let (node, model) = (reservation.node, reservation.model);
        let (attempt_due, job) = (reservation.attempt_due, reservation.job);
        let cold = self.fleet.cold_load(node, model);
        let first_output_due = now + self.limits.first_output_timeout + cold;
        self.fleet.reservation_mut(id).expect("just found").first_output_due = first_output_due;
        // Looked at by then whether there is output, for once there is, the next piece is due sooner.
        let look_at = first_output_due.min(now + self.limits.progress_timeout + cold);
        self.set_due_within(id, look_at, Deadline::FirstOutput, attempt_due);
        if let Some(model) = model {
            self.fleet.warm(node, model);
        }
        let key = job.expect("an assigned reservation has its job");
        let job = &mut self.jobs[key];
        job.transition(JobState::Running);
        job.note(now, TraceEvent::Accepted);
        self.counts.jobs_reserved -= 1;
        self.counts.jobs_running += 1;
        self.touch(key);
    }

    fn set_due_within(&mut self, id: ReservationId, at: Time, deadline: Deadline, attempt_due: Time) {
        if attempt_due <= at {
            self.set_due(id, attempt_due, Deadline::Attempt);
        } else {
            self.set_due(id, at, deadline);
        }
    }

    pub(super) fn on_declined(&mut self, declined: Declined) {
        let id = declined.reservation;
        if !self.is_from_its_node(&declined.node, id) {
            return;
        }
        match self.fleet.reservation(id).expect("it is its node's").state {
            ReservationState::Running => self.late(),
            // Closed like any other: a node may have written before it refused.
            ReservationState::Assigned => self.abandon(id, Ending::Declined(declined.reason)),
            ReservationState::Stopping(_) => self.stopped(id, Usage::default()),
        }
    }

    pub(super) fn on_undeliverable(&mut self, id: ReservationId) {
        let Some(reservation) = self.fleet.reservation(id) else { return };
        match (&reservation.state, reservation.job) {
            (
                ReservationState::Assigned
                | ReservationState::Stopping(Ending::Overdue(_) | Ending::Withdrawn),
                Some(key),
            ) => {
                self.drop_reservation(id);
                let now = self.now;
                self.jobs[key].note(now, TraceEvent::TakenBack);
                self.record_attempt(key, AttemptOutcome::TakenBack);
                self.requeue(key, Backoff::None);
            }
            (ReservationState::Stopping(_), _) => self.stopped(id, Usage::default()),
            _ => {}
        }
    }

    pub(super) fn on_completed(&mut self, completion: Completion) {
        let id = completion.reservation;
        if !self.is_from_its_node(&completion.node, id) {
            let again = self.accepted_results.contains(&id);
            #[cfg(any(test, feature = "mutants"))]
            if again && mutant!(CapturedTwice) {
                self.capture_again(&completion);
            }
            #[cfg(any(test, feature = "mutants"))]
            if !again
                && mutant!(StaleReservationAccepted)
                && let Some(reservation) = self.mistaken_for(&completion.node)
            {
                return self.on_completed(Completion { reservation, ..completion });
            }
            let message =
                if again { NodeMessage::ResultAccepted(id) } else { NodeMessage::ResultUnknown(id) };
            return self.tell_node(completion.node, message);
        }
        let node = completion.node.clone();
        if self.fleet.reservation(id).is_some_and(|reservation| reservation.job.is_none()) {
            // Its job went on without it.
            self.stopped(id, Usage::default());
            return self.tell_node(node, NodeMessage::ResultUnknown(id));
        }
        match self.fleet.reservation(id).expect("it is its node's").state {
            ReservationState::Assigned => {
                self.run(id);
                self.complete(completion);
            }
            ReservationState::Running => self.complete(completion),
            ReservationState::Stopping(_) => {
                // What failed is not charged, whatever else ended it. Who has an answer has begun, even if its word
                // of that was lost.
                let stated = match completion.status {
                    Status::Failed(_) => Usage::default(),
                    Status::Succeeded(_) => {
                        self.fleet.reservation_mut(id).expect("it is its node's").began = Began::Yes;
                        stated_by(&completion)
                    }
                };
                self.stopped(id, stated);
            }
        }
        // A failed result is decided, and so kept, only when its output is closed.
        let is_open = self.fleet.reservation(id).is_some_and(|reservation| reservation.job.is_some());
        if !is_open {
            self.keep_result(node, id);
        }
    }

    /// A result is kept with this step: its node needn't keep it. Nothing waits for that word, so it hurries no commit:
    /// the node works on meanwhile, and where the word never comes it says the result again.
    fn keep_result(&mut self, node: NodeId, id: ReservationId) {
        self.accept_result(id);
        self.mail_node(node, NodeMessage::ResultAccepted(id));
    }

    fn complete(&mut self, completion: Completion) {
        let id = completion.reservation;
        match completion.status.clone() {
            Status::Succeeded(reason) => self.succeed(completion, reason),
            Status::Failed(error) => self.abandon(id, Ending::Failed(error)),
        }
    }

    /// The node is through with a reservation and there is no answer: its capacity is free, its output is closed,
    /// and `Revoked` decides.
    pub(super) fn abandon(&mut self, id: ReservationId, ending: Ending) {
        // Nothing is placed there before `Revoked` has decided: the job itself may be the next one.
        self.fleet.free_capacity(id);
        let reservation = self.fleet.reservation_mut(id).expect("the caller found it");
        reservation.state = ReservationState::Stopping(ending);
        self.effects.push(Effect::CloseOutput(id));
    }

    fn succeed(&mut self, completion: Completion, reason: FinishReason) {
        let id = completion.reservation;
        let reservation = self.fleet.reservation(id).expect("the caller found it");
        let (node, key) = (reservation.node, reservation.job.expect("a running reservation has its job"));
        let facts = self.facts_of(&completion, reason, reservation.began_at);
        if let Err(message) = self.check_plausible(node, key, &facts) {
            return self.abandon(id, Ending::Contradicted(JobError { class: ErrorClass::Node, message }));
        }
        let usage = self.billed(key, &completion);
        self.learn_from(id, &completion, usage);
        let reservation = self.fleet.reservation_mut(id).expect("the caller found it");
        // The answer stays within the budget until its client has left, but only what it is long.
        let share = std::mem::take(&mut reservation.output_bytes);
        let unread_bytes = share.min(completion.seen.bytes);
        self.release_output(share - unread_bytes);
        self.validate(key, node, &facts);
        self.drop_reservation(id);
        if let Some(proof) = completion.proof {
            self.keep(Row::Proof(self.jobs[key].row.id, proof));
        }
        self.settled(node);
        self.jobs[key].past.facts = Some(facts);
        let ending = Self::succeeded(reason, completion.seen.chunks, usage, unread_bytes);
        self.finish_served(key, ending, AttemptOutcome::Succeeded);
    }

    pub(super) fn on_stopped(&mut self, stopped: Stopped) {
        let Stopped { node, reservation: id, input_tokens, output_tokens } = stopped;
        if self.is_from_its_node(&node, id) {
            self.stopped(id, Usage { input_tokens, cached_tokens: 0, output_tokens });
        }
    }

    /// What its node says of an attempt isn't believed: no more is expected of it.
    pub(super) fn on_discredited(&mut self, said: Discredited) {
        let Discredited { node, reservation: id, reason } = said;
        if !self.is_from_its_node(&node, id) {
            return;
        }
        self.counts.results_rejected += 1;
        match self.fleet.reservation(id).expect("it is its node's").state {
            ReservationState::Assigned | ReservationState::Running => {
                let error = JobError { class: ErrorClass::Node, message: reason };
                self.abandon(id, Ending::Discredited(error));
            }
            ReservationState::Stopping(_) => self.stopped(id, Usage::default()),
        }
    }

    pub(super) fn on_bad_signature(&mut self, node: &NodeId) {
        if let Some(key) = self.fleet.find(node) {
            self.counts.bad_signatures += 1;
            self.fault(key, Fault::BadSignature);
        }
    }

    /// The node is through with a reservation that was to stop, having used what it states.
    pub(super) fn stopped(&mut self, id: ReservationId, stated: Usage) {
        let Some(reservation) = self.fleet.reservation(id) else { return };
        let has_job = reservation.job.is_some();
        match &reservation.state {
            ReservationState::Stopping(Ending::Cancel(_)) => {
                let reservation = self.drop_reservation(id).expect("just found");
                self.end_cancelled(&reservation, stated);
            }
            ReservationState::Stopping(_) if !has_job => drop(self.drop_reservation(id)),
            // The output is being closed; `Revoked` comes next, and decides.
            ReservationState::Stopping(_) => self.late(),
            // A hand-back: the node stopped unasked.
            ReservationState::Assigned | ReservationState::Running => self.abandon(id, Ending::Lost),
        }
    }

    /// The stop deadline passed without the node's word: nothing is charged.
    pub(super) fn stop_overdue(&mut self, id: ReservationId) {
        let Some(reservation) = self.drop_reservation(id) else { return };
        // One that was told to end ends; any other had better be tried again.
        if let Some(key) = reservation.job {
            if self.jobs[key].row.cancel_requested.is_none() {
                self.record_attempt(key, AttemptOutcome::TakenBack);
            }
            self.requeue(key, Backoff::None);
        }
    }

    /// A reservation missed a deadline: its output is closed, then its job is decided. It is taken back first: what
    /// the node never saw, it can't have missed.
    pub(super) fn overdue(&mut self, id: ReservationId, deadline: Deadline) {
        let Some(reservation) = self.fleet.reservation_mut(id) else { return };
        reservation.state = ReservationState::Stopping(Ending::Overdue(deadline));
        self.stop(id);
        self.effects.push(Effect::CloseOutput(id));
    }

    /// Takes a reservation back from its node, which still has to stop.
    pub(super) fn revoke(&mut self, id: ReservationId, ending: Ending) {
        let Some(reservation) = self.fleet.reservation_mut(id) else { return };
        reservation.state = ReservationState::Stopping(ending);
        self.effects.push(Effect::CloseOutput(id));
        self.stop(id);
    }

    pub(super) fn on_revoked(&mut self, revoked: Revoked) {
        let id = revoked.reservation;
        let Some(reservation) = self.fleet.reservation_mut(id) else { return };
        reservation.seen_tokens = revoked.written_tokens;
        let bytes = std::mem::take(&mut reservation.output_bytes);
        let (state, key, node) = (reservation.state.clone(), reservation.job, reservation.node);
        self.release_output(bytes);
        let Some(key) = key else { return };
        let ReservationState::Stopping(ending) = state else { return };
        let now = self.now;
        let (delivered, written) = (revoked.delivered, revoked.written);
        self.jobs[key].note(now, TraceEvent::Revoked { delivered, written });
        let remains = Remains { node, delivered };
        let fault = match ending {
            Ending::Contradicted(_) => Fault::FailedCheck,
            _ => Fault::AttemptFailed,
        };
        match ending {
            Ending::Cancel(left) => self.count_departure(left, written),
            Ending::Failed(error) | Ending::Contradicted(error) => {
                self.drop_reservation(id);
                self.count_failure(node, &error, fault);
                let outcome = AttemptOutcome::Failed(error.clone());
                self.attempt_failed(key, error, remains, outcome);
                let node = self.fleet.node(node).id().clone();
                self.keep_result(node, id);
            }
            Ending::Discredited(error) => {
                self.drop_reservation(id);
                self.count_failure(node, &error, fault);
                let outcome = AttemptOutcome::Failed(error.clone());
                self.attempt_failed(key, error, remains, outcome);
            }
            Ending::Declined(reason) => {
                self.drop_reservation(id);
                self.attempt_declined(key, reason, delivered);
            }
            Ending::Lost => {
                self.drop_reservation(id);
                self.attempt_lost(key, delivered);
            }
            Ending::Overdue(deadline) => self.revoked_overdue(id, key, deadline, remains),
            Ending::Withdrawn => {
                self.fleet.reservation_mut(id).expect("just found").job = None;
                self.attempt_withdrawn(key, delivered);
            }
            Ending::Nobody => {}
        }
    }

    fn revoked_overdue(&mut self, id: ReservationId, key: Key, deadline: Deadline, remains: Remains) {
        self.fleet.reservation_mut(id).expect("just found").job = None;
        let (now, word) = (self.now, deadline.word());
        self.jobs[key].note(now, TraceEvent::TimedOut { deadline: word });
        let message = format!("the node missed the {word} deadline");
        self.fault(remains.node, Fault::TimedOut);
        let error = JobError { class: ErrorClass::Transient, message };
        self.attempt_failed(key, error, remains, AttemptOutcome::TimedOut(word));
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
        let (attempt_due, first_output_due) = (reservation.attempt_due, reservation.first_output_due);
        let due = progress.last_at.map(|at| at + self.limits.progress_timeout);
        match due {
            None if first_output_due <= self.now => self.overdue(id, Deadline::FirstOutput),
            None => self.set_due_within(id, first_output_due, Deadline::FirstOutput, attempt_due),
            Some(due) if due <= self.now => self.overdue(id, Deadline::Progress),
            Some(due) => self.set_due_within(id, due, Deadline::Progress, attempt_due),
        }
    }

    fn late(&mut self) {
        self.counts.late_messages += 1;
    }

    /// A result that is kept: a repeat of it is answered the same way.
    pub(super) fn accept_result(&mut self, id: ReservationId) {
        const RESULTS_KEPT_MAX: usize = 16_384;
        if self.accepted_results.insert(id) && self.accepted_results.len() > RESULTS_KEPT_MAX {
            self.accepted_results.pop_first();
        }
    }

    /// Tells a remote node something that rests on everything so far; the box itself needs no words.
    pub(super) fn tell_node(&mut self, node: NodeId, message: NodeMessage) {
        if node == NodeId::local() {
            return;
        }
        self.mail_node(node, message);
        self.effects.push(Effect::Urgent);
    }

    /// The same, once that is on disk anyway.
    pub(super) fn mail_node(&mut self, node: NodeId, message: NodeMessage) {
        if node == NodeId::local() {
            return;
        }
        let when = When::Durable(self.newest_lsn());
        self.effects.push(Effect::ToNode { node, message, when });
    }

    /// An attempt failed by the node's or the runtime's fault, and so counts against it.
    fn count_failure(&mut self, node: NodeKey, error: &JobError, fault: Fault) {
        self.counts.count_error(error.class);
        if error.class == ErrorClass::Node {
            self.fault(node, fault);
        }
    }
}

fn stated_by(completion: &Completion) -> Usage {
    Usage {
        input_tokens: completion.input_tokens,
        cached_tokens: completion.cached_tokens,
        output_tokens: completion.output_tokens,
    }
}
