//! How good a node is for a job: a sum of named terms in microseconds, the smaller the better.
//!
//! - `wait_us` = service x taken slots / slots: what its load makes a job wait or share.
//! - `load_us`: loading the model, where it isn't in memory.
//! - `prefill_us`, `decode_us`: the job's tokens at the node's measured pace (else the model's, else a guess).
//! - `prefix_us`: minus three quarters of the prefill, where the node's cache may hold the prompt's beginning.
//! - `reliability_us` = service x (1000 - reliability) / 250: a node that fails half of its jobs costs two more.
//!
//! Only `CANDIDATES_MAX` nodes of a lane are compared by the whole score: `place` says where a node stands among those
//! with room, and `fleet/ready` which come first.

use super::event::Warmth;
use super::fleet::{ModelMeans, Node, Place, Serving};
use super::standing::PenaltyRules;
use crate::time::Time;

/// A node's score for a job: named terms in microseconds; the smallest sum wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Score {
    /// What its load makes a job wait.
    pub wait_us: i64,
    /// Loading the model, where it isn't in memory.
    pub load_us: i64,
    /// Reading the prompt, at the measured pace.
    pub prefill_us: i64,
    /// Generating, at the measured pace.
    pub decode_us: i64,
    /// What its cache saves of the prefill; below zero or zero.
    pub prefix_us: i64,
    /// What its failures cost on average: the more it fails, the larger.
    pub reliability_us: i64,
}

impl Score {
    /// The sum of the terms.
    pub fn sum(&self) -> i64 {
        self.terms().iter().fold(0, |sum, (_, us)| sum.saturating_add(*us))
    }

    /// The terms under their names.
    pub fn terms(&self) -> [(&'static str, i64); 6] {
        [
            ("wait_us", self.wait_us),
            ("load_us", self.load_us),
            ("prefill_us", self.prefill_us),
            ("decode_us", self.decode_us),
            ("prefix_us", self.prefix_us),
            ("reliability_us", self.reliability_us),
        ]
    }
}

/// What a score is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) input_tokens: u32,
    pub(super) output_tokens: u32,
    pub(super) prefix: Prefix,
}

/// Whether a node's cache may hold the beginning of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    Cached,
    Unknown,
}

/// A node's score for a load.
pub(super) fn score(
    node: &Node,
    serving: &Serving,
    means: ModelMeans,
    load: Load,
    rules: &PenaltyRules,
    now: Time,
) -> Score {
    let service = i64::try_from(means.service().0.min(1 << 40)).unwrap_or(i64::MAX);
    let pace = serving.pace.or(means.pace);
    let prefill_us = pace.prefill(load.input_tokens);
    let missing = 1_000 - i64::from(node.record.reliability(now, rules).min(1_000));
    Score {
        wait_us: service * i64::from(node.taken) / i64::from(node.slots.max(1)),
        load_us: if serving.warmth == Warmth::Cold { serving.load.0.min(1 << 40) as i64 } else { 0 },
        prefill_us,
        decode_us: pace.decode(load.output_tokens),
        prefix_us: if load.prefix == Prefix::Cached { -(prefill_us * 3 / 4) } else { 0 },
        reliability_us: service * missing / 250,
    }
}

/// Tokens of the job that nodes are compared by within a class: what matters is only how reading weighs against
/// writing, and it mustn't move.
const FIXED_TOKENS: (u32, u32) = (1_024, 256);

/// Where a node stands among those of its lane that have room.
pub(super) fn place(
    node: &Node,
    serving: &Serving,
    means: ModelMeans,
    rules: &PenaltyRules,
    now: Time,
) -> Place {
    let missing = 1_000 - i64::from(node.record.reliability(now, rules).min(1_000));
    let share = 1_000 * i64::from(node.taken) / i64::from(node.slots.max(1)) + 4 * missing;
    let pace = serving.pace.or(means.pace);
    let pace_us = pace.prefill(FIXED_TOKENS.0) + pace.decode(FIXED_TOKENS.1);
    let load_us = serving.load.0.min(1 << 40) as i64;
    match (serving.pace.is_measured(), serving.warmth) {
        (false, Warmth::Warm) => Place::unmeasured(share),
        (false, Warmth::Cold) => Place::cold(load_us),
        (true, Warmth::Cold) => Place::cold(load_us + pace_us),
        (true, Warmth::Warm) => Place::measured(share, pace_us),
    }
}
