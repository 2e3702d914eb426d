//! The saturated box: twenty namespaces that always have work, and who gets how much of it.
//!
//! Request sizes are 1:100, weights 1:8, one namespace submits a hundred times as much as the others, and one is
//! confined to a lane that a single node serves. Nothing fails here, so that only the order is measured.
//!
//! *Shares.* While a namespace is backlogged, every token that the box generates adds to its entitlement the part
//! `weight / sum of the backlogged weights`. Jain's index over `x = tokens served / entitlement`, that is
//! `(sum x)^2 / (n * sum x^2)`, must be at least [`JAIN_MIN_PERMILLE`].
//!
//! *Waiting.* Start-time fair queueing bounds how long a runnable job waits. Let a job of namespace `i` find work `A` of
//! its own namespace before it; let `l_n` be the largest cost of a job of `n`, `w_n` its weight, `W` the sum of weights,
//! `m` the number of slots, `c` the tokens a second of one, `C = m * c`, and no higher tier have work. The job's
//! virtual start is at most `V + (A + 2 l_i) / w_i`: what is queued before it, the last job dispatched, and what that
//! one cost more or less than expected. Until `V` gets there, each other namespace starts at most the work that its
//! weight is worth, and one job more at either end; and `m` jobs run already. So
//!
//! `wait <= ((A + 2 l_i) * W / w_i + 2 * sum of l_n over n != i + m * l) / C + l / c + one tick`,
//!
//! the last terms for a slot that serves the job to become free. Every dispatch is held against it.

use std::collections::{BTreeMap, VecDeque};

use switchbox::coordinator::command::{Command, NamespaceSettings, Operation, Unrunnable};
use switchbox::coordinator::effect::{Assignment, Effect, Row};
use switchbox::coordinator::event::{
    Durability, Endpoint, Event, JobSpec, Mode, ModelOffer, NodeHello, Origin, Submission, Warmth,
};
use switchbox::coordinator::standing::Trust;
use switchbox::coordinator::{Boot, Coordinator};
use switchbox::ids::{ClientId, Digest, JobId, Lsn, NodeId, Region, ReservationId};
use switchbox::time::{Span, Time};

use super::attempt::{honest_digest, test_template};
use super::coverage::Coverage;
use super::generate::START;
use super::hash::EffectHash;
use super::operator::node_id;
use super::oracle::{Judge, Line};
use super::plain::{answered, heard_back, patient, stranger};
use super::rng::{Rng, bytes32};
use super::scene::{NAMESPACES, body, model, name, namespace};
use super::world::Outcome;

/// What the index must be at least.
pub(crate) const JAIN_MIN_PERMILLE: u64 = 950;
/// Nodes, the last of which is the only one in its region.
const NODES: usize = 5;
/// Slots of each node.
const SLOTS: u64 = 2;
/// Tokens a second of one slot.
const PACE: u64 = 1_000;
/// Before this, shares aren't counted: nodes pass their tests, and the first jobs run.
const WARM_UP: Span = Span::from_secs(4);
/// How long the box is saturated.
const LONG: Span = Span::from_secs(50);
/// The largest cost of a job, and a hundred times the smallest.
const COST_MAX: u64 = 1_000;
/// Jobs that a namespace has waiting; the greedy one a hundred times as many.
const WAITING: usize = 6;
/// The namespace that submits a hundred times the rest.
const GREEDY: usize = 0;
/// The namespace whose jobs only one node takes.
const CONFINED: usize = 1;

/// A job that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    namespace: usize,
    cost: u64,
    since: Time,
    /// Work of its namespace that waited before it.
    ahead: u64,
}

#[derive(Debug)]
enum Due {
    Tick,
    Ends(NodeId, Assignment),
}

struct Fair {
    core: Coordinator,
    now: Time,
    rng: Rng,
    agenda: BTreeMap<(Time, u64), Due>,
    scheduled: u64,
    local: VecDeque<Event>,
    clients: u64,
    waiting: BTreeMap<JobId, Waiting>,
    runs: BTreeMap<ReservationId, Option<usize>>,
    backlog: [(usize, u64); NAMESPACES],
    served: [u64; NAMESPACES],
    /// In parts of the sum of weights, so that it stays an integer.
    entitled: [u128; NAMESPACES],
    judge: Judge,
    coverage: Coverage,
    steps: u64,
}

fn weight(namespace: usize) -> u64 {
    1 + namespace as u64 % 8
}

fn weights() -> u64 {
    (0..NAMESPACES).map(weight).sum()
}

/// The range of costs of a namespace's jobs: some have only small ones, some only large ones.
fn costs(namespace: usize) -> (u64, u64) {
    match namespace % 3 {
        0 => (10, 40),
        1 => (300, COST_MAX),
        _ => (10, COST_MAX),
    }
}

