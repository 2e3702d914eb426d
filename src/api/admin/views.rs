//! What the core says, as JSON for operators. Shows ids, times, states and reasons; never a prompt or an answer.

use serde_json::{Value, json};

use super::super::metrics::counts_json;
use crate::coordinator::Counts;
use crate::coordinator::effect::{
    CancelCause, CancelState, DeadLetterView, End, JobView, QueueView, Runnable,
};
use crate::coordinator::event::{ErrorClass, JobError, Mode, Origin};
use crate::coordinator::job::{AttemptOutcome, AttemptRow, JobRow};
use crate::coordinator::ledger::{Account, Owner};
use crate::coordinator::score::Score;
use crate::coordinator::trace::{Loss, PlacedBy, Placement, TraceEntry, TraceEvent};
use crate::credits::Credits;
use crate::ids::{JobId, NodeId};
use crate::time::Time;

/// Every account that has or owes something, or had.
pub(super) fn balances(balances: &[(Account, Credits, Credits)]) -> Value {
    let line = |(account, balance, held): &(Account, Credits, Credits)| {
        let (kind, name) = match &account.owner {
            Owner::Namespace(namespace) => ("namespace", Some(namespace.to_string())),
            Owner::Node(node) => ("node", Some(node.to_string())),
            Owner::Fee => ("fee", None),
            Owner::Integrity => ("integrity", None),
            Owner::Issuance => ("issuance", None),
        };
        json!({"environment": account.environment.word(), "account": kind, "name": name,
            "balance": balance.to_string(), "held": held.to_string()})
    };
    json!({"balances": balances.iter().map(line).collect::<Vec<_>>()})
}

/// Jobs that failed, newest first.
pub(super) fn dead_letters(letters: &[DeadLetterView]) -> Value {
    let letter = |view: &DeadLetterView| json!({"job": view.job.to_string(), "requeued_as": view.requeued_as.map(|job| job.to_string())});
    json!({"dead_letters": letters.iter().map(letter).collect::<Vec<_>>()})
}

/// What a pause holds back.
pub(super) fn paused(waiting: u64, expiring: u64) -> Value {
    json!({"waiting": waiting, "expiring_within_the_hour": expiring})
}

/// What became of a cancel.
pub(super) fn cancelled(job: JobId, state: CancelState) -> Value {
    let state = match state {
        CancelState::Cancelled => "cancelled",
        CancelState::Cancelling => "cancelling",
    };
    json!({"job": job.to_string(), "state": state})
}

/// What waits.
pub(super) fn queue(queue: &[QueueView]) -> Value {
    let lane = |view: &QueueView| {
        json!({"model": *view.model, "tier": view.tier.word(), "jobs": view.jobs,
            "oldest_submitted_at": seconds(view.oldest_submitted_at)})
    };
    json!({"queue": queue.iter().map(lane).collect::<Vec<_>>()})
}

/// The recount and what it found.
pub(super) fn invariants(recount: &Counts, violations: &[String]) -> Value {
    json!({"ok": violations.is_empty(), "violations": violations, "recount": counts_json(recount)})
}

/// How many jobs a drain waits for.
pub(super) fn draining(live: u64) -> Value {
    json!({"draining": true, "live": live})
}

/// A job with every decision on it.
pub(super) fn trace(row: &JobRow) -> Value {
    let mut value = facts(row);
    value["trace"] = row.trace.iter().map(entry).collect();
    value["trace_dropped"] = row.trace_dropped.into();
    value
}

/// A live job: where it stands, and what came of its attempts.
pub(super) fn live_job(view: &JobView) -> Value {
    let mut value = ended_job(&view.row);
    value["position"] = view.position.into();
    value["starts_at"] = view.starts_at.map(seconds).into();
    let (runnable, why) = match view.runnable {
        Runnable::Yes => (true, None),
        Runnable::No(why) => (false, Some(why.sentence())),
    };
    value["runnable"] = runnable.into();
    value["not_runnable_why"] = why.into();
    value
}

/// A job that has ended, with what came of its attempts.
pub(super) fn ended_job(row: &JobRow) -> Value {
    let mut value = facts(row);
    value["history"] = row.history.iter().map(attempt).collect();
    value
}

fn attempt(attempt: &AttemptRow) -> Value {
    let outcome = match &attempt.outcome {
        AttemptOutcome::Succeeded => json!("succeeded"),
        AttemptOutcome::Failed(failure) => json!({"failed": error(failure)}),
        AttemptOutcome::TimedOut(deadline) => json!({"timed_out": deadline}),
        AttemptOutcome::Declined => json!("declined"),
        AttemptOutcome::Lost => json!("lost"),
        AttemptOutcome::TakenBack => json!("taken_back"),
        AttemptOutcome::Stopped => json!("stopped"),
        AttemptOutcome::Cut => json!("cut_by_a_restart"),
    };
    json!({"reservation": attempt.reservation.to_string(), "node": attempt.node.to_string(),
        "model": *attempt.model, "assigned_at": seconds(attempt.assigned_at),
        "ended_at": seconds(attempt.ended_at), "outcome": outcome})
}

fn origin(origin: &Origin) -> Value {
    match origin {
        Origin::Client => json!("client"),
        Origin::Requeued { from } => json!({"requeued": from.to_string()}),
        Origin::Test { node } => json!({"test_of": node.to_string()}),
        Origin::Blind { template } => json!({"blind": **template}),
        Origin::Validation { of } => json!({"validation_of": of.to_string()}),
    }
}

