//! The world around one core: it steps events, does what effects want as the driver would, and lets time pass.
//!
//! It imitates the driver to the letter (effects in order, local events at once, messages by LSN) and decides nothing
//! that is the core's to decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use switchbox::coordinator::effect::{Effect, NodeMessage, Reply, Row, When};
use switchbox::coordinator::event::{Event, Progress, Question, Revoked, Seen, Tenant};
use switchbox::coordinator::{Boot, Coordinator};
use switchbox::ids::{ClientId, JobId, Lsn, ReservationId};
use switchbox::time::{Span, Time};

use super::clients::{ClientMail, ClientState};
use super::generate::{ACTIVE, START, Timed};
use super::hash::EffectHash;
use super::nodes::{Mail, NodeState, Says};
use super::operator::since_start;
use super::oracle::{Line, Oracle, Step, Violation};
use super::rng::{Rng, bytes32};
use super::run::panicked;
use super::scene::Scene;
use super::store::Store;

/// Steps between two full recounts, and between two comparisons of the gauges.
const AUDIT_STEPS: u64 = 64;
const GAUGE_STEPS: u64 = 8;
/// The core's clock.
pub(crate) const TICK: Span = Span::from_ms(10);
/// By then everything has wound down, or never will.
const PATIENCE: Span = Span::from_secs(40);

/// What can happen by itself.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The next action of the list.
    Act(usize),
    /// Ten milliseconds passed.
    Tick,
    /// A group is on the disk.
    Synced,
    /// What was lazy is written now.
    LazySync,
    /// The box is started again.
    BoxUp,
    /// The sender of a node's connection looks into its outbox.
    Pump(usize),
    /// A message reaches a node, if its connection still lives.
    ToNode(usize, u64, Mail),
    /// A message of a node reaches the box.
    ToBox(usize, Says),
    /// A node goes on with an attempt.
    Work(usize, ReservationId),
    /// A node dials.
    Dial(usize),
    /// The box notices that a node's connection is gone.
    Notice(usize, u64),
    /// A node says that it is here.
    Beat(usize, u64),
    /// A slow client looks.
    Read(ClientId),
    /// A client leaves, if it still is there.
    Leave(ClientId),
    /// No more actions: everything comes to an end.
    WindDown,
    /// Everybody leaves.
    AllLeave,
    /// What is still left is ended.
    EndAll,
    /// A server of that epoch that is to stop asks how far it is.
    Stopping { epoch: u32, question: Question },
    /// Its process ends.
    Exit { epoch: u32, down: Span },
    /// The disk of a box of that epoch has caught up.
    StoreCatchesUp(u32),
}

/// An output, as the driver's table has it.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) attempt: u32,
    pub(crate) tokens: u32,
    pub(crate) chunks: u32,
    pub(crate) first_at: Option<Time>,
    pub(crate) last_at: Option<Time>,
    pub(crate) closed: bool,
    pub(crate) delivered: u32,
    pub(crate) readers: Vec<ClientId>,
    pub(crate) counted: bool,
}

/// Bytes of one token of output, in this world.
pub(crate) const TOKEN_BYTES: u64 = 4;

impl Output {
    /// What the box saw of it.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            chunks: self.chunks,
            bytes: u64::from(self.tokens) * TOKEN_BYTES,
            tokens: self.counted.then_some(self.tokens),
            first_at: self.first_at,
            last_at: self.last_at,
        }
    }
}

/// Whether the box runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    Off,
}

/// One run of a seed.
pub(crate) struct World<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) actions: &'a [Timed],
    pub(crate) core: Coordinator,
    pub(crate) power: Power,
    pub(crate) now: Time,
    pub(crate) epoch: u32,
    pub(crate) rng: Rng,
    agenda: BTreeMap<(Time, u64), Happening>,
    scheduled: u64,
    pub(crate) store: Store,
    pub(crate) stalled_until: Time,
    pub(crate) clients: BTreeMap<ClientId, ClientState>,
    pub(crate) clients_made: u64,
    pub(crate) mail: BTreeMap<Lsn, Vec<(ClientId, ClientMail)>>,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) sessions: u64,
    pub(crate) outputs: BTreeMap<ReservationId, Output>,
    /// Jobs in the order in which they were accepted.
    pub(crate) jobs: Vec<(JobId, Tenant)>,
    /// Attempts that nodes listed and that the box had forgotten.
    pub(crate) ghosts: BTreeSet<ReservationId>,
    /// Until when a told stop may go unheard.
    pub(crate) stops: BTreeMap<ReservationId, Time>,
    pub(super) local: VecDeque<Event>,
    pub(crate) oracle: Oracle,
    pub(crate) hash: EffectHash,
    pub(crate) steps: u64,
    pub(crate) winding: bool,
    audit_due: bool,
    /// The last steps, in words, where somebody wants to read them.
    pub(crate) diary: Option<VecDeque<String>>,
}

