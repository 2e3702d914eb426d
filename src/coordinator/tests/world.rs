//! What the driver, the clients and the nodes do around the core, without threads or time of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::effect::{
    Answer, Assignment, Effect, End, Finished, Lookup, NodeMessage, Notice, Refusal, Reply, Row, Runnable,
};
use super::super::event::*;
use super::super::job::JobState;
use super::super::limits::Limits;
use super::super::{Boot, Coordinator, Counts};
use crate::ids::{ClientId, JobId, Lsn, Namespace, NodeId, ReservationId};
use crate::time::{Span, Time};

/// An output as the world keeps it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Output {
    pub(super) written: u32,
    pub(super) delivered: u32,
    pub(super) closed: bool,
    pub(super) last_at: Time,
}

/// What a client has heard.
#[derive(Debug, Default)]
pub(super) struct ClientView {
    pub(super) job: Option<JobId>,
    pub(super) refused: Option<Refusal>,
    /// Outputs that were opened for it, in order.
    pub(super) opened: Vec<ReservationId>,
    pub(super) finished: Option<Finished>,
    /// Whether the job could run when it was accepted.
    pub(super) runnable: Option<Runnable>,
    pub(super) answers: Vec<Answer>,
    pub(super) gone: bool,
}

/// The core with everybody around it.
pub(super) struct World {
    pub(super) core: Coordinator,
    pub(super) now: Time,
    pub(super) clients: BTreeMap<ClientId, ClientView>,
    /// Assignments that the node has, or may still have.
    pub(super) node: Vec<ReservationId>,
    /// Assignments in the node's outbox, not yet seen by it.
    pub(super) unseen: Vec<ReservationId>,
    pub(super) told_to_stop: Vec<ReservationId>,
    pub(super) outputs: BTreeMap<ReservationId, Output>,
    pub(super) reservations: Vec<ReservationId>,
    pub(super) rows: BTreeMap<JobId, super::super::job::JobRow>,
    pub(super) kept: Vec<Row>,
    /// The step that each of those belongs to.
    pub(super) kept_at: Vec<Lsn>,
    /// What was assigned, and to whom.
    pub(super) assigned: BTreeMap<ReservationId, (NodeId, Assignment)>,
    /// What nodes were told apart from work, in order.
    pub(super) told: Vec<(NodeId, NodeMessage)>,
    /// How often a commit was to be made at once.
    pub(super) hurried: u32,
    /// What was to be read from the store.
    pub(super) reads: Vec<Lookup>,
    pub(super) notices: Vec<Notice>,
    pub(super) epoch: u32,
    pub(super) limits: Limits,
    local: VecDeque<Event>,
}

pub(super) const MODEL: &str = "m";

/// The box's own node joins anew, with these models.
pub(super) fn local_again(models: Vec<ModelOffer>) -> NodeHello {
    NodeHello { session: crate::ids::Session(2), ..NodeHello::local(models) }
}

/// A namespace in the environment of the usual submission.
pub(super) fn tenant(namespace: Namespace) -> Tenant {
    Tenant { namespace, environment: Environment::Mainnet }
}

impl World {
    /// A world whose box serves `MODEL` itself.
    pub(super) fn new(slots: u32, limits: Limits) -> Self {
        let mut world = Self::without_box(limits);
        let models = vec![ModelOffer::warm(MODEL.into(), slots)];
        world.step(Event::NodeConnected(Box::new(NodeHello::local(models))));
        world
    }

    /// A world whose box serves nothing itself.
    pub(super) fn without_box(limits: Limits) -> Self {
        let boot = Boot { epoch: 7, secret: [3; 32], lsn: Lsn(0), at: Time(1_000_000) };
        let core = Coordinator::new(boot, limits.clone(), Durability::Strict);
        Self::around(core, limits, 7, Time(1_000_000))
    }

    /// Nobody but a core.
    pub(super) fn around(core: Coordinator, limits: Limits, epoch: u32, now: Time) -> Self {
        Self {
            core,
            now,
            clients: BTreeMap::new(),
            node: Vec::new(),
            unseen: Vec::new(),
            told_to_stop: Vec::new(),
            outputs: BTreeMap::new(),
            reservations: Vec::new(),
            rows: BTreeMap::new(),
            kept: Vec::new(),
            kept_at: Vec::new(),
            assigned: BTreeMap::new(),
            told: Vec::new(),
            hurried: 0,
            reads: Vec::new(),
            notices: Vec::new(),
            epoch,
            limits,
            local: VecDeque::new(),
        }
    }

