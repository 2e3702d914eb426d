//! Nodes and their connections: what they really run, what they say, when it arrives. They never see the core.
//!
//! A connection is reliable and in order while it lives; when it dies, what was in flight may be lost or come late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use switchbox::coordinator::effect::{Assignment, NodeMessage, When};
use switchbox::coordinator::event::{
    Completion, Declined, Environment, Event, Heartbeat, Held, ModelOffer, NodeGone, NodeHello, Stopped,
    Verified, Warmth,
};
use switchbox::ids::{Digest, Lsn, ModelName, NodeId, ReservationId, Session};
use switchbox::time::{Span, Time};

use super::attempt::Run;
use super::oracle::{Heard, Line};
use super::rng::Rng;
use super::scene::{Kind, NodeScene};
use super::world::{Happening, Power, TICK, TOKEN_BYTES, World};

/// What is on its way to a node.
#[derive(Debug, Clone)]
pub(crate) enum Mail {
    /// Work.
    Assign(Assignment),
    /// No more of that.
    Stop(ReservationId),
    /// Anything else.
    Message(NodeMessage),
}

/// What is on its way to the box. What names a session is void after it.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// It begins.
    Accepted(ReservationId),
    /// It doesn't want to.
    Declined(ReservationId),
    /// A result.
    Completed(Completion),
    /// It stopped.
    Stopped(Stopped),
    /// So many tokens are generated, in so many chunks.
    Tokens(ReservationId, u32, u32),
    /// A wrong signature.
    BadSignature,
}

/// The box's side of a node's connection.
#[derive(Debug, Default)]
struct Outbox {
    now: VecDeque<Mail>,
    by_lsn: VecDeque<(Lsn, Mail)>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct NodeState {
    pub(crate) id: NodeId,
    pub(crate) kind: Kind,
    pub(crate) rng: Rng,
    /// Its own side of the connection.
    pub(crate) session: Option<u64>,
    /// The connection that the box believes in.
    link: u64,
    outbox: Outbox,
    /// Assignments that left the box and have not arrived.
    wire: BTreeMap<ReservationId, Assignment>,
    pub(crate) runs: BTreeMap<ReservationId, Run>,
    pub(crate) unacked: BTreeMap<ReservationId, Completion>,
    /// What it said, for repeats.
    pub(crate) said: Vec<Completion>,
    pub(crate) offers: Vec<ModelOffer>,
    /// What it will offer when it connects again.
    pub(crate) next_offers: Option<Vec<ModelOffer>>,
    pub(crate) warm: BTreeSet<ModelName>,
    /// The newest configurations that it heard of, by environment: version and digest.
    configurations: BTreeMap<Environment, (u64, Digest)>,
    pub(crate) pace: Span,
    slots: u32,
    kv_tokens: u64,
    /// Nothing arrives before what was sent before it.
    to_node_at: Time,
    pub(crate) to_box_at: Time,
    /// It is not coming back.
    retired: bool,
}

impl NodeState {
    pub(crate) fn new(index: usize, scene: &NodeScene, seed: u64) -> Self {
        let warm = scene.models.iter().filter(|offer| offer.warmth == Warmth::Warm);
        Self {
            id: scene.id.clone(),
            kind: scene.kind,
            rng: Rng::new(seed, 100 + index as u64),
            session: None,
            link: 0,
            outbox: Outbox::default(),
            wire: BTreeMap::new(),
            runs: BTreeMap::new(),
            unacked: BTreeMap::new(),
            said: Vec::new(),
            offers: scene.models.clone(),
            next_offers: None,
            warm: warm.map(|offer| offer.model.clone()).collect(),
            configurations: BTreeMap::new(),
            pace: scene.pace,
            slots: scene.slots,
            kv_tokens: scene.kv_tokens,
            to_node_at: Time(0),
            to_box_at: Time(0),
            retired: false,
        }
    }

    fn is_local(&self) -> bool {
        self.kind == Kind::Local
    }

    /// What really takes its room: what runs, and what is on its way; not what ignored a stop for too long.
    fn really_takes<'n>(
        &'n self,
        stops: &'n BTreeMap<ReservationId, Time>,
        now: Time,
    ) -> impl Iterator<Item = &'n Assignment> {
        let waiting = self.outbox.now.iter().chain(self.outbox.by_lsn.iter().map(|(_, mail)| mail));
        let waiting = waiting.filter_map(|mail| if let Mail::Assign(a) = mail { Some(a) } else { None });
        let running = self.runs.values().map(|run| &run.assignment).chain(self.wire.values());
        let ignored = move |a: &&Assignment| stops.get(&a.reservation).is_none_or(|due| now < *due);
        waiting.chain(running).filter(ignored)
    }
}

