//! A core with everybody around it: nodes that do what they are told, clients that take their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use switchbox::coordinator::command::{Command, NodeSettings, Operation};
use switchbox::coordinator::effect::{Effect, Reply};
use switchbox::coordinator::event::Durability;
use switchbox::coordinator::event::{
    ClientGone, Completion, Departure, Endpoint, Environment, ErrorClass, Event, FinishReason, Heartbeat,
    JobError, JobSpec, Mode, ModelOffer, NodeHello, Revoked, Seen, Status, Submission, Tier, Verified,
};
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::standing::Trust;
use switchbox::coordinator::{Boot, Coordinator};
use switchbox::ids::{ClientId, Lsn, ModelName, Namespace, NodeId, ReservationId, Session};
use switchbox::time::{Span, Time};

use crate::stats::thread_time;

/// Bytes of a job's body.
pub(crate) const BODY_BYTES: usize = 256;
/// Models that a node serves, where there are so many and no lane would be left without nodes.
const MODELS_PER_NODE: u32 = 4;
/// Jobs that a node runs at once.
const SLOTS: u32 = 2;
const SECOND: Span = Span::from_secs(1);
const LONG: Span = Span::from_secs(30 * 24 * 3_600);

/// How large a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes that are here and ready.
    pub nodes: u32,
    /// Jobs that wait.
    pub jobs: u32,
    /// Models, and so lanes.
    pub lanes: u32,
    /// Namespaces that the jobs are of.
    pub namespaces: u32,
}

/// What is special about a world.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Of which tier the jobs are.
    pub tier: Tier,
    /// How long they may wait.
    pub ttl: Span,
    /// When batch jobs compete as standard ones.
    pub batch_age: Span,
}

impl Default for Shape {
    fn default() -> Self {
        Self { tier: Tier::Standard, ttl: LONG, batch_age: LONG }
    }
}

/// What a step took.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    /// By the clock.
    pub took: Duration,
    /// Of the processor; zero unless it was asked for.
    pub cpu: Duration,
    /// Jobs that were handed to nodes.
    pub placed: usize,
}

/// What a step is timed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Wall,
    Both,
}

/// A job that a node has.
#[derive(Debug, Clone)]
struct Running {
    reservation: ReservationId,
    node: NodeId,
}

/// The world.
pub struct Rig {
    core: Coordinator,
    shape: Shape,
    now: Time,
    effects: Vec<Effect>,
    running: Vec<Running>,
    /// Clients that have their answer.
    answered: Vec<ClientId>,
    models: Vec<ModelName>,
    namespaces: Vec<Namespace>,
    nodes: Vec<NodeId>,
    body: Arc<[u8]>,
    seed: u64,
    clients: u64,
    clock: Clock,
    /// Outputs that the core closed, to be answered.
    closed: Vec<ReservationId>,
}

impl Rig {
    /// A world with its nodes, all tested and idle.
    pub fn idle(size: Size, shape: Shape) -> Self {
        let boot = Boot { epoch: 7, secret: [3; 32], lsn: Lsn(0), at: Time(1_700_000_000_000_000) };
        let named =
            |what: &str, count: u32| -> Vec<String> { (0..count).map(|at| format!("{what}-{at}")).collect() };
        let mut rig = Self {
            core: Coordinator::new(boot, limits(shape), Durability::Strict),
            shape,
            now: boot.at,
            effects: Vec::new(),
            running: Vec::new(),
            answered: Vec::new(),
            models: named("model", size.lanes).iter().map(|name| name.as_str().into()).collect(),
            namespaces: named("tenant", size.namespaces).iter().map(|name| Namespace::named(name)).collect(),
            nodes: named("node", size.nodes).iter().map(|name| NodeId::named(name)).collect(),
            body: vec![b'x'; BODY_BYTES].into(),
            seed: 0x5EED,
            clients: 0,
            clock: Clock::Wall,
            closed: Vec::new(),
        };
        rig.join_nodes();
        rig
    }

    /// A world in which every slot is taken and so many jobs wait. Says what each step of that took.
    pub fn saturated(size: Size, shape: Shape) -> (Self, crate::stats::Times) {
        let mut rig = Self::idle(size, shape);
        let mut times = crate::stats::Times::default();
        rig.fill(size.jobs, |timed| times.add(timed.took));
        (rig, times)
    }

