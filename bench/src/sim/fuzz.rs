//! Feeds a core whatever there is: unknown ids, extreme numbers, huge lists, times backwards. It must not panic, and its
//! books must stay in order. What the driver alone says (closed outputs) it says truly.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use switchbox::coordinator::command::{
    Amount, Command, NamespaceSettings, NodeCommand, NodeSettings, Operation, Scope, Unrunnable,
};
use switchbox::coordinator::effect::{Effect, Row};
use switchbox::coordinator::event::{
    Ask, Cancel, ClientGone, Completion, Constraints, Declined, Departure, Determinism, Durability, Endpoint,
    Environment, ErrorClass, Event, Fallbacks, Feedback, FinishReason, Heartbeat, JobError, JobSpec, Keyed,
    Mode, ModelOffer, NodeGone, NodeHello, NodeWish, Progress, Question, Requeue, Revoked, Seen, Status,
    Stopped, Submission, Tier, Verified, Warmth, Wish,
};
use switchbox::coordinator::integrity::{Expect, Note, Opinion, OutputDigest, Template};
use switchbox::coordinator::job::JobRow;
use switchbox::coordinator::ledger::{Owner, PriceRule};
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::snapshot::Participation;
use switchbox::coordinator::standing::Trust;
use switchbox::coordinator::{Boot, Coordinator};
use switchbox::credits::{Credits, Price};
use switchbox::ids::{
    ClientId, Digest, GpuClass, IdempotencyKey, JobId, Lsn, ModelName, Namespace, NodeId, OperationId,
    Region, ReservationId, Session, SubcloudName,
};
use switchbox::time::{Span, Time};

use super::generate::START;
use super::operator::node_id;
use super::rng::{Rng, bytes32};
use super::run::{panicked, quiet_panics};
use super::scene::{body, model, name, namespace};

/// Events that one core is fed.
const EVENTS_PER_CORE: u64 = 2_000;
/// Events between two full recounts.
const AUDIT_EVENTS: u64 = 64;

/// A core that is fed nonsense.
struct Fuzz {
    rng: Rng,
    core: Coordinator,
    now: Time,
    clients: u64,
    rows: Vec<JobRow>,
    reservations: Vec<ReservationId>,
    local: Vec<Event>,
}

