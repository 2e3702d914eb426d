//! From a seed to the list of what happens: requests in bursts, troubles of nodes, operators, crashes.
//!
//! The list is all that a replay needs beside the scene, and any sublist is a run of its own.

use switchbox::coordinator::command::{NodeCommand, Scope};
use switchbox::coordinator::event::{
    Constraints, Determinism, Endpoint, Environment, Fallbacks, InputCount, JobSpec, Keyed, Mode, StoreRoom,
    Storing, Tier, Wish,
};
use switchbox::coordinator::standing::Trust;
use switchbox::ids::{Digest, GpuClass, IdempotencyKey, NodeId, Region, SubcloudName};
use switchbox::time::{Span, Time};

use super::action::{Action, Canceller, Change, Joins, Reader, SubmitPlan, Trouble};
use super::rng::{Rng, bytes32};
use super::scene::{
    GPUS, Kind, MODELS, NAMESPACES, NODES, REGIONS, SUBCLOUDS, Scene, body, has_tokenizer, model, name,
    namespace,
};

/// When every run begins.
pub(crate) const START: Time = Time(1_000_000_000_000_000);
/// For how long things happen.
pub(crate) const ACTIVE: Span = Span::from_secs(14);
/// Requests of a seed, without those of bursts.
const SUBMITS: u64 = 220;
/// Bursts of a seed, at most.
const BURSTS: u64 = 5;
/// Configurations of a seed, those that are refused included.
const CONFIGURES: u64 = 6;

/// An action with its time.
pub(crate) type Timed = (Time, Action);

/// Everything that happens in a seed, in order.
pub(crate) fn actions(scene: &Scene) -> Vec<Timed> {
    let mut rng = Rng::new(scene.seed, 2);
    let mut list = Vec::new();
    for _ in 0..SUBMITS {
        let at = moment(&mut rng);
        list.push((at, Action::Submit(Box::new(submit(scene, at, &mut rng)))));
    }
    for _ in 0..rng.range(1, BURSTS) {
        burst(scene, &mut rng, &mut list);
    }
    for _ in 0..60 {
        list.push((moment(&mut rng), client_action(&mut rng)));
    }
    for _ in 0..45 {
        list.push((moment(&mut rng), Action::Operate(change(&mut rng))));
    }
    let mut configures = Rng::new(scene.seed, 12);
    for _ in 0..CONFIGURES {
        let choice = configures.draw();
        list.push((moment(&mut configures), Action::Operate(Change::Configure(choice))));
    }
    troubles(scene, &mut rng, &mut list);
    for _ in 0..rng.below(3) {
        let (keep, down) = (rng.draw(), rng.ms(5, 800));
        list.push((moment(&mut rng), Action::Crash { keep, down }));
    }
    for _ in 0..3 {
        let (at, span) = (moment(&mut rng), rng.ms(20, 150));
        let room = if span.0.is_multiple_of(2) { StoreRoom::Open } else { StoreRoom::Behind };
        list.push((at, Action::StoreStalls { span, room }));
    }
    let mut shutdowns = Rng::new(scene.seed, 13);
    if shutdowns.chance(40) {
        let (deadline, down) = (shutdowns.ms(5, 600), shutdowns.ms(5, 800));
        list.push((moment(&mut shutdowns), Action::Shutdown { deadline, down }));
    }
    list.sort_by_key(|(at, _)| *at);
    list
}

fn moment(rng: &mut Rng) -> Time {
    // Nodes need a moment for their test jobs before anything can run.
    START + Span::from_ms(600) + Span(rng.below(ACTIVE.0))
}

fn burst(scene: &Scene, rng: &mut Rng, list: &mut Vec<Timed>) {
    let at = moment(rng);
    let only = model(rng.below(MODELS.len() as u64) as usize);
    for _ in 0..rng.range(20, 70) {
        let at = at + rng.ms(0, 60);
        let mut plan = submit(scene, at, rng);
        if rng.chance(75) {
            plan.spec.model = only.clone();
            let Constraints { version, trust, .. } = (*plan.spec.constraints).clone();
            plan.spec.constraints = Constraints { version, trust, ..Constraints::default() }.into();
        }
        list.push((at, Action::Submit(Box::new(plan))));
    }
}

