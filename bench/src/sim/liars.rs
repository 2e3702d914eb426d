//! How soon nodes that lie are found out, and that nobody else is.
//!
//! A box of fourteen strangers' nodes, on two runtimes that give different answers to the same request. Four of them give a
//! wrong answer to a fifth of their jobs, test jobs excepted (they know those); each wrong answer is another. A fifth of
//! a key's first 200 jobs is checked by running them again on another node, a twentieth of the later ones, and the
//! second proven lie excludes. Liars must be excluded before they have run 200 jobs; honest nodes never.
//!
//! The core sees digests only, as in a real box: whether an answer is right is known to this file alone.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;

use switchbox::coordinator::command::{Amount, Command, NamespaceSettings, Operation, Unrunnable};
use switchbox::coordinator::effect::{Assignment, Effect, Row};
use switchbox::coordinator::event::{
    Determinism, Durability, Endpoint, Environment, Event, JobSpec, Mode, ModelOffer, Submission, Warmth,
};
use switchbox::coordinator::integrity::{Expect, OutputDigest, Template};
use switchbox::coordinator::ledger::Owner;
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::snapshot::Participation;
use switchbox::coordinator::standing::{PenaltyRules, Trust};
use switchbox::coordinator::{Boot, Coordinator};
use switchbox::credits::Credits;
use switchbox::ids::{ClientId, Digest, Lsn, NodeId, OperationId, RuntimeName};
use switchbox::time::{Span, Time};

use super::attempt::test_template;
use super::generate::START;
use super::operator::node_id;
use super::plain::{answered, heard_back, patient, stranger};
use super::rng::{Rng, bytes32, mix};
use super::scene::{model, name, namespace};

/// Nodes, of which every other one is of the other runtime.
const NODES: usize = 14;
/// The last of them, which lie.
const LIARS: usize = 4;
/// Of a hundred jobs of a liar, so many get a wrong answer.
const LIES_PERCENT: u64 = 20;
/// Jobs within which a liar is to be found out.
const JOBS: u64 = 200;
/// Of a thousand liars so many are to be found out.
const FOUND_PERMILLE_MIN: u64 = 980;
const SLOTS: u32 = 2;
const PACE: Span = Span::from_ms(100);
/// Between two jobs of clients: about half of what the nodes could do.
const SUBMIT_EVERY: Span = Span::from_ms(8);
/// When nobody is waited for any more.
const PATIENCE: Span = Span::from_secs(600);

/// What became of one node.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    jobs: u64,
    lies: u64,
    /// After so many jobs.
    excluded: Option<u64>,
}

enum Due {
    Tick,
    Submit,
    Ends(NodeId, Box<Assignment>),
}

struct Liars {
    core: Coordinator,
    now: Time,
    rng: Rng,
    agenda: BTreeMap<(Time, u64), Due>,
    scheduled: u64,
    local: VecDeque<Event>,
    clients: u64,
    fates: Vec<Fate>,
}

/// Runs so many worlds, and says what they showed.
///
/// # Errors
/// When too many liars stay, or an honest node is excluded.
pub fn liars(seeds: u64, from: u64) -> Result<(), String> {
    let (mut liars, mut honest) = (Vec::new(), Vec::new());
    let mut counts = [0_u64; 3];
    for seed in from..from + seeds {
        let mut world = Liars::new(seed);
        world.run();
        let (good, bad) = world.fates.split_at(NODES - LIARS);
        honest.extend_from_slice(good);
        liars.extend_from_slice(bad);
        let of = world.core.counts();
        counts =
            [counts[0] + of.validations, counts[1] + of.validations_undecided, counts[2] + of.lies_proven];
    }
    let found = liars.iter().filter(|fate| fate.excluded.is_some_and(|jobs| jobs <= JOBS)).count() as u64;
    let mut after: Vec<u64> = liars.iter().filter_map(|fate| fate.excluded).collect();
    after.sort_unstable();
    let at = |permille: usize| after.get(after.len() * permille / 1_000).copied().unwrap_or(0);
    let wronged = honest.iter().filter(|fate| fate.excluded.is_some()).count();
    let jobs: u64 = honest.iter().chain(&liars).map(|fate| fate.jobs).sum();
    let told: u64 = liars.iter().map(|fate| fate.lies).sum();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} liars, {found} excluded within {JOBS} jobs (after {} at p50, {} at p95, {} at p99); {} honest nodes, {wronged} \
         excluded; {jobs} jobs, {} run again, {told} lies told, {} proven, {} validations undecided",
        liars.len(),
        at(500),
        at(950),
        at(990),
        honest.len(),
        counts[0],
        counts[2],
        counts[1],
    )
    .map_err(|error| error.to_string())?;
    if wronged > 0 {
        return Err(format!("{wronged} honest nodes were excluded"));
    }
    match found * 1_000 >= FOUND_PERMILLE_MIN * liars.len() as u64 {
        true => Ok(()),
        false => Err(format!("only {found} of {} liars were excluded within {JOBS} jobs", liars.len())),
    }
}

fn runtime(node: usize) -> RuntimeName {
    name::<RuntimeName>(["r1", "r2"][node % 2])
}

/// What an honest node of that runtime answers.
fn right(runtime: usize, body: &[u8]) -> OutputDigest {
    let print = body.iter().fold(11 + runtime as u64, |hash, byte| mix(hash ^ u64::from(*byte)));
    OutputDigest(bytes32(75, print))
}