/// Feeds so many events, to a new core each couple of thousand.
///
/// # Errors
/// When a core panicked, or its books were out of order.
pub fn fuzz(events: u64, from: u64) -> Result<(), String> {
    quiet_panics();
    let mut done = 0;
    let mut seed = from;
    while done < events {
        let run = catch_unwind(AssertUnwindSafe(|| Fuzz::new(seed).run()));
        let found = run
            .unwrap_or_else(|panic| panicked(panic.as_ref()).violations.into_iter().next().map(|v| v.detail));
        if let Some(found) = found {
            return Err(format!("fuzz seed {seed}: {found}\n  replay: sim --fuzz 1 --from {seed}"));
        }
        done += EVENTS_PER_CORE;
        seed += 1;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{done} arbitrary events on {} cores: no panic, books in order", seed - from)
        .map_err(|error| error.to_string())
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 40);
        let limits = Limits {
            queue_jobs_max: rng.range(1, 2_000),
            test_timeout: rng.ms(1, 3_000),
            accept_timeout: rng.ms(1, 3_000),
            attempt_timeout: rng.ms(1, 30_000),
            away_timeout: rng.ms(1, 3_000),
            participation: Participation {
                blind_rate_ppm: 200_000,
                check_rate_ppm: 200_000,
                ..Default::default()
            },
            names_max: rng.range(5, 500) as usize,
            trust: Trust::Open,
            ..Limits::default()
        };
        let boot = Boot { epoch: 3, secret: bytes32(8, seed), lsn: Lsn(0), at: START };
        let durability = *rng.pick(&[Durability::Strict, Durability::Relaxed]);
        let core = Coordinator::new(boot, limits, durability);
        Self {
            rng,
            core,
            now: START,
            clients: 0,
            rows: Vec::new(),
            reservations: Vec::new(),
            local: Vec::new(),
        }
    }

    /// What was found, if anything.
    fn run(mut self) -> Option<String> {
        for number in 0..EVENTS_PER_CORE {
            let event = self.event();
            let shown = format!("{event:?}");
            let found =
                self.step(event).or_else(|| number.is_multiple_of(AUDIT_EVENTS).then(|| self.audit())?);
            if let Some(found) = found {
                return Some(format!(
                    "event {number}: {found}; after {}",
                    shown.chars().take(400).collect::<String>()
                ));
            }
        }
        self.audit()
    }

    fn audit(&self) -> Option<String> {
        self.core.audit().violations.into_iter().next()
    }

    fn step(&mut self, event: Event) -> Option<String> {
        let mut next = Some(event);
        while let Some(event) =
            next.take().or_else(|| if self.local.is_empty() { None } else { Some(self.local.remove(0)) })
        {
            let mut effects = Vec::new();
            self.core.step(self.now, event, &mut effects);
            effects.into_iter().for_each(|effect| self.take(effect));
            if let Some(found) = self.core.quick_check().into_iter().next() {
                return Some(found);
            }
        }
        None
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Row(Row::Job(row)) => self.rows.push(*row),
            Effect::Assign { assignment, .. } => self.reservations.push(assignment.reservation),
            Effect::CloseOutput(reservation) => {
                let delivered = self.rng.below(3) as u32;
                self.local.push(Event::Revoked(Revoked {
                    reservation,
                    delivered,
                    written: 3,
                    written_tokens: 3,
                }));
            }
            _ => {}
        }
    }

    fn number(&mut self) -> u64 {
        match self.rng.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX / 2,
            3 => self.rng.draw(),
            _ => self.rng.below(200),
        }
    }

    fn small(&mut self) -> u32 {
        self.number().min(u64::from(u32::MAX)) as u32
    }

    fn time(&mut self) -> Time {
        match self.rng.below(4) {
            0 => Time(self.number()),
            _ => self.now + self.rng.ms(0, 5_000),
        }
    }

    fn span(&mut self) -> Span {
        if self.rng.chance(70) { self.rng.ms(1, 20_000) } else { Span(self.number()) }
    }

    fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = *self.rng.pick(&[0, 0, 0, 1, 1, 2, 5, 70, 1_500]);
        (0..count).map(|_| make(self)).collect()
    }

    fn node(&mut self) -> NodeId {
        match self.rng.below(12) {
            0 => NodeId::local(),
            1 => NodeId::named(""),
            _ => node_id(self.rng.below(4) as usize),
        }
    }

    fn model(&mut self) -> ModelName {
        if self.rng.chance(90) { model(self.rng.below(2) as usize) } else { "?".into() }
    }

    fn namespace(&mut self) -> Namespace {
        if self.rng.chance(90) { namespace(self.rng.below(4) as usize) } else { Namespace::named("") }
    }

    fn environment(&mut self) -> Environment {
        *self.rng.pick(&[Environment::Mainnet, Environment::Mainnet, Environment::Testnet])
    }

    fn trust(&mut self) -> Trust {
        *self.rng.pick(&[Trust::Open, Trust::Open, Trust::Approved, Trust::Own])
    }

    fn client(&mut self) -> ClientId {
        ClientId(self.rng.below(self.clients + 3))
    }

    fn fresh_client(&mut self) -> ClientId {
        self.clients += 1;
        ClientId(self.clients)
    }

    fn job(&mut self) -> JobId {
        match self.rows.is_empty() || self.rng.chance(20) {
            true => JobId { epoch: self.rng.below(5) as u32, counter: self.number() & ((1 << 40) - 1) },
            false => self.rows[self.rng.below(self.rows.len() as u64) as usize].id,
        }
    }

    fn reservation(&mut self) -> ReservationId {
        match self.reservations.is_empty() || self.rng.chance(15) {
            true => {
                ReservationId { epoch: self.rng.below(5) as u32, counter: self.number() & ((1 << 40) - 1) }
            }
            false => {
                let recent = self.rng.below(self.reservations.len().min(12) as u64) as usize;
                self.reservations[self.reservations.len() - 1 - recent]
            }
        }
    }

    fn session(&mut self) -> Session {
        Session(if self.rng.chance(80) { self.rng.below(40) } else { self.number() })
    }

    fn event(&mut self) -> Event {
        self.now = match self.rng.below(40) {
            0 => self.now - self.rng.ms(0, 10_000),
            1 => self.now + Span::from_secs(self.rng.below(100_000)),
            _ => self.now + self.rng.ms(0, 30),
        };
        match self.rng.below(40) {
            0..=9 => Event::Submit(self.fresh_client(), Box::new(self.submission())),
            10 => self.client_gone(),
            11 => self.cancel(),
            12 => Event::Ask(Ask { client: self.client(), question: self.question() }),
            13 => self.feedback(),
            14 => self.requeue(),
            15..=18 => self.operation(),
            19 | 20 => Event::NodeConnected(Box::new(self.hello())),
            21..=25 => Event::Accepted(self.node(), self.reservation()),
            26 => self.declined(),
            27..=30 => Event::Completed(Verified::local(self.completion())),
            31 => self.stopped(),
            _ => self.rarer(),
        }
    }

    fn rarer(&mut self) -> Event {
        match self.rng.below(8) {
            0 => {
                let undelivered = self.list(Self::reservation);
                Event::NodeGone(NodeGone { node: self.node(), session: self.session(), undelivered })
            }
            1 => {
                let warm = self.list(Self::model);
                Event::Heartbeat(Heartbeat { node: self.node(), session: self.session(), warm })
            }
            2 => {
                let wish = *self.rng.pick(&[Wish::Pause, Wish::Resume, Wish::Resume, Wish::Drain]);
                Event::NodeWish(NodeWish { node: self.node(), session: self.session(), wish })
            }
            3 => Event::BadSignature(self.node()),
            4 => {
                let (reservation, written) = (self.reservation(), self.small());
                let last_at = self.rng.chance(50).then(|| self.time());
                Event::Progress(Progress { reservation, written, last_at })
            }
            _ => Event::Tick,
        }
    }

    fn client_gone(&mut self) -> Event {
        let departure = *self.rng.pick(&[Departure::Served, Departure::Abandoned]);
        Event::ClientGone(ClientGone { client: self.client(), departure })
    }

    fn cancel(&mut self) -> Event {
        let namespace = self.rng.chance(50).then(|| self.namespace());
        Event::Cancel(Cancel { client: self.client(), namespace, job: self.job() })
    }

    fn feedback(&mut self) -> Event {
        let note = Note::new(&"x".repeat(*self.rng.pick(&[0, 5, 1_024]))).expect("it is short enough");
        let (client, namespace, job) = (self.client(), self.namespace(), self.job());
        Event::Feedback(Feedback { client, namespace, job, opinion: Opinion::Bad, note })
    }

    fn requeue(&mut self) -> Event {
        if self.rows.is_empty() {
            return Event::Tick;
        }
        let row = self.rows[self.rng.below(self.rows.len() as u64) as usize].clone();
        Event::Requeue(Requeue { client: self.client(), row: Box::new(row) })
    }

    fn declined(&mut self) -> Event {
        let reason = "n".repeat(*self.rng.pick(&[0, 10, 100_000]));
        Event::Declined(Declined { node: self.node(), reservation: self.reservation(), reason })
    }

    fn stopped(&mut self) -> Event {
        let (node, reservation) = (self.node(), self.reservation());
        let (input_tokens, output_tokens) = (self.small(), self.small());
        Event::Stopped(Verified::local(Stopped { node, reservation, input_tokens, output_tokens }))
    }

    fn submission(&mut self) -> Submission {
        let mut spec = JobSpec::plain(self.namespace(), Endpoint::ChatCompletions, self.model());
        spec.environment = self.environment();
        spec.version = self.rng.chance(5).then(|| name("v1"));
        spec.mode = *self.rng.pick(&[Mode::Sync, Mode::Stream, Mode::Polling, Mode::Batch]);
        spec.tier = *self.rng.pick(&[Tier::Realtime, Tier::Standard, Tier::Batch, Tier::Background]);
        spec.ttl = self.span();
        spec.not_before = self.rng.chance(10).then(|| self.time());
        (spec.input_tokens, spec.output_tokens_max) = (self.rng.below(50) as u32, self.rng.below(50) as u32);
        if self.rng.chance(10) {
            (spec.input_tokens, spec.output_tokens_max, spec.messages) =
                (self.small(), self.small(), self.small());
        }
        if self.rng.chance(20) {
            spec.constraints = self.constraints();
        }
        if self.rng.chance(20) {
            let (models, after_failures) = (self.list(Self::model), self.small());
            spec.fallbacks = Fallbacks { models, after_failures };
        }
        if self.rng.chance(20) {
            let key = IdempotencyKey(bytes32(1, self.rng.below(5)));
            spec.key = Some(Keyed { key, body: Digest(bytes32(2, self.rng.below(2))) });
        }
        spec.prefix = self.rng.chance(30).then(|| self.rng.below(3));
        spec.determinism = *self.rng.pick(&[Determinism::Exact, Determinism::Sampled]);
        if self.rng.chance(3) {
            let pair = |_: &mut Self| ("k".repeat(200), "v".repeat(200));
            spec.metadata = Arc::from(self.list(pair));
        }
        Submission {
            spec,
            body: if self.rng.chance(97) { body(self.rng.below(9)) } else { Arc::from(&b""[..]) },
        }
    }

    fn constraints(&mut self) -> Constraints {
        Constraints {
            gpu: self.rng.chance(20).then(|| name::<GpuClass>("h100")),
            memory_bytes_min: if self.rng.chance(20) { self.number() } else { 0 },
            region: self.rng.chance(20).then(|| name::<Region>("eu")),
            subcloud: self.rng.chance(20).then(|| name::<SubcloudName>("closed")),
            allow: if self.rng.chance(20) { self.list(Self::node) } else { Vec::new() },
            deny: if self.rng.chance(20) { self.list(Self::node) } else { Vec::new() },
            trust: Some(self.trust()),
        }
    }

    fn question(&mut self) -> Question {
        match self.rng.below(11) {
            0 => Question::Counts,
            1 => Question::Invariants,
            2 => Question::Nodes,
            3 => Question::Queue,
            4 => Question::Job(self.job(), None),
            5 => Question::Job(self.job(), Some(self.namespace())),
            6 => Question::Trace(self.job()),
            7 => Question::DeadLetters(self.small()),
            8 => Question::Balances,
            9 if self.rng.chance(2) => Question::Drain,
            10 if self.rng.chance(10) => Question::CancelAll,
            _ => Question::Counts,
        }
    }

    fn hello(&mut self) -> NodeHello {
        let node = self.node();
        NodeHello {
            trust: self.trust(),
            session: self.session(),
            environments: if self.rng.chance(80) { Environment::ALL.to_vec() } else { Vec::new() },
            models: self.list(Self::offer),
            slots: self.small(),
            kv_tokens: if self.rng.chance(70) { 5_000 } else { self.number() },
            memory_bytes: self.number(),
            gpu: self.rng.chance(50).then(|| name::<GpuClass>("h100")),
            region: self.rng.chance(50).then(|| name::<Region>("eu")),
            configurations: self.list(|fuzz| (fuzz.environment(), Digest(bytes32(4, 4)))),
            running: self.list(Self::reservation),
            results: self.list(|fuzz| Verified::local(fuzz.completion())),
            node,
        }
    }

    fn offer(&mut self) -> ModelOffer {
        ModelOffer {
            model: self.model(),
            version: self.rng.chance(50).then(|| name("v1")),
            digest: self.rng.chance(70).then(|| Digest(bytes32(3, self.rng.below(2)))),
            slots: self.small(),
            warmth: *self.rng.pick(&[Warmth::Warm, Warmth::Cold]),
            load: self.span(),
        }
    }

    fn completion(&mut self) -> Completion {
        let class = *self.rng.pick(&[ErrorClass::Node, ErrorClass::Terminal, ErrorClass::Transient]);
        let status = match self.rng.below(3) {
            0 => Status::Succeeded(FinishReason::Stop),
            1 => Status::Succeeded(FinishReason::Length),
            _ => Status::Failed(JobError { class, message: "m".repeat(*self.rng.pick(&[0, 9, 70_000])) }),
        };
        let tokens = self.rng.chance(70).then(|| self.small());
        let seen = Seen {
            chunks: self.small(),
            bytes: self.number(),
            tokens,
            first_at: self.rng.chance(80).then(|| self.time()),
            last_at: self.rng.chance(80).then(|| self.time()),
        };
        Completion {
            node: self.node(),
            reservation: self.reservation(),
            status,
            input_tokens: self.small(),
            cached_tokens: self.small(),
            output_tokens: self.small(),
            digest: self.rng.chance(80).then(|| OutputDigest(bytes32(5, self.rng.below(3)))),
            seen,
        }
    }

    fn operation(&mut self) -> Event {
        let by = self.rng.chance(15).then(|| self.namespace());
        Event::Operate(Box::new(Operation { client: self.client(), by, command: self.command() }))
    }

    fn command(&mut self) -> Command {
        let operation = OperationId(u128::from(self.rng.below(30)));
        let credits = Credits(self.number() as i64);
        let amount = Amount { operation, environment: self.environment(), credits };
        match self.rng.below(14) {
            0 => Command::AdmitNode(NodeSettings {
                node: self.node(),
                trust: self.trust(),
                environments: self.list(Self::environment),
                owner: self.rng.chance(50).then(|| self.namespace()),
            }),
            1..=3 => Command::Node(self.node(), *self.rng.pick(&NODE_COMMANDS)),
            4 => Command::Pause(self.scope()),
            5 => Command::Resume(self.scope()),
            6 => Command::PutNamespace(self.settings()),
            7 => Command::Deposit(amount, self.namespace()),
            8 => Command::Adjust(amount, self.owner(), "note".into()),
            9 => Command::Transfer(amount, self.node()),
            10 => Command::PutPrice(self.price_rule()),
            11 => Command::PutTemplate(Box::new(self.template())),
            12 => Command::JoinSubcloud(self.environment(), name::<SubcloudName>("closed"), self.node()),
            _ => Command::DropSubcloud(self.environment(), name::<SubcloudName>("closed")),
        }
    }

    fn owner(&mut self) -> Owner {
        match self.rng.below(5) {
            0 => Owner::Fee,
            1 => Owner::Issuance,
            2 => Owner::Integrity,
            3 => Owner::Node(self.node()),
            _ => Owner::Namespace(self.namespace()),
        }
    }

    fn scope(&mut self) -> Scope {
        match self.rng.below(3) {
            0 => Scope::Model(self.model()),
            1 => Scope::Namespace(self.namespace()),
            _ => Scope::Tier(*self.rng.pick(&Tier::ALL)),
        }
    }

    fn settings(&mut self) -> NamespaceSettings {
        let line = |fuzz: &mut Self| fuzz.rng.chance(50).then(|| Credits(fuzz.number() as i64));
        NamespaceSettings {
            namespace: self.namespace(),
            weight: self.small(),
            trust: self.trust(),
            credit: [line(self), line(self)],
            unrunnable: *self.rng.pick(&[Unrunnable::Accept, Unrunnable::Refuse]),
            queue_jobs_max: self.number(),
        }
    }

    fn price_rule(&mut self) -> PriceRule {
        PriceRule {
            environment: self.rng.chance(50).then(|| self.environment()),
            model: self.rng.chance(50).then(|| self.model()),
            tier: self.rng.chance(50).then_some(Tier::Batch),
            from: self.time(),
            price: Price { input: self.number(), cached_input: self.number(), output: self.number() },
        }
    }

    fn template(&mut self) -> Template {
        Template {
            name: "t".repeat(*self.rng.pick(&[0, 1, 2, 64, 65])).into(),
            model: self.model(),
            endpoint: Endpoint::Completions,
            body: body(1),
            input_tokens: self.small(),
            output_tokens_max: self.small(),
            tier: *self.rng.pick(&Tier::ALL),
            mode: *self.rng.pick(&[Mode::Sync, Mode::Polling]),
            expect: Expect::Tokens { min: self.small(), max: self.small() },
        }
    }
}

const NODE_COMMANDS: [NodeCommand; 8] = [
    NodeCommand::Pause,
    NodeCommand::Resume,
    NodeCommand::Drain,
    NodeCommand::Freeze,
    NodeCommand::Thaw,
    NodeCommand::Ban,
    NodeCommand::Unban,
    NodeCommand::Reinstate,
];
