//! What a fuzzed core is asked: requests, hellos, results and commands with whatever there is in them.
//!
//! It only makes values; `fuzz.rs` feeds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchbox::coordinator::command::{
    Amount, Command, NamespaceSettings, NodeCommand, NodeSettings, Operation, Scope, Unrunnable,
};
use switchbox::coordinator::event::Held;
use switchbox::coordinator::event::{
    Completion, Constraints, Determinism, Endpoint, Environment, ErrorClass, Event, Fallbacks, FinishReason,
    JobError, JobSpec, Keyed, Mode, ModelOffer, NodeHello, Question, Seen, Status, Submission, Tier,
    Verified, Warmth,
};
use switchbox::coordinator::integrity::{Expect, OutputDigest, Template};
use switchbox::coordinator::ledger::{Owner, PriceRule};
use switchbox::coordinator::snapshot::{ModelSpec, Participation, RuntimeKind, Snapshot, Timeouts};
use switchbox::coordinator::standing::PenaltyRules;
use switchbox::credits::{Credits, Price};
use switchbox::ids::{Digest, GpuClass, IdempotencyKey, OperationId, Region, SubcloudName};
use switchbox::time::Span;

use super::fuzz::Fuzz;
use super::rng::bytes32;
use super::scene::{body, name};

impl Fuzz {
    pub(super) fn submission(&mut self) -> Submission {
        let mut spec = JobSpec::plain(self.namespace(), Endpoint::ChatCompletions, self.model());
        spec.environment = self.environment();
        let version = self.rng.chance(5).then(|| name("v1"));
        spec.mode = *self.rng.pick(&[Mode::Sync, Mode::Stream, Mode::Polling, Mode::Batch]);
        spec.tier = *self.rng.pick(&[Tier::Realtime, Tier::Standard, Tier::Batch, Tier::Background]);
        spec.ttl = self.span();
        spec.not_before = self.rng.chance(10).then(|| self.time()).into();
        (spec.input_tokens, spec.output_tokens_max) = (self.rng.below(50) as u32, self.rng.below(50) as u32);
        if self.rng.chance(10) {
            (spec.input_tokens, spec.output_tokens_max, spec.messages) =
                (self.small(), self.small(), self.small());
        }
        if self.rng.chance(20) {
            spec.constraints = self.constraints().into();
        }
        if version.is_some() {
            spec.constraints.version = version;
        }
        if self.rng.chance(20) {
            let (models, after_failures) = (self.list(Self::model), self.small());
            spec.fallbacks = Fallbacks { models, after_failures }.into();
        }
        if self.rng.chance(20) {
            let key = IdempotencyKey(bytes32(1, self.rng.below(5)));
            *spec.key = Some(Keyed { key, body: Digest(bytes32(2, self.rng.below(2))) });
        }
        spec.prefix = self.rng.chance(30).then(|| self.rng.below(3)).into();
        spec.determinism = *self.rng.pick(&[Determinism::Exact, Determinism::Sampled]);
        if self.rng.chance(3) {
            let pair = |_: &mut Self| ("k".repeat(200), "v".repeat(200));
            spec.metadata = self.list(pair).into();
        }
        let body = if self.rng.chance(97) { body(self.rng.below(9)) } else { Arc::from(&b""[..]) };
        Submission::new(spec, body)
    }

    fn constraints(&mut self) -> Constraints {
        Constraints {
            version: None,
            gpu: self.rng.chance(20).then(|| name::<GpuClass>("h100")),
            memory_bytes_min: if self.rng.chance(20) { self.number() } else { 0 },
            region: self.rng.chance(20).then(|| name::<Region>("eu")),
            subcloud: self.rng.chance(20).then(|| name::<SubcloudName>("closed")),
            allow: if self.rng.chance(20) { self.list(Self::node) } else { Vec::new() },
            deny: if self.rng.chance(20) { self.list(Self::node) } else { Vec::new() },
            trust: Some(self.trust()),
        }
    }

    pub(super) fn question(&mut self) -> Question {
        match self.rng.below(11) {
            0 => Question::Counts,
            1 => Question::Invariants,
            2 => Question::Nodes,
            3 => Question::Queue,
            4 => Question::Job(self.job(), None),
            5 => Question::Job(self.job(), Some(self.tenant())),
            6 => Question::Trace(self.job()),
            7 => Question::DeadLetters(self.small()),
            8 => Question::Balances,
            9 if self.rng.chance(2) => Question::Drain,
            10 if self.rng.chance(2) => Question::WindDown,
            11 if self.rng.chance(2) => Question::EndService,
            _ => Question::Counts,
        }
    }