fn client_action(rng: &mut Rng) -> Action {
    match rng.below(10) {
        0..=4 => Action::Cancel {
            back: rng.below(30) as usize,
            by: *rng.pick(&[Canceller::Client, Canceller::Client, Canceller::Operator, Canceller::Stranger]),
        },
        5 => Action::Feedback { back: rng.below(40) as usize },
        6 => Action::Requeue { pick: rng.draw() },
        _ => Action::Ask(rng.draw()),
    }
}

fn submit(scene: &Scene, at: Time, rng: &mut Rng) -> SubmitPlan {
    let (mode, tier) = mode_and_tier(rng);
    let endpoint = if rng.chance(70) { Endpoint::ChatCompletions } else { Endpoint::Completions };
    let number = if rng.chance(70) { rng.below(6) } else { rng.below(NAMESPACES as u64) } as usize;
    let index = rng.below(MODELS.len() as u64) as usize;
    let mut spec = JobSpec::plain(namespace(number), endpoint, model(index));
    let mut body_number = rng.draw();
    spec.environment = if rng.chance(75) { Environment::Mainnet } else { Environment::Testnet };
    (spec.mode, spec.tier) = (mode, tier);
    spec.ttl = ttl(rng);
    if rng.chance(7) {
        *spec.not_before = Some(at + rng.ms(1, 2_500));
        spec.ttl = Span(spec.ttl.0 + 2_500_000);
    }
    spec.messages = rng.range(1, 4) as u32;
    spec.output_tokens_max = rng.range(4, 120) as u32;
    spec.determinism = if rng.chance(50) { Determinism::Exact } else { Determinism::Sampled };
    if rng.chance(40) {
        *spec.prefix = Some(rng.below(8));
    }
    constrain(&mut spec, rng);
    if rng.chance(25) {
        fall_back(&mut spec, rng);
    }
    if rng.chance(25) {
        let key = rng.below(12);
        // A key is hashed with its endpoint: the same word there and here is two keys.
        let endpoint_keys = if endpoint == Endpoint::Completions { 500 } else { 0 };
        let keyed = key_of(number, endpoint_keys + key, &mut body_number, rng);
        spec = of_body(spec, body_number);
        *spec.key = Some(keyed);
    }
    // It stands in the body, so that requests with one body are one in this too.
    spec.storing = if body_number.is_multiple_of(4) { Storing::Forbidden } else { Storing::Allowed };
    spec.input_tokens = rng.range(4, 90) as u32;
    if !has_tokenizer(&spec.model) {
        spec.input_tokens = body(body_number).len() as u32 + 16 * spec.messages;
        spec.input_count = InputCount::AtMost;
    }
    if rng.chance(6) {
        spoil(&mut spec, at, rng);
    }
    let reader = match rng.below(10) {
        0..=5 => Reader::Prompt,
        6 | 7 => Reader::Slow(rng.ms(100, 900)),
        _ => Reader::Leaves(rng.ms(1, 1_200)),
    };
    let _ = scene;
    SubmitPlan { spec, body: body_number, reader }
}

fn mode_and_tier(rng: &mut Rng) -> (Mode, Tier) {
    match rng.below(10) {
        0 | 1 => (Mode::Sync, *rng.pick(&[Tier::Realtime, Tier::Standard])),
        2..=5 => (Mode::Stream, *rng.pick(&[Tier::Realtime, Tier::Standard, Tier::Standard])),
        6 | 7 => (Mode::Polling, *rng.pick(&[Tier::Realtime, Tier::Standard, Tier::Batch])),
        _ => (Mode::Batch, Tier::Batch),
    }
}

fn ttl(rng: &mut Rng) -> Span {
    match rng.below(10) {
        0 => rng.ms(40, 300),
        1 | 2 => rng.ms(500, 3_000),
        _ => rng.ms(5_000, 12_000),
    }
}