    /// Submits until every slot is taken and so many jobs wait.
    pub fn fill(&mut self, jobs: u32, mut each: impl FnMut(Timed)) {
        while self.core.counts().jobs_queued < u64::from(jobs) {
            let submission = self.submission();
            each(self.submit(submission));
        }
    }

    fn join_nodes(&mut self) {
        let per_node = MODELS_PER_NODE.max((self.models.len() as u32).div_ceil(self.nodes.len() as u32));
        let per_node = per_node.min(self.models.len() as u32) as usize;
        for at in 0..self.nodes.len() {
            let names = (0..per_node).map(|more| (at * per_node + more) % self.models.len());
            let offers = names.map(|name| ModelOffer::warm(self.models[name].clone(), SLOTS)).collect();
            self.join(self.nodes[at].clone(), offers);
        }
        let tests = (self.nodes.len() * per_node) as u64;
        while self.core.counts().tests_passed < tests {
            self.pass(Span::from_ms(10));
            self.pass(SECOND);
            while !self.running.is_empty() {
                self.complete_any();
            }
        }
    }

    /// Makes a node known and lets it join, with these models.
    pub fn join(&mut self, node: NodeId, models: Vec<ModelOffer>) {
        let environments = vec![Environment::Mainnet];
        let settings = NodeSettings { node: node.clone(), trust: Trust::Own, environments, owner: None };
        self.operate(Command::AdmitNode(settings));
        let hello = NodeHello { node, slots: SLOTS, ..NodeHello::local(models) };
        self.step(Event::NodeConnected(Box::new(hello)));
    }

    /// The box's own node joins, with these models.
    pub fn join_box(&mut self, models: Vec<ModelOffer>) {
        self.step(Event::NodeConnected(Box::new(NodeHello::local(models))));
    }

    /// Whether the newest assignment went to that node.
    pub fn newest_is_on(&self, node: &NodeId) -> bool {
        self.running.last().is_some_and(|running| running.node == *node)
    }

    /// An operator's command.
    pub fn operate(&mut self, command: Command) -> Timed {
        let operation = Operation { client: self.next_client(), by: None, command };
        self.step(Event::Operate(Box::new(operation)))
    }

    /// An ordinary job of any model and namespace.
    pub fn submission(&mut self) -> Submission {
        let model = self.chance(self.models.len());
        self.submission_of(model)
    }

    /// An ordinary job of that model, of any namespace.
    pub fn submission_of(&mut self, model: usize) -> Submission {
        let namespace = self.chance(self.namespaces.len());
        let plain = JobSpec::plain(
            self.namespaces[namespace].clone(),
            Endpoint::ChatCompletions,
            self.models[model].clone(),
        );
        let spec = JobSpec {
            mode: Mode::Stream,
            tier: self.shape.tier,
            ttl: self.shape.ttl,
            input_tokens: 50 + self.chance(400) as u32,
            output_tokens_max: 16 + self.chance(200) as u32,
            ..plain
        };
        Submission::new(spec, self.body.iter().copied().collect())
    }

    /// A client submits.
    pub fn submit(&mut self, submission: Submission) -> Timed {
        let client = self.next_client();
        self.step(Event::Submit(client, Box::new(submission)))
    }

    /// Any node's job ends well; its client takes the answer later (see `leave`).
    pub fn complete_any(&mut self) -> Timed {
        let at = self.chance(self.running.len());
        self.complete(at, Status::Succeeded(FinishReason::Stop))
    }

    /// The oldest job ends well.
    pub fn complete_oldest(&mut self) -> Timed {
        self.complete(0, Status::Succeeded(FinishReason::Stop))
    }

    /// The newest job fails by the node's fault; its output is closed.
    pub fn fail_newest(&mut self) -> Timed {
        let message = "planted".to_owned();
        self.complete(self.running.len() - 1, Status::Failed(JobError { class: ErrorClass::Node, message }))
    }

    fn complete(&mut self, at: usize, status: Status) -> Timed {
        let Running { reservation, node } = self.running.swap_remove(at);
        let now = self.now;
        let seen = Seen { chunks: 12, bytes: 48, tokens: Some(12), first_at: Some(now), last_at: Some(now) };
        self.step(Event::Completed(Verified::local(Completion {
            node,
            reservation,
            status,
            input_tokens: 100,
            cached_tokens: 0,
            output_tokens: 12,
            digest: None,
            seen,
            proof: None,
        })))
    }