fn facts(row: &JobRow) -> Value {
    json!({
        "job": row.id.to_string(),
        "namespace": row.spec.namespace.to_string(),
        "environment": row.spec.environment.word(),
        "endpoint": row.spec.endpoint.path(),
        "origin": origin(&row.origin),
        "model": **row.model(),
        "model_asked_for": *row.spec.model,
        "mode": mode(row.spec.mode),
        "tier": row.spec.tier.word(),
        "state": match row.cancel_requested {
            Some(_) if row.state.is_live() => "cancelling",
            _ => row.state.word(),
        },
        "input_tokens": row.spec.input_tokens,
        "output_tokens_max": row.spec.output_tokens_max,
        "submitted_at": seconds(row.submitted_at),
        "dispatched_at": row.dispatched_at.map(seconds),
        "ended_at": row.ended_at.map(seconds),
        "expires_at": seconds(row.expires_at),
        "attempts": row.attempts,
        "failed_attempts": row.failed_attempts,
        "lost_attempts": row.lost_attempts,
        "declines": row.declines,
        "node": row.node.as_ref().map(ToString::to_string),
        "error": row.error.as_ref().map(error),
        "end": row.end.as_ref().map(end),
        "usage": {"input_tokens": row.usage.input_tokens, "cached_tokens": row.usage.cached_tokens,
            "output_tokens": row.usage.output_tokens},
        "held": row.hold.to_string(),
        "charged": row.charged.to_string(),
    })
}

fn entry(entry: &TraceEntry) -> Value {
    let mut value = event(&entry.what);
    value["at"] = seconds(entry.at).into();
    value
}

fn event(what: &TraceEvent) -> Value {
    match what {
        TraceEvent::Submitted { ahead } => json!({"event": "submitted", "ahead": ahead}),
        TraceEvent::Placed(placed) => {
            let Placement { reservation, node, candidates, by, score, losers } = &**placed;
            let by = match by {
                PlacedBy::Job => "job",
                PlacedBy::Node => "node",
            };
            json!({"event": "placed", "reservation": reservation.to_string(), "node": node.to_string(),
                "candidates": candidates, "by": by, "score_us": terms(score),
                "losers": losers.iter().map(loser).collect::<Vec<_>>()})
        }
        TraceEvent::NotRunnable { why } => json!({"event": "not_runnable", "why": why.sentence()}),
        TraceEvent::FellBack { model } => json!({"event": "fell_back", "model": **model}),
        TraceEvent::Recovered => json!({"event": "recovered"}),
        TraceEvent::Accepted => json!({"event": "accepted"}),
        TraceEvent::Declined { reason } => json!({"event": "declined", "reason": **reason}),
        TraceEvent::AttemptFailed { error: failure } => {
            json!({"event": "attempt_failed", "error": error(failure)})
        }
        TraceEvent::TimedOut { deadline } => json!({"event": "timed_out", "deadline": deadline}),
        TraceEvent::TakenBack => json!({"event": "taken_back"}),
        TraceEvent::Lost => json!({"event": "lost"}),
        TraceEvent::Revoked { delivered, written } => {
            json!({"event": "revoked", "delivered": delivered, "written": written})
        }
        TraceEvent::Requeued { not_before } => {
            json!({"event": "requeued", "not_before": seconds(*not_before)})
        }
        TraceEvent::CancelRequested { cause } => {
            json!({"event": "cancel_requested", "cause": cancel_cause(*cause)})
        }
        TraceEvent::Ended { state } => json!({"event": "ended", "state": state.word()}),
    }
}

/// A score's terms, in microseconds, and their sum.
fn terms(score: &Score) -> Value {
    let mut terms: serde_json::Map<_, _> =
        score.terms().iter().map(|(term, value)| ((*term).to_owned(), Value::from(*value))).collect();
    terms.insert("sum_us".to_owned(), score.sum().into());
    Value::Object(terms)
}

fn loser((node, loss): &(NodeId, Loss)) -> Value {
    match loss {
        Loss::Slower(score) => json!({"node": node.to_string(), "why": "slower", "score_us": terms(score)}),
        Loss::FailedBefore => json!({"node": node.to_string(), "why": "failed_before"}),
        Loss::NoRoom => json!({"node": node.to_string(), "why": "no_room"}),
    }
}

fn end(end: &End) -> Value {
    match end {
        End::Succeeded(reason) => json!({"end": "succeeded", "finish_reason": reason.word()}),
        End::Failed(failure) => json!({"end": "failed", "error": error(failure)}),
        End::Cancelled(cause) => json!({"end": "cancelled", "cause": cancel_cause(*cause)}),
        End::Expired => json!({"end": "expired"}),
    }
}

fn error(error: &JobError) -> Value {
    let class = match error.class {
        ErrorClass::Terminal => "terminal",
        ErrorClass::Node => "node",
        ErrorClass::Transient => "transient",
    };
    json!({"class": class, "message": error.message})
}

fn cancel_cause(cause: CancelCause) -> &'static str {
    match cause {
        CancelCause::Client => "client",
        CancelCause::Operator => "operator",
        CancelCause::Shutdown => "shutdown",
        CancelCause::Interrupted => "interrupted",
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Sync => "sync",
        Mode::Stream => "stream",
        Mode::Polling => "polling",
        Mode::Batch => "batch",
    }
}

/// A point in time as unix seconds with microseconds.
pub(super) fn seconds(time: Time) -> f64 {
    time.0 as f64 / 1e6
}
