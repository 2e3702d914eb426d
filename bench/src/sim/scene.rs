//! Who there is in a seed's world: models, nodes of every kind, namespaces, subclouds, limits. Never changes in a run.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use switchbox::coordinator::command::{NamespaceSettings, Unrunnable};
use switchbox::coordinator::event::{Durability, Environment, ModelOffer, Warmth};
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::snapshot::Participation;
use switchbox::coordinator::standing::Trust;
use switchbox::coordinator::subcloud::{Allowed, Isolation, Policy, Subcloud};
use switchbox::credits::{Credits, Price};
use switchbox::ids::{
    Digest, GpuClass, ModelName, ModelVersion, Namespace, NodeId, Region, RuntimeName, SubcloudName,
};
use switchbox::time::Span;

use super::rng::{Rng, bytes32};

/// Nodes of every seed, the box's own not counted.
pub(crate) const NODES: usize = 20;
/// Namespaces of every seed.
pub(crate) const NAMESPACES: usize = 20;
/// The models; the last one has no tokenizer on the box.
pub(crate) const MODELS: [&str; 4] = ["m0", "m1", "m2", "m3"];
/// Regions, by name.
pub(crate) const REGIONS: [&str; 3] = ["eu", "us", "asia"];
/// Classes of GPU, by name.
pub(crate) const GPUS: [&str; 2] = ["h100", "l4"];
/// Subclouds of a seed: the first isolates, in mainnet; the third is testnet's.
pub(crate) const SUBCLOUDS: [&str; 3] = ["closed", "shared", "trial"];

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// As it should.
    Steady,
    /// As it should, at a tenth of the pace.
    Slow,
    /// Fails with every class of error, stalls, never answers a stop.
    Flaky,
    /// Wrong digests, inflated counts, bad signatures, foreign and invented reservations.
    Lying,
    /// Loses everything now and then.
    Dying,
    /// Its socket is lost now and then; it comes back with what it holds.
    Partitioned,
    /// What it says comes late.
    Skewed,
    /// Declines every other job.
    Declining,
    /// Its owner pauses, resumes and drains it.
    Wishing,
    /// The box itself.
    Local,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct NodeScene {
    pub(crate) id: NodeId,
    pub(crate) kind: Kind,
    pub(crate) trust: Trust,
    /// For which environments the operator admits it.
    pub(crate) admitted: Vec<Environment>,
    /// For which it asks.
    pub(crate) wanted: Vec<Environment>,
    pub(crate) models: Vec<ModelOffer>,
    pub(crate) slots: u32,
    pub(crate) kv_tokens: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) gpu: Option<GpuClass>,
    pub(crate) region: Option<Region>,
    pub(crate) owner: Option<Namespace>,
    /// For one token.
    pub(crate) pace: Span,
}

/// Everything that a seed's world is made of.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) durability: Durability,
    pub(crate) nodes: Vec<NodeScene>,
    pub(crate) namespaces: Vec<NamespaceSettings>,
    pub(crate) subclouds: Vec<Subcloud>,
}

/// A model's name.
pub(crate) fn model(index: usize) -> ModelName {
    MODELS[index].into()
}

/// Whether the box counts a model's tokens itself.
pub(crate) fn has_tokenizer(model: &ModelName) -> bool {
    **model != *MODELS[3]
}

/// The namespace of that number.
pub(crate) fn namespace(index: usize) -> Namespace {
    Namespace::named(&format!("ns{index:02}"))
}

/// A name that is known to be well formed.
pub(crate) fn name<T: FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("names of the simulator are well formed")
}

impl Scene {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let mut nodes: Vec<NodeScene> = (0..NODES).map(|index| node(index, &mut rng)).collect();
        if rng.chance(40) {
            nodes.push(local(&mut rng));
        }
        let durability = if rng.chance(80) { Durability::Strict } else { Durability::Relaxed };
        Self {
            seed,
            limits: forgetful(limits(&mut rng), seed),
            durability,
            namespaces: (0..NAMESPACES).map(|index| settings(index, &mut rng)).collect(),
            subclouds: subclouds(&mut rng),
            nodes,
        }
    }
}

