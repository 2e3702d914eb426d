//! A full recount: what the kept counters must equal, and what must hold of every job and reservation.

use std::collections::BTreeMap;

use super::fleet::{Capacity, Reservation, ReservationState};
use super::job::{Job, JobState};
use super::slab::Key;
use super::timers::Timer;
use super::{Coordinator, Counts};
use crate::credits::Credits;

impl Coordinator {
    /// Every violated invariant in a sentence; none when all is well.
    pub fn invariants(&self) -> Vec<String> {
        self.recount().1
    }

    /// Counts everything again from the tables, and compares.
    pub(super) fn recount(&self) -> (Counts, Vec<String>) {
        let mut violations = Vec::new();
        let recount = self.count_again();
        for ((name, kept), (_, counted)) in self.counts().entries().zip(recount.entries()) {
            if kept != counted {
                violations.push(format!("{name}: kept {kept}, counted {counted}"));
            }
        }
        self.jobs.iter().for_each(|(key, job)| self.check_job(key, job, &mut violations));
        self.fleet.reservations().for_each(|r| self.check_reservation(r, &mut violations));
        self.check_backlog(&mut violations);
        self.check_slots(&mut violations);
        self.check_clients(&mut violations);
        if self.ledger.sum() != Credits::ZERO {
            violations.push(format!("the ledger sums to {}, not zero", self.ledger.sum()));
        }
        (recount, violations)
    }

    /// Gauges from the tables; counters of the past can't be counted again and are taken as they are.
    fn count_again(&self) -> Counts {
        let jobs = || self.jobs.iter().map(|(_, job)| job);
        let in_state = |state| jobs().filter(|job| job.row.state == state).count() as u64;
        let cancelling = |job: &&Job| job.row.cancel_requested.is_some() && job.reservation.is_some();
        let held = |job: &Job| job.row.hold.0.unsigned_abs();
        let reservations = || self.fleet.reservations();
        let unread: u64 = self.clients.values().map(|client| client.unread_bytes).sum();
        let timers_of_job = |job: &Job| match job.row.state {
            JobState::Queued => 1 + u64::from(job.backoff_until.is_some()),
            _ => 0,
        };
        Counts {
            jobs_queued: in_state(JobState::Queued),
            jobs_reserved: in_state(JobState::Reserved),
            jobs_running: in_state(JobState::Running),
            jobs_cancelling: jobs().filter(cancelling).count() as u64,
            reservations: reservations().count() as u64,
            slots_taken: reservations().filter(|r| r.capacity == Capacity::Taken).count() as u64,
            holds: self.jobs.len() as u64,
            held_credits: jobs().map(held).sum(),
            output_bytes_held: reservations().map(|r| r.output_bytes).sum::<u64>() + unread,
            body_bytes_held: jobs()
                .map(|job| job.row.body.as_ref().map_or(0, |body| body.len() as u64))
                .sum(),
            timers: jobs().map(timers_of_job).sum::<u64>() + reservations().count() as u64,
            ..self.counts()
        }
    }

    fn check_job(&self, key: Key, job: &Job, violations: &mut Vec<String>) {
        let row = &job.row;
        let mut check = |holds: bool, what: &str| {
            if !holds {
                violations.push(format!("job {} ({}): {what}", row.id, row.state.word()));
            }
        };
        check(self.job_keys.get(&row.id) == Some(&key), "isn't found by its id");
        check(row.state.is_live(), "has ended but is still here");
        check(row.body.is_some(), "lost its body while it lives");
        let with_node = matches!(row.state, JobState::Reserved | JobState::Running);
        check(with_node == job.reservation.is_some(), "has a reservation exactly while a node has it");
        if let Some(reservation) = job.reservation.map(|id| self.fleet.reservation(id)) {
            check(reservation.is_some_and(|r| r.job == Some(key)), "its reservation doesn't work for it");
        }
        if row.state == JobState::Queued {
            check(row.cancel_requested.is_none(), "waits although it is to end");
            check(self.timers.contains(row.expires_at, Timer::Ttl(row.id)), "waits without a TTL timer");
        }
        if row.mode.is_attended() && row.cancel_requested.is_none() {
            let told = job.client.and_then(|id| self.clients.get(&id)).and_then(|client| client.job);
            check(told == Some(key), "is attended, but its client doesn't hear of it");
        }
    }

    fn check_reservation(&self, reservation: &Reservation, violations: &mut Vec<String>) {
        let id = reservation.id;
        let timer = Timer::Reservation(id);
        if !self.timers.contains(reservation.due.0, timer) {
            violations.push(format!("reservation {id} has no timer"));
        }
        let works = matches!(reservation.state, ReservationState::Assigned | ReservationState::Running);
        if works && reservation.job.is_none() {
            violations.push(format!("reservation {id} works for no job"));
        }
        if works && reservation.capacity == Capacity::Free {
            violations.push(format!("reservation {id} works without taking a slot"));
        }
        if let Some(key) = reservation.job
            && self.jobs.get(key).and_then(|job| job.reservation) != Some(id)
        {
            violations.push(format!("reservation {id} claims a job that isn't its own"));
        }
    }

    fn check_backlog(&self, violations: &mut Vec<String>) {
        let mut waiting: Vec<Key> = self.backlog.keys().collect();
        waiting.sort();
        let runnable = |(key, job): (Key, &Job)| {
            (job.row.state == JobState::Queued && job.backoff_until.is_none()).then_some(key)
        };
        let runnable: Vec<Key> = self.jobs.iter().filter_map(runnable).collect();
        if waiting != runnable || self.backlog.len() != runnable.len() as u64 {
            violations.push(format!(
                "{} jobs in the backlog, {} are runnable",
                waiting.len(),
                runnable.len()
            ));
        }
        let mut by_namespace = BTreeMap::new();
        for (_, job) in self.jobs.iter().filter(|(_, job)| job.row.state == JobState::Queued) {
            *by_namespace.entry(job.row.namespace.clone()).or_insert(0_u64) += 1;
        }
        if by_namespace != self.waiting_by_namespace {
            violations.push("waiting jobs by namespace don't add up".to_owned());
        }
    }

    fn check_slots(&self, violations: &mut Vec<String>) {
        for (node, model, taken) in self.fleet.taken() {
            let occupies =
                |r: &&Reservation| r.node == *node && r.model == *model && r.capacity == Capacity::Taken;
            let counted = self.fleet.reservations().filter(occupies).count() as u32;
            if counted != taken {
                violations
                    .push(format!("{node} {model}: {taken} slots taken, {counted} reservations occupy one"));
            }
        }
    }

    fn check_clients(&self, violations: &mut Vec<String>) {
        for (id, client) in &self.clients {
            let known = |key| self.jobs.get(key).is_some_and(|job| job.client == Some(*id));
            let mutual = client.job.is_none_or(known);
            if !mutual {
                violations.push(format!("client {} waits for a job that doesn't know it", id.0));
            }
        }
    }
}
