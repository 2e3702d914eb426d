//! A job's receipt: what its node signed of the answer, countersigned by the box when somebody asks.
//!
//! Nothing is decided or counted here: the statement lies beside the job as it was signed. The box's own node signs
//! nothing, so of its jobs the box states what it knows, and the receipt says that nobody else does.

use hyper::{Response, StatusCode};

use super::Context;
use super::auth::Principal;
use super::error::ApiError;
use super::jobs::{self, Seen};
use super::response::{self, Body};
use crate::archive::{StoredJob, Wanted};
use crate::coordinator::effect::End;
use crate::coordinator::event::FinishReason;
use crate::coordinator::job::{AttemptOutcome, JobRow};
use crate::ids::NodeId;
use crate::output::ChunkKind;
use crate::wire::OutputHasher;
use crate::wire::receipt::{Billed, Proof, Receipt, Stated};

/// The receipt of a job that succeeded.
pub(super) async fn show(
    context: &Context,
    principal: &Principal,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let job = jobs::parsed(id)?;
    match jobs::look_for(context, principal, job, Wanted::Proof).await? {
        Seen::Live(view) => {
            let message = format!(
                "There is a receipt once the job has succeeded, and it is {}: ask for it with GET /v1/jobs/{job}?wait=60s \
                 first.",
                view.row.state.word()
            );
            Err(ApiError::no_receipt(StatusCode::CONFLICT, "job_not_ended", message))
        }
        Seen::Ended(stored, session) => {
            let receipt = receipt_of(context, &stored)?;
            session.served();
            let text = serde_json::to_string_pretty(&receipt).map_err(|problem| {
                ApiError::internal(&format!(
                    "The receipt could not be rendered ({problem}): please report it."
                ))
            })?;
            Ok(response::whole(StatusCode::OK, "application/json", text + "\n"))
        }
    }
}

fn none(message: String) -> ApiError {
    ApiError::no_receipt(StatusCode::NOT_FOUND, "no_receipt", message)
}

fn receipt_of(context: &Context, stored: &StoredJob) -> Result<Receipt, ApiError> {
    let row = &stored.row;
    let Some(End::Succeeded(reason)) = row.end else {
        let state = row.state.word();
        return Err(none(format!("Only an answer has a receipt, and {} ended as {state}.", row.id)));
    };
    let billed = Billed {
        input_tokens: row.usage.input_tokens,
        cached_tokens: row.usage.cached_tokens,
        output_tokens: row.usage.output_tokens,
        microcredits: u64::try_from(row.charged.0).unwrap_or(0),
    };
    let ended_at_ms = row.ended_at.map_or(0, |at| at.0 / 1_000);
    let boxs = &context.identity;
    match &stored.proof {
        Some(bytes) => {
            let proof = Proof::read(bytes)
                .ok_or_else(|| ApiError::unreadable(row.id, crate::archive::Piece::Proof))?;
            if proof.box_key() != boxs.public() {
                return Err(none(format!(
                    "{} was signed to this box's former key, {}, which it hasn't any more.",
                    row.id,
                    proof.box_key()
                )));
            }
            Ok(Receipt::of_node(boxs, proof, billed, ended_at_ms))
        }
        None if row.node.as_ref() == Some(&NodeId::local()) => {
            let stated = stated_by_box(stored, reason)
                .ok_or_else(|| none(format!("{} was answered by nothing that is kept.", row.id)))?;
            Ok(Receipt::of_box(boxs, stated, billed, ended_at_ms))
        }
        None => Err(none(format!("What its node signed of {} isn't kept.", row.id))),
    }
}

/// What the box knows of an answer of its own node: its row, and the answer where that is kept.
fn stated_by_box(stored: &StoredJob, finish_reason: FinishReason) -> Option<Stated> {
    let row: &JobRow = &stored.row;
    let attempt = row.history.iter().rev().find(|attempt| attempt.outcome == AttemptOutcome::Succeeded)?;
    let output_hash = stored.answer.as_ref().map(|answer| {
        let mut hasher = OutputHasher::new();
        for (kind, text) in answer.pieces() {
            match kind {
                ChunkKind::Text => hasher.text(text),
                ChunkKind::Json => hasher.json(text),
            }
        }
        hasher.hash()
    });
    Some(Stated {
        environment: row.spec.environment,
        job: row.id,
        reservation: attempt.reservation,
        model: attempt.model.clone(),
        model_digest: None,
        model_index: row.model_index,
        request_hash: None,
        output_hash,
        input_tokens: row.usage.input_tokens,
        cached_tokens: row.usage.cached_tokens,
        output_tokens: row.usage.output_tokens,
        finish_reason,
    })
}
