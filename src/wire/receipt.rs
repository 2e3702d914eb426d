//! Receipts: what a node stated of a job's answer, as it signed it, countersigned by the box on demand.
//!
//! A receipt says everything twice: in fields that people read, and in the bytes that are signed. So whoever checks one
//! can name the field that isn't what was signed. A job of the box's own node was signed by nobody but the box, and its
//! receipt says so.

use serde::{Deserialize, Serialize};

use super::hash::{Hash, plain_hash};
use super::keys::{HexBytes, Identity, PublicKey, Signature};
use super::layout::{Layout, fields_of};
use super::message::field_problem;
use super::statement::{RESULT_TAG, ResultStatement, StatedStatus};
use super::text;
use super::text::Word;
use super::verify::Parties;
use crate::coordinator::event::{Environment, FinishReason};
use crate::ids::{JobId, ModelName, ReservationId};

/// The tag of what a box signs for a job of its own node.
pub const OWN_RESULT_TAG: &str = "switchbox.v1.own-result";
/// The tag of a box's countersignature.
pub const RECEIPT_TAG: &str = "switchbox.v1.receipt";
/// What a receipt calls itself.
const OBJECT: &str = "switchbox.receipt";
/// The version of receipts that are made and read.
const VERSION: u32 = 1;
/// Bytes of the bytes in a receipt that are signed.
const SIGNED_BYTES_MAX: usize = 2_048;
/// Bytes of a receipt's text.
pub const RECEIPT_BYTES_MAX: usize = 64 * 1024;

/// The fields of a result's layout, in their order.
const RESULT_FIELDS: [&str; 16] = [
    "environment",
    "box_key",
    "node_key",
    "job",
    "reservation",
    "model",
    "model_digest",
    "model_index",
    "request_hash",
    "output_hash",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "status",
    "finish_reason",
    "error_message",
];
/// The fields of a countersignature's layout, in their order.
const RECEIPT_FIELDS: [&str; 7] = [
    "signed",
    "node_signature",
    "billed.input_tokens",
    "billed.cached_tokens",
    "billed.output_tokens",
    "billed.microcredits",
    "ended_at_ms",
];

/// What is stated of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// In which world.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Which job.
    #[serde(with = "text::shown")]
    pub job: JobId,
    /// Which attempt of it.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// The model that answered.
    #[serde(deserialize_with = "text::model")]
    pub model: ModelName,
    /// SHA-256 of what the node has under that name, if it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<Hash>,
    /// Which of the job's models it is: 0 is the one asked for, its fallbacks follow.
    pub model_index: u32,
    /// What was asked. The box's own node states none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_hash: Option<Hash>,
    /// What was answered. The box's own node states it where the answer is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_hash: Option<Hash>,
    /// Tokens of the prompt, as the node counts them.
    pub input_tokens: u32,
    /// Of those, found in its cache.
    pub cached_tokens: u32,
    /// Tokens generated, as the node counts them.
    pub output_tokens: u32,
    /// Why generation ended.
    #[serde(with = "text::word")]
    pub finish_reason: FinishReason,
}

/// What the box made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Billed {
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Of those, found in the node's cache.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// What was charged, in micro-credits.
    #[serde(deserialize_with = "text::number")]
    pub microcredits: u64,
}

/// A receipt as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    object: String,
    version: u32,
    /// The box.
    pub box_key: PublicKey,
    /// The node that answered; `None` for the box's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_key: Option<PublicKey>,
    /// What is stated.
    pub stated: Stated,
    /// The same as bytes.
    signed: HexBytes<SIGNED_BYTES_MAX>,
    /// Over those, by the node; `None` for the box's own, which signs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_signature: Option<Signature>,
    /// What the box made of it.
    pub billed: Billed,
    /// When the job ended by the box's clock, in milliseconds since 1970.
    #[serde(deserialize_with = "text::number")]
    pub ended_at_ms: u64,
    /// All of the above as bytes.
    countersigned: HexBytes<SIGNED_BYTES_MAX>,
    /// Over those, by the box.
    box_signature: Signature,
}

/// What proves an answer, read again.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    parties: Parties,
    stated: Stated,
    signed: Vec<u8>,
    signature: Signature,
}