/// Characters of an effect that a diary holds.
const DIARY_CHARS: usize = 2_500;
/// Steps that a diary holds.
const DIARY_STEPS: usize = 60;

/// What a run showed.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    pub(crate) hash: EffectHash,
    pub(crate) steps: u64,
    pub(crate) coverage: super::coverage::Coverage,
    /// The last steps, if they were to be told.
    pub(crate) diary: Vec<String>,
}

/// What a start of the box brings.
pub(super) fn boot(scene: &Scene, epoch: u32, lsn: Lsn, at: Time) -> Boot {
    Boot { epoch, secret: bytes32(9, scene.seed), lsn, at }
}

/// The epoch of the first start.
const FIRST_EPOCH: u32 = 1_000_000_000;

impl<'a> World<'a> {
    /// A world in which nothing has happened yet.
    pub(crate) fn new(scene: &'a Scene, actions: &'a [Timed]) -> Self {
        let mut core =
            Coordinator::new(boot(scene, FIRST_EPOCH, Lsn(0), START), scene.limits.clone(), scene.durability);
        core.compare_placements();
        Self {
            scene,
            actions,
            core,
            power: Power::On,
            now: START,
            epoch: FIRST_EPOCH,
            rng: Rng::new(scene.seed, 3),
            agenda: BTreeMap::new(),
            scheduled: 0,
            store: Store::default(),
            stalled_until: START,
            clients: BTreeMap::new(),
            clients_made: 0,
            mail: BTreeMap::new(),
            nodes: scene
                .nodes
                .iter()
                .enumerate()
                .map(|(n, node)| NodeState::new(n, node, scene.seed))
                .collect(),
            sessions: 0,
            outputs: BTreeMap::new(),
            jobs: Vec::new(),
            ghosts: BTreeSet::new(),
            stops: BTreeMap::new(),
            local: VecDeque::new(),
            oracle: Oracle::new(scene.limits.clone(), scene.durability, FIRST_EPOCH),
            hash: EffectHash::new(),
            steps: 0,
            winding: false,
            audit_due: false,
            diary: None,
        }
    }

    /// Keeps the last steps in words.
    pub(crate) fn with_diary(mut self) -> Self {
        self.diary = Some(VecDeque::new());
        self
    }

