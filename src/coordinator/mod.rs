//! The core: every decision of Switchbox, in one deterministic state machine.
//!
//! It is fed events with a time and returns effects. It never does I/O, reads no clock and no randomness, knows
//! no threads, sockets or files, and its containers have a fixed order: the same events give the same effects.

mod admit;
mod affinity;
mod answer;
mod backlog;
mod by_hash;
mod checks;
mod clients;
pub mod command;
mod counts;
mod deserted;
pub mod effect;
mod eligibility;
pub mod event;
#[cfg(any(test, feature = "mutants"))]
mod exhaustive;
mod finish;
mod fleet;
mod hello;
mod index;
pub mod integrity;
mod invariants;
pub mod invites;
pub mod job;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod mutant;
mod names;
pub mod namespaces;
pub mod noise;
mod on_client;
mod on_command;
mod on_node;
mod on_operator;
mod on_tick;
mod outcome;
mod place;
#[cfg(any(test, feature = "mutants"))]
mod planted;
mod question;
pub mod rare;
mod recover;
mod reserve;
mod retention;
mod retry;
pub mod score;
mod sessions;
mod shelf;
mod show;
mod slab;
pub mod snapshot;
pub mod spec;
pub mod standing;
mod stopping;
pub mod subcloud;
mod suits;
#[cfg(test)]
mod tests;
mod timers;
pub mod trace;
pub mod upkeep;
mod validation;
mod wait;

use std::collections::{BTreeMap, BTreeSet};

pub use counts::Counts;
#[cfg(any(test, feature = "mutants"))]
pub use exhaustive::Comparison;
pub use invariants::Audit;

use affinity::Affinity;
use backlog::Backlog;
use clients::Clients;
use command::Scope;
use deserted::Deserted;
use effect::{Effect, Reply, Row, When};
use event::{Durability, Event, StoreRoom};
use fleet::Fleet;
use index::IdIndex;
use integrity::Templates;
use invites::Invites;
use job::{Job, RowState};
use keys::Keys;
use ledger::{Account, CreditLine, Ledger, Owner, PriceTable};
use limits::Limits;
use names::{ModelKey, Names, NodeKey};
use namespaces::Namespaces;
use place::Placing;
use retention::Retention;
use slab::{Key, Slab};
use snapshot::Snapshots;
use spec::Environment;
use subcloud::Subclouds;
use timers::Timers;
use validation::Validating;

use crate::ids::{ClientId, JobId, Lsn, ModelName, ReservationId};
use crate::time::Time;

/// What a process start brings: everything that later choices derive from.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// Larger than any epoch before; ids are made of it.
    pub epoch: u32,
    /// 32 random bytes; the only randomness there is.
    pub secret: [u8; 32],
    /// The last step that is on stable storage.
    pub lsn: Lsn,
    /// When the process started, by the box's own clock.
    pub at: Time,
}

/// Whether new work is let in, and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Admission {
    Open,
    /// None is let in; what waits still starts.
    Draining,
    /// None is started either.
    Closed,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// A queued job expires.
    Ttl(Key),
    /// A job's time comes: `not_before`, or the end of a backoff.
    Backoff(Key),
    /// A reservation's current deadline (see `fleet::Deadline`).
    Reservation(Key),
    /// Time does something to a node: see `upkeep`.
    Node(NodeKey),
}

