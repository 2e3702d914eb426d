//! An independent opinion on every step: what SPEC and CORE promise, checked from outside.
//!
//! It was written from the texts before the core was, keeps its own books from rows, events and messages, and shares no
//! code with the core's decisions. It never influences a run.

mod ages;
mod assign;
mod book;
mod charge;
mod conduct;
mod configured;
mod fleet;
mod judge;
mod kept;
mod keys;
mod order;
mod rows;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use switchbox::coordinator::Counts;
use switchbox::coordinator::command::Command;
use switchbox::coordinator::effect::{Effect, Row};
use switchbox::coordinator::event::{
    Ask, Completion, Departure, Durability, ErrorClass, Event, JobSpec, Question, Status, Stopped, StoreRoom,
    Tenant, Wish,
};
use switchbox::coordinator::job::JobState;
use switchbox::coordinator::limits::Limits;
use switchbox::ids::{ClientId, JobId, Lsn, Namespace, NodeId, ReservationId};
use switchbox::time::{Span, Time};

use super::coverage::Coverage;
use ages::Ages;
pub(crate) use book::Book;
pub(crate) use charge::CASES;
pub(crate) use configured::FATES;
use fleet::{Fleet, TICKS};
pub(crate) use judge::{Judge, Line, Violation};
pub(crate) use told::Heard;
use told::Told;

/// What an event says, for the judgement of the step that it causes.
#[derive(Debug, Default)]
pub(crate) struct Note {
    pub(crate) word: &'static str,
    pub(crate) node: Option<NodeId>,
    /// Reservations that a node's message names.
    pub(crate) named: Vec<ReservationId>,
    pub(crate) results: Vec<Completion>,
    pub(crate) stopped: Option<Stopped>,
    pub(crate) submit: Option<(ClientId, JobSpec)>,
    pub(crate) command: Option<(Option<Namespace>, Command)>,
    pub(crate) wish: Option<Wish>,
    /// Who cancels; nobody where it is the operator.
    pub(crate) cancels: Option<Tenant>,
    /// Whose answer a client took.
    pub(crate) took: Option<JobId>,
    /// Whose output was closed.
    pub(crate) revoked: Option<ReservationId>,
}

/// One step of the core.
pub(crate) struct Step<'a> {
    pub(crate) now: Time,
    pub(crate) note: &'a Note,
    pub(crate) lsn_before: Lsn,
    pub(crate) lsn: Lsn,
    pub(crate) effects: &'a [Effect],
}

const DISK_BEHIND: &str = "the disk is behind";

/// The oracle of one run.
pub(crate) struct Oracle {
    pub(crate) judge: Judge,
    pub(crate) coverage: Coverage,
    pub(crate) book: Book,
    fleet: Fleet,
    told: Told,
    limits: Limits,
    durability: Durability,
    epoch: u32,
    /// Every reservation that was ever handed out, and to whom.
    issued: BTreeMap<ReservationId, (NodeId, JobId)>,
    /// What closing outputs found.
    revoked: BTreeMap<ReservationId, (u32, u32)>,
    /// Attempts whose node said that they failed, or something that can't be.
    spoken: BTreeSet<ReservationId>,
    /// Nodes that ever gave a wrong answer.
    pub(crate) wrong: BTreeSet<NodeId>,
    /// How long what could run.
    ages: Ages,
    /// Why nothing may be placed, if so.
    closed: Option<&'static str>,
    /// Jobs whose client took output of an attempt that was closed.
    delivered: BTreeSet<JobId>,
    /// The step that ended a job.
    ended_lsn: BTreeMap<JobId, Lsn>,
    /// The step that decided an attempt.
    decided_lsn: BTreeMap<ReservationId, Lsn>,
    /// The step that accepted a job.
    accepted_lsn: BTreeMap<JobId, Lsn>,
}

