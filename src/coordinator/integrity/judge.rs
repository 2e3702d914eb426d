//! Judges results: against what a template expects, against a second node's, and against common sense.
//!
//! Two gravities. A result that *contradicts itself* is rejected: the attempt fails by the node's fault, as no honest
//! node can send it. One that is only *unlikely* is flagged (counted and noted), and accepted: the bounds are
//! configured guesses, and a fast or terse node must not be punished by a guess; blind jobs find the liar.

use super::{Expect, OutputDigest, Template};
use crate::coordinator::event::FinishReason;
use crate::time::Span;

/// Tokens below which rates aren't judged: a short answer's are noise.
const RATED_TOKENS_MIN: u32 = 32;
/// Tokens that an empty output may have: the end-of-text token.
const EMPTY_OUTPUT_TOKENS_MAX: u32 = 1;
const MICROS_PER_SECOND: u128 = 1_000_000;

/// What is known of a result that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultFacts {
    /// Most tokens that the job allowed.
    pub output_tokens_max: u32,
    /// Tokens generated, as signed.
    pub output_tokens: u32,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// Chunks of the output.
    pub chunks: u32,
    /// Hash of the output, where it was computed.
    pub digest: Option<OutputDigest>,
    /// From the node's acceptance to its result.
    pub took: Span,
    /// Why generation ended.
    pub finish: FinishReason,
}

/// Whether the same request must give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// It must: greedy, and both nodes run the same runtime on the same model digest.
    Deterministic,
    /// It need not.
    Random,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// As it should.
    Passed,
    /// Not so.
    Failed,
    /// There is too little to say; it counts for nothing.
    Unclear,
}

fn passed_if(condition: bool) -> Judgement {
    if condition { Judgement::Passed } else { Judgement::Failed }
}

/// Judges the result of a blind job.
pub fn judge_blind(template: &Template, result: &ResultFacts) -> Judgement {
    match (&template.expect, result.digest) {
        (Expect::Digests(known), Some(digest)) => passed_if(known.contains(&digest)),
        (Expect::Digests(_), None) => Judgement::Unclear,
        (Expect::Tokens { min, max }, _) => passed_if((*min..=*max).contains(&result.output_tokens)),
    }
}

/// Judges a result by that of a second node: the same bytes where the request allows only one answer; else lengths
/// within a factor of `tokens_factor_max`, an allowance of [`RATED_TOKENS_MIN`] apart. Says nothing of who is wrong.
pub fn judge_validation(
    sampling: Sampling,
    first: &ResultFacts,
    second: &ResultFacts,
    tokens_factor_max: u32,
) -> Judgement {
    match (sampling, first.digest, second.digest) {
        (Sampling::Deterministic, Some(first), Some(second)) => passed_if(first == second),
        (Sampling::Deterministic, ..) => Judgement::Unclear,
        (Sampling::Random, ..) => {
            let (few, many) = (
                first.output_tokens.min(second.output_tokens),
                first.output_tokens.max(second.output_tokens),
            );
            let most = u64::from(few) * u64::from(tokens_factor_max) + u64::from(RATED_TOKENS_MIN);
            passed_if(u64::from(many) <= most)
        }
    }
}

/// What results of a model usually look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plausibility {
    /// Fewest tokens to a thousand bytes.
    pub tokens_per_kilobyte_min: u32,
    /// Most tokens to a thousand bytes.
    pub tokens_per_kilobyte_max: u32,
    /// Most tokens a second.
    pub tokens_per_second_max: u32,
}

impl Default for Plausibility {
    fn default() -> Self {
        Self { tokens_per_kilobyte_min: 30, tokens_per_kilobyte_max: 1_000, tokens_per_second_max: 5_000 }
    }
}

/// What is to be done about an implausible result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gravity {
    /// The attempt fails by the node's fault.
    Rejected,
    /// The result stands, and is counted and noted.
    Flagged,
}

/// What is implausible about a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Implausible {
    /// More tokens than the job allowed.
    TooManyTokens,
    /// Several tokens, but no output.
    TokensWithoutOutput,
    /// Output, but in no chunk.
    OutputWithoutChunks,
    /// Output, but no tokens: it cheats only itself.
    OutputWithoutTokens,
    /// It says that it ran into the limit, but didn't reach it: so does a full context.
    EndedBeforeItsLimit,
    /// Too many tokens for its bytes.
    TokensTooShort,
    /// Too few tokens for its bytes.
    TokensTooLong,
    /// Faster than any node is thought to be.
    TooFast,
}

impl Implausible {
    /// In words.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::TooManyTokens => "more tokens than the job allowed",
            Self::TokensWithoutOutput => "several tokens, but no output",
            Self::OutputWithoutChunks => "output, but in no chunk",
            Self::OutputWithoutTokens => "output, but no tokens",
            Self::EndedBeforeItsLimit => "it ended at a limit that it didn't reach",
            Self::TokensTooShort => "too many tokens for its bytes",
            Self::TokensTooLong => "too few tokens for its bytes",
            Self::TooFast => "faster than any node is thought to be",
        }
    }

    /// All.
    pub const ALL: [Implausible; 8] = [
        Implausible::TooManyTokens,
        Implausible::TokensWithoutOutput,
        Implausible::OutputWithoutChunks,
        Implausible::OutputWithoutTokens,
        Implausible::EndedBeforeItsLimit,
        Implausible::TokensTooShort,
        Implausible::TokensTooLong,
        Implausible::TooFast,
    ];

    /// What is to be done about it.
    pub fn gravity(self) -> Gravity {
        match self {
            Self::TooManyTokens | Self::TokensWithoutOutput | Self::OutputWithoutChunks => Gravity::Rejected,
            Self::OutputWithoutTokens
            | Self::EndedBeforeItsLimit
            | Self::TokensTooShort
            | Self::TokensTooLong
            | Self::TooFast => Gravity::Flagged,
        }
    }

    fn applies(self, result: &ResultFacts, usual: &Plausibility) -> bool {
        let (tokens, bytes) = (result.output_tokens, result.output_bytes);
        let rated = tokens >= RATED_TOKENS_MIN;
        let kilo_tokens = u128::from(tokens) * 1_000;
        let tokens_at = |per_kilobyte: u32| u128::from(bytes) * u128::from(per_kilobyte);
        match self {
            Self::TooManyTokens => tokens > result.output_tokens_max,
            Self::TokensWithoutOutput => tokens > EMPTY_OUTPUT_TOKENS_MAX && bytes == 0,
            Self::OutputWithoutChunks => bytes > 0 && result.chunks == 0,
            Self::OutputWithoutTokens => bytes > 0 && tokens == 0,
            Self::EndedBeforeItsLimit => {
                result.finish == FinishReason::Length && tokens < result.output_tokens_max
            }
            Self::TokensTooShort => rated && kilo_tokens > tokens_at(usual.tokens_per_kilobyte_max),
            Self::TokensTooLong => {
                bytes >= u64::from(RATED_TOKENS_MIN) && kilo_tokens < tokens_at(usual.tokens_per_kilobyte_min)
            }
            Self::TooFast => {
                let allowed = u128::from(usual.tokens_per_second_max) * u128::from(result.took.0);
                rated && u128::from(tokens) * MICROS_PER_SECOND > allowed
            }
        }
    }
}

/// Whether a successful result makes sense; the gravest objection otherwise.
pub fn plausible(result: &ResultFacts, usual: &Plausibility) -> Result<(), Implausible> {
    match Implausible::ALL.into_iter().find(|objection| objection.applies(result, usual)) {
        Some(objection) => Err(objection),
        None => Ok(()),
    }
}
