//! The world's remote nodes, its operator, and its restarts.

use std::collections::BTreeMap;

use super::super::command::{Amount, Command, NodeCommand, NodeSettings, Operation};
use super::super::effect::{Answer, NodeMessage, Row};
use super::super::event::*;
use super::super::job::JobRow;
use super::super::ledger::{Account, Owner, Subject};
use super::super::limits::Limits;
use super::super::standing::{NodeRow, Standing, Trust};
use super::super::trace::{TraceEntry, TraceEvent};
use super::super::{Boot, Coordinator};
use super::world::{MODEL, World};
use crate::credits::Credits;
use crate::ids::{ClientId, Digest, JobId, Lsn, Namespace, NodeId, OperationId, ReservationId, Session};
use crate::time::{Span, Time};

/// Limits under which every node may have every namespace's jobs.
pub(super) fn open() -> Limits {
    Limits { trust: Trust::Open, ..Limits::default() }
}

/// A remote node's offer of a model.
pub(super) fn offer(model: &str, slots: u32) -> ModelOffer {
    let runtime = Some("r1".parse().expect("a name"));
    ModelOffer { digest: Some(Digest([1; 32])), runtime, ..ModelOffer::warm(model.into(), slots) }
}

/// A reservation of the usual model as a node lists it.
pub(super) fn held(reservation: ReservationId) -> Held {
    Held { reservation, model: super::world::MODEL.into(), kv_tokens: 110 }
}

/// What a remote node brings: one slot for `MODEL`, everywhere, on its n-th connection.
pub(super) fn remote(name: &str, session: u64) -> NodeHello {
    NodeHello {
        node: NodeId::named(name),
        session: Session(session),
        trust: Trust::Open,
        slots: 1,
        memory_bytes: 1 << 40,
        ..NodeHello::local(vec![offer(MODEL, 1)])
    }
}

/// The default finish.
pub(super) const STOP: Status = Status::Succeeded(FinishReason::Stop);

impl World {
    /// A world of such nodes, all tested, and no box's own.
    pub(super) fn of(names: &[&str]) -> Self {
        let mut w = Self::without_box(open());
        for name in names {
            w.join(remote(name, 1));
        }
        w
    }

    /// A node joins and passes its test jobs.
    pub(super) fn join(&mut self, hello: NodeHello) {
        let (node, models) = (hello.node.clone(), hello.models.len());
        self.connect(hello);
        for _ in 0..models {
            self.pass(Span::from_ms(10));
            let test = self.newest_of(&node).expect("a test job is due");
            self.serve(test, 1);
        }
    }

    /// A node connects.
    pub(super) fn connect(&mut self, hello: NodeHello) {
        self.step(Event::NodeConnected(Box::new(hello)));
    }

    /// A node's connection breaks.
    pub(super) fn gone(&mut self, name: &str, session: u64) {
        let gone = NodeGone { node: NodeId::named(name), session: Session(session), undelivered: Vec::new() };
        self.step(Event::NodeGone(gone));
    }

    pub(super) fn beat(&mut self, name: &str, session: u64) {
        let warm = vec![MODEL.into()];
        self.step(Event::Heartbeat(Heartbeat { node: NodeId::named(name), session: Session(session), warm }));
    }

    pub(super) fn wish(&mut self, name: &str, session: u64, wish: Wish) {
        self.step(Event::NodeWish(NodeWish { node: NodeId::named(name), session: Session(session), wish }));
    }

    /// The newest assignment of a node that it hasn't seen.
    pub(super) fn newest_of(&self, node: &NodeId) -> Option<ReservationId> {
        self.unseen.iter().rev().find(|reservation| self.node_of(**reservation) == *node).copied()
    }

    /// The next assignment of a node that it hasn't seen, if there is one; it sees it.
    pub(super) fn next_of(&mut self, name: &str) -> Option<ReservationId> {
        let node = NodeId::named(name);
        let at = self.unseen.iter().position(|reservation| self.node_of(*reservation) == node)?;
        Some(self.unseen.remove(at))
    }

    /// Takes an assignment, and says so.
    pub(super) fn begin(&mut self, reservation: ReservationId) {
        self.unseen.retain(|unseen| *unseen != reservation);
        self.step(Event::Accepted(self.node_of(reservation), reservation));
    }

    /// Takes the next assignment of a node, and says so.
    pub(super) fn begin_on(&mut self, name: &str) -> ReservationId {
        let reservation = self.next_of(name).unwrap_or_else(|| panic!("{name} has no assignment"));
        self.begin(reservation);
        reservation
    }

