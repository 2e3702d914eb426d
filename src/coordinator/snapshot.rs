//! Configuration snapshots: what nodes and the core go by, one per environment, replaced whole or not at all.
//!
//! The digest and the signature are made and verified at the edge; here they are opaque. Nothing here ever goes back to
//! an older version, and a snapshot that is refused leaves the last good one in force.

#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::event::Environment;
use super::integrity::Plausibility;
use super::noise::PPM;
use super::standing::{Environments, PenaltyRules};
use crate::ids::{Digest, ModelName, ModelVersion, SubcloudName};
use crate::time::Span;

pub use self::validate::{FLAWS_MAX, Flaw};

/// Models of one environment.
pub const MODELS_MAX: usize = 1_000;
/// Fallbacks of one model.
pub const FALLBACKS_MAX: usize = 8;
/// Bytes of a signature.
pub const SIGNATURE_BYTES_MAX: usize = 256;

/// What computes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuntimeKind {
    /// The built-in executor.
    Executor,
    /// Any server that speaks OpenAI's API.
    Upstream,
    /// Says back what it is told; for benches and tests.
    Echo,
}

impl RuntimeKind {
    /// All.
    pub const ALL: [RuntimeKind; 3] = [RuntimeKind::Executor, RuntimeKind::Upstream, RuntimeKind::Echo];

    /// The word that configurations use.
    pub fn word(self) -> &'static str {
        match self {
            RuntimeKind::Executor => "executor",
            RuntimeKind::Upstream => "upstream",
            RuntimeKind::Echo => "echo",
        }
    }
}

/// A model that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Which release of it.
    pub version: ModelVersion,
    /// SHA-256 of its file; a node with another serves another model.
    pub digest: Digest,
    /// What computes it.
    pub runtime: RuntimeKind,
    /// Memory that a node needs for it, in bytes.
    pub memory_bytes: u64,
    /// Tokens that a request without `max_tokens` may generate; its hold counts them.
    pub default_output_tokens: u32,
    /// Most tokens that any request may generate.
    pub output_tokens_max: u32,
    /// Models to try instead, in order, for jobs that want fallbacks but name none.
    pub fallbacks: Vec<ModelName>,
}

/// What nodes must put up with to take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Participation {
    /// First settled jobs of a key, which are checked more densely.
    pub probation_jobs: u64,
    /// Checks in a million settled jobs during probation.
    pub probation_check_rate_ppm: u32,
    /// Checks in a million settled jobs after it.
    pub check_rate_ppm: u32,
    /// Blind jobs to a million real jobs of a model.
    pub blind_rate_ppm: u32,
    /// How much longer one of two valid answers to a request may be than the other.
    pub validation_tokens_factor_max: u32,
    /// What results usually look like.
    pub plausibility: Plausibility,
}

impl Default for Participation {
    fn default() -> Self {
        Self {
            probation_jobs: 100,
            probation_check_rate_ppm: 100_000,
            check_rate_ppm: 5_000,
            blind_rate_ppm: 10_000,
            validation_tokens_factor_max: 4,
            plausibility: Plausibility::default(),
        }
    }
}

impl Participation {
    /// Whether a key with so many settled jobs, and so many checks behind it, is on probation: until it has settled its
    /// first jobs, and at least half the checks that those should have brought were made. Checks that nobody could pay,
    /// or that found no second node, so don't end it.
    pub fn is_on_probation(&self, settled_jobs: u64, checks: u64) -> bool {
        let due =
            u128::from(self.probation_jobs) * u128::from(self.probation_check_rate_ppm) / u128::from(PPM);
        settled_jobs < self.probation_jobs || u128::from(checks) < due / 2
    }

    /// How often such a key is checked, in a million of its settled jobs.
    pub fn check_rate_of(&self, settled_jobs: u64, checks: u64) -> u32 {
        if self.is_on_probation(settled_jobs, checks) {
            self.probation_check_rate_ppm
        } else {
            self.check_rate_ppm
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From assignment to the node's acceptance.
    pub accept: Span,
    /// From acceptance to the first output.
    pub first_output: Span,
    /// From acceptance to the first output where the model must be loaded first: test jobs.
    pub cold_first_output: Span,
    /// Between two pieces of output.
    pub progress: Span,
    /// For a whole attempt.
    pub attempt: Span,
    /// From a stop to the node's word that it stopped.
    pub stop: Span,
    /// Between two heartbeats, before a node is away.
    pub heartbeat_ttl: Span,
    /// From away to lost: a node that reconnects within it keeps its work.
    pub reconnect_ttl: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            accept: Span::from_secs(10),
            first_output: Span::from_secs(120),
            cold_first_output: Span::from_secs(600),
            progress: Span::from_secs(60),
            attempt: Span::from_secs(1_800),
            stop: Span::from_secs(10),
            heartbeat_ttl: Span::from_secs(15),
            reconnect_ttl: Span::from_secs(60),
        }
    }
}