fn constrain(spec: &mut JobSpec, rng: &mut Rng) {
    let constraints = &mut spec.constraints;
    let some_node = |rng: &mut Rng| NodeId::named(&format!("node_{:02}", rng.below(NODES as u64)));
    if rng.chance(8) {
        constraints.gpu = Some(name::<GpuClass>(rng.choose(&GPUS)));
    }
    if rng.chance(8) {
        constraints.memory_bytes_min = *rng.pick(&[16 << 30, 60 << 30]);
    }
    if rng.chance(10) {
        constraints.region = Some(name::<Region>(rng.choose(&REGIONS)));
    }
    if rng.chance(12) {
        let index = match spec.environment {
            Environment::Mainnet => rng.below(2) as usize,
            Environment::Testnet => 2,
        };
        constraints.subcloud = Some(name::<SubcloudName>(SUBCLOUDS[index]));
    }
    if rng.chance(6) {
        constraints.allow = (0..rng.range(2, 8)).map(|_| some_node(rng)).collect();
    }
    if rng.chance(8) {
        constraints.deny = (0..rng.range(1, 4)).map(|_| some_node(rng)).collect();
    }
    if rng.chance(40) {
        constraints.trust = Some(*rng.pick(&[Trust::Open, Trust::Open, Trust::Approved, Trust::Own]));
    }
    if rng.chance(8) {
        spec.constraints.version = Some(name(rng.choose(&["v1", "v2"])));
    }
}

fn fall_back(spec: &mut JobSpec, rng: &mut Rng) {
    let others: Vec<_> = (0..3).map(model).filter(|other| *other != spec.model).collect();
    let count = rng.range(1, 2) as usize;
    let start = rng.below(others.len() as u64) as usize;
    let models = (0..count).map(|n| others[(start + n) % others.len()].clone()).collect();
    spec.fallbacks = Fallbacks { models, after_failures: rng.below(3) as u32 }.into();
}

/// What a repeated request asks for is its body's affair: the same bytes ask for the same.
fn of_body(before: JobSpec, body_number: u64) -> JobSpec {
    let mut rng = Rng::new(body_number, 11);
    let index = rng.below(MODELS.len() as u64) as usize;
    let mut spec = JobSpec::plain(before.namespace, before.endpoint, model(index));
    (spec.mode, spec.tier) = mode_and_tier(&mut rng);
    spec.ttl = before.ttl;
    spec.environment = if rng.chance(75) { Environment::Mainnet } else { Environment::Testnet };
    spec.messages = rng.range(1, 3) as u32;
    spec.output_tokens_max = rng.range(10, 60) as u32;
    constrain(&mut spec, &mut rng);
    spec
}

/// A key of a namespace. Mostly with the body that it always has, sometimes with another.
fn key_of(namespace: usize, key: u64, body_number: &mut u64, rng: &mut Rng) -> Keyed {
    let identity = namespace as u64 * 1_000 + key;
    *body_number = if rng.chance(85) { identity } else { identity + 500_000 };
    Keyed { key: IdempotencyKey(bytes32(71, identity)), body: Digest(bytes32(72, *body_number)) }
}

/// Something that must be refused, or never runs.
fn spoil(spec: &mut JobSpec, at: Time, rng: &mut Rng) {
    match rng.below(12) {
        0 => spec.model = "unheard-of".into(),
        1 => spec.output_tokens_max = 0,
        2 => spec.output_tokens_max = u32::MAX,
        3 => spec.ttl = Span(0),
        4 => *spec.not_before = Some(Time(u64::MAX)),
        5 => spec.constraints.deny = (0..1_000).map(|n| NodeId::named(&format!("node_{n}"))).collect(),
        6 => spec.constraints.subcloud = Some(name::<SubcloudName>("nowhere")),
        7 => spec.tier = Tier::Background,
        8 => spec.output_tokens_max = 5_000,
        9 => spec.metadata = (0..40).map(|n| (n.to_string(), String::new())).collect::<Vec<_>>().into(),
        10 => spec.namespace = switchbox::ids::Namespace::named(&format!("new{}", rng.draw())),
        _ => *spec.not_before = Some(at + Span(spec.ttl.0 * 2)),
    }
}

