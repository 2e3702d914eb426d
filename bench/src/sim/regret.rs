//! What the candidate rule costs: a job compares a few nodes only, and this holds each choice against all of them.
//!
//! Candidates are 16 of the lane's nodes with room, one of each class of `fleet/ready` in turn, plus those that may have
//! the prompt's beginning. The *regret* of a choice is its score minus the best score of any node that could have taken
//! the job at that moment, both in microseconds; the *relative* regret is that over the best score.
//!
//! Two worlds, each of nodes whose speeds differ by a factor of 32 and more, with prompts and answers of very different
//! lengths, loads, cold models, failing nodes, and prompts that share beginnings:
//! - *one scale*: a node that writes fast reads fast, give or take a half: what hardware does.
//! - *two scales*: reading and writing have nothing to do with each other: the worst that the rule can meet.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;

use switchbox::coordinator::command::{Command, Operation};
use switchbox::coordinator::effect::{Assignment, Effect};
use switchbox::coordinator::event::{
    Completion, Durability, Endpoint, ErrorClass, Event, FinishReason, Heartbeat, JobError, JobSpec, Mode,
    ModelOffer, NodeHello, Progress, Revoked, Seen, Status, Stopped, Submission, Verified, Warmth,
};
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::standing::Trust;
use switchbox::coordinator::{Boot, Comparison, Coordinator};
use switchbox::ids::{ClientId, Digest, Lsn, NodeId, ReservationId, Session};
use switchbox::time::{Span, Time};

use super::attempt::{honest_digest, test_template};
use super::generate::START;
use super::plain::stranger;
use super::rng::{Rng, bytes32};
use super::scene::{body, model, namespace};

/// Placements that are compared, in each world.
const COMPARED: usize = 20_000;
/// Before so many jobs for each slot have ended, nothing is compared: paces aren't measured yet.
const WARM_UP_JOBS_PER_SLOT: usize = 2;
/// Of a hundred slots, so many have work.
const LOAD_PERCENT: u64 = 60;
/// Beginnings that prompts share.
const PREFIXES: u64 = 500;
/// Simulated time by which a world must have made its placements.
const PATIENCE: Span = Span::from_secs(3_600);

/// How a node's speed of reading and its speed of writing go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paces {
    OneScale,
    TwoScales,
}

/// Bounds of the relative regret, in thousandths of the best score.
#[derive(Debug, Clone, Copy)]
struct Bound {
    mean: u64,
    p99: u64,
}

impl Paces {
    const ALL: [Paces; 2] = [Paces::OneScale, Paces::TwoScales];

    fn word(self) -> &'static str {
        match self {
            Self::OneScale => "one scale",
            Self::TwoScales => "two scales",
        }
    }

    /// What the rule is held to: about half as much again as was measured with 400 and 2,000 nodes
    /// (`bench/results/regret-2026-11-28.txt`).
    fn bound(self) -> Bound {
        match self {
            Self::OneScale => Bound { mean: 60, p99: 700 },
            Self::TwoScales => Bound { mean: 280, p99: 2_800 },
        }
    }
}

/// A node as it really is.
#[derive(Debug)]
struct Machine {
    id: NodeId,
    slots: u32,
    /// For one token, in microseconds.
    prefill_us: u64,
    decode_us: u64,
    load: Option<Span>,
    fails_percent: u64,
}

#[derive(Debug)]
enum Due {
    Tick,
    Beat,
    Ends(usize, Assignment, Seen),
}

struct Regret {
    core: Coordinator,
    now: Time,
    rng: Rng,
    agenda: BTreeMap<(Time, u64), Due>,
    scheduled: u64,
    local: VecDeque<Event>,
    clients: u64,
    machines: Vec<Machine>,
    index: BTreeMap<NodeId, usize>,
    slots: u64,
    ended: usize,
    compared: Vec<Comparison>,
}