    pub(super) fn hello(&mut self) -> NodeHello {
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
            running: self.list(|fuzz| {
                let (reservation, model) = (fuzz.reservation(), fuzz.offer().model);
                Held { reservation, model, kv_tokens: fuzz.number() }
            }),
            results: self.list(|fuzz| Verified::local(fuzz.completion())),
            node,
        }
    }

    pub(super) fn offer(&mut self) -> ModelOffer {
        ModelOffer {
            model: self.model(),
            version: self.rng.chance(50).then(|| name("v1")),
            digest: self.rng.chance(70).then(|| Digest(bytes32(3, self.rng.below(2)))),
            runtime: self.rng.chance(70).then(|| name(["r1", "r2"][self.rng.below(2) as usize])),
            slots: self.small(),
            warmth: *self.rng.pick(&[Warmth::Warm, Warmth::Cold]),
            load: self.span(),
        }
    }

    pub(super) fn completion(&mut self) -> Completion {
        let class = *self.rng.pick(&[ErrorClass::Node, ErrorClass::Terminal, ErrorClass::Transient]);
        let status = match self.rng.below(4) {
            0 => Status::Succeeded(FinishReason::Stop),
            2 => Status::Succeeded(FinishReason::ToolCalls),
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
            proof: None,
        }
    }

    pub(super) fn operation(&mut self) -> Event {
        let by = self.rng.chance(15).then(|| self.namespace());
        Event::Operate(Box::new(Operation { client: self.client(), by, command: self.command() }))
    }

    pub(super) fn command(&mut self) -> Command {
        let operation = OperationId(u128::from(self.rng.below(30)));
        let credits = Credits(self.number() as i64);
        let amount = Amount { operation, environment: self.environment(), credits };
        match self.rng.below(15) {
            0 => Command::AdmitNode(NodeSettings {
                node: self.node(),
                trust: self.trust(),
                environments: self.list(Self::environment),
                owner: self.rng.chance(50).then(|| self.namespace()),
            }),
            1..=3 => Command::Node(self.node(), *self.rng.pick(&NodeCommand::ALL)),
            4 => Command::Pause(self.scope()),
            5 => Command::Resume(self.scope()),
            6 => Command::PutNamespace(self.settings()),
            7 => Command::Deposit(amount, self.namespace()),
            8 => Command::Adjust(amount, self.owner(), "note".into()),
            9 => Command::Transfer(amount, self.node()),
            10 => Command::PutPrice(self.price_rule()),
            11 => Command::PutTemplate(Box::new(self.template())),
            12 => Command::JoinSubcloud(self.environment(), name::<SubcloudName>("closed"), self.node()),
            13 => Command::Configure(Box::new(self.snapshot())),
            _ => Command::DropSubcloud(self.environment(), name::<SubcloudName>("closed")),
        }
    }

    /// Mostly sound, so that some are put in force.
    fn snapshot(&mut self) -> Snapshot {
        let odd = self.rng.chance(30);
        let mut number = |usual: u64| if odd { self.number() } else { usual };
        let mut timeouts = Timeouts { accept: Span(number(1_000)), ..Timeouts::default() };
        timeouts.attempt = Span(number(timeouts.attempt.0));
        timeouts.heartbeat_ttl = Span(number(timeouts.heartbeat_ttl.0));
        timeouts.reconnect_ttl = Span(number(timeouts.reconnect_ttl.0));
        let penalties = PenaltyRules {
            half_life: Span(number(1_000)),
            failures_in_a_row_max: number(3) as u32,
            cooldown: Span(number(1_000)),
            ..PenaltyRules::default()
        };
        let participation = Participation {
            probation_jobs: number(3),
            blind_rate_ppm: number(200_000) as u32,
            validation_tokens_factor_max: number(4) as u32,
            ..Participation::default()
        };
        let spec = ModelSpec {
            version: name("v1"),
            digest: Digest(bytes32(3, 0)),
            runtime: RuntimeKind::Echo,
            memory_bytes: number(0),
            default_output_tokens: number(1) as u32,
            output_tokens_max: number(100) as u32,
            fallbacks: Vec::new(),
        };
        let models = self.list(|fuzz| (fuzz.model(), spec.clone())).into_iter().collect();
        Snapshot {
            environment: self.environment(),
            version: self.rng.below(50),
            digest: Digest(bytes32(6, self.rng.below(9))),
            signature: Arc::from(vec![1; *self.rng.pick(&[64, 64, 64, 0, 999])]),
            models,
            participation,
            penalties,
            timeouts,
            subclouds: BTreeMap::new(),
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