/// Some boxes keep little of what has ended.
fn forgetful(limits: Limits, seed: u64) -> Limits {
    match seed % 5 {
        0 => Limits { finished_age_max: Span::from_ms(2_500), ..limits },
        1 => Limits { finished_jobs_max: 25, finished_unnamed_jobs_max: 10, ..limits },
        2 => Limits { finished_bytes_max: 4_000, ..limits },
        _ => limits,
    }
}

fn limits(rng: &mut Rng) -> Limits {
    let mut limits = Limits {
        attempts_max: 3,
        fallback_after_failures: 2,
        backoff: Span::from_ms(40),
        backoff_max: Span::from_ms(400),
        batch_age: Span::from_secs(4),
        accept_timeout: Span::from_ms(400),
        first_output_timeout: Span::from_ms(1_200),
        progress_timeout: Span::from_ms(600),
        attempt_timeout: Span::from_secs(5),
        stop_timeout: Span::from_ms(300),
        heartbeat_timeout: Span::from_ms(900),
        away_timeout: Span::from_ms(1_500),
        test_timeout: Span::from_secs(3),
        test_retry: Span::from_ms(500),
        price: Price { input: 1_000_000, cached_input: 250_000, output: 3_000_000 },
        fee_ppm: *rng.pick(&[0, 50_000, 333_333]),
        participation: Participation {
            probation_jobs: 10,
            probation_check_rate_ppm: *rng.pick(&[0, 60_000, 200_000]),
            check_rate_ppm: *rng.pick(&[0, 20_000, 60_000]),
            blind_rate_ppm: *rng.pick(&[0, 20_000, 100_000]),
            ..Participation::default()
        },
        trust: Trust::Open,
        ..Limits::default()
    };
    limits.penalties.cooldown = Span::from_secs(2);
    limits.penalties.cooldown_max = Span::from_secs(8);
    limits.penalties.failures_in_a_row_max = 3;
    match rng.below(10) {
        0 => limits.queue_jobs_max = 30,
        1 => limits.namespace_queue_jobs_max = 5,
        2 => limits.queue_bytes_max = 3_000,
        3 => limits.keys_per_namespace_max = 2,
        4 => limits.output_budget_bytes = 64 * 3_000,
        5 => limits.dead_letters_max = 2,
        6 => limits.names_max = NAMESPACES + 3,
        _ => {}
    }
    limits
}

/// The digest of a model's file: each model has two.
pub(super) fn digest_of(model: usize) -> Digest {
    Digest(bytes32(70, model as u64))
}

fn offer(index: usize, slots: u32, rng: &mut Rng) -> ModelOffer {
    let version = if rng.chance(70) { "v1" } else { "v2" };
    ModelOffer {
        model: model(index),
        version: Some(name::<ModelVersion>(version)),
        digest: Some(digest_of(index * 2 + usize::from(version == "v2"))),
        runtime: Some(name::<RuntimeName>("r1")),
        slots: rng.range(1, u64::from(slots)) as u32,
        warmth: if rng.chance(60) { Warmth::Warm } else { Warmth::Cold },
        load: rng.ms(20, 400),
    }
}

fn environments(rng: &mut Rng) -> Vec<Environment> {
    match rng.below(5) {
        0 => vec![Environment::Testnet],
        1 | 2 => vec![Environment::Mainnet, Environment::Testnet],
        _ => vec![Environment::Mainnet],
    }
}

const KINDS: [Kind; NODES] = [
    Kind::Steady,
    Kind::Steady,
    Kind::Steady,
    Kind::Steady,
    Kind::Steady,
    Kind::Steady,
    Kind::Slow,
    Kind::Slow,
    Kind::Flaky,
    Kind::Flaky,
    Kind::Flaky,
    Kind::Lying,
    Kind::Lying,
    Kind::Dying,
    Kind::Partitioned,
    Kind::Partitioned,
    Kind::Partitioned,
    Kind::Skewed,
    Kind::Declining,
    Kind::Wishing,
];