/// The state machine.
pub struct Coordinator {
    boot: Boot,
    limits: Limits,
    durability: Durability,
    admission: Admission,
    /// Whether new attempts find room on their way to the disk.
    store_room: StoreRoom,
    now: Time,
    /// The last step that changed rows.
    lsn: Lsn,
    jobs: Slab<Job>,
    job_keys: IdIndex<Key>,
    jobs_made: u64,
    /// Places among all jobs that were given.
    sequences_given: u64,
    reservations_made: u64,
    models: Names<ModelName, ModelKey>,
    /// Models that some node was tested with before this start, whoever came back.
    proven_models: BTreeSet<ModelKey>,
    namespaces: Namespaces,
    backlog: Backlog,
    fleet: Fleet,
    placing: Placing,
    affinity: Affinity,
    /// Lanes whose jobs may have to fall back, each with how many of them were looked at.
    deserted: Deserted,
    /// Nodes with room on which a test job waited for some.
    tests_due: BTreeSet<NodeKey>,
    /// Whether a node joined or left lanes since they were looked through for that.
    nodes_moved: bool,
    ledger: Ledger,
    prices: PriceTable,
    keys: Keys,
    timers: Timers<Timer>,
    clients: Clients,
    paused: BTreeSet<Scope>,
    subclouds: Subclouds,
    snapshots: Snapshots,
    templates: Templates,
    /// Whether the last check that was due could not be paid, by environment: what was said isn't said again.
    checks_short: [bool; 2],
    invites: Invites,
    validating: BTreeMap<JobId, Validating>,
    /// Reservations whose result is kept: repeats of it are answered the same way.
    accepted_results: BTreeSet<ReservationId>,
    /// Finished jobs whose rows are kept, and which of them are dead letters.
    retention: Retention,
    /// Gauges and counters that change with single events; the rest of `Counts` is derived.
    counts: Counts,
    /// Jobs whose row changed in this step.
    changed: Vec<(JobId, Key)>,
    /// Whether this step changed rows, and so has an LSN of its own.
    writes: Writes,
    effects: Vec<Effect>,
    #[cfg(any(test, feature = "mutants"))]
    settled: BTreeMap<ReservationId, job::JobRow>,
    /// Choices held against all nodes, where somebody wants to know.
    #[cfg(any(test, feature = "mutants"))]
    comparisons: Option<Vec<Comparison>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    None,
    Some,
}

impl Coordinator {
    /// A core without jobs.
    pub fn new(boot: Boot, limits: Limits, durability: Durability) -> Self {
        Self::starting_at(boot.at, boot, limits, durability)
    }

    /// A core without jobs, near whose first event's time this is.
    fn starting_at(now: Time, boot: Boot, limits: Limits, durability: Durability) -> Self {
        let mut ledger = Ledger::default();
        for environment in Environment::ALL {
            let integrity = Account { environment, owner: Owner::Integrity };
            ledger.set_line(&integrity, CreditLine::Unlimited).expect("an empty ledger has room");
        }
        Self {
            boot,
            durability,
            admission: Admission::Open,
            store_room: StoreRoom::Open,
            now,
            lsn: boot.lsn,
            jobs: Slab::new(),
            job_keys: IdIndex::default(),
            jobs_made: 0,
            sequences_given: 0,
            reservations_made: 0,
            models: Names::new(limits.names_max),
            proven_models: BTreeSet::new(),
            namespaces: Namespaces::new(limits.names_max),
            backlog: Backlog::new(limits.batch_age),
            fleet: Fleet::new(limits.names_max),
            placing: Placing::default(),
            affinity: Affinity::default(),
            deserted: Deserted::default(),
            nodes_moved: false,
            tests_due: BTreeSet::new(),
            ledger,
            prices: PriceTable::new(limits.price),
            keys: Keys::new(limits.keys_per_namespace_max as u64),
            timers: Timers::starting_at(now),
            clients: Clients::default(),
            paused: BTreeSet::new(),
            subclouds: Subclouds::default(),
            snapshots: Snapshots::default(),
            templates: Templates::default(),
            checks_short: [false; 2],
            invites: Invites::default(),
            validating: BTreeMap::new(),
            accepted_results: BTreeSet::new(),
            retention: Retention::default(),
            counts: Counts::default(),
            changed: Vec::new(),
            writes: Writes::None,
            effects: Vec::new(),
            #[cfg(any(test, feature = "mutants"))]
            settled: BTreeMap::new(),
            #[cfg(any(test, feature = "mutants"))]
            comparisons: None,
            limits,
        }
    }