/// Messages of a node that its connection's end doesn't always swallow.
const LATE_PERCENT: u64 = 50;

impl World<'_> {
    pub(crate) fn node_index(&self, node: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|state| state.id == *node)
    }

    /// The node connects and says what it holds.
    pub(crate) fn dial(&mut self, index: usize) {
        if self.power == Power::Off || self.nodes[index].retired || self.nodes[index].session.is_some() {
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        let now = self.now;
        let node = &mut self.nodes[index];
        if let Some(offers) = node.next_offers.take() {
            node.offers = offers;
        }
        (node.session, node.link) = (Some(session), session);
        (node.outbox, node.wire) = (Outbox::default(), BTreeMap::new());
        (node.to_node_at, node.to_box_at) = (now, now);
        let hello = self.hello(index, session);
        let known = |reservation: &&ReservationId| self.oracle.book.live.contains_key(reservation);
        let running = hello.running.iter().map(|held| held.reservation);
        self.ghosts.extend(running.filter(|reservation| !known(&reservation)));
        self.step(Event::NodeConnected(Box::new(hello)));
        self.resend_outputs(index);
        let beat = self.nodes[index].rng.ms(100, 400);
        self.schedule(beat, Happening::Beat(index, session));
    }

    fn hello(&mut self, index: usize, session: u64) -> NodeHello {
        let results: Vec<Completion> = self.nodes[index].unacked.values().cloned().collect();
        let results = results.into_iter().map(|result| Verified::local(self.arrives(result))).collect();
        let (node, scene) = (&self.nodes[index], &self.scene.nodes[index]);
        let models = node.offers.iter().map(|offer| {
            let warmth = if node.warm.contains(&offer.model) { Warmth::Warm } else { Warmth::Cold };
            ModelOffer { warmth, ..offer.clone() }
        });
        NodeHello {
            node: node.id.clone(),
            session: Session(session),
            trust: scene.trust,
            environments: scene.wanted.clone(),
            models: models.collect(),
            slots: node.slots,
            kv_tokens: node.kv_tokens,
            memory_bytes: scene.memory_bytes,
            gpu: scene.gpu.clone(),
            region: scene.region.clone(),
            configurations: node.configurations.iter().map(|(of, (_, digest))| (*of, *digest)).collect(),
            running: node.runs.iter().map(|(reservation, run)| held(*reservation, run)).collect(),
            results,
        }
    }

    /// A result with what the box saw of its output; a listed one's output was sent again first.
    fn arrives(&mut self, mut result: Completion) -> Completion {
        self.write(result.reservation, (result.seen.bytes / TOKEN_BYTES) as u32, result.seen.chunks);
        if let Some(seen) = self.outputs.get(&result.reservation).map(super::world::Output::seen) {
            result.seen = seen;
        }
        result
    }

    /// A node that reconnects sends what the box lacks of its outputs.
    fn resend_outputs(&mut self, index: usize) {
        let held: Vec<(ReservationId, u32, u32)> =
            self.nodes[index].runs.iter().map(|(id, run)| (*id, run.tokens, run.chunks)).collect();
        held.into_iter().for_each(|(reservation, tokens, chunks)| self.write(reservation, tokens, chunks));
    }

    /// The connection dies; the box notices after a while, or when the node is back.
    pub(crate) fn cut(&mut self, index: usize, away: Span, noticed: Span) {
        let Some(session) = self.nodes[index].session.take() else { return };
        self.schedule(away, Happening::Dial(index));
        self.schedule(noticed, Happening::Notice(index, session));
    }

    pub(crate) fn notice(&mut self, index: usize, session: u64) {
        let node = &mut self.nodes[index];
        let mut undelivered = Vec::new();
        if node.link == session {
            let left = std::mem::take(&mut node.outbox);
            let mails = left.now.into_iter().chain(left.by_lsn.into_iter().map(|(_, mail)| mail));
            undelivered = mails
                .filter_map(|mail| if let Mail::Assign(a) = mail { Some(a.reservation) } else { None })
                .collect();
        }
        let gone = NodeGone { node: node.id.clone(), session: Session(session), undelivered };
        self.step(Event::NodeGone(gone));
    }

    pub(crate) fn beat(&mut self, index: usize, session: u64) {
        let node = &mut self.nodes[index];
        if node.session != Some(session) || node.is_local() {
            return;
        }
        let warm = node.warm.iter().cloned().collect();
        let beat = Heartbeat { node: node.id.clone(), session: Session(session), warm };
        let next = if node.kind == Kind::Skewed && node.rng.chance(15) {
            node.rng.ms(700, 1_300)
        } else {
            node.rng.ms(250, 350)
        };
        self.schedule(next, Happening::Beat(index, session));
        self.step(Event::Heartbeat(beat));
    }

    /// The box died: its side of everything is gone, and connections with it.
    pub(crate) fn box_died(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        (node.session, node.outbox, node.wire) = (None, Outbox::default(), BTreeMap::new());
        if node.is_local() {
            node.runs.clear();
            node.unacked.clear();
        }
    }

    /// The node dies with everything that it ran.
    pub(crate) fn dies(&mut self, index: usize, away: Span) {
        let node = &mut self.nodes[index];
        node.runs.clear();
        node.unacked.clear();
        node.warm.clear();
        node.configurations.clear();
        self.cut(index, away, Span::from_ms(5));
        self.oracle.coverage.count("world", "nodes that died");
    }

    pub(crate) fn leaves_for_good(&mut self, index: usize) {
        self.nodes[index].retired = true;
        let Some(session) = self.nodes[index].session.take() else { return };
        self.notice(index, session);
    }

    /// A message into a node's outbox.
    pub(crate) fn put(&mut self, index: usize, mail: Mail, when: When) {
        let outbox = &mut self.nodes[index].outbox;
        match when {
            When::Durable(lsn) if lsn > self.store.durable => outbox.by_lsn.push_back((lsn, mail)),
            When::Durable(_) | When::Now => outbox.now.push_back(mail),
        }
        let wait = Span(self.rng.range(20, 3_000));
        self.schedule(wait, Happening::Pump(index));
    }

    /// What waited for its step may leave.
    pub(crate) fn release(&mut self, index: usize) {
        let durable = self.store.durable;
        let outbox = &mut self.nodes[index].outbox;
        let before = outbox.now.len();
        while outbox.by_lsn.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            outbox.now.extend(outbox.by_lsn.pop_front().map(|(_, mail)| mail));
        }
        if outbox.now.len() > before {
            self.schedule(Span(10), Happening::Pump(index));
        }
    }

    /// The sender takes what it may and sends it.
    pub(crate) fn pump(&mut self, index: usize) {
        for mail in std::mem::take(&mut self.nodes[index].outbox.now) {
            let node = &mut self.nodes[index];
            if let Mail::Assign(assignment) = &mail {
                node.wire.insert(assignment.reservation, assignment.clone());
            }
            let slowest = if node.kind == Kind::Skewed { 60 } else { 6 };
            let arrives = node.to_node_at.max(self.now + node.rng.ms(0, slowest));
            node.to_node_at = arrives;
            let session = node.link;
            self.scheduled_at(arrives, Happening::ToNode(index, session, mail));
        }
    }

    fn scheduled_at(&mut self, at: Time, happening: Happening) {
        self.schedule(at.since(self.now), happening);
    }

    pub(crate) fn assign(&mut self, node: &NodeId, assignment: Assignment, when: When) {
        let Some(index) = self.node_index(node) else {
            let reason = "the node has no room for what it would answer".to_owned();
            let (node, reservation) = (node.clone(), assignment.reservation);
            return self.local(Event::Declined(Declined { node, reservation, reason }));
        };
        self.check_capacity(index, &assignment);
        self.put(index, Mail::Assign(assignment), when);
    }

    fn check_capacity(&mut self, index: usize, new: &Assignment) {
        let need = |a: &Assignment| u64::from(a.input_tokens) + u64::from(a.output_tokens_max);
        let node = &self.nodes[index];
        let taken: Vec<&Assignment> = node.really_takes(&self.stops, self.now).collect();
        // Of what it has forgotten and a node still runs, the box knows that it runs, and no more.
        let known = || taken.iter().filter(|a| !self.ghosts.contains(&a.reservation));
        let of_model = known().filter(|a| a.model == new.model).count() as u32;
        let tokens: u64 = known().map(|a| need(a)).sum();
        let slots = node.offers.iter().find(|offer| offer.model == new.model).map_or(0, |offer| offer.slots);
        let fits = (taken.len() as u32) < node.slots
            && of_model < slots.max(1)
            && tokens + need(new) <= node.kv_tokens.max(need(new));
        let detail = format!(
            "{} got {} ({} tokens) beside {:?}: {of_model} of {slots} slots of {}, {} slots in all, {tokens} of {} tokens",
            node.id,
            new.reservation,
            need(new),
            taken.iter().map(|a| a.reservation.to_string()).collect::<Vec<_>>(),
            new.model,
            node.slots,
            node.kv_tokens
        );
        self.oracle.judge.check(Line::CapacityKept, fits, || detail);
    }

    pub(crate) fn stop(&mut self, node: &NodeId, reservation: ReservationId) {
        let Some(index) = self.node_index(node) else { return };
        // Being told again doesn't give it more time, unless the box had given it up, which takes it a tick.
        let due = self.now + self.scene.limits.stop_timeout;
        if self.stops.get(&reservation).is_none_or(|before| *before + TICK <= self.now) {
            self.stops.insert(reservation, due);
        }
        let outbox = &mut self.nodes[index].outbox;
        let is_it = |mail: &Mail| matches!(mail, Mail::Assign(a) if a.reservation == reservation);
        if let Some(at) = outbox.now.iter().position(is_it) {
            outbox.now.remove(at);
        } else if let Some(at) = outbox.by_lsn.iter().position(|(_, mail)| is_it(mail)) {
            outbox.by_lsn.remove(at);
        } else {
            return self.put(index, Mail::Stop(reservation), When::Now);
        }
        self.oracle.coverage.count("world", "assignments taken back");
        self.local(Event::Undeliverable(reservation));
    }

    /// Something reaches the node, if the connection that it was sent on still lives.
    pub(crate) fn node_hears(&mut self, index: usize, session: u64, mail: Mail) {
        let node = &mut self.nodes[index];
        if node.session != Some(session) {
            if let Mail::Assign(assignment) = &mail {
                node.wire.remove(&assignment.reservation);
            }
            return;
        }
        match mail {
            Mail::Assign(assignment) => {
                node.wire.remove(&assignment.reservation);
                self.begin(index, assignment);
            }
            Mail::Stop(reservation) => self.told_to_stop(index, reservation),
            Mail::Message(message) => self.told(index, &message),
        }
    }

    fn told(&mut self, index: usize, message: &NodeMessage) {
        self.oracle.heard(&Heard::Node(message));
        match message {
            NodeMessage::ResultAccepted(reservation) | NodeMessage::ResultUnknown(reservation) => {
                self.nodes[index].unacked.remove(reservation);
            }
            NodeMessage::Banned | NodeMessage::Drained => {
                let away = self.nodes[index].rng.ms(300, 2_000);
                self.cut(index, away, Span::from_ms(2));
            }
            NodeMessage::Configuration { environment, version, digest } => {
                let known = self.nodes[index].configurations.entry(*environment).or_default();
                *known = (*known).max((*version, *digest));
            }
            NodeMessage::Standing(..) | NodeMessage::Earnings(..) => {}
        }
    }

    /// A node says something: it arrives after a while, in order; if it is away, perhaps when it is back.
    pub(crate) fn say(&mut self, index: usize, says: Says) {
        let node = &mut self.nodes[index];
        let slowest = match node.kind {
            Kind::Local => 0,
            Kind::Skewed => 250,
            _ => 5,
        };
        let arrives = node.to_box_at.max(self.now + node.rng.ms(0, slowest));
        node.to_box_at = arrives;
        if node.session.is_none() {
            let late = node.rng.chance(LATE_PERCENT) && !matches!(says, Says::Tokens(..));
            let wait = node.rng.ms(500, 2_500);
            if late {
                self.oracle.coverage.count("world", "late messages of earlier connections");
                self.schedule(wait, Happening::ToBox(index, says));
            }
            return;
        }
        self.scheduled_at(arrives, Happening::ToBox(index, says));
    }

    pub(crate) fn box_hears(&mut self, index: usize, says: Says) {
        if self.power == Power::Off {
            // It reached nobody; a node's agent sends it again once it is back.
            let node = &mut self.nodes[index];
            if node.rng.chance(LATE_PERCENT) && !node.is_local() {
                self.schedule(Span::from_ms(900), Happening::ToBox(index, says));
            }
            return;
        }
        let node = self.nodes[index].id.clone();
        match says {
            Says::Accepted(reservation) => self.step(Event::Accepted(node, reservation)),
            Says::Declined(reservation) => {
                let reason = "busy".to_owned();
                self.step(Event::Declined(Declined { node, reservation, reason }));
            }
            Says::Completed(result) => {
                let result = self.arrives(result);
                self.step(Event::Completed(Verified::local(result)));
                if self.nodes[index].is_local() {
                    self.nodes[index].unacked.clear();
                }
            }
            Says::Stopped(stopped) => self.step(Event::Stopped(Verified::local(stopped))),
            Says::Tokens(reservation, tokens, chunks) => self.write(reservation, tokens, chunks),
            Says::BadSignature => self.step(Event::BadSignature(node)),
        }
    }

    /// Some reservation that is alive on another node.
    pub(crate) fn foreign(&self, index: usize) -> Option<ReservationId> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        others.flat_map(|(_, node)| node.runs.keys().copied()).next()
    }
}

/// An attempt as its node lists it.
fn held(reservation: ReservationId, run: &Run) -> Held {
    let Assignment { model, input_tokens, output_tokens_max, .. } = &run.assignment;
    let kv_tokens = u64::from(*input_tokens) + u64::from(*output_tokens_max);
    Held { reservation, model: model.clone(), kv_tokens }
}