impl Oracle {
    /// Of a box with these settings, in its first epoch.
    pub(crate) fn new(limits: Limits, durability: Durability, epoch: u32) -> Self {
        Self {
            judge: Judge::default(),
            coverage: Coverage::default(),
            book: Book::default(),
            fleet: Fleet::default(),
            told: Told::default(),
            limits,
            durability,
            epoch,
            issued: BTreeMap::new(),
            revoked: BTreeMap::new(),
            spoken: BTreeSet::new(),
            wrong: BTreeSet::new(),
            ages: Ages::default(),
            closed: None,
            delivered: BTreeSet::new(),
            ended_lsn: BTreeMap::new(),
            decided_lsn: BTreeMap::new(),
            accepted_lsn: BTreeMap::new(),
        }
    }

    /// Looks at an event before the core has it.
    pub(crate) fn before(&mut self, now: Time, event: &Event) -> Note {
        let mut note = Note { word: word_of(event), ..Note::default() };
        self.coverage.count("events", note.word);
        match event {
            Event::Submit(client, submission) => note.submit = Some((*client, submission.spec.clone())),
            Event::Cancel(cancel) => note.cancels = cancel.tenant.clone(),
            Event::Operate(operation) => {
                note.command = Some((operation.by.clone(), operation.command.clone()))
            }
            Event::NodeConnected(hello) => {
                note.node = Some(hello.node.clone());
                note.results = hello.results.iter().map(|result| result.clone().into_inner()).collect();
                note.named = hello.running.iter().map(|held| held.reservation).collect();
                let banned = self.book.nodes.get(&hello.node).is_some_and(|row| row.banned.is_some());
                self.fleet.connected(hello, now, banned);
            }
            Event::NodeGone(gone) => {
                note.node = Some(gone.node.clone());
                self.fleet.gone(gone);
                gone.undelivered.iter().for_each(|reservation| self.fleet.frees(*reservation));
            }
            Event::Heartbeat(beat) => {
                self.fleet.heard(beat, now);
            }
            Event::Offers(offers) => self.fleet.offers(offers),
            Event::NodeWish(wish) => (note.node, note.wish) = (Some(wish.node.clone()), Some(wish.wish)),
            Event::BadSignature(node) => note.node = Some(node.clone()),
            Event::Discredited(said) => {
                (note.node, note.named) = (Some(said.node.clone()), vec![said.reservation]);
            }
            Event::Accepted(node, reservation) => {
                (note.node, note.named) = (Some(node.clone()), vec![*reservation]);
            }
            Event::Declined(declined) => {
                (note.node, note.named) = (Some(declined.node.clone()), vec![declined.reservation]);
            }
            Event::Completed(result) => {
                let result = result.clone().into_inner();
                (note.node, note.named) = (Some(result.node.clone()), vec![result.reservation]);
                note.results.push(result);
            }
            Event::Stopped(stopped) => {
                let stopped = stopped.clone().into_inner();
                (note.node, note.named) = (Some(stopped.node.clone()), vec![stopped.reservation]);
                note.stopped = Some(stopped);
            }
            Event::Revoked(revoked) => {
                note.revoked = Some(revoked.reservation);
                self.on_revoked(revoked.reservation, revoked.delivered, revoked.written_tokens);
            }
            Event::ClientGone(gone) => {
                if let Departure::Took(job) = gone.departure {
                    self.told.taken.insert(job);
                    note.took = Some(job);
                }
            }
            Event::Undeliverable(reservation) => self.fleet.frees(*reservation),
            Event::Ask(Ask { question: Question::EndService, .. }) => self.closed = Some("the service ends"),
            Event::StoreRoom(StoreRoom::Behind) => self.closed = self.closed.or(Some(DISK_BEHIND)),
            Event::StoreRoom(StoreRoom::Open) => self.closed = self.closed.filter(|why| *why != DISK_BEHIND),
            _ => {}
        }
        self.cover_results(&note);
        if let Some(node) = &note.node
            && note.word != "NodeGone"
        {
            self.fleet.spoke(node, now, &self.limits);
        }
        note
    }

