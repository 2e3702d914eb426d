//! A configuration snapshot as its text: what its digest is over, what the box signs, and what agents fetch.
//!
//! `docs/configuration.md` states the text byte by byte. It is JSON that a serializer writes, in the order of the fields
//! here: agents never write it, and that ours stays the same for ever is what the tests see to.
//!
//! The text follows from the snapshot's row, so it isn't kept. A change of it makes a format 2, and what was made as
//! format 1 is written as such for ever. Who reads it checks digest and signature over the bytes as they came, and skips
//! members that it doesn't know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::coordinator::event::Environment;
use crate::coordinator::integrity::Plausibility;
use crate::coordinator::snapshot::{ModelSpec, Participation, RuntimeKind, Snapshot, Timeouts};
use crate::coordinator::standing::{PenaltyRules, Weights};
use crate::coordinator::subcloud::{Isolation, Subcloud};
use crate::ids::{Digest, ModelName, ModelVersion, SubcloudName};
use crate::time::Span;
use crate::wire::keys::Hex;
use crate::wire::to_agent::SnapshotText;
use crate::wire::{Hash, Identity, verify};

/// The text's format.
const FORMAT: u32 = 1;

/// What is said of a snapshot before it is signed: everything but its digest and signature, which follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Whose it is.
    pub environment: Environment,
    /// Its number.
    pub version: u64,
    /// Which models there are.
    pub models: BTreeMap<ModelName, ModelSpec>,
    /// What nodes must put up with.
    pub participation: Participation,
    /// How misconduct is punished.
    pub penalties: PenaltyRules,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Which subclouds there are.
    pub subclouds: BTreeMap<SubcloudName, Digest>,
}

impl Draft {
    /// What a snapshot says.
    pub fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { environment, version, models, participation, penalties, timeouts, subclouds, .. } =
            snapshot.clone();
        Self { environment, version, models, participation, penalties, timeouts, subclouds }
    }

    /// Its text.
    pub fn text(&self) -> String {
        written(&Text::of(self))
    }

    /// The snapshot, digested and signed by that box.
    pub fn signed(self, identity: &Identity) -> Snapshot {
        let text = self.text();
        let signature = verify::sign_snapshot(identity, self.environment, self.version, &text);
        let Self { environment, version, models, participation, penalties, timeouts, subclouds } = self;
        Snapshot {
            environment,
            version,
            digest: digest_of(&text),
            signature: signature.0.into(),
            models,
            participation,
            penalties,
            timeouts,
            subclouds,
        }
    }

    /// What a text says, whose digest and signature were checked; `None` if it is of another format, or is none.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str::<Text>(text).ok().and_then(Text::back)
    }
}

/// A snapshot as agents fetch it: its text with the box's signature. `None` if its text isn't what was signed, as after a
/// change of the box's key by hand.
pub fn fetched(snapshot: &Snapshot) -> Option<SnapshotText> {
    let text = Draft::of(snapshot).text();
    let signature: [u8; 64] = snapshot.signature.as_ref().try_into().ok()?;
    let Snapshot { environment, version, digest, .. } = *snapshot;
    if digest_of(&text) != digest {
        return None;
    }
    Some(SnapshotText { environment, version, text, signature: Hex(signature) })
}

fn digest(text: &str) -> Option<Digest> {
    text.parse().ok().map(|Hex(bytes): Hash| Digest(bytes))
}

/// The digest of a text.
pub fn digest_of(text: &str) -> Digest {
    Digest(Sha256::digest(text).into())
}

/// The digest of a subcloud's definition.
pub fn digest_of_subcloud(subcloud: &Subcloud) -> Digest {
    let policy = &subcloud.policy;
    let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>();
    digest_of(&written(&SubcloudText {
        name: subcloud.name.to_string(),
        environment: subcloud.environment.word().to_owned(),
        models: policy.models.as_ref().map(|all| names(&mut all.iter().map(ToString::to_string))),
        regions: policy.regions.as_ref().map(|all| names(&mut all.iter().map(ToString::to_string))),
        trust_min: policy.trust_min.word().to_owned(),
        memory_min_bytes: policy.memory_min_bytes,
        gpu: policy.gpu.as_ref().map(ToString::to_string),
        isolate: subcloud.isolate == Isolation::Isolated,
    }))
}

