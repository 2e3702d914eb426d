//! The file that a configuration snapshot is made of: TOML like the box's own, with `[[model]]` sections, and what the
//! nodes of an environment must put up with in `[participation]`, `[penalties]` and `[timeouts]`. What it doesn't say
//! has its default, not what was in force before: the file is all of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::document::{ConfigError, Document, Place, Section, Stated};
use crate::coordinator::integrity::Plausibility;
use crate::coordinator::snapshot::{Flaw, ModelSpec, Participation, RuntimeKind, Timeouts};
use crate::coordinator::standing::{PenaltyRules, Weights};
use crate::ids::{Digest, ModelName, ModelVersion};
use crate::time::Span;
use crate::wire::keys::Hex;
use crate::wire::{Hash, MODEL_NAME_BYTES_MAX, NUMBER_MAX};

const SECTIONS: [(&str, &[&str]); 4] = [
    (
        "model",
        &[
            "name",
            "version",
            "digest",
            "runtime",
            "memory_bytes",
            "default_output_tokens",
            "output_tokens_max",
            "fallbacks",
        ],
    ),
    (
        "participation",
        &[
            "probation_jobs",
            "probation_check_rate_ppm",
            "check_rate_ppm",
            "blind_rate_ppm",
            "validation_tokens_factor_max",
            "tokens_per_kilobyte_min",
            "tokens_per_kilobyte_max",
            "tokens_per_second_max",
        ],
    ),
    (
        "penalties",
        &[
            "attempt_failed",
            "timed_out",
            "died",
            "failed_check",
            "failed_test",
            "forged",
            "success_repair",
            "half_life_ms",
            "exclude_below",
            "failures_in_a_row_max",
            "cooldown_ms",
            "cooldown_max_ms",
            "forgive_after_ms",
            "quality_min",
            "quality_checks_min",
            "lies_max",
        ],
    ),
    (
        "timeouts",
        &[
            "accept_ms",
            "first_output_ms",
            "cold_first_output_ms",
            "progress_ms",
            "attempt_ms",
            "stop_ms",
            "heartbeat_ttl_ms",
            "reconnect_ttl_ms",
        ],
    ),
];

/// Tokens that a request without `max_tokens` may generate, and the most that any may, where a model doesn't say.
const DEFAULT_OUTPUT_TOKENS: u64 = 1_024;
const OUTPUT_TOKENS_MAX: u64 = 32_768;
/// The longest span, in milliseconds: what is as many microseconds is a number that everyone keeps exactly.
const MS_MAX: u64 = NUMBER_MAX / 1_000;

/// What a file says.
#[derive(Debug)]
pub struct SnapshotFile {
    /// Which models there are.
    pub models: BTreeMap<ModelName, ModelSpec>,
    /// What nodes must put up with.
    pub participation: Participation,
    /// How misconduct is punished.
    pub penalties: PenaltyRules,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Where each field is stated, by the path that flaws name it with.
    places: Vec<(String, Place)>,
}

fn keys_of(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| *keys)
}