impl Proof {
    /// Reads what [`super::Signed::proof`] wrote of an answer; `None` if it is something else.
    pub fn read(proof: &[u8]) -> Option<Self> {
        let (signed, signature) = proof.split_last_chunk::<64>()?;
        let fields: [&[u8]; 16] = fields_of(RESULT_TAG, signed)?.try_into().ok()?;
        let text = |at: usize| str::from_utf8(fields[at]).ok();
        let key = |at: usize| PublicKey::of_bytes(fields[at].try_into().ok()?).ok();
        let hash = |at: usize| Some(super::keys::Hex(fields[at].try_into().ok()?));
        let number = |at: usize| u32::try_from(u64::from_be_bytes(fields[at].try_into().ok()?)).ok();
        if text(13)? != "succeeded" {
            return None;
        }
        let stated = Stated {
            environment: Environment::of(text(0)?).ok()?,
            job: text(3)?.parse().ok()?,
            reservation: text(4)?.parse().ok()?,
            model: text(5)?.into(),
            model_digest: if fields[6].is_empty() { None } else { Some(hash(6)?) },
            model_index: number(7)?,
            request_hash: Some(hash(8)?),
            output_hash: Some(hash(9)?),
            input_tokens: number(10)?,
            cached_tokens: number(11)?,
            output_tokens: number(12)?,
            finish_reason: FinishReason::of(text(14)?).ok()?,
        };
        let parties = Parties { box_key: key(1)?, node_key: key(2)? };
        Some(Self { parties, stated, signed: signed.to_vec(), signature: super::keys::Hex(*signature) })
    }

    /// The box that it was signed to.
    pub fn box_key(&self) -> PublicKey {
        self.parties.box_key
    }
}

/// What is signed of a statement: by its node, or by the box for its own.
fn signed_bytes(stated: &Stated, box_key: PublicKey, node_key: Option<PublicKey>) -> Vec<u8> {
    let tag = if node_key.is_some() { RESULT_TAG } else { OWN_RESULT_TAG };
    Layout::new(tag)
        .text(stated.environment.word())
        .bytes(box_key.bytes())
        .bytes(node_key.as_ref().map_or(&[][..], |key| key.bytes()))
        .text(&stated.job.to_string())
        .text(&stated.reservation.to_string())
        .text(&stated.model)
        .maybe(stated.model_digest.as_ref())
        .number(stated.model_index.into())
        .maybe(stated.request_hash.as_ref())
        .maybe(stated.output_hash.as_ref())
        .number(stated.input_tokens.into())
        .number(stated.cached_tokens.into())
        .number(stated.output_tokens.into())
        .text("succeeded")
        .text(stated.finish_reason.word())
        .bytes(&[])
        .finish()
}

fn countersigned_bytes(
    signed: &[u8],
    node_signature: Option<&Signature>,
    billed: &Billed,
    ended_at_ms: u64,
) -> Vec<u8> {
    Layout::new(RECEIPT_TAG)
        .bytes(&plain_hash(signed).0)
        .maybe(node_signature)
        .number(billed.input_tokens.into())
        .number(billed.cached_tokens.into())
        .number(billed.output_tokens.into())
        .number(billed.microcredits)
        .number(ended_at_ms)
        .finish()
}

impl Receipt {
    /// The receipt of what a node proved, countersigned.
    pub fn of_node(boxs: &Identity, proof: Proof, billed: Billed, ended_at_ms: u64) -> Self {
        let Proof { parties, stated, signed, signature } = proof;
        let signers = (Some(parties.node_key), Some(signature));
        Self::countersign(boxs, (stated, signed), signers, billed, ended_at_ms)
    }

    /// The receipt of a job of the box's own node.
    pub fn of_box(boxs: &Identity, stated: Stated, billed: Billed, ended_at_ms: u64) -> Self {
        let signed = signed_bytes(&stated, boxs.public(), None);
        Self::countersign(boxs, (stated, signed), (None, None), billed, ended_at_ms)
    }

    fn countersign(
        boxs: &Identity,
        (stated, signed): (Stated, Vec<u8>),
        (node_key, node_signature): (Option<PublicKey>, Option<Signature>),
        billed: Billed,
        ended_at_ms: u64,
    ) -> Self {
        let countersigned = countersigned_bytes(&signed, node_signature.as_ref(), &billed, ended_at_ms);
        Self {
            object: OBJECT.to_owned(),
            version: VERSION,
            box_key: boxs.public(),
            node_key,
            stated,
            signed: HexBytes(signed),
            node_signature,
            billed,
            ended_at_ms,
            box_signature: boxs.sign(&countersigned),
            countersigned: HexBytes(countersigned),
        }
    }