    /// Says what a closed output held: nothing.
    pub fn revoke(&mut self) -> Option<Timed> {
        let reservation = self.closed.pop()?;
        let revoked = Revoked { reservation, delivered: 0, written: 0, written_tokens: 0 };
        Some(self.step(Event::Revoked(revoked)))
    }

    /// The node of the newest assignment begins.
    pub fn accept_newest(&mut self) -> Option<Timed> {
        let Running { reservation, node } = self.running.last()?.clone();
        Some(self.step(Event::Accepted(node, reservation)))
    }

    /// A client that has its answer leaves.
    pub fn leave(&mut self) -> Option<Timed> {
        let client = self.answered.pop()?;
        Some(self.step(Event::ClientGone(ClientGone { client, departure: Departure::Served })))
    }

    /// Any node is heard of.
    pub fn heartbeat(&mut self) -> Timed {
        let at = self.chance(self.nodes.len());
        let node = self.nodes[at].clone();
        let per_node = MODELS_PER_NODE.min(self.models.len() as u32) as usize;
        let warm = (0..per_node).map(|more| self.models[(at * per_node + more) % self.models.len()].clone());
        self.step(Event::Heartbeat(Heartbeat { node, session: Session(1), warm: warm.collect() }))
    }

    /// Time passes, then the tick comes.
    pub fn pass(&mut self, span: Span) -> Timed {
        self.now = self.now + span;
        self.step(Event::Tick)
    }

    /// Time passes, and nothing comes of it yet.
    pub fn wait(&mut self, span: Span) {
        self.now = self.now + span;
    }

    /// Steps an event and sees to what it wants done.
    pub fn step(&mut self, event: Event) -> Timed {
        let cpu = self.thread_time();
        let start = Instant::now();
        self.core.step(self.now, event, &mut self.effects);
        let took = start.elapsed();
        let cpu = self.thread_time() - cpu;
        Timed { took, cpu, placed: self.publish() }
    }

    /// From now on the processor's time is taken too, which costs a call of the kernel.
    pub fn watch_processor(&mut self) {
        self.clock = Clock::Both;
    }

    fn thread_time(&self) -> Duration {
        match self.clock {
            Clock::Wall => Duration::ZERO,
            Clock::Both => thread_time(),
        }
    }

    /// Does what the core wants done. Says how many jobs were handed to nodes.
    fn publish(&mut self) -> usize {
        let mut placed = 0;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Assign { node, assignment, .. } => {
                    placed += 1;
                    self.running.push(Running { reservation: assignment.reservation, node });
                }
                Effect::ToClient { client, reply: Reply::Finished(_), .. } => self.answered.push(client),
                Effect::CloseOutput(reservation) => self.closed.push(reservation),
                Effect::ToClient { reply: Reply::Refused(refusal), .. } => panic!("refused: {refusal:?}"),
                _ => {}
            }
        }
        self.effects = effects;
        placed
    }

    /// Jobs that nodes have.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> u64 {
        self.core.counts().jobs_queued
    }

    /// Slots of all nodes.
    pub fn slots(&self) -> usize {
        self.nodes.len() * SLOTS as usize
    }

    /// The name of a node.
    pub fn node(&self, at: usize) -> NodeId {
        self.nodes[at].clone()
    }

    /// The names of the models.
    pub fn models(&self) -> &[ModelName] {
        &self.models
    }

    /// The core itself, for its recounts.
    pub fn core(&self) -> &Coordinator {
        &self.core
    }

    /// A number below `end`, drawn from the seed (xorshift64*).
    fn chance(&mut self, end: usize) -> usize {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        let drawn = self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(drawn) * end as u128) >> 64) as usize
    }

    fn next_client(&mut self) -> ClientId {
        self.clients += 1;
        ClientId(self.clients)
    }
}

fn limits(shape: Shape) -> Limits {
    Limits {
        queue_jobs_max: u64::MAX,
        namespace_queue_jobs_max: u64::MAX,
        queue_bytes_max: u64::MAX,
        output_budget_bytes: u64::MAX / 2,
        batch_age: shape.batch_age,
        accept_timeout: LONG,
        first_output_timeout: LONG,
        progress_timeout: LONG,
        attempt_timeout: LONG,
        heartbeat_timeout: LONG,
        ..Limits::default()
    }
}