/// Everything that the nodes of one environment and the core go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose it is; a snapshot of one environment never applies to the other.
    pub environment: Environment,
    /// Grows with every change, from 1.
    pub version: u64,
    /// SHA-256 of its bytes as nodes fetch them.
    pub digest: Digest,
    /// The coordinator's signature over environment, version and digest.
    pub signature: Arc<[u8]>,
    /// Which models there are.
    pub models: BTreeMap<ModelName, ModelSpec>,
    /// What nodes must put up with.
    pub participation: Participation,
    /// How misconduct is punished.
    pub penalties: PenaltyRules,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Which subclouds there are, with the digests of their definitions.
    pub subclouds: BTreeMap<SubcloudName, Digest>,
}

/// What applying a snapshot did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is in force.
    Replaced,
    /// It was in force already.
    Same,
}

/// Why a snapshot wasn't applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A later one is in force.
    Older {
        /// The version in force.
        in_force: u64,
        /// The version that was refused.
        refused: u64,
    },
    /// One of the same version but with another digest is in force: two were made where there may be one.
    Forked {
        /// Their version.
        version: u64,
    },
    /// It would do harm.
    Flawed(Vec<Flaw>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older { in_force, refused } => {
                write!(
                    f,
                    "version {refused} is older than version {in_force}, which is in force: give it a higher one"
                )
            }
            Self::Forked { version } => {
                write!(
                    f,
                    "version {version} is in force with another digest: give the change a higher version"
                )
            }
            Self::Flawed(flaws) => {
                let sentences: Vec<String> = flaws.iter().map(Flaw::to_string).collect();
                f.write_str(&sentences.join("; "))
            }
        }
    }
}

/// The snapshot in force of each environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshots {
    in_force: BTreeMap<Environment, Arc<Snapshot>>,
}

impl Snapshots {
    /// From what survived. What was written was valid, unless a newer build is stricter; then it says so and starts
    /// without.
    pub fn recover(rows: impl IntoIterator<Item = Snapshot>) -> (Self, Vec<Refused>) {
        let mut snapshots = Self::default();
        let refusals = rows.into_iter().filter_map(|row| snapshots.apply(row).err()).collect();
        (snapshots, refusals)
    }

    /// The one in force there, if there is one.
    pub fn of(&self, environment: Environment) -> Option<&Arc<Snapshot>> {
        self.in_force.get(&environment)
    }

    /// All in force.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.in_force.values()
    }

    /// A model of that environment.
    pub fn model(&self, environment: Environment, model: &ModelName) -> Option<&ModelSpec> {
        self.of(environment)?.models.get(model)
    }

    /// Whether there may be a model of that name in that environment.
    pub fn has(&self, environment: Environment, model: &ModelName) -> bool {
        let models = self.of(environment).map(|snapshot| &snapshot.models);
        models.is_none_or(|models| models.is_empty() || models.contains_key(model))
    }

    /// Where a model may be run by a node that has it under that digest, if it says one: where the snapshot in force has
    /// it, under no other; and where there is none, or one that names no models.
    pub fn permit(&self, model: &ModelName, digest: Option<Digest>) -> Environments {
        let permits = |environment: &Environment| match self.of(*environment) {
            Some(snapshot) if !snapshot.models.is_empty() => {
                let spec = snapshot.models.get(model);
                spec.is_some_and(|spec| digest.is_none_or(|digest| digest == spec.digest))
            }
            _ => true,
        };
        Environment::ALL.into_iter().filter(permits).fold(Environments::NONE, Environments::with)
    }

    /// Puts a snapshot in force, whole, if it is newer and sound; else nothing changes.
    pub fn apply(&mut self, snapshot: Snapshot) -> Result<Applied, Refused> {
        if let Some(present) = self.of(snapshot.environment) {
            let (in_force, refused) = (present.version, snapshot.version);
            if refused < in_force {
                return Err(Refused::Older { in_force, refused });
            }
            if refused == in_force {
                let same = present.digest == snapshot.digest;
                return if same { Ok(Applied::Same) } else { Err(Refused::Forked { version: in_force }) };
            }
        }
        snapshot.validate().map_err(Refused::Flawed)?;
        self.in_force.insert(snapshot.environment, Arc::new(snapshot));
        Ok(Applied::Replaced)
    }
}
