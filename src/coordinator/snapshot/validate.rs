//! What may not be in a snapshot, in sentences: which field is wrong, and what to do about it.

use std::fmt;

use super::{FALLBACKS_MAX, MODELS_MAX, ModelSpec, Participation, SIGNATURE_BYTES_MAX, Snapshot, Timeouts};
use crate::coordinator::noise::PPM;
use crate::coordinator::subcloud::SUBCLOUDS_MAX;
use crate::ids::ModelName;
use crate::time::Span;

/// Flaws that are stated at once; the rest shows after these are mended.
pub const FLAWS_MAX: usize = 16;

/// The shortest time without a heartbeat after which a node may count as away (as of `limits.heartbeat_ttl_ms`).
const HEARTBEAT_TTL_MIN: Span = Span::from_ms(100);

/// A sentence on what is wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw(String);

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Flaws = Vec<String>;

impl Snapshot {
    /// Whether it can be put in force; the first [`FLAWS_MAX`] things that are wrong otherwise.
    pub fn validate(&self) -> Result<(), Vec<Flaw>> {
        let mut flaws = self.sizes();
        // Models beyond their bound aren't looked at: the bound is what keeps this loop short.
        for (name, spec) in self.models.iter().take(MODELS_MAX) {
            flaws.extend(self.model_flaws(name, spec));
            if flaws.len() >= FLAWS_MAX {
                break;
            }
        }
        flaws.extend(self.participation.flaws());
        flaws.extend(self.penalties.flaws());
        flaws.extend(self.timeouts.flaws());
        flaws.truncate(FLAWS_MAX);
        if flaws.is_empty() { Ok(()) } else { Err(flaws.into_iter().map(Flaw).collect()) }
    }

    fn sizes(&self) -> Flaws {
        let mut flaws = Flaws::new();
        if self.version == 0 {
            flaws.push("version is 0: versions count from 1".to_owned());
        }
        for (field, count, max) in [
            ("models", self.models.len(), MODELS_MAX),
            ("subclouds", self.subclouds.len(), SUBCLOUDS_MAX),
            ("signature", self.signature.len(), SIGNATURE_BYTES_MAX),
        ] {
            if count > max {
                flaws.push(format!("{field} has {count} entries: it may have at most {max}, remove some"));
            }
        }
        if self.signature.is_empty() {
            flaws.push("signature is empty: sign the snapshot before it is applied".to_owned());
        }
        flaws
    }

    fn model_flaws(&self, name: &ModelName, spec: &ModelSpec) -> Flaws {
        let mut flaws = Flaws::new();
        if name.is_empty() {
            flaws.push("models has an entry without a name: name it or remove it".to_owned());
        }
        if spec.default_output_tokens == 0 {
            flaws.push(format!("models.{name}.default_output_tokens is 0: set it to at least 1"));
        }
        if spec.default_output_tokens > spec.output_tokens_max {
            flaws
                .push(format!("models.{name}.default_output_tokens exceeds its output_tokens_max: lower it"));
        }
        if spec.fallbacks.len() > FALLBACKS_MAX {
            flaws
                .push(format!("models.{name}.fallbacks names more than {FALLBACKS_MAX} models: remove some"));
            return flaws;
        }
        for (i, fallback) in spec.fallbacks.iter().enumerate() {
            if fallback == name || spec.fallbacks[..i].contains(fallback) {
                flaws.push(format!("models.{name}.fallbacks names `{fallback}` again: remove it"));
            } else if !self.models.contains_key(fallback) {
                flaws.push(format!(
                    "models.{name}.fallbacks names `{fallback}`, which isn't in models: add or remove it"
                ));
            }
        }
        flaws
    }
}

impl Participation {
    fn flaws(&self) -> Flaws {
        let rates = [
            ("probation_check_rate_ppm", self.probation_check_rate_ppm),
            ("check_rate_ppm", self.check_rate_ppm),
            ("blind_rate_ppm", self.blind_rate_ppm),
        ];
        let too_high = rates.into_iter().filter(|(_, rate)| *rate > PPM);
        let mut flaws: Flaws = too_high
            .map(|(field, rate)| {
                format!("participation.{field} is {rate}: it is in a million, set it to at most {PPM}")
            })
            .collect();
        if self.probation_check_rate_ppm < self.check_rate_ppm {
            flaws.push(
                "participation.probation_check_rate_ppm is below check_rate_ppm: new keys are checked more, raise it"
                    .to_owned(),
            );
        }
        let usual = &self.plausibility;
        if usual.tokens_per_kilobyte_min > usual.tokens_per_kilobyte_max {
            flaws.push(
                "participation.plausibility: tokens_per_kilobyte_min is above its max: lower it".to_owned(),
            );
        }
        for (field, value) in [
            ("plausibility.tokens_per_second_max", usual.tokens_per_second_max),
            ("validation_tokens_factor_max", self.validation_tokens_factor_max),
        ] {
            if value == 0 {
                flaws.push(format!("participation.{field} is 0: set it to at least 1"));
            }
        }
        flaws
    }
}

impl Timeouts {
    fn flaws(&self) -> Flaws {
        let all = [
            ("accept", self.accept),
            ("first_output", self.first_output),
            ("cold_first_output", self.cold_first_output),
            ("progress", self.progress),
            ("attempt", self.attempt),
            ("stop", self.stop),
            ("heartbeat_ttl", self.heartbeat_ttl),
            ("reconnect_ttl", self.reconnect_ttl),
        ];
        let zero = all.into_iter().filter(|(_, span)| span.0 == 0);
        let mut flaws: Flaws = zero
            .map(|(field, _)| format!("timeouts.{field} is 0: nothing could ever succeed, raise it"))
            .collect();
        for (field, span) in [("first_output", self.first_output), ("progress", self.progress)] {
            if span > self.attempt {
                flaws.push(format!(
                    "timeouts.{field} is longer than timeouts.attempt and would never end: lower it"
                ));
            }
        }
        if self.heartbeat_ttl.0 > 0 && self.heartbeat_ttl < HEARTBEAT_TTL_MIN {
            let min = HEARTBEAT_TTL_MIN.as_ms();
            flaws.push(format!(
                "timeouts.heartbeat_ttl is shorter than {min} ms: three heartbeats of a node must fit in, raise it"
            ));
        }
        if self.cold_first_output < self.first_output {
            flaws.push(
                "timeouts.cold_first_output is shorter than first_output: loading takes longer, raise it"
                    .to_owned(),
            );
        }
        flaws
    }
}