    /// Lets everything happen.
    pub(crate) fn run(mut self) -> Outcome {
        self.schedule(Span(0), Happening::Tick);
        self.settle_scene();
        for index in 0..self.nodes.len() {
            let delay = self.rng.ms(0, 250);
            self.schedule(delay, Happening::Dial(index));
        }
        self.schedule_action(0);
        self.schedule(Span(ACTIVE.0 + 1_000_000), Happening::WindDown);
        let deadline = START + ACTIVE + PATIENCE;
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.now = self.now.max(at);
            self.happen(happening);
            if !self.oracle.judge.violations.is_empty() || self.now > deadline || self.has_wound_down() {
                break;
            }
        }
        if self.oracle.judge.violations.is_empty() {
            self.refuses_work();
            self.check_end();
        }
        self.outcome()
    }

    fn outcome(mut self) -> Outcome {
        for (line, count) in self.oracle.judge.counts() {
            self.oracle.coverage.add("oracle", line, count);
        }
        Outcome {
            violations: self.oracle.judge.violations,
            hash: self.hash,
            steps: self.steps,
            coverage: self.oracle.coverage,
            diary: self.diary.into_iter().flatten().collect(),
        }
    }

    fn write_down(&mut self, event: String, effects: &[Effect]) {
        let Some(diary) = &mut self.diary else { return };
        if event == "Tick" && effects.is_empty() {
            return;
        }
        if diary.len() >= DIARY_STEPS {
            diary.pop_front();
        }
        let short = |effect: &Effect| format!("{effect:?}").chars().take(DIARY_CHARS).collect::<String>();
        let effects: Vec<String> = effects.iter().map(short).collect();
        diary.push_back(format!(
            "{} {event}\n        -> {}",
            since_start(self.now),
            effects.join("\n        -> ")
        ));
    }

    fn has_wound_down(&self) -> bool {
        let idle = || {
            let counts = self.core.counts();
            counts.live() == 0 && counts.reservations == 0 && counts.clients == 0
        };
        self.winding && self.power == Power::On && self.clients.values().all(|c| c.left) && idle()
    }

    fn check_end(&mut self) {
        self.audit();
        let counts = self.core.counts();
        let gauges = [
            ("jobs_queued", counts.jobs_queued),
            ("jobs_reserved", counts.jobs_reserved),
            ("jobs_running", counts.jobs_running),
            ("jobs_cancelling", counts.jobs_cancelling),
            ("reservations", counts.reservations),
            ("slots_taken", counts.slots_taken),
            ("holds", counts.holds),
            ("held_credits", counts.held_credits),
            ("output_bytes_held", counts.output_bytes_held),
            ("body_bytes_held", counts.body_bytes_held),
            ("clients", counts.clients),
        ];
        let live = self.oracle.book.jobs.iter().filter(|(_, job)| job.state.is_live());
        let live: Vec<String> = live
            .map(|(id, job)| format!("{id} {:?} {:?} {}", job.origin, job.state, since_start(job.expires_at)))
            .collect();
        for (name, value) in gauges {
            let detail = || format!("{name} is {value} at {}; live: {live:?}", since_start(self.now));
            self.oracle.judge.check(Line::IdleZero, value == 0, detail);
        }
        self.oracle.check_end();
        self.check_clients();
    }

    /// Something will happen after a while.
    pub(crate) fn schedule(&mut self, after: Span, happening: Happening) {
        self.scheduled += 1;
        self.agenda.insert((self.now + after, self.scheduled), happening);
    }

    fn schedule_action(&mut self, index: usize) {
        if let Some((at, _)) = self.actions.get(index) {
            self.schedule(at.since(self.now), Happening::Act(index));
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Act(index) => {
                self.schedule_action(index + 1);
                self.act(index);
            }
            Happening::Tick => self.tick(),
            Happening::Synced => self.synced(),
            Happening::LazySync => self.sync(),
            Happening::BoxUp => self.box_up(),
            Happening::Pump(node) => self.pump(node),
            Happening::ToNode(node, session, mail) => self.node_hears(node, session, mail),
            Happening::ToBox(node, says) => self.box_hears(node, says),
            Happening::Work(node, reservation) => self.work(node, reservation),
            Happening::Dial(node) => self.dial(node),
            Happening::Notice(node, session) => self.notice(node, session),
            Happening::Beat(node, session) => self.beat(node, session),
            Happening::Read(client) => self.read(client),
            Happening::Leave(client) => self.leave(client),
            Happening::WindDown => self.wind_down(),
            Happening::AllLeave => self.all_leave(),
            Happening::EndAll => self.end_all(),
            Happening::Stopping { epoch, question } => self.stopping(epoch, question),
            Happening::Exit { epoch, down } => self.exit(epoch, down),
            Happening::StoreCatchesUp(epoch) => self.store_catches_up(epoch),
        }
    }

    fn tick(&mut self) {
        if self.power == Power::On {
            self.step(Event::Tick);
        }
        self.schedule(TICK, Happening::Tick);
    }

    /// Steps an event and all that it causes.
    pub(crate) fn step(&mut self, event: Event) {
        if self.power == Power::Off {
            return;
        }
        self.local.push_back(event);
        while let Some(event) = self.local.pop_front() {
            let note = self.oracle.before(self.now, &event);
            let lsn_before = self.core.lsn();
            let mut effects = Vec::new();
            let told = if self.diary.is_some() { format!("{event:?}") } else { String::new() };
            let stepped = catch_unwind(AssertUnwindSafe(|| self.core.step(self.now, event, &mut effects)));
            self.write_down(told, &effects);
            if let Err(panic) = stepped {
                self.oracle.judge.violations.extend(panicked(panic.as_ref()).violations);
                self.power = Power::Off;
                return;
            }
            let lsn = self.core.lsn();
            self.oracle.after(&Step { now: self.now, note: &note, lsn_before, lsn, effects: &effects });
            self.compare();
            self.publish(lsn, effects);
            self.check_step();
        }
        // Between an event and what publishing it caused, a deadline may be open: the recount waits for both.
        if self.audit_due && self.power == Power::On {
            self.audit_due = false;
            self.audit();
        }
    }

    fn check_step(&mut self) {
        self.steps += 1;
        for violation in self.core.quick_check() {
            self.oracle.judge.violated("the core's quick check", violation);
        }
        // Whoever reads the diary wants to know the very step.
        if self.steps.is_multiple_of(AUDIT_STEPS) || self.diary.is_some() {
            self.audit_due = true;
        }
        if self.steps.is_multiple_of(GAUGE_STEPS) {
            let counts = self.core.counts();
            self.oracle.check_gauges(&counts);
        }
    }

    pub(super) fn audit(&mut self) {
        let audit = self.core.audit();
        for (name, checked) in audit.checks {
            self.oracle.coverage.add("invariants", name, checked);
        }
        for violation in audit.violations {
            self.oracle.judge.violated("an invariant of the core", violation);
        }
    }

    /// Does what a step wants done, in its order.
    pub(super) fn publish(&mut self, lsn: Lsn, effects: Vec<Effect>) {
        let mut rows: Vec<Row> = Vec::new();
        let mut urgent = false;
        for effect in effects {
            self.hash.feed(&effect);
            match effect {
                Effect::Row(row) => rows.push(row),
                Effect::Urgent => urgent = true,
                Effect::ToClient { client, reply, when } => self.mail_client(client, reply, when),
                Effect::Read { client, what, lsn } => self.mail_by_lsn(client, ClientMail::Lookup(what), lsn),
                Effect::Assign { node, assignment, when } => self.assign(&node, assignment, when),
                Effect::Stop { node, reservation } => self.stop(&node, reservation),
                Effect::ToNode { node, message, when } => self.mail_node(&node, message, when),
                Effect::OpenOutput(open) => self.open_output(open),
                Effect::AttachOutput(attach) => self.attach_output(attach),
                Effect::CloseOutput(reservation) => self.close_output(reservation),
                Effect::ForgetOutput(_) | Effect::Notice(_) | Effect::Continue { .. } => {}
                Effect::CheckProgress(reservation) => self.check_progress(reservation),
            }
        }
        let writes = !rows.is_empty();
        self.store.append(lsn, rows);
        if urgent {
            self.sync();
        } else if writes {
            self.schedule(Span::from_ms(5), Happening::LazySync);
        }
    }

    fn mail_client(&mut self, client: ClientId, reply: Reply, when: When) {
        if let Reply::Accepted { job, .. } = &reply
            && !self.jobs.iter().rev().take(64).any(|(known, _)| known == job)
        {
            let spec = &self.oracle.book.jobs[job].spec;
            let owner = Tenant { namespace: spec.namespace.clone(), environment: spec.environment };
            self.jobs.push((*job, owner));
        }
        match when {
            When::Now => self.client_hears(client, ClientMail::Reply(reply), When::Now),
            When::Durable(lsn) => self.mail_by_lsn(client, ClientMail::Reply(reply), lsn),
        }
    }

    fn mail_by_lsn(&mut self, client: ClientId, mail: ClientMail, lsn: Lsn) {
        if lsn <= self.store.durable {
            return self.client_hears(client, mail, When::Durable(lsn));
        }
        self.mail.entry(lsn).or_default().push((client, mail));
    }

    /// An event that publishing causes: stepped before any other.
    pub(crate) fn local(&mut self, event: Event) {
        self.local.push_back(event);
    }

    fn close_output(&mut self, reservation: ReservationId) {
        let Some(output) = self.outputs.get_mut(&reservation) else {
            return self.local(Event::Revoked(Revoked {
                reservation,
                delivered: 0,
                written: 0,
                written_tokens: 0,
            }));
        };
        output.closed = true;
        let bytes = u64::from(output.tokens) * TOKEN_BYTES;
        let written_tokens = if output.counted { output.tokens } else { bytes as u32 };
        let (delivered, written) = (output.delivered, output.chunks);
        self.local(Event::Revoked(Revoked { reservation, delivered, written, written_tokens }));
    }

    fn check_progress(&mut self, reservation: ReservationId) {
        let Some(output) = self.outputs.get(&reservation) else { return };
        let progress = Progress { reservation, written: output.chunks, last_at: output.last_at };
        self.local(Event::Progress(progress));
    }

    /// Says a message to a node's outbox.
    fn mail_node(&mut self, node: &switchbox::ids::NodeId, message: NodeMessage, when: When) {
        if let Some(index) = self.node_index(node) {
            self.put(index, Mail::Message(message), when);
        }
    }
}
