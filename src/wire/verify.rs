//! From what came over a socket to what the core may believe. Pure, and called at the edge, never in the drain: a
//! check costs some 40 us.
//!
//! Nowhere else in the product is a `Verified` made of a remote node's words.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hash::{Hash, plain_hash};
use super::keys::{Identity, PublicKey, Signature};
use super::layout::Layout;
use super::statement::{ResultStatement, StatedStatus, Statement, StoppedStatement};
use super::to_agent::SnapshotText;
use crate::coordinator::event::{Completion, Environment, JobError, Seen, Status, Stopped, Verified};
use crate::coordinator::integrity::OutputDigest;
use crate::ids::{JobId, ModelName, ReservationId};

/// Between whom a statement is: part of everything that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parties {
    /// The coordinator.
    pub box_key: PublicKey,
    /// The node.
    pub node_key: PublicKey,
}

/// A statement as it came, with the signature that is claimed for it. Nothing in it is to be believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// What is stated.
    pub statement: T,
    /// Over the statement's layout, by the node's key.
    pub signature: Signature,
}

impl<T: Statement> Signed<T> {
    /// Signs a statement to that box.
    pub fn sign(statement: T, node: &Identity, box_key: PublicKey) -> Self {
        let parties = Parties { box_key, node_key: node.public() };
        let signature = node.sign(&statement.layout(&parties));
        Self { statement, signature }
    }

    /// What proves it to whoever knows the node's key: the layout and, behind it, the signature.
    #[cfg(test)]
    pub fn proof(&self, parties: &Parties) -> Arc<[u8]> {
        self.proof_of(self.statement.layout(parties))
    }

    /// Checks the signature, and gives the layout that it is over.
    fn check(&self, parties: &Parties) -> Result<Vec<u8>, StatementError> {
        let layout = self.statement.layout(parties);
        let is_signed = parties.node_key.signed(&layout, &self.signature);
        is_signed.then_some(layout).ok_or(StatementError::Signature)
    }

    fn proof_of(&self, mut layout: Vec<u8>) -> Arc<[u8]> {
        layout.extend_from_slice(&self.signature.0);
        layout.into()
    }
}

/// What the box itself knows of an attempt that it issued.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    /// In which world.
    pub environment: Environment,
    /// Which job.
    pub job: JobId,
    /// Which attempt of it.
    pub reservation: ReservationId,
    /// On which model.
    pub model: ModelName,
    /// Which of the job's models that is.
    pub model_index: u32,
    /// What the node said it has under that name.
    pub model_digest: Option<Hash>,
    /// What was asked.
    pub request_hash: Hash,
    /// What the box received, once that is all of it; `None` where it dropped some (the attempt was revoked).
    pub output_hash: Option<Hash>,
}

/// Why a statement isn't believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Nobody with that key signed that, to this box. Counts against the node.
    #[error("the signature isn't the node's over this statement")]
    Signature,
    /// It is signed, but speaks of something else than what was issued under that reservation. Counts like a wrong
    /// signature: no honest node signs it.
    #[error("the statement is signed, but its `{0}` isn't what was assigned")]
    Elsewhere(&'static str),
    /// It is signed, and the output that it speaks of isn't the one that came. A failed attempt of the node's.
    #[error("the statement is signed, but its `output_hash` isn't that of the output that came")]
    Output,
}

impl StatementError {
    /// Whether it counts against the node as a bad signature.
    pub fn is_strike(self) -> bool {
        match self {
            StatementError::Signature | StatementError::Elsewhere(_) => true,
            StatementError::Output => false,
        }
    }
}

/// Checks a result: first that it is signed, then, where the box still knows the attempt (`issued`), that it speaks of
/// it. The result of an attempt that isn't known any more is the core's to answer, with a final `unknown`.
///
/// # Errors
/// See [`StatementError`]; nothing of such a result may reach the core.
pub fn result(
    signed: &Signed<ResultStatement>,
    parties: &Parties,
    issued: Option<&Issued>,
    seen: Seen,
) -> Result<Verified<Completion>, StatementError> {
    let layout = signed.check(parties)?;
    let stated = &signed.statement;
    if let Some(issued) = issued {
        speaks_of(stated, issued)?;
    }
    let status = match stated.status.clone() {
        StatedStatus::Succeeded { finish_reason } => Status::Succeeded(finish_reason),
        StatedStatus::Failed { class, message } => Status::Failed(JobError { class, message }),
    };
    Ok(Verified::proven(Completion {
        node: parties.node_key.node(),
        reservation: stated.reservation,
        status,
        input_tokens: stated.input_tokens,
        cached_tokens: stated.cached_tokens,
        output_tokens: stated.output_tokens,
        digest: Some(OutputDigest(stated.output_hash.0)),
        seen,
        proof: Some(signed.proof_of(layout)),
    }))
}

fn speaks_of(stated: &ResultStatement, issued: &Issued) -> Result<(), StatementError> {
    let same = [
        ("environment", stated.environment == issued.environment),
        ("job", stated.job == issued.job),
        ("reservation", stated.reservation == issued.reservation),
        ("model", stated.model == issued.model),
        ("model_index", stated.model_index == issued.model_index),
        ("model_digest", stated.model_digest == issued.model_digest),
        ("request_hash", stated.request_hash == issued.request_hash),
    ];
    if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
        return Err(StatementError::Elsewhere(field));
    }
    // What a failed attempt had sent is thrown away.
    let succeeded = matches!(stated.status, StatedStatus::Succeeded { .. });
    match issued.output_hash {
        Some(hash) if succeeded && hash != stated.output_hash => Err(StatementError::Output),
        _ => Ok(()),
    }
}

/// Checks a node's word that it stopped, likewise.
///
/// # Errors
/// See [`StatementError`].
pub fn stopped(
    signed: &Signed<StoppedStatement>,
    parties: &Parties,
    issued: Option<&Issued>,
) -> Result<Verified<Stopped>, StatementError> {
    signed.check(parties)?;
    let stated = &signed.statement;
    if let Some(issued) = issued {
        let same = [
            ("environment", stated.environment == issued.environment),
            ("job", stated.job == issued.job),
            ("reservation", stated.reservation == issued.reservation),
        ];
        if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(StatementError::Elsewhere(field));
        }
    }
    Ok(Verified::proven(Stopped {
        node: parties.node_key.node(),
        reservation: stated.reservation,
        input_tokens: stated.input_tokens,
        output_tokens: stated.output_tokens,
    }))
}

/// The tag of a signed configuration.
pub const SNAPSHOT_TAG: &str = "switchbox.v1.snapshot";

/// What a box signs of a configuration.
pub fn snapshot_layout(environment: Environment, version: u64, text: &str) -> Vec<u8> {
    Layout::new(SNAPSHOT_TAG)
        .text(environment.word())
        .number(version)
        .bytes(&plain_hash(text.as_bytes()).0)
        .finish()
}

/// Signs a configuration.
pub fn sign_snapshot(identity: &Identity, environment: Environment, version: u64, text: &str) -> Signature {
    identity.sign(&snapshot_layout(environment, version, text))
}

/// Whether the box with that key signed that configuration.
pub fn is_boxs_snapshot(box_key: PublicKey, snapshot: &SnapshotText) -> bool {
    let layout = snapshot_layout(snapshot.environment, snapshot.version, &snapshot.text);
    box_key.signed(&layout, &snapshot.signature)
}