    /// Steps an event and everything that it causes, then checks all invariants.
    pub(super) fn step(&mut self, event: Event) {
        self.step_unchecked(event);
        self.check();
    }

    /// All invariants, recounted.
    pub(super) fn check(&self) {
        let violations = self.core.audit().violations;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub(super) fn step_unchecked(&mut self, event: Event) {
        self.local.push_back(event);
        self.drain();
    }

    /// Steps local events until there are none.
    fn drain(&mut self) {
        while let Some(event) = self.local.pop_front() {
            let mut effects = Vec::new();
            self.core.step(self.now, event, &mut effects);
            self.publish_all(effects);
            let violations = self.core.quick_check();
            assert!(violations.is_empty(), "{violations:#?}");
        }
    }

    /// Publishes the effects of one step, and of those that they cause.
    pub(super) fn publish_all(&mut self, effects: Vec<Effect>) {
        let lsn = self.core.lsn();
        effects.into_iter().for_each(|effect| self.publish(effect));
        self.kept_at.resize(self.kept.len(), lsn);
        self.drain();
    }

    fn publish(&mut self, effect: Effect) {
        match effect {
            Effect::Row(row) => self.keep(row),
            Effect::Urgent => self.hurried += 1,
            Effect::Read { what, .. } => self.reads.push(what),
            Effect::Notice(notice) => self.notices.push(notice),
            Effect::ToNode { node, message, .. } => self.told.push((node, message)),
            Effect::AttachOutput(attach) => {
                if let Some(view) = self.clients.get_mut(&attach.client) {
                    view.opened.push(attach.reservation);
                }
            }
            Effect::ToClient { client, reply, .. } => self.hear(client, reply),
            Effect::Assign { node, assignment, .. } => {
                self.unseen.push(assignment.reservation);
                self.reservations.push(assignment.reservation);
                self.assigned.insert(assignment.reservation, (node, assignment));
            }
            Effect::Stop { reservation, .. } => match self.unseen.iter().position(|r| *r == reservation) {
                Some(at) => {
                    self.unseen.remove(at);
                    self.local.push_back(Event::Undeliverable(reservation));
                }
                None => self.told_to_stop.push(reservation),
            },
            Effect::Continue { .. } => {}
            Effect::OpenOutput(open) => {
                self.outputs.insert(open.reservation, Output::default());
                for client in open.clients {
                    let Some(view) = self.clients.get_mut(&client) else { continue };
                    assert!(view.finished.is_none(), "an attempt opened after the job's last word");
                    view.opened.push(open.reservation);
                }
            }
            Effect::CloseOutput(reservation) => self.close(reservation),
            Effect::ForgetOutput(_) => {}
            Effect::CheckProgress(reservation) => {
                let output = self.outputs[&reservation];
                let last_at = (output.written > 0).then_some(output.last_at);
                let progress = Progress { reservation, written: output.written, last_at };
                self.local.push_back(Event::Progress(progress));
            }
        }
    }

    fn close(&mut self, reservation: ReservationId) {
        let output = self.outputs.get_mut(&reservation).expect("only opened outputs are closed");
        output.closed = true;
        let Output { written, delivered, .. } = *output;
        self.local.push_back(Event::Revoked(Revoked {
            reservation,
            delivered,
            written,
            written_tokens: written,
        }));
    }

    fn keep(&mut self, row: Row) {
        if let Row::Job(job) = &row {
            let before = self.rows.insert(job.id, (**job).clone());
            let ended_before = before.is_some_and(|row| !row.state.is_live());
            assert!(!ended_before, "job {} changed after its end", job.id);
        }
        self.kept.push(row);
    }

    fn hear(&mut self, client: ClientId, reply: Reply) {
        let view = self.clients.get_mut(&client).expect("replies go to known clients");
        if view.gone {
            return;
        }
        match reply {
            Reply::Refused(refusal) => view.refused = Some(refusal),
            Reply::Accepted { job, runnable, .. } => {
                view.job = Some(job);
                view.runnable = Some(runnable);
            }
            Reply::Finished(finished) => {
                assert!(view.finished.is_none(), "a second last word");
                view.finished = Some(*finished);
            }
            Reply::Answer(answer) => view.answers.push(*answer),
        }
    }

    /// Submits with changes to the usual submission; answers the client.
    pub(super) fn submit(&mut self, change: impl FnOnce(&mut Submission)) -> ClientId {
        let spec = JobSpec {
            mode: Mode::Stream,
            ttl: Span::from_secs(60),
            input_tokens: 10,
            output_tokens_max: 100,
            ..JobSpec::plain(Namespace::default_namespace(), Endpoint::ChatCompletions, MODEL.into())
        };
        let mut submission = Submission::new(spec, Arc::from(&b"{}"[..]));
        change(&mut submission);
        let client = ClientId(self.clients.len() as u64 + 1);
        self.clients.insert(client, ClientView::default());
        self.step(Event::Submit(client, Box::new(submission)));
        client
    }

    pub(super) fn leave(&mut self, client: ClientId, departure: Departure) {
        self.clients.get_mut(&client).expect("known").gone = true;
        self.step(Event::ClientGone(ClientGone { client, departure }));
    }

    /// Whose reservation it is; the box's own unless it was assigned to another.
    pub(super) fn node_of(&self, reservation: ReservationId) -> NodeId {
        self.assigned.get(&reservation).map_or(NodeId::local(), |(node, _)| node.clone())
    }

    /// The node sees the next assignment.
    pub(super) fn see(&mut self) -> ReservationId {
        let reservation = self.unseen.remove(0);
        self.node.push(reservation);
        reservation
    }

    pub(super) fn accept(&mut self) -> ReservationId {
        let reservation = self.see();
        self.step(Event::Accepted(self.node_of(reservation), reservation));
        reservation
    }

    pub(super) fn write(&mut self, reservation: ReservationId, chunks: u32) {
        let now = self.now;
        let output = self.outputs.get_mut(&reservation).expect("opened");
        if !output.closed {
            output.written += chunks;
            output.last_at = now;
        }
    }

    /// The client takes everything that is written.
    pub(super) fn take(&mut self, reservation: ReservationId) {
        let output = self.outputs.get_mut(&reservation).expect("opened");
        if !output.closed {
            output.delivered = output.written;
        }
    }

    /// A result as the node would send it, of what it wrote.
    pub(super) fn result(&self, reservation: ReservationId, status: Status) -> Completion {
        let written = self.outputs.get(&reservation).map_or(0, |output| output.written);
        Completion {
            node: self.node_of(reservation),
            reservation,
            status,
            input_tokens: 10,
            cached_tokens: 0,
            output_tokens: written,
            digest: None,
            seen: Seen {
                chunks: written,
                bytes: u64::from(written) * 4,
                tokens: Some(written),
                first_at: None,
                last_at: None,
            },
            proof: None,
        }
    }

    pub(super) fn complete(&mut self, reservation: ReservationId, status: Status) {
        let result = self.result(reservation, status);
        self.step(Event::Completed(Verified::local(result)));
    }

    pub(super) fn succeed(&mut self, reservation: ReservationId) {
        self.complete(reservation, Status::Succeeded(FinishReason::Stop));
    }

    pub(super) fn fail(&mut self, reservation: ReservationId, class: ErrorClass) {
        let message = "planted".to_owned();
        self.complete(reservation, Status::Failed(JobError { class, message }));
    }

    pub(super) fn stopped(&mut self, reservation: ReservationId, output_tokens: u32) {
        let node = self.node_of(reservation);
        let stopped = Stopped { node, reservation, input_tokens: 10, output_tokens };
        self.step(Event::Stopped(Verified::local(stopped)));
    }

    pub(super) fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        self.step(Event::Tick);
    }

    pub(super) fn ask(&mut self, question: Question) -> Option<Answer> {
        let client = ClientId(self.clients.len() as u64 + 1);
        self.clients.insert(client, ClientView::default());
        self.step(Event::Ask(Ask { client, question }));
        self.clients[&client].answers.last().cloned()
    }

    pub(super) fn counts(&self) -> Counts {
        self.core.counts()
    }

    pub(super) fn state(&self, client: ClientId) -> JobState {
        self.rows[&self.clients[&client].job.expect("accepted")].state
    }

    pub(super) fn end(&self, client: ClientId) -> Option<&End> {
        self.clients[&client].finished.as_ref().map(|finished| &finished.end)
    }
}