    fn cover_results(&mut self, note: &Note) {
        for result in &note.results {
            if self.issued.get(&result.reservation).is_some_and(|(node, _)| *node == result.node) {
                self.spoken.insert(result.reservation);
            }
            let class = match &result.status {
                Status::Succeeded(_) => continue,
                Status::Failed(error) => error.class,
            };
            let word = match class {
                ErrorClass::Terminal => "terminal",
                ErrorClass::Node => "node",
                ErrorClass::Transient => "transient",
            };
            self.coverage.count("error class", word);
        }
    }

    fn on_revoked(&mut self, reservation: ReservationId, delivered: u32, written_tokens: u32) {
        self.revoked.insert(reservation, (delivered, written_tokens));
        if let Some((_, job)) = self.issued.get(&reservation)
            && delivered > 0
        {
            self.delivered.insert(*job);
        }
    }

    /// Looks at what the core wants done.
    pub(crate) fn after(&mut self, step: &Step<'_>) {
        self.check_lsn(step);
        let listed = self.listed(step.note);
        let dead = self.dead_named(step.note);
        let key_job = step.note.submit.as_ref().and_then(|(_, spec)| self.book.key_job((*spec.key)?.key));
        let faults_before = self.faults_of(step.note.node.as_ref());
        let fate = self.fate_due(step);
        self.on_rows(step);
        if step.note.word == "Recover" {
            self.ages.restarted(step.now);
        }
        self.ages.note(&self.book.paused, step.now);
        self.check_listed(&listed);
        self.check_dead(step, &dead, faults_before);
        self.check_submit(step, key_job);
        self.check_command(step);
        self.check_configured(step, fate);
        self.check_taken(step);
        self.frees(step.note);
        self.check_messages(step);
        self.check_assigns(step);
        if step.note.word == "Tick" {
            self.check_expiries(step.now);
        }
    }

    fn check_lsn(&mut self, step: &Step<'_>) {
        let writes = step.effects.iter().any(|effect| matches!(effect, Effect::Row(_)));
        let expected = Lsn(step.lsn_before.0 + u64::from(writes));
        self.judge.check(Line::LsnCounts, step.lsn == expected, || {
            format!("after {}: {:?}, expected {expected:?}", step.note.word, step.lsn)
        });
    }

    /// Results in a hello that a live reservation waits for.
    fn listed(&self, note: &Note) -> Vec<JobId> {
        if note.word != "NodeConnected" {
            return Vec::new();
        }
        let waits = |result: &&Completion| {
            let job = self.book.live.get(&result.reservation);
            let facts = job.map(|job| &self.book.jobs[job]);
            // A result that contradicts itself fails its attempt, listed or not.
            let can_be = facts.is_some_and(|f| result.output_tokens <= f.spec.output_tokens_max);
            matches!(result.status, Status::Succeeded(_))
                && can_be
                && facts.is_some_and(|f| f.reservation.as_ref().is_some_and(|(_, node)| *node == result.node))
                && !self.revoked.contains_key(&result.reservation)
        };
        let welcome = |node: &NodeId| {
            self.book.nodes.get(node).is_some_and(|row| row.banned.is_none() && row.frozen.is_none())
        };
        if !note.node.as_ref().is_some_and(welcome) {
            return Vec::new();
        }
        note.results.iter().filter(waits).map(|result| self.book.live[&result.reservation]).collect()
    }

    fn check_listed(&mut self, listed: &[JobId]) {
        for job in listed {
            let state = self.book.jobs[job].state;
            self.judge.check(
                Line::ListedHonoured,
                matches!(state, JobState::Succeeded | JobState::Cancelled),
                || format!("{job} is {} although its node listed its result", state.word()),
            );
        }
    }

