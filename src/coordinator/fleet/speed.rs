//! What was measured of a model, on a node and on all of them: integer running means.
//!
//! A mean moves by an eighth of the difference with each sample; the first sample is taken as it is.

use crate::time::Span;

/// Microseconds for a thousand tokens while nothing was measured anywhere: about 200 tokens/s in, 50 out.
const PREFILL_GUESS_US: u32 = 5_000_000;
const DECODE_GUESS_US: u32 = 20_000_000;

/// How fast a node is with a model, in microseconds for a thousand tokens; 0 while it wasn't measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::coordinator) struct Pace {
    prefill_us: u32,
    decode_us: u32,
}

/// One attempt as measured.
#[derive(Debug, Clone, Copy)]
pub(in crate::coordinator) struct Sample {
    pub(in crate::coordinator) input_tokens: u32,
    pub(in crate::coordinator) output_tokens: u32,
    /// From the node's acceptance to the first output.
    pub(in crate::coordinator) prefill: Span,
    /// From the first output to the last.
    pub(in crate::coordinator) decode: Span,
}

impl Pace {
    /// Learns from an attempt.
    pub(in crate::coordinator) fn learn(&mut self, sample: &Sample) {
        if sample.input_tokens > 0 {
            learn(&mut self.prefill_us, per_thousand(sample.prefill, sample.input_tokens));
        }
        // The first token belongs to the prefill.
        if sample.output_tokens > 1 {
            learn(&mut self.decode_us, per_thousand(sample.decode, sample.output_tokens - 1));
        }
    }

    /// Whether anything was learnt of it.
    pub(in crate::coordinator) fn is_measured(self) -> bool {
        self != Self::default()
    }

    /// This pace where it was measured, else the other.
    pub(in crate::coordinator) fn or(self, other: Pace) -> Pace {
        let pick = |mine, theirs| if mine == 0 { theirs } else { mine };
        Pace {
            prefill_us: pick(self.prefill_us, other.prefill_us),
            decode_us: pick(self.decode_us, other.decode_us),
        }
    }

    /// What reading so many tokens takes, in microseconds.
    pub(in crate::coordinator) fn prefill(self, tokens: u32) -> i64 {
        scaled(if self.prefill_us == 0 { PREFILL_GUESS_US } else { self.prefill_us }, tokens)
    }

    /// What generating so many tokens takes, in microseconds.
    pub(in crate::coordinator) fn decode(self, tokens: u32) -> i64 {
        scaled(if self.decode_us == 0 { DECODE_GUESS_US } else { self.decode_us }, tokens)
    }
}

/// What is known of a model over all nodes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::coordinator) struct ModelMeans {
    pub(in crate::coordinator) pace: Pace,
    /// How long an attempt takes its slot; 0 while none was measured.
    service_us: u64,
    input_tokens: u32,
    output_tokens: u32,
}

/// How long an attempt takes while none was measured.
const SERVICE_GUESS: Span = Span::from_secs(1);

impl ModelMeans {
    /// How long an attempt takes its slot.
    pub(in crate::coordinator) fn service(&self) -> Span {
        if self.service_us == 0 { SERVICE_GUESS } else { Span(self.service_us) }
    }

    /// Learns from an attempt that gave its slot back.
    pub(in crate::coordinator) fn took(&mut self, took: Span) {
        let took = took.0.max(1);
        self.service_us = if self.service_us == 0 {
            took
        } else {
            (self.service_us.saturating_mul(7).saturating_add(took)) / 8
        };
    }

    /// Learns from an attempt with an answer.
    pub(in crate::coordinator) fn learn(&mut self, sample: &Sample) {
        self.pace.learn(sample);
        learn(&mut self.input_tokens, sample.input_tokens);
        learn(&mut self.output_tokens, sample.output_tokens);
    }

    /// Tokens that a job of this model usually has: in, and out.
    pub(in crate::coordinator) fn typical_tokens(&self) -> (u32, u32) {
        (self.input_tokens.max(1), self.output_tokens.max(1))
    }
}

fn per_thousand(span: Span, tokens: u32) -> u32 {
    u32::try_from(span.0.saturating_mul(1_000) / u64::from(tokens)).unwrap_or(u32::MAX).max(1)
}

fn learn(mean: &mut u32, sample: u32) {
    let blended = (u64::from(*mean) * 7 + u64::from(sample)) / 8;
    *mean = if *mean == 0 { sample } else { blended as u32 };
}

fn scaled(per_thousand_us: u32, tokens: u32) -> i64 {
    (u64::from(per_thousand_us) * u64::from(tokens) / 1_000) as i64
}