/// Runs the scenario.
pub(crate) fn run(seed: u64) -> Outcome {
    let mut fair = Fair::new(seed);
    fair.settle();
    while fair.now < START + WARM_UP + LONG && fair.judge.violations.is_empty() {
        let Some(((at, _), due)) = fair.agenda.pop_first() else { break };
        fair.now = at;
        match due {
            Due::Tick => fair.tick(),
            Due::Ends(node, assignment) => fair.ends(node, &assignment),
        }
    }
    fair.check_shares();
    fair.outcome()
}

impl Fair {
    fn new(seed: u64) -> Self {
        let boot = Boot { epoch: 5, secret: bytes32(8, seed), lsn: Lsn(0), at: START };
        let mut fair = Self {
            core: Coordinator::new(boot, patient(), Durability::Strict),
            now: START,
            rng: Rng::new(seed, 8),
            agenda: BTreeMap::new(),
            scheduled: 0,
            local: VecDeque::new(),
            clients: 0,
            waiting: BTreeMap::new(),
            runs: BTreeMap::new(),
            backlog: [(0, 0); NAMESPACES],
            served: [0; NAMESPACES],
            entitled: [0; NAMESPACES],
            judge: Judge::default(),
            coverage: Coverage::default(),
            steps: 0,
        };
        fair.schedule(Span(0), Due::Tick);
        fair
    }

    fn schedule(&mut self, after: Span, due: Due) {
        self.scheduled += 1;
        self.agenda.insert((self.now + after, self.scheduled), due);
    }

    fn client(&mut self) -> ClientId {
        self.clients += 1;
        ClientId(self.clients)
    }

    fn operate(&mut self, command: Command) {
        let client = self.client();
        self.step(Event::Operate(Box::new(Operation { client, by: None, command })));
    }

    fn settle(&mut self) {
        for number in 0..NAMESPACES {
            self.operate(Command::PutNamespace(NamespaceSettings {
                namespace: namespace(number),
                weight: weight(number) as u32,
                trust: Trust::Open,
                credit: [None, None],
                unrunnable: Unrunnable::Accept,
                queue_jobs_max: 1_000_000,
            }));
        }
        self.operate(Command::PutTemplate(Box::new(test_template())));
        (0..NODES).for_each(|index| self.connect(index));
    }

    fn connect(&mut self, index: usize) {
        let offer = ModelOffer {
            model: model(0),
            version: None,
            digest: Some(Digest(bytes32(70, 0))),
            runtime: None,
            slots: SLOTS as u32,
            warmth: Warmth::Warm,
            load: Span(0),
        };
        let region = (index == NODES - 1).then(|| name::<Region>("rare"));
        let hello = NodeHello { region, ..stranger(node_id(index), offer) };
        self.step(Event::NodeConnected(Box::new(hello)));
    }

    fn step(&mut self, event: Event) {
        self.local.push_back(event);
        while let Some(event) = self.local.pop_front() {
            let mut effects = Vec::new();
            self.core.step(self.now, event, &mut effects);
            self.steps += 1;
            effects.iter().for_each(|effect| self.on_row(effect));
            effects.into_iter().for_each(|effect| self.publish(effect));
            for violation in self.core.quick_check() {
                self.judge.violated("the core's quick check", violation);
            }
        }
    }

    fn on_row(&mut self, effect: &Effect) {
        let Effect::Row(Row::Job(row)) = effect else { return };
        if *row.origin != Origin::Client || row.attempts > 1 || self.waiting.contains_key(&row.id) {
            return;
        }
        if row.state.is_live()
            && row.dispatched_at.is_none_or(|at| at == row.submitted_at)
            && row.submitted_at == self.now
        {
            let number = (0..NAMESPACES).find(|n| namespace(*n) == row.spec.namespace);
            let number = number.expect("only these namespaces submit");
            let cost = row.tokens_max();
            let ahead = self.backlog[number].1;
            self.waiting.insert(row.id, Waiting { namespace: number, cost, since: self.now, ahead });
            self.backlog[number].0 += 1;
            self.backlog[number].1 += cost;
        }
    }