fn written<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("these have string keys only, and memory takes every byte")
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    environment: String,
    version: u64,
    models: Vec<ModelText>,
    participation: ParticipationText,
    penalties: PenaltiesText,
    timeouts: TimeoutsText,
    subclouds: Vec<SubcloudRef>,
}

#[derive(Serialize, Deserialize)]
struct ModelText {
    name: String,
    version: ModelVersion,
    digest: String,
    runtime: String,
    memory_bytes: u64,
    default_output_tokens: u32,
    output_tokens_max: u32,
    fallbacks: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ParticipationText {
    probation_jobs: u64,
    probation_check_rate_ppm: u32,
    check_rate_ppm: u32,
    blind_rate_ppm: u32,
    validation_tokens_factor_max: u32,
    tokens_per_kilobyte_min: u32,
    tokens_per_kilobyte_max: u32,
    tokens_per_second_max: u32,
}

#[derive(Serialize, Deserialize)]
struct PenaltiesText {
    attempt_failed: u32,
    timed_out: u32,
    died: u32,
    failed_check: u32,
    failed_test: u32,
    forged: u32,
    success_repair: u32,
    half_life_us: u64,
    exclude_below: u32,
    failures_in_a_row_max: u32,
    cooldown_us: u64,
    cooldown_max_us: u64,
    forgive_after_us: u64,
    quality_min: u32,
    quality_checks_min: u32,
    lies_max: u32,
}

#[derive(Serialize, Deserialize)]
struct TimeoutsText {
    accept_us: u64,
    first_output_us: u64,
    cold_first_output_us: u64,
    progress_us: u64,
    attempt_us: u64,
    stop_us: u64,
    heartbeat_ttl_us: u64,
    reconnect_ttl_us: u64,
}

#[derive(Serialize, Deserialize)]
struct SubcloudRef {
    name: SubcloudName,
    digest: String,
}

#[derive(Serialize)]
struct SubcloudText {
    name: String,
    environment: String,
    models: Option<Vec<String>>,
    regions: Option<Vec<String>>,
    trust_min: String,
    memory_min_bytes: u64,
    gpu: Option<String>,
    isolate: bool,
}

impl Text {
    fn of(draft: &Draft) -> Self {
        let model = |(name, spec): (&ModelName, &ModelSpec)| ModelText {
            name: name.to_string(),
            version: spec.version.clone(),
            digest: spec.digest.to_string(),
            runtime: spec.runtime.word().to_owned(),
            memory_bytes: spec.memory_bytes,
            default_output_tokens: spec.default_output_tokens,
            output_tokens_max: spec.output_tokens_max,
            fallbacks: spec.fallbacks.iter().map(ToString::to_string).collect(),
        };
        let subcloud = |(name, digest): (&SubcloudName, &Digest)| SubcloudRef {
            name: name.clone(),
            digest: digest.to_string(),
        };
        Self {
            format: FORMAT,
            environment: draft.environment.word().to_owned(),
            version: draft.version,
            models: draft.models.iter().map(model).collect(),
            participation: ParticipationText::of(&draft.participation),
            penalties: PenaltiesText::of(&draft.penalties),
            timeouts: TimeoutsText::of(&draft.timeouts),
            subclouds: draft.subclouds.iter().map(subcloud).collect(),
        }
    }

