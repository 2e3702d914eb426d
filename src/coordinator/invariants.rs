//! A full recount: what the kept counters must equal, and what must hold of every job, reservation and node.

use std::collections::BTreeMap;

use super::event::Environment;
use super::fleet::{Capacity, Reservation, ReservationState};
use super::job::{Job, JobState, Waits};
use super::slab::Key;
use super::spec::Origin;
use super::standing::Standing;
use super::{Coordinator, Counts};

/// What a full recount found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Each invariant by its name, and of how many things it was checked.
    pub checks: BTreeMap<&'static str, u64>,
    /// Each violation in a sentence that begins with the invariant's name.
    pub violations: Vec<String>,
}

impl Audit {
    fn check(&mut self, name: &'static str, holds: bool, what: impl FnOnce() -> String) {
        *self.checks.entry(name).or_default() += 1;
        if !holds {
            self.violations.push(format!("{name}: {}", what()));
        }
    }

    fn add(&mut self, name: &'static str, found: Vec<String>) {
        *self.checks.entry(name).or_default() += 1;
        self.violations.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
}

impl Coordinator {
    /// Every violated invariant in a sentence; none when all is well.
    pub fn invariants(&self) -> Vec<String> {
        self.audit().violations
    }

    /// The recounted counters, and every violation.
    pub(super) fn recount(&self) -> (Counts, Vec<String>) {
        (self.count_again(), self.invariants())
    }

    /// What can be checked in constant time, after every event.
    pub fn quick_check(&self) -> Vec<String> {
        let mut audit = Audit::default();
        let counts = self.counts();
        for environment in Environment::ALL {
            let sum = self.ledger.sum(environment);
            audit.check("ledger sums to zero", sum == 0, || format!("{sum} in {}", environment.word()));
        }
        let live = self.jobs.len() as u64;
        audit.check("live jobs are counted", counts.live() == live, || {
            format!("{} by state, {live} in the table", counts.live())
        });
        audit.check("a live job has one hold", self.ledger.holds() == live, || {
            format!("{} holds, {live} live jobs", self.ledger.holds())
        });
        audit.check("slots aren't oversold", counts.slots_taken <= counts.reservations, || {
            format!("{} slots taken, {} reservations", counts.slots_taken, counts.reservations)
        });
        let budget = self.limits.output_budget_bytes;
        audit.check(
            "output budget isn't exceeded",
            counts.output_bytes_held <= budget.saturating_mul(2),
            || format!("{} of {budget} bytes", counts.output_bytes_held),
        );
        let waiting = self.backlog.len();
        audit.check("the backlog waits", waiting <= counts.jobs_queued, || {
            format!("{waiting} in the backlog, {} queued", counts.jobs_queued)
        });
        audit.violations
    }

    /// Counts everything again from the tables, and compares.
    pub fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        let recount = self.count_again();
        for ((name, kept), (_, counted)) in self.counts().entries().zip(recount.entries()) {
            audit.check("counters equal the recount", kept == counted, || {
                format!("{name}: kept {kept}, counted {counted}")
            });
        }
        self.jobs.iter().for_each(|(key, job)| self.check_job(key, job, &mut audit));
        self.fleet.reservations().for_each(|r| self.check_reservation(r, &mut audit));
        self.check_backlog(&mut audit);
        self.check_nodes(&mut audit);
        self.check_lanes(&mut audit);
        self.check_clients(&mut audit);
        self.check_holds(&mut audit);
        audit.add("the ledger adds up", self.ledger.check());
        audit.add("keys add up", self.keys.check());
        audit.add("what is kept of finished jobs adds up", self.retention.check());
        audit.add("timers add up", self.timers.check());
        audit.add("job ids add up", self.job_keys.check());
        audit.add("clients add up", self.clients.check());
        audit.violations.extend(self.quick_check());
        audit
    }