    fn publish(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { node, assignment, .. } => {
                self.dispatched(&assignment);
                self.local.push_back(Event::Accepted(node.clone(), assignment.reservation));
                let tokens = u64::from(assignment.input_tokens) + u64::from(self.answer(&assignment));
                self.schedule(Span(tokens * 1_000_000 / PACE), Due::Ends(node, assignment));
            }
            effect => self.local.extend(heard_back(&effect, self.now)),
        }
    }

    /// Every third answer is half as long as it might be.
    fn answer(&self, assignment: &Assignment) -> u32 {
        let max = assignment.output_tokens_max;
        if assignment.job.counter.is_multiple_of(3) { max.div_ceil(2) } else { max }
    }

    fn dispatched(&mut self, assignment: &Assignment) {
        let Some(job) = self.waiting.remove(&assignment.job) else {
            self.runs.insert(assignment.reservation, None);
            return;
        };
        self.runs.insert(assignment.reservation, Some(job.namespace));
        self.backlog[job.namespace].0 -= 1;
        self.backlog[job.namespace].1 -= job.cost;
        let waited = self.now.since(job.since);
        let bound = bound(&job);
        self.judge.check(Line::WaitBounded, waited <= bound || self.now < START + WARM_UP, || {
            format!(
                "{} of {} waited {waited:?}, its bound is {bound:?}",
                assignment.job,
                namespace(job.namespace)
            )
        });
        let share = waited.0 * 10 / bound.0.max(1);
        self.coverage.count("waits as a part of their bound", &format!("{}0 % and more", share.min(10)));
    }

    fn ends(&mut self, node: NodeId, assignment: &Assignment) {
        let output_tokens = self.answer(assignment);
        let digest = honest_digest(&assignment.model, &assignment.body);
        let result = answered(node, assignment, output_tokens, digest, self.now);
        let tokens = u64::from(assignment.input_tokens) + u64::from(output_tokens);
        if let Some(Some(namespace)) = self.runs.remove(&assignment.reservation) {
            self.count(namespace, tokens);
        }
        self.step(result);
    }

    /// Shares out what was served among those who wanted it.
    fn count(&mut self, namespace: usize, tokens: u64) {
        if self.now < START + WARM_UP {
            return;
        }
        self.served[namespace] += tokens;
        let backlogged: Vec<usize> = (0..NAMESPACES).filter(|n| self.backlog[*n].0 > 0).collect();
        let sum: u64 = backlogged.iter().map(|n| weight(*n)).sum();
        for n in backlogged {
            self.entitled[n] += u128::from(tokens) * u128::from(weight(n)) * 1_000_000 / u128::from(sum);
        }
    }

    /// Tops up what waits; more than once only as long as jobs really come to wait.
    fn tick(&mut self) {
        self.step(Event::Tick);
        self.schedule(Span::from_ms(10), Due::Tick);
        for number in 0..NAMESPACES {
            let wanted = if number == GREEDY { WAITING * 100 } else { WAITING };
            for _ in self.backlog[number].0..wanted {
                self.submit(number);
            }
        }
    }

    fn submit(&mut self, number: usize) {
        let (low, high) = costs(number);
        let cost = self.rng.range(low, high) as u32;
        let mut spec = JobSpec::plain(namespace(number), Endpoint::ChatCompletions, model(0));
        (spec.input_tokens, spec.output_tokens_max) = (cost / 2, cost - cost / 2);
        spec.mode = Mode::Polling;
        spec.ttl = Span::from_secs(36_000);
        if number == CONFINED {
            spec.constraints.region = Some(name::<Region>("rare"));
        }
        let client = self.client();
        self.step(Event::Submit(client, Box::new(Submission::new(spec, body(2)))));
    }

    fn check_shares(&mut self) {
        let shares: Vec<u128> = (0..NAMESPACES)
            .map(|n| u128::from(self.served[n]) * 1_000_000_000 / self.entitled[n].max(1))
            .collect();
        let sum: u128 = shares.iter().sum();
        let squares: u128 = shares.iter().map(|x| x * x).sum();
        let jain = sum * sum * 1_000 / (NAMESPACES as u128 * squares.max(1));
        self.judge.check(Line::Fair, jain >= u128::from(JAIN_MIN_PERMILLE), || {
            format!("Jain's index is {jain} of 1000; served over entitled, in thousandths: {shares:?}")
        });
        self.coverage.count("Jain's index, of 1000", &format!("{jain:>4}"));
    }

    fn outcome(mut self) -> Outcome {
        for (line, count) in self.judge.counts().filter(|(_, count)| *count > 0) {
            self.coverage.add("oracle", line, count);
        }
        let audit = self.core.audit();
        for violation in audit.violations {
            self.judge.violated("an invariant of the core", violation);
        }
        let (violations, coverage) = (self.judge.violations, self.coverage);
        Outcome { violations, hash: EffectHash::new(), steps: self.steps, coverage, diary: Vec::new() }
    }
}

fn bound(job: &Waiting) -> Span {
    let largest = |namespace: usize| costs(namespace).1;
    let others: u64 = (0..NAMESPACES).filter(|n| *n != job.namespace).map(largest).sum();
    let slots = NODES as u64 * SLOTS;
    let own = (job.ahead + 2 * largest(job.namespace)) * weights() / weight(job.namespace);
    let work = own + 2 * others + slots * COST_MAX;
    Span(work * 1_000_000 / (slots * PACE) + COST_MAX * 1_000_000 / PACE + 10_000)
}
