//! The core: every decision of Switchbox, in one deterministic state machine.
//!
//! It is fed events with a time and returns effects. It never does I/O, reads no clock and no randomness, knows
//! no threads, sockets or files, and its containers have a fixed order: the same events give the same effects.

mod backlog;
mod counts;
pub mod effect;
pub mod event;
mod finish;
mod fleet;
mod invariants;
pub mod job;
pub mod ledger;
pub mod limits;
mod on_client;
mod on_node;
mod on_operator;
mod on_tick;
mod place;
mod recover;
mod retry;
mod slab;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use counts::Counts;

use backlog::Backlog;
use effect::{Effect, Reply, Row, When};
use event::{Durability, Environment, Event, Tier};
use fleet::Fleet;
use job::{Job, RowState};
use ledger::Ledger;
use limits::Limits;
use slab::{Key, Slab};
use timers::Timers;

use crate::ids::{ClientId, JobId, Lsn, ModelName, ReservationId};
use crate::time::{Span, Time};

/// What a process start brings: everything that later choices derive from.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// Larger than any epoch before; ids are made of it.
    pub epoch: u32,
    /// 32 random bytes; the only randomness there is.
    pub secret: [u8; 32],
    /// The last step that is on stable storage.
    pub lsn: Lsn,
}

/// Whether new work is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    Draining,
}

/// The state machine.
pub struct Coordinator {
    boot: Boot,
    limits: Limits,
    durability: Durability,
    admission: Admission,
    now: Time,
    /// The last step that changed rows.
    lsn: Lsn,
    jobs: Slab<Job>,
    job_keys: BTreeMap<JobId, Key>,
    jobs_made: u64,
    reservations_made: u64,
    backlog: Backlog,
    /// Jobs that wait, by namespace, those in backoff included.
    waiting_by_namespace: BTreeMap<crate::ids::Namespace, u64>,
    fleet: Fleet,
    ledger: Ledger,
    timers: Timers,
    clients: BTreeMap<ClientId, Client>,
    /// Finished jobs whose rows are kept, oldest first, with the bytes of the bodies kept with them.
    finished: VecDeque<(JobId, u64)>,
    finished_bytes: u64,
    /// Gauges and counters that change with single events; the rest of `Counts` is derived.
    counts: Counts,
    /// Per model, a running mean of how long an attempt takes its slot.
    service: BTreeMap<ModelName, Span>,
    /// Models for which something may be placed at the end of this step.
    placeable: BTreeSet<ModelName>,
    /// Whose next job waits for output budget, and since when.
    starved: BTreeMap<(Environment, ModelName), Starved>,
    /// Jobs whose row changed in this step.
    changed: Vec<(JobId, Key)>,
    /// Whether this step changed rows, and so has an LSN of its own.
    writes: Writes,
    effects: Vec<Effect>,
    /// A bug that tests plant to see that they would find it.
    #[cfg(test)]
    planted: Planted,
}

/// Bugs that tests can plant.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    LeakReservation,
    LeakHold,
    LeakOutputBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    None,
    Some,
}

/// A job that is next but doesn't fit the output budget.
#[derive(Debug, Clone, Copy)]
struct Starved {
    tier: Tier,
    since: Time,
}

/// What the core knows of a request's client.
#[derive(Debug, Default)]
struct Client {
    /// Its live job.
    job: Option<Key>,
    /// Output budget that its finished, unread answer still takes.
    unread_bytes: u64,
}

impl Coordinator {
    /// A core without jobs.
    pub fn new(boot: Boot, limits: Limits, durability: Durability) -> Self {
        Self {
            boot,
            limits,
            durability,
            admission: Admission::Open,
            now: Time::default(),
            lsn: boot.lsn,
            jobs: Slab::new(),
            job_keys: BTreeMap::new(),
            jobs_made: 0,
            reservations_made: 0,
            backlog: Backlog::default(),
            waiting_by_namespace: BTreeMap::new(),
            fleet: Fleet::default(),
            ledger: Ledger::default(),
            timers: Timers::default(),
            clients: BTreeMap::new(),
            finished: VecDeque::new(),
            finished_bytes: 0,
            counts: Counts::default(),
            service: BTreeMap::new(),
            placeable: BTreeSet::new(),
            starved: BTreeMap::new(),
            changed: Vec::new(),
            writes: Writes::None,
            effects: Vec::new(),
            #[cfg(test)]
            planted: Planted::Nothing,
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
            Event::NodeConnected(hello) => self.on_node_connected(*hello),
            Event::Accepted(reservation) => self.on_accepted(reservation),
            Event::Declined(declined) => self.on_declined(declined),
            Event::Completed(completion) => self.on_completed(completion.into_inner()),
            Event::Stopped(stopped) => self.on_stopped(stopped.into_inner()),
            Event::Revoked(revoked) => self.on_revoked(revoked),
            Event::Progress(progress) => self.on_progress(progress),
            Event::Undeliverable(reservation) => self.on_undeliverable(reservation),
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

    /// Ends the step: rows of changed live jobs (those that ended have emitted theirs), and the LSN.
    fn emit_rows(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        for (id, key) in &changed {
            if self.job_keys.get(id) == Some(key) {
                let job = &mut self.jobs[*key];
                job.row_state = RowState::Kept;
                let row = job.row.clone();
                self.keep(Row::Job(Box::new(row)));
            }
        }
        self.changed = changed;
        self.changed.clear();
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
