//! What a job should have been charged, computed again from what happened: SPEC section 6, case by case.
//!
//! Written from the text; it knows prices and token counts, never what the core thinks.

use switchbox::coordinator::effect::{CancelCause, End};
use switchbox::coordinator::event::{Completion, InputCount, Status, Stopped};
use switchbox::credits::Price;

use super::book::JobFacts;

/// What a node said that ended an attempt.
#[derive(Debug, Clone)]
pub(crate) enum LastWord {
    /// A result.
    Result(Completion),
    /// It stopped.
    Stopped(Stopped),
    /// Nothing: a deadline, a decline, a loss, an operator.
    Nothing,
}

/// The charging cases, for coverage.
pub(crate) const CASES: [&str; 9] = [
    "succeeded",
    "cancelled by the client, stopped after it began",
    "cancelled by the client, result crossed",
    "cancelled by the client, no signed stop",
    "cancelled by the client before the node began",
    "cancelled by the operator",
    "interrupted",
    "failed",
    "expired",
];

/// A case with what it costs; several amounts where the text leaves two readings.
pub(crate) struct Charge {
    pub(crate) case: &'static str,
    pub(crate) amounts: Vec<i64>,
}

/// What is known about a job's end.
pub(crate) struct Ending<'a> {
    pub(crate) before: Option<&'a JobFacts>,
    pub(crate) after: &'a JobFacts,
    pub(crate) word: &'a LastWord,
    /// Tokens (or bytes) that the closed output held; `None` if it was never closed.
    pub(crate) written_tokens: Option<u32>,
}

fn cost(price: Price, input: u64, cached: u64, output: u64) -> i64 {
    let cached = cached.min(input);
    let exact = u128::from(price.input) * u128::from(input - cached)
        + u128::from(price.cached_input) * u128::from(cached)
        + u128::from(price.output) * u128::from(output);
    i64::try_from(exact.div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// The largest sum that a job can cost, over its models.
pub(crate) fn worst_case(job: &JobFacts) -> i64 {
    let spec = &job.spec;
    let worst = |price: &Price| {
        let input = price.input.max(price.cached_input);
        let dearest = Price { input, ..*price };
        cost(dearest, u64::from(spec.input_tokens), 0, u64::from(spec.output_tokens_max))
    };
    job.prices.iter().map(worst).max().unwrap_or(0)
}

/// Recomputes a charge.
pub(crate) fn charge(ending: &Ending<'_>) -> Charge {
    let free = |case| Charge { case, amounts: vec![0] };
    match ending.after.end.as_ref() {
        Some(End::Succeeded(_)) => succeeded(ending),
        Some(End::Cancelled(CancelCause::Client)) => cancelled(ending),
        Some(End::Cancelled(CancelCause::Operator | CancelCause::Shutdown)) => {
            free("cancelled by the operator")
        }
        Some(End::Cancelled(CancelCause::Interrupted)) => free("interrupted"),
        Some(End::Failed(_)) => free("failed"),
        Some(End::Expired) => free("expired"),
        None => free("no end"),
    }
}

fn price_of(job: &JobFacts) -> Price {
    job.prices[job.model_index as usize]
}

/// Prompt tokens: the box's own count where it has one.
fn input_of(job: &JobFacts, signed: u32) -> u64 {
    let own = u64::from(job.spec.input_tokens);
    let guess = job.body_bytes + 16 * u64::from(job.spec.messages);
    match job.spec.input_count {
        InputCount::Exact => own,
        InputCount::AtMost => own.min(u64::from(signed)).min(guess),
    }
}

fn result_cost(job: &JobFacts, result: &Completion, seen_most: Option<u32>) -> i64 {
    let input = input_of(job, result.input_tokens);
    let signed = u64::from(result.output_tokens);
    let output = match result.seen.tokens {
        Some(tokens) => signed.min(u64::from(tokens) + 1),
        None => signed.min(result.seen.bytes),
    };
    let output = output.min(u64::from(job.spec.output_tokens_max));
    let output = seen_most.map_or(output, |most| output.min(u64::from(most)));
    cost(price_of(job), input, u64::from(result.cached_tokens), output)
}

fn succeeded(ending: &Ending<'_>) -> Charge {
    let amounts = match ending.word {
        LastWord::Result(result) => vec![result_cost(ending.after, result, None)],
        _ => Vec::new(),
    };
    Charge { case: "succeeded", amounts }
}

fn cancelled(ending: &Ending<'_>) -> Charge {
    let case = |case, amounts| Charge { case, amounts };
    let Some(before) = ending.before.filter(|before| before.reservation.is_some()) else {
        return case("cancelled by the client before the node began", vec![0]);
    };
    let written = ending.written_tokens;
    match ending.word {
        LastWord::Stopped(stopped) if stopped.input_tokens > 0 => {
            let output = u64::from(stopped.output_tokens.min(written.unwrap_or(0)));
            let input = input_of(before, stopped.input_tokens);
            case(
                "cancelled by the client, stopped after it began",
                vec![cost(price_of(before), input, 0, output)],
            )
        }
        LastWord::Stopped(_) => case("cancelled by the client before the node began", vec![0]),
        LastWord::Result(result) => {
            let mut amounts = vec![result_cost(before, result, written)];
            if matches!(result.status, Status::Failed(_)) {
                amounts.push(0);
            }
            case("cancelled by the client, result crossed", amounts)
        }
        LastWord::Nothing => case("cancelled by the client, no signed stop", vec![0]),
    }
}
