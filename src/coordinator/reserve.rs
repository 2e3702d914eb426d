//! Reservations begin and end here: capacity, output, timers, and what the node is told.

use std::sync::Arc;

use super::effect::{Effect, OpenOutput, When};
use super::event::Tier;
use super::fleet::{Began, Capacity, Deadline, Ending, Reservation, ReservationState};
use super::job::ATTEMPTS_KEPT_MAX;
use super::job::{AttemptOutcome, AttemptRow, JobState, ReservationRow, Waits};
use super::mutant::mutant;
use super::names::NodeKey;
use super::slab::Key;
use super::suits::output_bytes;
use super::trace::{Loss, PlacedBy, Placement, TraceEvent};
use super::{Coordinator, Timer};
use crate::ids::{NodeId, ReservationId};
use crate::time::Time;

impl Coordinator {
    /// Sets a node's capacity aside for a waiting job and hands the job to it.
    pub(super) fn reserve(
        &mut self,
        key: Key,
        node: NodeKey,
        charged: Tier,
        by: PlacedBy,
        candidates: u32,
        losers: Vec<(NodeId, Loss)>,
    ) {
        let Waits::ForNode(seat) = self.jobs[key].waits else { panic!("a job is placed from the backlog") };
        let place = self.jobs[key].place_of(seat);
        let score = self.score_of(node, &self.jobs[key]);
        let tokens = self.jobs[key].row.tokens_max();
        let waited = self.backlog.waited(&place, self.now);
        let stamp = self.backlog.dispatch(&place, charged, tokens, self.now);
        let job = &mut self.jobs[key];
        let past = &mut *job.past;
        past.waited = waited;
        past.stamp = Some(stamp);
        let unfit = past.unfit_since.take();
        self.placing.forget(key, unfit);
        self.leave_queue(key);
        let id = self.next_reservation_id();
        let name = self.fleet.node(node).id().clone();
        let placed = Placement { reservation: id, node: name, candidates, by, score, losers };
        self.jobs[key].note(self.now, TraceEvent::Placed(Arc::new(placed)));
        self.begin_attempt(key, node, id);
    }

    /// Makes the reservation of an attempt and tells the node.
    pub(super) fn begin_attempt(&mut self, key: Key, node: NodeKey, id: ReservationId) {
        let (now, name) = (self.now, self.fleet.node(node).id().clone());
        let attempt_due = now + self.attempt_timeout_of(key);
        let job = &mut self.jobs[key];
        let bytes = output_bytes(job, &self.limits);
        job.transition(JobState::Reserved);
        job.past.reservation = Some(id);
        let progress = &mut *job.row.progress;
        progress.dispatched_at = Some(now);
        progress.attempts += 1;
        progress.node = Some(name.clone());
        progress.reservation = Some(ReservationRow { id, node: name.clone(), assigned_at: now, attempt_due });
        let (kv_tokens, alone) = (job.kv_tokens(), job.row.box_cuts > 0);
        let (model, prefix) = (job.need.model, *job.row.spec.prefix);
        self.counts.jobs_reserved += 1;
        self.counts.output_bytes_held += bytes;
        if alone && self.fleet.node(node).is_local() {
            self.fleet.node_mut(node).alone = Some(id);
        }
        if let Some(prefix) = prefix {
            self.affinity.note(model, prefix, node);
        }
        let due = (now + self.limits.accept_timeout, Deadline::Accept);
        let session = self.fleet.node(node).session;
        let first_output_due = now + self.limits.first_output_timeout;
        self.fleet.reserve(Reservation {
            id,
            job: Some(key),
            node,
            model: Some(model),
            state: ReservationState::Assigned,
            capacity: Capacity::Taken,
            kv_tokens,
            began: Began::No,
            session,
            due,
            timer: None,
            assigned_at: now,
            began_at: now,
            attempt_due,
            first_output_due,
            output_bytes: bytes,
            seen_tokens: 0,
        });
        self.set_due(id, due.0, due.1);
        self.touch(key);
        self.assign(key, name, id, bytes);
    }