fn node(index: usize, rng: &mut Rng) -> NodeScene {
    let kind = KINDS[index];
    let slots = rng.range(1, 4) as u32;
    let served = rng.range(1, 2) as usize;
    let first = rng.below(MODELS.len() as u64) as usize;
    let models = (0..served).map(|n| offer((first + n) % MODELS.len(), slots, rng)).collect();
    let admitted = environments(rng);
    let wanted = if rng.chance(85) { admitted.clone() } else { environments(rng) };
    NodeScene {
        id: NodeId::named(&format!("node_{index:02}")),
        kind,
        trust: *rng.pick(&[Trust::Own, Trust::Approved, Trust::Open, Trust::Open]),
        admitted,
        wanted,
        models,
        slots,
        kv_tokens: rng.range(300, 900),
        memory_bytes: *rng.pick(&[8 << 30, 24 << 30, 80 << 30]),
        gpu: if rng.chance(70) { Some(name::<GpuClass>(rng.choose(&GPUS))) } else { None },
        region: if rng.chance(80) { Some(name::<Region>(rng.choose(&REGIONS))) } else { None },
        owner: if rng.chance(50) { Some(namespace(rng.below(NAMESPACES as u64) as usize)) } else { None },
        pace: if kind == Kind::Slow { rng.ms(15, 20) } else { rng.ms(4, 12) },
    }
}

fn local(rng: &mut Rng) -> NodeScene {
    let both = vec![Environment::Mainnet, Environment::Testnet];
    NodeScene {
        id: NodeId::local(),
        kind: Kind::Local,
        trust: Trust::Own,
        admitted: both.clone(),
        wanted: both,
        models: vec![ModelOffer { warmth: Warmth::Warm, ..offer(0, 2, rng) }],
        slots: 2,
        kv_tokens: 800,
        memory_bytes: 8 << 30,
        gpu: None,
        region: None,
        owner: None,
        pace: rng.ms(2, 8),
    }
}

fn settings(index: usize, rng: &mut Rng) -> NamespaceSettings {
    let line = |rng: &mut Rng| if rng.chance(70) { None } else { Some(Credits(rng.below(3_000) as i64)) };
    NamespaceSettings {
        namespace: namespace(index),
        weight: rng.range(1, 8) as u32,
        trust: *rng.pick(&[Trust::Open, Trust::Open, Trust::Approved, Trust::Own]),
        credit: [line(rng), line(rng)],
        unrunnable: if rng.chance(85) { Unrunnable::Accept } else { Unrunnable::Refuse },
        queue_jobs_max: if rng.chance(90) { 1_000 } else { 4 },
    }
}

fn subclouds(rng: &mut Rng) -> Vec<Subcloud> {
    let regions: BTreeSet<Region> = [name::<Region>(rng.choose(&REGIONS))].into();
    let owner = namespace(rng.below(NAMESPACES as u64) as usize);
    let some: BTreeSet<Namespace> = (0..NAMESPACES).filter(|_| rng.chance(50)).map(namespace).collect();
    let subcloud = |index: usize, environment, isolate, policy, allowed| Subcloud {
        name: name::<SubcloudName>(SUBCLOUDS[index]),
        environment,
        policy,
        isolate,
        owners: [owner.clone()].into(),
        allowed,
        nodes: BTreeSet::new(),
    };
    let regional = Policy { regions: Some(regions), ..Policy::default() };
    let models = Policy { models: Some([model(0), model(1)].into()), ..Policy::default() };
    vec![
        subcloud(0, Environment::Mainnet, Isolation::Isolated, Policy::default(), Allowed::Only(some)),
        subcloud(1, Environment::Mainnet, Isolation::Shared, regional, Allowed::Everyone),
        subcloud(2, Environment::Testnet, Isolation::Isolated, models, Allowed::Everyone),
    ]
}

/// A body that a number determines.
pub(crate) fn body(number: u64) -> Arc<[u8]> {
    Arc::from(format!("{{\"prompt\":\"{number:x}\"}}").into_bytes())
}