/// The last part of a path.
fn field(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Where a key belongs that was written in the wrong section.
fn home_of(key: &str) -> Option<String> {
    SECTIONS.iter().find(|(_, keys)| keys.contains(&key)).map(|(section, _)| format!("{section}.{key}"))
}

impl SnapshotFile {
    /// Reads a file's text; `path` is what errors call it.
    ///
    /// # Errors
    /// The first key or value that makes no sense by itself, with its place.
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        let document = Document::of(path, text);
        let table = document.parse()?;
        let names = SECTIONS.map(|(name, _)| name);
        let root = Section::open(&document, "", &table, &names, home_of)?;
        let mut file = Self {
            models: BTreeMap::new(),
            participation: Participation::default(),
            penalties: PenaltyRules::default(),
            timeouts: Timeouts::default(),
            places: Vec::new(),
        };
        for (table, stated) in root.tables("model")? {
            let section = Section::open(&document, "model", table, keys_of("model"), home_of)?;
            file.add_model(&section, &stated)?;
        }
        let open = |name: &'static str| -> Result<_, ConfigError> {
            let table = root.table(name)?;
            table.map(|table| Section::open(&document, name, table, keys_of(name), home_of)).transpose()
        };
        if let Some(section) = open("participation")? {
            file.read_participation(&section)?;
        }
        if let Some(section) = open("penalties")? {
            file.read_penalties(&section)?;
        }
        if let Some(section) = open("timeouts")? {
            file.read_timeouts(&section)?;
        }
        Ok(file)
    }

    /// What is wrong with it as a whole, with the places of what is named: of the field that it is about, or else of one that
    /// it names beside it, for a field that isn't stated has no place.
    pub fn explain(&self, flaws: &[Flaw]) -> String {
        let explained = flaws.iter().map(|flaw| {
            let flaw = flaw.to_string();
            let about = self.places.iter().filter(|(path, _)| flaw.starts_with(path.as_str()));
            let beside = self.places.iter().filter(|(path, _)| flaw.contains(field(path)));
            let longest = |(path, _): &&(String, Place)| path.len();
            match about.max_by_key(longest).or_else(|| beside.max_by_key(longest)) {
                Some((_, place)) => format!("{place}: {flaw}"),
                None => flaw,
            }
        });
        explained.collect::<Vec<_>>().join("; ")
    }

    fn note<T>(&mut self, path: String, stated: &Stated<T>) {
        self.places.extend(stated.place().map(|place| (path, place.clone())));
    }

    /// A number of a section, which flaws call `path`.
    fn number(
        &mut self,
        section: &Section<'_>,
        (key, path): (&str, String),
        default: u64,
        most: u64,
    ) -> Result<u64, ConfigError> {
        let Some(stated) = section.number(key)? else { return Ok(default) };
        self.note(path, &stated);
        stated.in_range(0, most, default)
    }

    fn small(
        &mut self,
        section: &Section<'_>,
        (key, path): (&str, String),
        default: u32,
    ) -> Result<u32, ConfigError> {
        let number = self.number(section, (key, path), default.into(), u32::MAX.into())?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn add_model(&mut self, section: &Section<'_>, whole: &Stated<()>) -> Result<(), ConfigError> {
        let missing = |key: &str, example: &str| {
            whole.refused(&format!("names no `{key}`"), format!("write {key} = {example}"))
        };
        let name = section.text("name")?.ok_or_else(|| missing("name", "\"tiny\""))?;
        let fits = !name.value.is_empty() && name.value.len() <= MODEL_NAME_BYTES_MAX;
        if !fits || name.value.contains(char::is_control) {
            let remedy = format!("write 1 to {MODEL_NAME_BYTES_MAX} bytes, without control characters");
            return Err(name.refused("isn't a model's name", remedy));
        }
        let path = |field: &str| format!("models.{}.{field}", name.value);
        let version = section.text("version")?.ok_or_else(|| missing("version", "\"v1\""))?;
        let version = version.value.parse().map_err(|error: crate::ids::NameError| {
            version.refused(&error.to_string(), "choose another".to_owned())
        })?;
        let digest = section.text("digest")?;
        let digest = digest.ok_or_else(|| missing("digest", "\"...\", the SHA-256 of the model's file"))?;
        let Hex(bytes): Hash = digest.value.parse().map_err(|error: crate::wire::keys::HexError| {
            digest.refused(&error.to_string(), "write the SHA-256 of the model's file".to_owned())
        })?;
        let runtime = runtime(section)?;
        let fallbacks = section.texts("fallbacks")?.unwrap_or_default();
        if let Some(first) = fallbacks.first() {
            self.note(path("fallbacks"), first);
        }
        let default = small_number(section, "default_output_tokens", DEFAULT_OUTPUT_TOKENS)?;
        let most = small_number(section, "output_tokens_max", OUTPUT_TOKENS_MAX)?;
        for (field, stated) in [("default_output_tokens", &default.1), ("output_tokens_max", &most.1)] {
            if let Some(stated) = stated {
                self.note(path(field), stated);
            }
        }
        let spec = ModelSpec {
            version,
            digest: Digest(bytes),
            runtime,
            memory_bytes: self.number(section, ("memory_bytes", path("memory_bytes")), 0, NUMBER_MAX)?,
            default_output_tokens: default.0,
            output_tokens_max: most.0,
            fallbacks: fallbacks.iter().map(|fallback| fallback.value.as_str().into()).collect(),
        };
        self.note(format!("models.{}", name.value), &name);
        match self.models.insert(name.value.as_str().into(), spec) {
            None => Ok(()),
            Some(_) => Err(name.refused("is there twice", "remove one, or rename it".to_owned())),
        }
    }

    fn read_participation(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        let before = self.participation;
        let at = |key: &'static str| (key, format!("participation.{key}"));
        let usual = |key: &'static str| (key, format!("participation.plausibility.{key}"));
        let looks = before.plausibility;
        self.participation = Participation {
            probation_jobs: self.number(section, at("probation_jobs"), before.probation_jobs, NUMBER_MAX)?,
            probation_check_rate_ppm: self.small(
                section,
                at("probation_check_rate_ppm"),
                before.probation_check_rate_ppm,
            )?,
            check_rate_ppm: self.small(section, at("check_rate_ppm"), before.check_rate_ppm)?,
            blind_rate_ppm: self.small(section, at("blind_rate_ppm"), before.blind_rate_ppm)?,
            validation_tokens_factor_max: self.small(
                section,
                at("validation_tokens_factor_max"),
                before.validation_tokens_factor_max,
            )?,
            plausibility: Plausibility {
                tokens_per_kilobyte_min: self.small(
                    section,
                    ("tokens_per_kilobyte_min", "participation.plausibility".to_owned()),
                    looks.tokens_per_kilobyte_min,
                )?,
                tokens_per_kilobyte_max: self.small(
                    section,
                    usual("tokens_per_kilobyte_max"),
                    looks.tokens_per_kilobyte_max,
                )?,
                tokens_per_second_max: self.small(
                    section,
                    usual("tokens_per_second_max"),
                    looks.tokens_per_second_max,
                )?,
            },
        };
        Ok(())
    }

    fn read_penalties(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        let PenaltyRules { weights, .. } = self.penalties;
        let before = self.penalties;
        let at = |key: &'static str| (key, format!("penalties.{key}"));
        self.penalties = PenaltyRules {
            weights: Weights {
                attempt_failed: self.small(section, at("attempt_failed"), weights.attempt_failed)?,
                timed_out: self.small(section, at("timed_out"), weights.timed_out)?,
                died: self.small(section, at("died"), weights.died)?,
                failed_check: self.small(section, at("failed_check"), weights.failed_check)?,
                failed_test: self.small(section, at("failed_test"), weights.failed_test)?,
                forged: self.small(section, at("forged"), weights.forged)?,
            },
            success_repair: self.small(section, at("success_repair"), before.success_repair)?,
            half_life: self.span(section, "penalties", "half_life_ms", before.half_life)?,
            exclude_below: self.small(section, at("exclude_below"), before.exclude_below)?,
            failures_in_a_row_max: self.small(
                section,
                at("failures_in_a_row_max"),
                before.failures_in_a_row_max,
            )?,
            cooldown: self.span(section, "penalties", "cooldown_ms", before.cooldown)?,
            cooldown_max: self.span(section, "penalties", "cooldown_max_ms", before.cooldown_max)?,
            forgive_after: self.span(section, "penalties", "forgive_after_ms", before.forgive_after)?,
            quality_min: self.small(section, at("quality_min"), before.quality_min)?,
            quality_checks_min: self.small(section, at("quality_checks_min"), before.quality_checks_min)?,
            lies_max: self.small(section, at("lies_max"), before.lies_max)?,
        };
        Ok(())
    }

    fn read_timeouts(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        let before = self.timeouts;
        let mut span = |key, default| self.span(section, "timeouts", key, default);
        self.timeouts = Timeouts {
            accept: span("accept_ms", before.accept)?,
            first_output: span("first_output_ms", before.first_output)?,
            cold_first_output: span("cold_first_output_ms", before.cold_first_output)?,
            progress: span("progress_ms", before.progress)?,
            attempt: span("attempt_ms", before.attempt)?,
            stop: span("stop_ms", before.stop)?,
            heartbeat_ttl: span("heartbeat_ttl_ms", before.heartbeat_ttl)?,
            reconnect_ttl: span("reconnect_ttl_ms", before.reconnect_ttl)?,
        };
        Ok(())
    }

    /// A span in milliseconds; flaws leave the unit out.
    fn span(
        &mut self,
        section: &Section<'_>,
        name: &str,
        key: &str,
        default: Span,
    ) -> Result<Span, ConfigError> {
        let path = format!("{name}.{}", key.strip_suffix("_ms").unwrap_or(key));
        self.number(section, (key, path), default.as_ms(), MS_MAX).map(Span::from_ms)
    }
}