    /// Reads a receipt. Nothing in it is to be believed before [`Receipt::check`].
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        if text.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::NotOne(format!("it has more than {RECEIPT_BYTES_MAX} bytes")));
        }
        let receipt: Self =
            serde_json::from_str(text).map_err(|_| ReceiptError::NotOne(field_problem::<Self>(text)))?;
        if receipt.object != OBJECT {
            return Err(ReceiptError::NotOne(format!("its `object` isn't `{OBJECT}`")));
        }
        if receipt.version != VERSION {
            let version = receipt.version;
            return Err(ReceiptError::NotOne(format!(
                "its `version` is {version}, and this program reads {VERSION}"
            )));
        }
        Ok(receipt)
    }

    /// Checks that every field is what was signed, and who signed it; with the box's key that it is that box's.
    ///
    /// # Errors
    /// The first field that isn't what was signed, or the signature that is wrong.
    pub fn check(&self, trusted: Option<PublicKey>) -> Result<(), ReceiptError> {
        if let Some(trusted) = trusted.filter(|trusted| *trusted != self.box_key) {
            let (stated, trusted) = (self.box_key.to_string(), trusted.to_string());
            return Err(ReceiptError::OtherBox { stated, trusted });
        }
        let tag = if self.node_key.is_some() { RESULT_TAG } else { OWN_RESULT_TAG };
        let said = signed_bytes(&self.stated, self.box_key, self.node_key);
        same_fields(tag, &RESULT_FIELDS, "signed", &said, &self.signed.0)?;
        let said =
            countersigned_bytes(&self.signed.0, self.node_signature.as_ref(), &self.billed, self.ended_at_ms);
        same_fields(RECEIPT_TAG, &RECEIPT_FIELDS, "countersigned", &said, &self.countersigned.0)?;
        match (self.node_key, self.node_signature) {
            (None, None) => {}
            (Some(key), Some(signature)) if key.signed(&self.signed.0, &signature) => {}
            _ => return Err(ReceiptError::Signature { field: "node_signature", whose: "the node" }),
        }
        if !self.box_key.signed(&self.countersigned.0, &self.box_signature) {
            return Err(ReceiptError::Signature { field: "box_signature", whose: "the box" });
        }
        Ok(())
    }
}

/// Compares what the fields say with what was signed, field by field.
fn same_fields(
    tag: &str,
    names: &[&'static str],
    field: &'static str,
    said: &[u8],
    signed: &[u8],
) -> Result<(), ReceiptError> {
    if said == signed {
        return Ok(());
    }
    let changed = ReceiptError::Changed(field);
    let (Some(said), Some(signed)) = (fields_of(tag, said), fields_of(tag, signed)) else {
        return Err(changed);
    };
    if said.len() != signed.len() {
        return Err(changed);
    }
    let differs = said.iter().zip(&signed).position(|(said, signed)| said != signed);
    Err(differs.and_then(|at| names.get(at)).map_or(changed, |name| ReceiptError::Changed(name)))
}

/// What is wrong with a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It isn't one.
    #[error("this is no receipt: {0}")]
    NotOne(String),
    /// A field isn't what was signed.
    #[error("`{0}` isn't what was signed: the receipt was changed")]
    Changed(&'static str),
    /// A signature is wrong.
    #[error(
        "`{field}` isn't {whose}'s signature over what was signed: the receipt was changed, or is made up"
    )]
    Signature {
        /// Which.
        field: &'static str,
        /// Whose it should be.
        whose: &'static str,
    },
    /// It is another box's.
    #[error("`box_key` is {stated}, and the trusted key is {trusted}: the receipt is another box's")]
    OtherBox {
        /// The key in it.
        stated: String,
        /// The key that is trusted.
        trusted: String,
    },
}

impl Stated {
    /// What a node states of an answer; `None` of an attempt that failed.
    pub fn of(statement: &ResultStatement) -> Option<Self> {
        let StatedStatus::Succeeded { finish_reason } = statement.status else { return None };
        Some(Self {
            environment: statement.environment,
            job: statement.job,
            reservation: statement.reservation,
            model: statement.model.clone(),
            model_digest: statement.model_digest,
            model_index: statement.model_index,
            request_hash: Some(statement.request_hash),
            output_hash: Some(statement.output_hash),
            input_tokens: statement.input_tokens,
            cached_tokens: statement.cached_tokens,
            output_tokens: statement.output_tokens,
            finish_reason,
        })
    }
}