    /// An assignment from acceptance to its answer of so many tokens.
    pub(super) fn serve(&mut self, reservation: ReservationId, tokens: u32) {
        self.begin(reservation);
        self.write(reservation, tokens);
        self.succeed(reservation);
    }

    /// A changed result.
    pub(super) fn complete_with(&mut self, reservation: ReservationId, change: impl FnOnce(&mut Completion)) {
        let mut result = self.result(reservation, STOP);
        change(&mut result);
        self.step(Event::Completed(Verified::local(result)));
    }

    pub(super) fn decline(&mut self, reservation: ReservationId) {
        let node = self.node_of(reservation);
        self.step(Event::Declined(Declined { node, reservation, reason: "busy".to_owned() }));
    }

    /// The operator does something.
    pub(super) fn operate(&mut self, command: Command) -> Answer {
        self.operate_as(None, command)
    }

    /// Somebody does something; `None` is the operator.
    pub(super) fn operate_as(&mut self, by: Option<&str>, command: Command) -> Answer {
        let client = self.asker();
        let by = by.map(Namespace::named);
        self.step(Event::Operate(Box::new(Operation { client, by, command })));
        self.clients[&client].answers.last().cloned().expect("every command is answered")
    }

    /// Somebody who waits for an answer.
    pub(super) fn asker(&mut self) -> ClientId {
        let client = ClientId(self.clients.len() as u64 + 1);
        self.clients.insert(client, Default::default());
        client
    }

    pub(super) fn command(&mut self, name: &str, command: NodeCommand) {
        let answer = self.operate(Command::Node(NodeId::named(name), command));
        assert!(matches!(answer, Answer::Done), "{answer:?}");
    }

    /// The operator settles who a node is.
    pub(super) fn admit(&mut self, name: &str, change: impl FnOnce(&mut NodeSettings)) {
        let mut settings = NodeSettings {
            node: NodeId::named(name),
            trust: Trust::Open,
            environments: Environment::ALL.to_vec(),
            owner: None,
        };
        change(&mut settings);
        let answer = self.operate(Command::AdmitNode(settings));
        assert!(matches!(answer, Answer::Done), "{answer:?}");
    }

    pub(super) fn amount(&self, operation: u128, credits: i64) -> Amount {
        Amount {
            operation: OperationId(operation),
            environment: Environment::Mainnet,
            credits: Credits(credits),
        }
    }

    /// What an account has.
    pub(super) fn balance(&self, owner: Owner) -> i64 {
        self.core.ledger.balance(&Account { environment: Environment::Mainnet, owner }).0
    }

    pub(super) fn earned(&self, name: &str) -> i64 {
        self.balance(Owner::Node(NodeId::named(name)))
    }

    /// How a node is seen: where it stands, and what is kept of it.
    pub(super) fn seen(&mut self, name: &str) -> (Standing, NodeRow) {
        let Some(Answer::Nodes(nodes)) = self.ask(Question::Nodes) else { panic!("an answer") };
        let node = NodeId::named(name);
        let view = nodes.into_iter().find(|view| view.row.node == node).expect("known");
        (view.standing, view.row)
    }

    pub(super) fn stands(&mut self, name: &str) -> Standing {
        self.seen(name).0
    }

    /// Faults that are on a node's record, of all kinds.
    pub(super) fn faults(&mut self, name: &str) -> Vec<super::super::standing::Fault> {
        self.seen(name).1.conduct.faults.into_keys().collect()
    }

    pub(super) fn job(&self, client: ClientId) -> JobId {
        self.clients[&client].job.expect("accepted")
    }

    pub(super) fn row(&self, client: ClientId) -> &JobRow {
        &self.rows[&self.job(client)]
    }

    /// Who has, or had, a job last.
    pub(super) fn runs_on(&self, client: ClientId) -> Option<String> {
        self.row(client).node.as_ref().map(ToString::to_string)
    }

    /// What a job's trace tells.
    pub(super) fn told_of(&self, client: ClientId) -> impl Iterator<Item = &TraceEvent> {
        self.row(client).trace.iter().map(|TraceEntry { what, .. }| what)
    }

    /// What a node was told, oldest first.
    pub(super) fn heard_by(&self, name: &str) -> Vec<NodeMessage> {
        let node = NodeId::named(name);
        self.told.iter().filter(|(to, _)| *to == node).map(|(_, message)| message.clone()).collect()
    }