/// A number of a model, and where it is stated, if it is.
fn small_number(
    section: &Section<'_>,
    key: &str,
    default: u64,
) -> Result<(u32, Option<Stated<u64>>), ConfigError> {
    let stated = section.number(key)?;
    let number = stated.as_ref().map_or(Ok(default), |s| s.in_range(0, u32::MAX.into(), default))?;
    Ok((u32::try_from(number).unwrap_or(u32::MAX), stated))
}

fn runtime(section: &Section<'_>) -> Result<RuntimeKind, ConfigError> {
    let Some(stated) = section.text("runtime")? else { return Ok(RuntimeKind::Executor) };
    let found = RuntimeKind::ALL.into_iter().find(|kind| kind.word() == stated.value);
    let remedy = || "write \"executor\", \"upstream\" or \"echo\"".to_owned();
    found.ok_or_else(|| stated.refused("isn't a runtime", remedy()))
}

/// A file that says what is given, to be changed and applied again; `head` are lines of comment.
pub fn written(
    head: &str,
    models: &BTreeMap<ModelName, ModelSpec>,
    (participation, penalties, timeouts): (&Participation, &PenaltyRules, &Timeouts),
) -> String {
    let mut out: String = head.lines().map(|line| format!("# {line}\n")).collect();
    for (name, spec) in models {
        out.push_str("\n[[model]]\n");
        let ModelSpec { version, digest, runtime, memory_bytes, fallbacks, .. } = spec;
        let version: &ModelVersion = version;
        line(&mut out, "name", &quoted(name));
        line(&mut out, "version", &quoted(version.as_str()));
        line(&mut out, "digest", &quoted(&digest.to_string()));
        line(&mut out, "runtime", &quoted(runtime.word()));
        line(&mut out, "memory_bytes", memory_bytes);
        line(&mut out, "default_output_tokens", &spec.default_output_tokens);
        line(&mut out, "output_tokens_max", &spec.output_tokens_max);
        let fallbacks: Vec<String> = fallbacks.iter().map(|name| quoted(name)).collect();
        line(&mut out, "fallbacks", &format!("[{}]", fallbacks.join(", ")));
    }
    let Participation { probation_jobs, plausibility: usual, .. } = participation;
    let numbers = [
        *probation_jobs,
        participation.probation_check_rate_ppm.into(),
        participation.check_rate_ppm.into(),
        participation.blind_rate_ppm.into(),
        participation.validation_tokens_factor_max.into(),
        usual.tokens_per_kilobyte_min.into(),
        usual.tokens_per_kilobyte_max.into(),
        usual.tokens_per_second_max.into(),
    ];
    section(&mut out, "participation", &numbers);
    let Weights { attempt_failed, timed_out, died, failed_check, failed_test, forged } = penalties.weights;
    let weights = [attempt_failed, timed_out, died, failed_check, failed_test, forged].map(u64::from);
    let rules = [
        penalties.success_repair.into(),
        penalties.half_life.as_ms(),
        penalties.exclude_below.into(),
        penalties.failures_in_a_row_max.into(),
        penalties.cooldown.as_ms(),
        penalties.cooldown_max.as_ms(),
        penalties.forgive_after.as_ms(),
        penalties.quality_min.into(),
        penalties.quality_checks_min.into(),
        penalties.lies_max.into(),
    ];
    section(&mut out, "penalties", &[&weights[..], &rules[..]].concat());
    let Timeouts { accept, first_output, cold_first_output, progress, attempt, .. } = timeouts;
    let Timeouts { stop, heartbeat_ttl, reconnect_ttl, .. } = timeouts;
    let spans =
        [accept, first_output, cold_first_output, progress, attempt, stop, heartbeat_ttl, reconnect_ttl];
    section(&mut out, "timeouts", &spans.map(|span| span.as_ms()));
    out
}

/// A section of numbers, in the order of its keys.
fn section(out: &mut String, name: &str, numbers: &[u64]) {
    // Writing into a text never fails.
    let _ = writeln!(out, "\n[{name}]");
    keys_of(name).iter().zip(numbers).for_each(|(key, number)| line(out, key, number));
}

fn line(out: &mut String, key: &str, value: &dyn std::fmt::Display) {
    let _ = writeln!(out, "{key} = {value}");
}

/// A text as TOML's basic strings have it, which is as JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