/// Measures the regret in worlds of so many nodes, says it, and holds it against its bounds.
///
/// # Errors
/// When a bound is exceeded, a world didn't get anywhere, or an exhaustive search found nothing better than a worse one.
pub fn regret(nodes: usize, seed: u64) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    let mut failures = Vec::new();
    for paces in Paces::ALL {
        let compared = Regret::new(nodes, seed, paces).run()?;
        let told = Told::of(&compared)?;
        let bound = paces.bound();
        writeln!(out, "{nodes} nodes, {}: {told}", paces.word()).map_err(|error| error.to_string())?;
        if told.mean > bound.mean || told.p99 > bound.p99 {
            failures.push(format!("{}: bounds are {bound:?} thousandths", paces.word()));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// What comparisons came to; relative ones in thousandths of the best score.
#[derive(Debug)]
struct Told {
    placements: usize,
    able: usize,
    not_the_best: usize,
    mean_us: i64,
    best_mean_us: i64,
    mean: u64,
    p50: u64,
    p99: u64,
    max: u64,
}

impl Told {
    fn of(compared: &[Comparison]) -> Result<Self, String> {
        if let Some(odd) = compared.iter().find(|c| c.best_us > c.chosen_us) {
            return Err(format!("the search of all nodes missed the chosen one: {odd:?}"));
        }
        let relative = |c: &Comparison| ((c.chosen_us - c.best_us) * 1_000 / c.best_us.max(1)).unsigned_abs();
        let mut all: Vec<u64> = compared.iter().map(relative).collect();
        all.sort_unstable();
        let count = all.len().max(1);
        let at = |permille: usize| all.get((count * permille / 1_000).min(count - 1)).copied().unwrap_or(0);
        let mean_of = |of: &dyn Fn(&Comparison) -> i64| compared.iter().map(of).sum::<i64>() / count as i64;
        Ok(Self {
            placements: compared.len(),
            able: compared.iter().map(|c| c.able).sum::<usize>() / count,
            not_the_best: compared.iter().filter(|c| c.chosen_us > c.best_us).count(),
            mean_us: mean_of(&|c| c.chosen_us - c.best_us),
            best_mean_us: mean_of(&|c| c.best_us),
            mean: all.iter().sum::<u64>() / count as u64,
            p50: at(500),
            p99: at(990),
            max: at(1_000),
        })
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = self.not_the_best * 1_000 / self.placements.max(1);
        write!(
            f,
            "{} placements among {} nodes on average, {} of 1000 not the best; best score {} us, regret {} us on \
             average; relative regret, of 1000: mean {}, p50 {}, p99 {}, max {}",
            self.placements,
            self.able,
            share,
            self.best_mean_us,
            self.mean_us,
            self.mean,
            self.p50,
            self.p99,
            self.max
        )
    }
}

/// Anything from `low` to `low * 2^doublings`, every doubling as likely as any other.
fn spread(rng: &mut Rng, low: u64, doublings: u64) -> u64 {
    let from = low << rng.below(doublings);
    rng.range(from, from * 2)
}

fn machine(number: usize, paces: Paces, rng: &mut Rng) -> Machine {
    let decode_us = spread(rng, 4_000, 5);
    let prefill_us = match paces {
        Paces::OneScale => decode_us / 80 * rng.range(50, 150) / 100,
        Paces::TwoScales => spread(rng, 50, 6),
    };
    Machine {
        id: NodeId::named(&format!("node_{number}")),
        slots: rng.range(1, 8) as u32,
        prefill_us,
        decode_us,
        load: rng.chance(20).then(|| rng.ms(1_000, 20_000)),
        fails_percent: if rng.chance(10) { 20 } else { 0 },
    }
}

impl Regret {
    fn new(nodes: usize, seed: u64, paces: Paces) -> Self {
        let day = Span::from_secs(86_400);
        let limits = Limits {
            queue_jobs_max: 1_000_000,
            namespace_queue_jobs_max: 1_000_000,
            output_budget_bytes: 1 << 40,
            accept_timeout: day,
            first_output_timeout: day,
            progress_timeout: day,
            attempt_timeout: day,
            heartbeat_timeout: day,
            away_timeout: day,
            test_timeout: day,
            trust: Trust::Open,
            ..Limits::default()
        };
        let boot = Boot { epoch: 5, secret: bytes32(8, seed), lsn: Lsn(0), at: START };
        let mut rng = Rng::new(seed, 50);
        let machines: Vec<Machine> = (0..nodes).map(|number| machine(number, paces, &mut rng)).collect();
        let mut core = Coordinator::new(boot, limits, Durability::Strict);
        core.compare_placements();
        Self {
            core,
            now: START,
            rng,
            agenda: BTreeMap::new(),
            scheduled: 0,
            local: VecDeque::new(),
            clients: 0,
            index: machines.iter().enumerate().map(|(at, machine)| (machine.id.clone(), at)).collect(),
            slots: machines.iter().map(|machine| u64::from(machine.slots)).sum(),
            machines,
            ended: 0,
            compared: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Vec<Comparison>, String> {
        self.settle();
        while self.compared.len() < COMPARED {
            let Some(((at, _), due)) = self.agenda.pop_first() else { break };
            if at > START + PATIENCE {
                return Err(format!("only {} placements in {PATIENCE:?}", self.compared.len()));
            }
            self.now = at;
            match due {
                Due::Tick => self.tick(),
                Due::Beat => self.beat(),
                Due::Ends(machine, assignment, seen) => self.ends(machine, &assignment, seen),
            }
        }
        match self.core.audit().violations.into_iter().next() {
            Some(violation) => Err(violation),
            None => Ok(self.compared),
        }
    }

    fn settle(&mut self) {
        let client = self.client();
        let command = Command::PutTemplate(Box::new(test_template()));
        self.step(Event::Operate(Box::new(Operation { client, by: None, command })));
        (0..self.machines.len()).for_each(|at| self.connect(at));
        self.schedule(Span(0), Due::Tick);
        self.schedule(Span(0), Due::Beat);
    }

    fn connect(&mut self, at: usize) {
        let machine = &self.machines[at];
        let offer = ModelOffer {
            model: model(0),
            version: None,
            digest: Some(Digest(bytes32(70, 0))),
            runtime: None,
            slots: machine.slots,
            warmth: if machine.load.is_some() { Warmth::Cold } else { Warmth::Warm },
            load: machine.load.unwrap_or_default(),
        };
        let hello = NodeHello { kv_tokens: 10_000_000, ..stranger(machine.id.clone(), offer) };
        self.step(Event::NodeConnected(Box::new(hello)));
    }

    fn client(&mut self) -> ClientId {
        self.clients += 1;
        ClientId(self.clients)
    }

    fn schedule(&mut self, after: Span, due: Due) {
        self.scheduled += 1;
        self.agenda.insert((self.now + after, self.scheduled), due);
    }

    /// As many jobs as keep the nodes as busy as they are to be.
    fn tick(&mut self) {
        self.step(Event::Tick);
        self.schedule(Span::from_ms(10), Due::Tick);
        // Nodes need a moment for their test jobs.
        if self.now < START + Span::from_secs(60) {
            return;
        }
        // A few at a time: the first ones mustn't all be placed in one instant.
        let live = self.core.counts().live();
        for _ in 0..(self.slots * LOAD_PERCENT / 100).saturating_sub(live).min(20) {
            self.submit();
        }
    }

    /// Nodes whose models don't stay in memory say so.
    fn beat(&mut self) {
        let cold = self.machines.iter().filter(|machine| machine.load.is_some());
        let beats: Vec<Heartbeat> = cold
            .map(|machine| Heartbeat { node: machine.id.clone(), session: Session(1), warm: Vec::new() })
            .collect();
        beats.into_iter().for_each(|beat| self.step(Event::Heartbeat(beat)));
        self.schedule(Span::from_secs(1), Due::Beat);
    }

    fn submit(&mut self) {
        let mut spec = JobSpec::plain(namespace(0), Endpoint::ChatCompletions, model(0));
        spec.input_tokens = spread(&mut self.rng, 16, 11) as u32;
        spec.output_tokens_max = spread(&mut self.rng, 16, 7) as u32;
        spec.mode = Mode::Polling;
        spec.ttl = Span::from_secs(36_000);
        if self.rng.chance(50) {
            // The square makes some beginnings much more common than others.
            *spec.prefix = Some(self.rng.below(PREFIXES) * self.rng.below(PREFIXES) / PREFIXES);
        }
        let client = self.client();
        self.step(Event::Submit(client, Box::new(Submission::new(spec, body(2)))));
    }

    fn step(&mut self, event: Event) {
        self.local.push_back(event);
        while let Some(event) = self.local.pop_front() {
            let mut effects = Vec::new();
            self.core.step(self.now, event, &mut effects);
            effects.into_iter().for_each(|effect| self.publish(effect));
        }
        let compared = self.core.take_comparisons();
        if self.ended >= WARM_UP_JOBS_PER_SLOT * self.slots as usize {
            self.compared.extend(compared);
        }
    }

    fn publish(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { node, assignment, .. } => self.begins(&node, assignment),
            Effect::CloseOutput(reservation) => self.local.push_back(Event::Revoked(Revoked {
                reservation,
                delivered: 0,
                written: 0,
                written_tokens: 0,
            })),
            Effect::CheckProgress(reservation) => {
                let last_at = Some(self.now);
                self.local.push_back(Event::Progress(Progress { reservation, written: 1, last_at }));
            }
            Effect::Stop { node, reservation } => self.local.push_back(stopped(node, reservation)),
            _ => {}
        }
    }

    fn begins(&mut self, node: &NodeId, assignment: Assignment) {
        let at = self.index[node];
        let machine = &self.machines[at];
        self.local.push_back(Event::Accepted(node.clone(), assignment.reservation));
        // Answers end before their limit, as they do.
        let max = u64::from(assignment.output_tokens_max);
        let output_tokens = self.rng.range(max.div_ceil(2), max);
        let prefill = Span(u64::from(assignment.input_tokens) * machine.prefill_us);
        let decode = Span(output_tokens.saturating_sub(1) * machine.decode_us);
        let first_at = self.now + prefill;
        let seen = Seen {
            chunks: 1,
            bytes: output_tokens * 4,
            tokens: Some(output_tokens as u32),
            first_at: Some(first_at),
            last_at: Some(first_at + decode),
        };
        self.schedule(Span(prefill.0 + decode.0), Due::Ends(at, assignment, seen));
    }

    fn ends(&mut self, at: usize, assignment: &Assignment, seen: Seen) {
        let machine = &self.machines[at];
        let is_test = assignment.output_tokens_max == 4;
        let fails = !is_test && self.rng.chance(machine.fails_percent);
        let error = JobError { class: ErrorClass::Node, message: "it broke".to_owned() };
        let completion = Completion {
            node: machine.id.clone(),
            reservation: assignment.reservation,
            status: if fails { Status::Failed(error) } else { Status::Succeeded(FinishReason::Stop) },
            input_tokens: assignment.input_tokens,
            cached_tokens: 0,
            output_tokens: seen.tokens.unwrap_or(0),
            digest: Some(honest_digest(&assignment.model, &assignment.body)),
            seen,
            proof: None,
        };
        if !is_test && !fails {
            self.ended += 1;
        }
        self.step(Event::Completed(Verified::local(completion)));
    }
}

fn stopped(node: NodeId, reservation: ReservationId) -> Event {
    Event::Stopped(Verified::local(Stopped { node, reservation, input_tokens: 0, output_tokens: 0 }))
}