fn troubles(scene: &Scene, rng: &mut Rng, list: &mut Vec<Timed>) {
    for (index, node) in scene.nodes.iter().enumerate() {
        let often = match node.kind {
            Kind::Steady | Kind::Slow => 1,
            Kind::Flaky | Kind::Skewed | Kind::Declining => 3,
            Kind::Dying | Kind::Partitioned | Kind::Wishing => 8,
            Kind::Lying => 4,
            Kind::Local => 0,
        };
        for _ in 0..often {
            if let Some(trouble) = trouble(node.kind, rng) {
                list.push((moment(rng), Action::Node(index, trouble)));
            }
        }
    }
}

fn trouble(kind: Kind, rng: &mut Rng) -> Option<Trouble> {
    let long = if rng.chance(70) { rng.ms(20, 900) } else { rng.ms(1_600, 3_000) };
    let cut = Trouble::Cut { away: long, noticed: rng.ms(1, 1_200) };
    Some(match kind {
        Kind::Steady | Kind::Slow => *rng.pick(&[Trouble::Repeats, cut]),
        Kind::Flaky | Kind::Skewed | Kind::Declining => {
            let changes = Trouble::Changes(rng.draw());
            *rng.pick(&[cut, Trouble::Repeats, Trouble::HandsBack, changes])
        }
        Kind::Dying => Trouble::Dies(long),
        Kind::Partitioned => {
            if rng.chance(80) {
                cut
            } else {
                Trouble::Repeats
            }
        }
        Kind::Wishing => Trouble::Wishes(wish(rng)),
        Kind::Lying => {
            *rng.pick(&[Trouble::SignsWrongly, Trouble::NamesForeign, Trouble::Invents, Trouble::Repeats])
        }
        Kind::Local => return None,
    })
}

fn wish(rng: &mut Rng) -> Wish {
    *rng.pick(&[Wish::Pause, Wish::Pause, Wish::Resume, Wish::Resume, Wish::Drain])
}

fn change(rng: &mut Rng) -> Change {
    let node = rng.below(NODES as u64) as usize;
    let namespace_number = rng.below(NAMESPACES as u64) as usize;
    let joins = if rng.chance(50) { Joins::In } else { Joins::Out };
    let environment = *rng.pick(&Environment::ALL);
    match rng.below(30) {
        0..=2 => Change::Pause(scope(rng)),
        3..=7 => Change::Resume(scope(rng)),
        8..=12 => Change::Node(node, node_command(rng)),
        13 => Change::Admit(node, rng.draw()),
        14..=16 => Change::Deposit {
            operation: rng.below(6),
            namespace: namespace_number % 4,
            environment,
            credits: *rng.pick(&[500, 500, 1_000, 0, -3]),
        },
        17 => Change::Adjust {
            operation: 100 + rng.below(6),
            namespace: namespace_number,
            credits: *rng.pick(&[100, -50, 0]),
        },
        18 | 19 => {
            Change::Transfer { operation: 200 + rng.below(20), node, credits: rng.range(1, 200) as i64 }
        }
        20 | 21 => Change::Price(rng.draw()),
        22 | 23 => Change::Namespace(namespace_number, rng.draw()),
        24..=26 => Change::Member { subcloud: rng.below(SUBCLOUDS.len() as u64) as usize, node, joins },
        27 => Change::Subcloud(rng.below(SUBCLOUDS.len() as u64) as usize, joins),
        _ => Change::Template(rng.below(MODELS.len() as u64) as usize, joins),
    }
}

/// One of a few, so that pauses and resumes meet.
fn scope(rng: &mut Rng) -> Scope {
    match rng.below(5) {
        0 | 1 => Scope::Model(model(rng.below(2) as usize)),
        2 => Scope::Namespace(namespace(rng.below(2) as usize)),
        _ => Scope::Tier(*rng.pick(&[Tier::Standard, Tier::Batch])),
    }
}

fn node_command(rng: &mut Rng) -> NodeCommand {
    *rng.pick(&NodeCommand::ALL)
}
