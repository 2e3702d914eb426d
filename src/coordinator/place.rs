//! Placement: which job runs next, on which node, and everything that a reservation begins with.

use super::backlog::Place;
use super::effect::{Assignment, Effect, End, OpenOutput, When};
use super::event::{Environment, Tier};
use super::fleet::{Began, Capacity, Choice, Deadline, Reservation, ReservationState};
use super::job::{Job, JobState, TraceEvent};
use super::limits::BYTES_PER_TOKEN_MAX;
use super::slab::Key;
use super::timers::Timer;
use super::{Coordinator, Starved};
use crate::ids::{ModelName, NodeId, ReservationId};
use crate::time::{Span, Time};

/// How long a job that doesn't fit the output budget waits before the budget is kept for it.
const FIT_WAIT: Span = Span::from_secs(1);
/// How long an attempt takes while none was measured.
const SERVICE_GUESS: Span = Span::from_secs(1);

impl Coordinator {
    /// Places what can be placed of the models that something changed for.
    pub(super) fn place(&mut self) {
        while let Some(model) = self.placeable.pop_first() {
            for environment in [Environment::Mainnet, Environment::Testnet] {
                self.place_model(environment, &model);
            }
        }
    }

    fn place_model(&mut self, environment: Environment, model: &ModelName) {
        let lane = (environment, model.clone());
        let starved_since = self.starved.remove(&lane).map(|starved| starved.since);
        while let Some(key) = self.backlog.next(environment, model) {
            let row = &self.jobs[key].row;
            let (tier, expired) = (row.tier, row.expires_at <= self.now);
            if expired {
                // The tick hasn't come to it yet, but it must not be dispatched any more.
                self.finish_unserved(key, JobState::Expired, End::Expired);
                continue;
            }
            let Some(choice) = self.fleet.choose(model, self.service_of(model).0) else { return };
            let output_bytes = output_bytes(&self.jobs[key]);
            let fits = self.counts.output_bytes_held + output_bytes <= self.limits.output_budget_bytes;
            if !fits || self.is_budget_kept_from(tier) {
                let since = starved_since.unwrap_or(self.now);
                self.starved.insert(lane, Starved { tier, since });
                return;
            }
            self.reserve(key, choice, output_bytes);
        }
    }

    /// Whether a job that doesn't fit has waited so long that others of its tier and below leave it the budget.
    fn is_budget_kept_from(&self, tier: Tier) -> bool {
        let waits = |starved: &Starved| starved.tier <= tier && self.now.since(starved.since) >= FIT_WAIT;
        self.starved.values().any(waits)
    }

    /// Output budget came back: whoever waited for it may be placed.
    pub(super) fn output_budget_freed(&mut self) {
        self.placeable.extend(self.starved.keys().map(|(_, model)| model.clone()));
    }

    /// How long an attempt on a model takes its slot, as measured.
    pub(super) fn service_of(&self, model: &ModelName) -> Span {
        self.service.get(model).copied().unwrap_or(SERVICE_GUESS)
    }

    /// Learns from an attempt that gave its slot back.
    fn measure_service(&mut self, model: &ModelName, took: Span) {
        let mean = self.service.entry(model.clone()).or_insert(took);
        *mean = Span((mean.0 * 7 + took.0) / 8);
    }

    fn reserve(&mut self, key: Key, choice: Choice, output_bytes: u64) {
        let id = self.next_reservation_id();
        let now = self.now;
        {
            let job = &mut self.jobs[key];
            let place = Place { sequence: job.sequence, virtual_start: job.virtual_start };
            job.virtual_start = Some(self.backlog.dispatch(&job.row, place));
        }
        self.leave_queue(key);
        self.counts.output_bytes_held += output_bytes;
        let due = (now + self.limits.accept_timeout, Deadline::Accept);
        let job = &mut self.jobs[key];
        job.transition(JobState::Reserved);
        job.reservation = Some(id);
        job.row.dispatched_at = Some(now);
        job.row.attempts += 1;
        job.row.node = Some(choice.node.clone());
        let (node, candidates, score) = (choice.node.clone(), choice.candidates, choice.score);
        job.note(now, TraceEvent::Placed { reservation: id, node, candidates, score });
        self.counts.jobs_reserved += 1;
        self.fleet.reserve(Reservation {
            id,
            job: Some(key),
            node: choice.node.clone(),
            model: self.jobs[key].row.model.clone(),
            state: ReservationState::Assigned,
            capacity: Capacity::Taken,
            began: Began::No,
            due,
            assigned_at: now,
            attempt_due: now + self.limits.attempt_timeout,
            first_output_due: now + self.limits.first_output_timeout,
            output_bytes,
            seen_tokens: 0,
        });
        self.timers.set(due.0, Timer::Reservation(id));
        self.touch(key);
        self.assign(key, choice.node, id, output_bytes);
    }

    fn assign(&mut self, key: Key, node: NodeId, reservation: ReservationId, output_bytes: u64) {
        let job = &self.jobs[key];
        let row = &job.row;
        let open = OpenOutput {
            reservation,
            attempt: row.attempts,
            client: job.client.filter(|_| row.mode.is_attended()),
            bytes_max: output_bytes,
            submit_lsn: job.submit_lsn,
        };
        let assignment = Assignment {
            reservation,
            job: row.id,
            endpoint: row.endpoint,
            model: row.model.clone(),
            body: row.body.clone().expect("a live job has its body"),
            input_tokens: row.input_tokens,
            output_tokens_max: row.output_tokens_max,
        };
        // An unattended job's attempt must be on disk before it can take the box down (CORE section 2).
        let on_disk_first = !row.mode.is_attended() && node == NodeId::local();
        let when = if on_disk_first { When::Durable(self.newest_lsn()) } else { When::Now };
        self.effects.push(Effect::OpenOutput(open));
        self.effects.push(Effect::Assign { node, assignment, when });
        if on_disk_first {
            self.effects.push(Effect::Urgent);
        }
    }

    /// Moves a reservation's one timer.
    pub(super) fn set_due(&mut self, id: ReservationId, at: Time, deadline: Deadline) {
        let reservation = self.fleet.reservation_mut(id).expect("only a live reservation has a deadline");
        let before = std::mem::replace(&mut reservation.due, (at, deadline));
        self.timers.clear(before.0, Timer::Reservation(id));
        self.timers.set(at, Timer::Reservation(id));
    }

    /// A reservation is *gone*: its slot is free and its timer cleared.
    pub(super) fn drop_reservation(&mut self, id: ReservationId) -> Option<Reservation> {
        #[cfg(test)]
        if self.planted == super::Planted::LeakReservation {
            return self.fleet.reservation(id).cloned();
        }
        let mut reservation = self.fleet.remove(id)?;
        self.timers.clear(reservation.due.0, Timer::Reservation(id));
        self.measure_service(&reservation.model, self.now.since(reservation.assigned_at));
        self.placeable.insert(reservation.model.clone());
        let bytes = std::mem::take(&mut reservation.output_bytes);
        self.release_output(bytes);
        self.effects.push(Effect::ForgetOutput(id));
        Some(reservation)
    }
}

/// A job's share of the output budget.
fn output_bytes(job: &Job) -> u64 {
    u64::from(job.row.output_tokens_max) * BYTES_PER_TOKEN_MAX
}