    /// Lets time pass while these nodes' connections send heartbeats.
    pub(super) fn pass_beating(&mut self, span: Span, nodes: &[(&str, u64)]) {
        let until = self.now + span;
        while self.now < until {
            let next = (self.now + Span::from_secs(5)).min(until);
            self.now = next;
            for (name, session) in nodes {
                self.beat(name, *session);
            }
            self.step(Event::Tick);
        }
    }

    /// The box crashes with everything up to now on disk, and starts again.
    pub(super) fn restarted(&self) -> World {
        self.restarted_at(self.core.lsn())
    }

    /// The box crashes with everything up to that step on disk, and starts again.
    pub(super) fn restarted_at(&self, lsn: Lsn) -> World {
        let kept = self.kept.iter().zip(&self.kept_at).filter(|(_, at)| **at <= lsn);
        let rows = newest(kept.map(|(row, _)| row));
        let epoch = self.epoch + 1;
        let boot = Boot { epoch, secret: [4; 32], lsn, at: self.now };
        let mut effects = Vec::new();
        let core =
            Coordinator::recover(boot, self.limits.clone(), Durability::Strict, rows.clone(), &mut effects);
        let mut world = World::around(core, self.limits.clone(), epoch, self.now);
        world.assigned = self.assigned.clone();
        world.kept_at = vec![lsn; rows.len()];
        for row in &rows {
            if let Row::Job(job) = row {
                world.rows.insert(job.id, (**job).clone());
            }
        }
        world.kept = rows;
        world.publish_all(effects);
        world.check();
        world
    }
}

/// Of rows in order, the newest of each kind that isn't forgotten.
pub(super) fn newest<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Row> {
    let mut newest: BTreeMap<String, Row> = BTreeMap::new();
    for (at, row) in rows.enumerate() {
        let (name, is_kept) = name_of(row, at);
        if is_kept {
            newest.insert(name, row.clone());
        } else {
            newest.remove(&name);
        }
        if let Row::JobForgotten(job) = row {
            newest.remove(&posting_of(Subject::Job(*job)));
        }
    }
    newest.into_values().collect()
}

/// What a row is of, and whether it keeps that.
fn name_of(row: &Row, at: usize) -> (String, bool) {
    match row {
        Row::Job(job) => (format!("job {}", job.id), true),
        Row::JobForgotten(job) => (format!("job {job}"), false),
        Row::AnswerForgotten(job) => (format!("answer {job}"), false),
        Row::Posting(posting) => (posting_of(posting.id.subject), true),
        Row::OperationForgotten(operation, _) => (posting_of(Subject::Operation(*operation)), false),
        Row::Balance(balance) => (format!("balance {:?}", balance.account), true),
        Row::Node(node) => (format!("node {}", node.node), true),
        Row::Namespace(settings) => (format!("namespace {}", settings.namespace), true),
        Row::Key(key) => (format!("key {:?}", key.key), true),
        Row::KeyForgotten(key) => (format!("key {key:?}"), false),
        Row::DeadLetter(job, _) => (format!("letter {job}"), true),
        Row::DeadLetterForgotten(job) => (format!("letter {job}"), false),
        Row::Paused(scope) => (format!("pause {scope:?}"), true),
        Row::Resumed(scope) => (format!("pause {scope:?}"), false),
        Row::Price(rule) => {
            (format!("price {:?} {:?} {:?} {:?}", rule.environment, rule.model, rule.tier, rule.from), true)
        }
        Row::Template(template) => (format!("template {} {}", template.model, template.name), true),
        Row::TemplateForgotten(model, name) => (format!("template {model} {name}"), false),
        Row::Subcloud(subcloud) => (format!("subcloud {:?} {}", subcloud.environment, subcloud.name), true),
        Row::SubcloudForgotten(environment, name) => (format!("subcloud {environment:?} {name}"), false),
        Row::Invite(invite) => (format!("invite {}", invite.token), true),
        Row::InviteForgotten(token) => (format!("invite {token}"), false),
        Row::Configuration(snapshot) => (format!("configuration {:?}", snapshot.environment), true),
        Row::Feedback(_) => (format!("feedback {at}"), true),
        Row::Proof(job, _) => (format!("proof {job}"), true),
    }
}

fn posting_of(subject: Subject) -> String {
    format!("posting {subject:?}")
}

/// A time so far after the world's beginning.
pub(super) fn after(span: Span) -> Time {
    Time(1_000_000) + span
}
