//! What the core says, as JSON for operators. Shows ids, times, states and reasons; never a prompt or an answer.

use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::metrics::counts_json;
use crate::coordinator::Counts;
use crate::coordinator::effect::{CancelCause, End, NodeView, QueueView, RefusalKind};
use crate::coordinator::event::{ErrorClass, FinishReason, JobError, Mode};
use crate::coordinator::job::JobRow;
use crate::coordinator::score::Score;
use crate::coordinator::standing::Standing;
use crate::coordinator::trace::{Loss, PlacedBy, TraceEntry, TraceEvent};
use crate::time::Time;

/// The nodes with capacity and load.
pub(super) fn nodes(nodes: &[NodeView]) -> Value {
    let node = |node: &NodeView| {
        let model = |(model, slots, taken): &(crate::ids::ModelName, u32, u32)| json!({"model": **model, "slots": slots, "slots_taken": taken});
        let models: Vec<_> = node.models.iter().map(model).collect();
        json!({"node": node.row.node.to_string(), "standing": standing(node.standing),
            "connected_at": node.connected_at.map(seconds), "models": models})
    };
    json!({"nodes": nodes.iter().map(node).collect::<Vec<_>>()})
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

/// Why there is no answer.
pub(super) fn refused(kind: RefusalKind) -> ApiError {
    let refusal = crate::coordinator::effect::Refusal { kind, retry_after: None };
    ApiError::refused(&refusal, "")
}

/// A job with every decision on it.
pub(super) fn trace(row: &JobRow) -> Value {
    json!({
        "job": row.id.to_string(),
        "namespace": row.spec.namespace.to_string(),
        "environment": row.spec.environment.word(),
        "endpoint": row.spec.endpoint.path(),
        "model": *row.model,
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
        "node": row.node.as_ref().map(ToString::to_string),
        "error": row.error.as_ref().map(error),
        "end": row.end.as_ref().map(end),
        "usage": {"input_tokens": row.usage.input_tokens, "output_tokens": row.usage.output_tokens},
        "held": row.hold.to_string(),
        "charged": row.charged.to_string(),
        "trace": row.trace.iter().map(entry).collect::<Vec<_>>(),
        "trace_dropped": row.trace_dropped,
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
        TraceEvent::Placed { reservation, node, candidates, by, score, losers } => {
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
        TraceEvent::Declined { reason } => json!({"event": "declined", "reason": reason}),
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

fn loser((node, loss): &(crate::ids::NodeId, Loss)) -> Value {
    match loss {
        Loss::Slower(score) => json!({"node": node.to_string(), "why": "slower", "score_us": terms(score)}),
        Loss::FailedBefore => json!({"node": node.to_string(), "why": "failed_before"}),
        Loss::NoRoom => json!({"node": node.to_string(), "why": "no_room"}),
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Banned => "banned",
        Standing::Frozen => "frozen",
        Standing::Excluded => "excluded",
        Standing::Away => "away",
        Standing::Draining => "draining",
        Standing::Paused => "paused",
        Standing::Untested => "untested",
        Standing::Ready => "ready",
    }
}

fn end(end: &End) -> Value {
    match end {
        End::Succeeded(FinishReason::Stop) => json!({"end": "succeeded", "finish_reason": "stop"}),
        End::Succeeded(FinishReason::Length) => json!({"end": "succeeded", "finish_reason": "length"}),
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
fn seconds(time: Time) -> f64 {
    time.0 as f64 / 1e6
}