    fn assign(&mut self, key: Key, node: NodeId, reservation: ReservationId, output_bytes: u64) {
        let job = &self.jobs[key];
        let (row, spec) = (&job.row, &job.row.spec);
        let open = OpenOutput {
            reservation,
            attempt: row.attempts,
            clients: if spec.mode.is_attended() { job.clients.iter().copied().collect() } else { Vec::new() },
            bytes_max: output_bytes,
            submit_lsn: job.submit_lsn,
        };
        let assignment = job.assignment(reservation);
        // An attempt of a job that outlives the box must be on disk before it can take the box down (CORE section 2).
        let on_disk_first = !spec.is_tied_to_client() && node == NodeId::local();
        let when = if on_disk_first { When::Durable(self.newest_lsn()) } else { When::Now };
        self.effects.push(Effect::OpenOutput(open));
        self.effects.push(Effect::Assign { node, assignment, when });
        if on_disk_first {
            self.effects.push(Effect::Urgent);
        }
    }

    /// Moves a reservation's one timer.
    pub(super) fn set_due(&mut self, id: ReservationId, at: Time, deadline: Deadline) {
        let place = self.fleet.place_of(id).expect("only a live reservation has a deadline");
        let timer = self.timers.set(at, Timer::Reservation(place));
        let reservation = self.fleet.at_mut(place);
        reservation.due = (at, deadline);
        if let Some(before) = reservation.timer.replace(timer) {
            self.timers.clear(before);
        }
    }

    /// Tells a node to stop an attempt, and waits for its word until the stop deadline.
    pub(super) fn stop(&mut self, id: ReservationId) {
        let at = self.now + self.limits.stop_timeout;
        self.set_due(id, at, Deadline::Stop);
        if mutant!(CapacityFreedEarly) {
            self.fleet.free_capacity(id);
        }
        let node = self.fleet.reservation(id).expect("set_due found it").node;
        let node = self.fleet.node(node).id().clone();
        self.effects.push(Effect::Stop { node, reservation: id });
    }

    /// A reservation is *gone*: its capacity is free and its timer cleared.
    pub(super) fn drop_reservation(&mut self, id: ReservationId) -> Option<Reservation> {
        if mutant!(LeakReservation) {
            return self.fleet.reservation(id).cloned();
        }
        let mut reservation = self.fleet.remove(id)?;
        if let Some(timer) = reservation.timer.take() {
            self.timers.clear(timer);
        }
        let worked = !matches!(reservation.state, ReservationState::Stopping(Ending::Nobody));
        if let Some(model) = reservation.model.filter(|_| worked) {
            let took = self.now.since(reservation.assigned_at);
            self.fleet.means_mut(model).took(took);
        }
        let node = self.fleet.node_mut(reservation.node);
        if node.alone == Some(id) {
            node.alone = None;
            self.fleet.touch(reservation.node);
        }
        let bytes = std::mem::take(&mut reservation.output_bytes);
        self.release_output(bytes);
        if worked {
            self.effects.push(Effect::ForgetOutput(id));
        }
        self.room_on(reservation.node);
        Some(reservation)
    }

    /// A node may have room: it is offered, and if it drains and is through, it may leave.
    pub(super) fn room_on(&mut self, node: NodeKey) {
        if self.fleet.node(node).test_waits {
            self.tests_due.insert(node);
        }
        self.placing.offer(node);
        self.drained(node);
    }

    /// An attempt is over: notes what came of it with its job.
    pub(super) fn record_attempt(&mut self, key: Key, outcome: AttemptOutcome) {
        let now = self.now;
        let job = &mut self.jobs[key];
        if job.row.reservation.is_none() {
            return;
        }
        let (model, progress) = (job.row.model().clone(), &mut *job.row.progress);
        let Some(ReservationRow { id, node, assigned_at, .. }) = progress.reservation.take() else { return };
        if progress.history.len() >= ATTEMPTS_KEPT_MAX {
            progress.history.remove(0);
        }
        progress.history.push(AttemptRow {
            reservation: id,
            node,
            model,
            assigned_at,
            ended_at: now,
            outcome,
        });
    }
}