fn is_liar(node: usize) -> bool {
    node >= NODES - LIARS
}

impl Liars {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            participation: Participation {
                probation_jobs: JOBS,
                probation_check_rate_ppm: 200_000,
                check_rate_ppm: 50_000,
                blind_rate_ppm: 0,
                ..Participation::default()
            },
            penalties: PenaltyRules {
                lies_max: 2,
                cooldown: Span::from_secs(3_600),
                ..PenaltyRules::default()
            },
            ..patient()
        };
        let boot = Boot { epoch: 6, secret: bytes32(9, seed), lsn: Lsn(0), at: START };
        let mut world = Self {
            core: Coordinator::new(boot, limits, Durability::Strict),
            now: START,
            rng: Rng::new(seed, 9),
            agenda: BTreeMap::new(),
            scheduled: 0,
            local: VecDeque::new(),
            clients: 0,
            fates: vec![Fate::default(); NODES],
        };
        world.settle();
        world
    }

    fn settle(&mut self) {
        self.operate(Command::PutNamespace(NamespaceSettings {
            namespace: namespace(0),
            weight: 1,
            trust: Trust::Open,
            credit: [None, None],
            unrunnable: Unrunnable::Accept,
            queue_jobs_max: 1_000_000,
        }));
        let (operation, environment) = (OperationId(1), Environment::Mainnet);
        let amount = Amount { operation, environment, credits: Credits(1_000_000_000) };
        self.operate(Command::Adjust(amount, Owner::Integrity, "checks".into()));
        let body = test_template().body;
        let known = vec![right(0, &body), right(1, &body)];
        self.operate(Command::PutTemplate(Box::new(Template {
            expect: Expect::Digests(known),
            ..test_template()
        })));
        (0..NODES).for_each(|node| self.connect(node));
        self.schedule(Span(0), Due::Tick);
        self.schedule(Span::from_secs(1), Due::Submit);
    }

    fn connect(&mut self, node: usize) {
        let offer = ModelOffer {
            model: model(0),
            version: None,
            digest: Some(Digest(bytes32(70, 0))),
            runtime: Some(runtime(node)),
            slots: SLOTS,
            warmth: Warmth::Warm,
            load: Span(0),
        };
        self.step(Event::NodeConnected(Box::new(stranger(node_id(node), offer))));
    }

    fn run(&mut self) {
        let undecided = |fate: &Fate| fate.excluded.is_none() && fate.jobs < JOBS;
        while self.fates.iter().any(undecided) && self.now < START + PATIENCE {
            let Some(((at, _), due)) = self.agenda.pop_first() else { break };
            self.now = at;
            match due {
                Due::Tick => {
                    self.step(Event::Tick);
                    self.schedule(Span::from_ms(10), Due::Tick);
                }
                Due::Submit => self.submit(),
                Due::Ends(node, assignment) => self.ends(node, &assignment),
            }
        }
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

    fn submit(&mut self) {
        self.schedule(SUBMIT_EVERY, Due::Submit);
        let client = self.client();
        let mut spec = JobSpec::plain(namespace(0), Endpoint::ChatCompletions, model(0));
        (spec.input_tokens, spec.output_tokens_max) = (20, 50);
        spec.mode = Mode::Polling;
        spec.determinism = Determinism::Exact;
        let body = format!("{:?}", bytes32(76, self.clients)).into_bytes();
        self.step(Event::Submit(client, Box::new(Submission::new(spec, body.into()))));
    }

    fn step(&mut self, event: Event) {
        self.local.push_back(event);
        while let Some(event) = self.local.pop_front() {
            let mut effects = Vec::new();
            self.core.step(self.now, event, &mut effects);
            effects.into_iter().for_each(|effect| self.publish(effect));
        }
    }

    fn publish(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { node, assignment, .. } => {
                self.local.push_back(Event::Accepted(node.clone(), assignment.reservation));
                let takes = Span(PACE.0 / 2 + self.rng.below(PACE.0));
                self.schedule(takes, Due::Ends(node, Box::new(assignment)));
            }
            Effect::Row(Row::Node(row)) => {
                let node = (0..NODES).find(|node| node_id(*node) == row.node);
                let fate = &mut self.fates[node.expect("there are only these")];
                if row.exclusion.is_some() && fate.excluded.is_none() {
                    fate.excluded = Some(fate.jobs);
                }
            }
            effect => self.local.extend(heard_back(&effect, self.now)),
        }
    }

    fn ends(&mut self, node: NodeId, assignment: &Assignment) {
        let index = (0..NODES).find(|index| node_id(*index) == node).expect("there are only these");
        let is_test = assignment.body == test_template().body;
        let lies = is_liar(index) && !is_test && self.rng.chance(LIES_PERCENT);
        let fate = &mut self.fates[index];
        fate.jobs += u64::from(!is_test);
        fate.lies += u64::from(lies);
        let digest = match lies {
            true => OutputDigest(bytes32(77, assignment.reservation.counter)),
            false => right(index % 2, &assignment.body),
        };
        let output_tokens = assignment.output_tokens_max.min(20);
        self.step(answered(node, assignment, output_tokens, digest, self.now));
    }
}