    fn frees(&mut self, note: &Note) {
        if matches!(note.word, "Completed" | "Stopped" | "Declined") {
            // What another node names frees nothing.
            let own =
                |r: &&ReservationId| self.issued.get(r).is_none_or(|(of, _)| Some(of) == note.node.as_ref());
            note.named.iter().filter(own).for_each(|reservation| self.fleet.frees(*reservation));
        }
        if note.word == "NodeConnected" {
            note.results.iter().for_each(|result| self.fleet.frees(result.reservation));
        }
    }

    fn check_expiries(&mut self, now: Time) {
        let Some((due, job)) = self.book.waiting.first().copied() else { return };
        let late = due + TICKS < now;
        if late || due + TICKS < now + Span::from_ms(1_000) {
            self.judge.check(Line::ExpiryOnTime, !late, || {
                format!("{job} waits at {now:?}, its ttl passed at {due:?}")
            });
        }
    }

    /// Compares the core's gauges with the rows.
    pub(crate) fn check_gauges(&mut self, counts: &Counts) {
        let [queued, reserved, running] = self.book.live_states();
        let held: i64 = self.book.held.values().sum();
        let pairs = [
            ("jobs_queued", queued),
            ("jobs_reserved", reserved),
            ("jobs_running", running),
            ("holds", queued + reserved + running),
            ("held_credits", u64::try_from(held).unwrap_or(u64::MAX)),
        ];
        for (name, expected) in pairs {
            let kept = counts.entries().find(|(entry, _)| *entry == name).map(|(_, value)| value);
            self.judge.check(Line::GaugesTrue, kept == Some(expected), || {
                format!("{name} is {kept:?}, but the rows say {expected}")
            });
        }
    }

    /// The box died; this much of the log survived, up to that step. Everything acknowledged must be in it.
    pub(crate) fn crashed<'r>(&mut self, rows: impl Iterator<Item = &'r Row>, lsn: Lsn, epoch: u32) {
        self.book = Book::default();
        rows.for_each(|row| self.book.apply(row));
        self.fleet.crashed(lsn);
        self.closed = None;
        self.delivered.clear();
        self.revoked.clear();
        self.ended_lsn.clear();
        self.decided_lsn.clear();
        self.accepted_lsn.clear();
        self.epoch = epoch;
        self.check_told();
    }

    /// At the end of a run: what must have come to an end has.
    pub(crate) fn check_end(&mut self) {
        let acked: Vec<JobId> = self.told.accepted.iter().copied().collect();
        for job in acked {
            let state = self.book.jobs.get(&job).map(|facts| facts.state);
            self.judge.check(Line::EndsOnce, state.is_some_and(|state| !state.is_live()), || {
                format!("{job} was accepted, and is {state:?} after everything wound down")
            });
        }
    }
}

/// The event's name, for coverage and messages.
fn word_of(event: &Event) -> &'static str {
    match event {
        Event::Submit(..) => "Submit",
        Event::ClientGone(_) => "ClientGone",
        Event::Cancel(_) => "Cancel",
        Event::Ask(_) => "Ask",
        Event::Feedback(_) => "Feedback",
        Event::Requeue(_) => "Requeue",
        Event::Operate(_) => "Operate",
        Event::NodeConnected(_) => "NodeConnected",
        Event::NodeGone(_) => "NodeGone",
        Event::Heartbeat(_) => "Heartbeat",
        Event::Offers(_) => "Offers",
        Event::NodeWish(_) => "NodeWish",
        Event::BadSignature(_) => "BadSignature",
        Event::Discredited(_) => "Discredited",
        Event::Accepted(..) => "Accepted",
        Event::Declined(_) => "Declined",
        Event::Completed(_) => "Completed",
        Event::Stopped(_) => "Stopped",
        Event::Revoked(_) => "Revoked",
        Event::Progress(_) => "Progress",
        Event::Undeliverable(_) => "Undeliverable",
        Event::StoreRoom(_) => "StoreRoom",
        Event::Tick => "Tick",
    }
}