    /// Gauges from the tables; counters of the past can't be counted again and are taken as they are.
    fn count_again(&self) -> Counts {
        let jobs = || self.jobs.iter().map(|(_, job)| job);
        let in_state = |state| jobs().filter(|job| job.row.state == state).count() as u64;
        let cancelling = |job: &&Job| job.row.cancel_requested.is_some() && job.past.reservation.is_some();
        let held = |job: &Job| job.row.hold.0.unsigned_abs();
        let reservations = || self.fleet.reservations();
        let timers_of_job = |job: &Job| match job.waits {
            Waits::Not => 0,
            Waits::ForNode(_) => 1,
            Waits::ForTime(_) => 2,
        };
        let node_timers = self.fleet.nodes().filter(|(_, node)| node.timer.is_some()).count() as u64;
        Counts {
            jobs_queued: in_state(JobState::Queued),
            jobs_reserved: in_state(JobState::Reserved),
            jobs_running: in_state(JobState::Running),
            jobs_cancelling: jobs().filter(cancelling).count() as u64,
            reservations: reservations().count() as u64,
            slots_taken: reservations().filter(|r| r.capacity == Capacity::Taken).count() as u64,
            slots_total: self.fleet.nodes().map(|(_, node)| u64::from(node.slots)).sum(),
            nodes: self.fleet.nodes().filter(|(_, node)| node.is_here()).count() as u64,
            holds: self.jobs.len() as u64,
            held_credits: jobs().map(held).sum(),
            output_bytes_held: reservations().map(|r| r.output_bytes).sum::<u64>()
                + self.clients.unread_bytes(),
            body_bytes_held: jobs()
                .map(|job| job.row.body.as_ref().map_or(0, |body| body.len() as u64))
                .sum(),
            timers: jobs().map(timers_of_job).sum::<u64>() + reservations().count() as u64 + node_timers,
            ..self.counts()
        }
    }

    fn check_job(&self, key: Key, job: &Job, audit: &mut Audit) {
        let row = &job.row;
        let mut check = |name, holds: bool| {
            audit.check(name, holds, || format!("job {} ({})", row.id, row.state.word()));
        };
        check("a job is found by its id", self.job_keys.find(row.id) == Some(key));
        check("what has ended isn't here", row.state.is_live());
        check("a live job has its body", row.body.is_some());
        let with_node = matches!(row.state, JobState::Reserved | JobState::Running);
        check(
            "a job has a reservation exactly while a node has it",
            with_node == job.past.reservation.is_some(),
        );
        check(
            "a job's row names its reservation",
            row.reservation.as_ref().map(|r| r.id) == job.past.reservation,
        );
        if let Some(reservation) = job.past.reservation.map(|id| self.fleet.reservation(id)) {
            check("a job's reservation works for it", reservation.is_some_and(|r| r.job == Some(key)));
        }
        if row.state == JobState::Queued {
            check("a job that is to end doesn't wait", row.cancel_requested.is_none());
            let timed = job.ttl_timer.is_some_and(|timer| self.timers.at(timer) == row.expires_at);
            check("a waiting job has its TTL timer", timed);
            check("a waiting job waits somewhere", !matches!(job.waits, Waits::Not));
        }
        check("a job is charged at most its hold", row.charged <= row.hold);
        check("a job's need is of its environment", job.need.environment == row.spec.environment);
        if row.spec.is_tied_to_client() && row.cancel_requested.is_none() && !row.origin.is_system() {
            let told = job.clients.iter().any(|id| self.clients.job_of(*id) == Some(key));
            check("an attended job's client hears of it", told);
        }
    }

    fn check_reservation(&self, reservation: &Reservation, audit: &mut Audit) {
        let id = reservation.id;
        let mut check = |name, holds: bool| audit.check(name, holds, || format!("reservation {id}"));
        let timed = reservation.timer.is_some_and(|timer| self.timers.at(timer) == reservation.due.0);
        check("a reservation has its timer", timed);
        let works = matches!(reservation.state, ReservationState::Assigned | ReservationState::Running);
        if works {
            check("a working reservation has a job", reservation.job.is_some());
            check("a working reservation takes capacity", reservation.capacity == Capacity::Taken);
        }
        if let Some(key) = reservation.job {
            let back = self.jobs.get(key).and_then(|job| job.past.reservation);
            check("a reservation's job is its own", back == Some(id));
            self.check_border(reservation, key, audit);
        }
    }

    /// No job is where it may not be: of what can't change under it, environment, trust and lists of nodes.
    fn check_border(&self, reservation: &Reservation, key: Key, audit: &mut Audit) {
        let node = self.fleet.node(reservation.node);
        let spec = &self.jobs[key].row.spec;
        let id = reservation.id;
        let lists = &spec.constraints;
        let listed = lists.allow.is_empty() || lists.allow.contains(node.id());
        audit.check("a job's node is on its lists", listed && !lists.deny.contains(node.id()), || {
            format!("reservation {id} on {}", node.id())
        });
        if let Origin::Test { node: tested } = &*self.jobs[key].row.origin {
            audit.check("a test job is on its node", tested == node.id(), || format!("reservation {id}"));
        }
    }