    fn back(self) -> Option<Draft> {
        let environments = Environment::ALL.into_iter();
        let environment = { environments }.find(|environment| environment.word() == self.environment)?;
        let model = |text: ModelText| {
            let spec = ModelSpec {
                version: text.version,
                digest: digest(&text.digest)?,
                runtime: RuntimeKind::ALL.into_iter().find(|kind| kind.word() == text.runtime)?,
                memory_bytes: text.memory_bytes,
                default_output_tokens: text.default_output_tokens,
                output_tokens_max: text.output_tokens_max,
                fallbacks: text.fallbacks.into_iter().map(Into::into).collect(),
            };
            Some((text.name.into(), spec))
        };
        let subcloud = |text: SubcloudRef| Some((text.name, digest(&text.digest)?));
        (self.format == FORMAT).then_some(())?;
        Some(Draft {
            environment,
            version: self.version,
            models: self.models.into_iter().map(model).collect::<Option<_>>()?,
            participation: self.participation.back(),
            penalties: self.penalties.back(),
            timeouts: self.timeouts.back(),
            subclouds: self.subclouds.into_iter().map(subcloud).collect::<Option<_>>()?,
        })
    }
}

impl ParticipationText {
    fn of(rules: &Participation) -> Self {
        let Plausibility { tokens_per_kilobyte_min, tokens_per_kilobyte_max, tokens_per_second_max } =
            rules.plausibility;
        Self {
            probation_jobs: rules.probation_jobs,
            probation_check_rate_ppm: rules.probation_check_rate_ppm,
            check_rate_ppm: rules.check_rate_ppm,
            blind_rate_ppm: rules.blind_rate_ppm,
            validation_tokens_factor_max: rules.validation_tokens_factor_max,
            tokens_per_kilobyte_min,
            tokens_per_kilobyte_max,
            tokens_per_second_max,
        }
    }

    fn back(self) -> Participation {
        Participation {
            probation_jobs: self.probation_jobs,
            probation_check_rate_ppm: self.probation_check_rate_ppm,
            check_rate_ppm: self.check_rate_ppm,
            blind_rate_ppm: self.blind_rate_ppm,
            validation_tokens_factor_max: self.validation_tokens_factor_max,
            plausibility: Plausibility {
                tokens_per_kilobyte_min: self.tokens_per_kilobyte_min,
                tokens_per_kilobyte_max: self.tokens_per_kilobyte_max,
                tokens_per_second_max: self.tokens_per_second_max,
            },
        }
    }
}

impl PenaltiesText {
    fn of(rules: &PenaltyRules) -> Self {
        let Weights { attempt_failed, timed_out, died, failed_check, failed_test, forged } = rules.weights;
        Self {
            attempt_failed,
            timed_out,
            died,
            failed_check,
            failed_test,
            forged,
            success_repair: rules.success_repair,
            half_life_us: rules.half_life.0,
            exclude_below: rules.exclude_below,
            failures_in_a_row_max: rules.failures_in_a_row_max,
            cooldown_us: rules.cooldown.0,
            cooldown_max_us: rules.cooldown_max.0,
            forgive_after_us: rules.forgive_after.0,
            quality_min: rules.quality_min,
            quality_checks_min: rules.quality_checks_min,
            lies_max: rules.lies_max,
        }
    }

    fn back(self) -> PenaltyRules {
        let Self { attempt_failed, timed_out, died, failed_check, failed_test, forged, .. } = self;
        PenaltyRules {
            weights: Weights { attempt_failed, timed_out, died, failed_check, failed_test, forged },
            success_repair: self.success_repair,
            half_life: Span(self.half_life_us),
            exclude_below: self.exclude_below,
            failures_in_a_row_max: self.failures_in_a_row_max,
            cooldown: Span(self.cooldown_us),
            cooldown_max: Span(self.cooldown_max_us),
            forgive_after: Span(self.forgive_after_us),
            quality_min: self.quality_min,
            quality_checks_min: self.quality_checks_min,
            lies_max: self.lies_max,
        }
    }
}

impl TimeoutsText {
    fn of(timeouts: &Timeouts) -> Self {
        Self {
            accept_us: timeouts.accept.0,
            first_output_us: timeouts.first_output.0,
            cold_first_output_us: timeouts.cold_first_output.0,
            progress_us: timeouts.progress.0,
            attempt_us: timeouts.attempt.0,
            stop_us: timeouts.stop.0,
            heartbeat_ttl_us: timeouts.heartbeat_ttl.0,
            reconnect_ttl_us: timeouts.reconnect_ttl.0,
        }
    }

    fn back(self) -> Timeouts {
        Timeouts {
            accept: Span(self.accept_us),
            first_output: Span(self.first_output_us),
            cold_first_output: Span(self.cold_first_output_us),
            progress: Span(self.progress_us),
            attempt: Span(self.attempt_us),
            stop: Span(self.stop_us),
            heartbeat_ttl: Span(self.heartbeat_ttl_us),
            reconnect_ttl: Span(self.reconnect_ttl_us),
        }
    }
}

#[cfg(test)]
mod tests;
