//! Configurations that an operator puts in force, and such as must be refused: older, forked, flawed, not allowed.
//!
//! What they change is small (rates of checks, penalties, the shorter deadlines), for the world goes on with its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchbox::coordinator::command::Command;
use switchbox::coordinator::event::Environment;
use switchbox::coordinator::snapshot::{ModelSpec, Participation, RuntimeKind, Snapshot, Timeouts};
use switchbox::ids::{Digest, ModelVersion};
use switchbox::time::Span;

use super::rng::{Rng, bytes32};
use super::scene::{MODELS, NAMESPACES, Scene, digest_of, model, name, namespace};
use super::world::World;

impl World<'_> {
    /// The operator, or a namespace that may not, sends a configuration.
    pub(super) fn configure(&mut self, choice: u64) {
        let mut rng = Rng::new(choice, 13);
        let environment = *rng.pick(&[Environment::Mainnet, Environment::Mainnet, Environment::Testnet]);
        let in_force = self.oracle.book.configurations.get(&environment);
        let mut snapshot = sound(self.scene, environment, choice);
        snapshot.version = in_force.map_or(0, |present| present.version) + rng.range(1, 3);
        match (rng.below(10), in_force) {
            (0, Some(present)) => snapshot = present.clone(),
            (1, Some(present)) => snapshot.version = present.version,
            (2, Some(present)) => snapshot.version = present.version.saturating_sub(1),
            (3 | 4, _) => spoil(&mut snapshot, &mut rng),
            _ => {}
        }
        let by = rng.chance(10).then(|| namespace(rng.below(NAMESPACES as u64) as usize));
        self.operate_as(by, Command::Configure(Box::new(snapshot)));
    }
}

/// A configuration under which the world goes on as it is.
fn sound(scene: &Scene, environment: Environment, choice: u64) -> Snapshot {
    let mut rng = Rng::new(choice, 14);
    let limits = &scene.limits;
    // Most restrict no model; of the others most have the file that most nodes have.
    let named = if rng.chance(70) { 0 } else { MODELS.len() };
    let mut models = BTreeMap::new();
    for index in 0..named {
        models.insert(model(index), spec(index * 2 + usize::from(rng.chance(20))));
    }
    let mut penalties = limits.penalties;
    penalties.failures_in_a_row_max = rng.range(2, 4) as u32;
    penalties.cooldown = rng.ms(1_500, 3_000);
    Snapshot {
        environment,
        version: 1,
        digest: Digest(bytes32(75, choice)),
        signature: Arc::from(&[7; 64][..]),
        models,
        participation: Participation {
            probation_check_rate_ppm: *rng.pick(&[60_000, 200_000]),
            check_rate_ppm: *rng.pick(&[0, 20_000, 60_000]),
            blind_rate_ppm: *rng.pick(&[0, 20_000, 100_000]),
            ..limits.participation
        },
        penalties,
        timeouts: Timeouts {
            accept: rng.ms(300, 500),
            first_output: rng.ms(900, 1_500),
            cold_first_output: Span::from_secs(2),
            progress: rng.ms(500, 800),
            attempt: limits.attempt_timeout,
            stop: limits.stop_timeout,
            heartbeat_ttl: limits.heartbeat_timeout,
            reconnect_ttl: limits.away_timeout,
        },
        subclouds: BTreeMap::new(),
    }
}

fn spec(file: usize) -> ModelSpec {
    ModelSpec {
        version: name::<ModelVersion>("v1"),
        digest: digest_of(file),
        runtime: RuntimeKind::Upstream,
        memory_bytes: 1 << 30,
        default_output_tokens: 60,
        output_tokens_max: 4_096,
        fallbacks: Vec::new(),
    }
}

/// Something that would do harm.
fn spoil(snapshot: &mut Snapshot, rng: &mut Rng) {
    let spec = snapshot.models.entry(model(0)).or_insert_with(|| spec(0));
    match rng.below(9) {
        0 => snapshot.version = 0,
        1 => snapshot.signature = Arc::from(&[][..]),
        2 => snapshot.signature = Arc::from(&[7; 1_000][..]),
        3 => spec.default_output_tokens = 0,
        4 => spec.default_output_tokens = spec.output_tokens_max + 1,
        5 => spec.fallbacks.push("unheard-of".into()),
        6 => snapshot.participation.blind_rate_ppm = 1_000_001,
        7 => snapshot.penalties.half_life = Span(0),
        _ => snapshot.timeouts.accept = Span(0),
    }
}