    fn check_backlog(&self, audit: &mut Audit) {
        audit.add("the backlog adds up", self.backlog.check());
        let mut waiting: Vec<Key> = self.backlog.keys().collect();
        waiting.sort_unstable();
        let for_node = |(key, job): (Key, &Job)| matches!(job.waits, Waits::ForNode(_)).then_some(key);
        let expected: Vec<Key> = self.jobs.iter().filter_map(for_node).collect();
        audit.check("who waits for a node is in the backlog", waiting == expected, || {
            format!("{} in the backlog, {} wait for a node", waiting.len(), expected.len())
        });
        let mut of_namespace = BTreeMap::new();
        for (_, job) in self.jobs.iter().filter(|(_, job)| job.row.state == JobState::Queued) {
            *of_namespace.entry(job.namespace).or_insert(0_u64) += 1;
        }
        for key in self.namespaces.keys() {
            let counted = of_namespace.get(&key).copied().unwrap_or(0);
            audit.check("waiting jobs of a namespace", self.namespaces.waiting(key) == counted, || {
                format!(
                    "{}: kept {}, counted {counted}",
                    self.namespaces.name(key),
                    self.namespaces.waiting(key)
                )
            });
        }
    }

    fn check_nodes(&self, audit: &mut Audit) {
        for (key, node) in self.fleet.nodes() {
            let held = || self.fleet.held_by(key).filter(|r| r.capacity == Capacity::Taken);
            let (slots, kv) = (held().count() as u32, held().map(|r| r.kv_tokens).sum::<u64>());
            audit.check(
                "a node's capacity is what its reservations take",
                (node.taken, node.kv_taken) == (slots, kv),
                || {
                    format!(
                        "{}: {} slots and {} tokens taken, counted {slots} and {kv}",
                        node.id(),
                        node.taken,
                        node.kv_taken
                    )
                },
            );
            for serving in &node.models {
                let counted = held().filter(|r| r.model == Some(serving.model)).count() as u32;
                audit.check(
                    "a model's slots are what its reservations take",
                    serving.taken == counted,
                    || {
                        format!(
                            "{} {}: {} taken, counted {counted}",
                            node.id(),
                            self.models[serving.model],
                            serving.taken
                        )
                    },
                );
            }
            if node.record.standing(self.now) == Standing::Excluded {
                audit.check(
                    "an excluded node is in no lane",
                    node.lanes.is_empty() || node.stood != Standing::Excluded,
                    || node.id().to_string(),
                );
            }
        }
    }

    /// Every lane has exactly the nodes that may run its jobs, each in the place of its room.
    fn check_lanes(&self, audit: &mut Audit) {
        for (lane, nodes) in self.fleet.lanes.iter() {
            for (key, node) in self.fleet.nodes() {
                let position = node.lanes.iter().position(|l| *l == lane);
                let eligible = nodes.eligible.contains(&key);
                audit.check("a lane and its nodes know each other", position.is_some() == eligible, || {
                    format!("{lane:?} and {}", node.id())
                });
                let Some(position) = position else { continue };
                let lacks =
                    self.fleet.lacks(key, lane, &self.models[nodes.need.model], &self.subclouds, self.now);
                audit.check("a lane's nodes may run its jobs", lacks.is_none(), || {
                    format!("{lane:?} and {}: {lacks:?}", node.id())
                });
                let ready = node.ready_at[position];
                let has_room = node.has_slot(nodes.need.model);
                audit.check("a node with a slot is ready in its lanes", ready.is_some() == has_room, || {
                    format!("{lane:?} and {}: ready {ready:?}, room {has_room}", node.id())
                });
                let listed = ready.is_none_or(|place| nodes.ready.contains(place, key));
                audit.check("a ready node is in its lane's order", listed, || node.id().to_string());
            }
        }
    }

    fn check_clients(&self, audit: &mut Audit) {
        for (id, key) in self.clients.waiting() {
            let known = self.jobs.get(key).is_some_and(|job| job.clients.iter().any(|known| *known == id));
            audit.check("a client's job knows it", known, || format!("client {}", id.0));
        }
    }

    fn check_holds(&self, audit: &mut Audit) {
        let mut held = BTreeMap::new();
        for (_, job) in self.jobs.iter() {
            *held.entry((job.row.spec.environment, job.row.payer())).or_insert(0_i64) += job.row.hold.0;
        }
        for (account, statement) in self.ledger.statements() {
            let counted = held.get(&(account.environment, account.owner.clone())).copied().unwrap_or(0);
            audit.check("an account holds what its live jobs hold", statement.held.0 == counted, || {
                format!("{account:?}: held {}, counted {counted}", statement.held)
            });
        }
    }
}