    /// Decides on one event. What is to be done is appended to `effects`, in order.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.effects, effects);
        self.dispatch(event);
        self.place();
        self.emit_rows();
        std::mem::swap(&mut self.effects, effects);
    }

    /// The time of the last step, which never goes back. The clock that gives it times mustn't be behind: it would
    /// stand still.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The last step that changed rows.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Submit(client, submission) => self.on_submit(client, *submission),
            Event::ClientGone(gone) => self.on_client_gone(gone),
            Event::Cancel(cancel) => self.on_cancel(cancel),
            Event::Ask(ask) => self.on_ask(ask),
            Event::Feedback(feedback) => self.on_feedback(feedback),
            Event::Requeue(requeue) => self.on_requeue(requeue),
            Event::Operate(operation) => self.on_operate(*operation),
            Event::NodeConnected(hello) => self.on_node_connected(*hello),
            Event::NodeGone(gone) => self.on_node_gone(gone),
            Event::Heartbeat(beat) => self.on_heartbeat(&beat),
            Event::Offers(offers) => self.on_offers(&offers),
            Event::NodeWish(wish) => self.on_node_wish(&wish),
            Event::BadSignature(node) => self.on_bad_signature(&node),
            Event::Discredited(said) => self.on_discredited(said),
            Event::Accepted(node, reservation) => self.on_accepted(&node, reservation),
            Event::Declined(declined) => self.on_declined(declined),
            Event::Completed(completion) => self.on_completed(completion.into_inner()),
            Event::Stopped(stopped) => self.on_stopped(stopped.into_inner()),
            Event::Revoked(revoked) => self.on_revoked(revoked),
            Event::Progress(progress) => self.on_progress(progress),
            Event::Undeliverable(reservation) => self.on_undeliverable(reservation),
            Event::StoreRoom(room) => self.store_room = room,
            Event::Tick => self.on_tick(),
        }
    }

    /// The LSN that a reply about the state as it is now rests on.
    fn newest_lsn(&self) -> Lsn {
        match self.writes {
            Writes::Some => Lsn(self.lsn.0 + 1),
            Writes::None => self.lsn,
        }
    }

    /// Marks a live job's row as changed in this step.
    fn touch(&mut self, key: Key) {
        self.writes = Writes::Some;
        let job = &mut self.jobs[key];
        if std::mem::replace(&mut job.row_state, RowState::Changed) == RowState::Kept {
            self.changed.push((job.row.id, key));
        }
    }

    /// Emits a row that belongs to this step.
    fn keep(&mut self, row: Row) {
        self.writes = Writes::Some;
        self.effects.push(Effect::Row(row));
    }

    /// Ends the step: rows of changed live jobs (those that ended have emitted theirs) and balances, and the LSN.
    fn emit_rows(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        for (id, key) in &changed {
            if self.job_keys.find(*id) == Some(*key) {
                let job = &mut self.jobs[*key];
                job.row_state = RowState::Kept;
                let row = job.row.clone();
                self.keep(Row::Job(Box::new(row)));
            }
        }
        self.changed = changed;
        self.changed.clear();
        let (effects, writes) = (&mut self.effects, &mut self.writes);
        self.ledger.take_changed(|balance| {
            *writes = Writes::Some;
            effects.push(Effect::Row(Row::Balance(balance)));
        });
        if self.writes == Writes::Some {
            self.lsn.0 += 1;
            self.writes = Writes::None;
        }
    }

    /// A reply that acknowledges nothing.
    fn reply_now(&mut self, client: ClientId, reply: Reply) {
        self.effects.push(Effect::ToClient { client, reply, when: When::Now });
    }

    /// A reply that rests on everything so far.
    fn reply_durable(&mut self, client: ClientId, reply: Reply) {
        let when = When::Durable(self.newest_lsn());
        self.effects.push(Effect::ToClient { client, reply, when });
        self.effects.push(Effect::Urgent);
    }

    fn next_job_id(&mut self) -> JobId {
        self.jobs_made += 1;
        JobId { epoch: self.boot.epoch, counter: self.jobs_made }
    }

    fn next_reservation_id(&mut self) -> ReservationId {
        self.reservations_made += 1;
        ReservationId { epoch: self.boot.epoch, counter: self.reservations_made }
    }
}
