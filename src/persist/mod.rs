//! Rows as bytes: what the journal, the state store and the snapshots hold.
//!
//! A key is a table byte and what identifies the row ([`keys`]). A value is a version byte and a bincode body (varint
//! integers, no trailing bytes) of serde structs that mirror the core's types; longer than 4 KiB it lies in the journal
//! as a payload, whatever it is. A job is one row, but for its body, its answer, and what is long about it ([`job`]).
//!
//! Bodies are the bytes themselves behind the version byte, and so are answers of text ([`answer`]). A body is written
//! once, with the step that accepts its job; that of an unkeyed sync or stream job only if the job fails, for dead
//! letters are kept whole, unless the body itself says `"store": false`.

mod answer;
mod books;
#[cfg(test)]
mod draw;
mod former;
mod job;
pub mod keys;
mod load;
mod mirror;
mod read;
mod records;
#[cfg(test)]
mod tests;
mod trace;
mod values;

use std::sync::Arc;

use bincode::Options;
use serde::Serialize;
use switchbox_storage::{Change, Codec, Rows, VALUE_BYTES_MAX};

use self::job::{JobV3, Parts, Place};
use self::keys::Table;
use self::mirror::Mirror;
use self::records::{
    BalanceV2, DeadLetterV1, FeedbackV1, InviteV1, KeyV1, NamespaceV1, NodeV2, PostingV1, PriceRuleV1,
    ProofV1, ScopeV1, SnapshotV2, SubcloudV1, TemplateV1,
};
use crate::coordinator::effect::Row;
use crate::coordinator::job::{JobRow, JobState};
use crate::request::forbids_storing;
use crate::rows::{RowKey, RowValue};

pub use self::answer::{Position, StoredAnswer};
pub use self::books::Books;
pub use self::load::{Loaded, Loader};
pub use self::read::{
    DecodeError, LoadError, answer_len, audit, body_len, check, decode, read_answer, read_job,
    read_job_without_body, read_proof, row_len,
};

/// The version of values that are written now, but for those of tables that are at a later one; also of answers that are
/// text alone.
const VERSION: u8 = 1;
/// The version of the values of balances, nodes and configurations, and of answers that are more than text, that are
/// written now; 1 is read.
const SECOND: u8 = 2;
/// The version of jobs' values that are written now; 1 and 2 are read.
const JOB_VERSION: u8 = 3;
/// Bytes of extras that stay in the job's value.
const EXTRAS_HERE_BYTES_MAX: usize = 512;
/// Bytes of a trace that stay in the job's value.
const TRACE_HERE_BYTES_MAX: usize = 1_024;

/// About the bytes of a job's value.
const JOB_BYTES: usize = 300;
/// About the bytes of any other row.
const RECORD_BYTES: usize = 200;

/// Turns rows into bytes for a durable store.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowCodec;

impl Codec<RowKey, RowValue> for RowCodec {
    fn encode(&self, change: &Change<RowKey, RowValue>, rows: &mut Rows) {
        encode(change, &mut |key, value| match value {
            None => rows.delete(key),
            Some(Value::Row(value)) if value.len() <= VALUE_BYTES_MAX => rows.put(key, value),
            Some(Value::Row(payload) | Value::Payload(payload)) => rows.put_payload(key, payload),
        });
    }

    fn bytes(&self, change: &Change<RowKey, RowValue>) -> usize {
        match &change.1 {
            None => RECORD_BYTES,
            Some(RowValue::Row(Row::Job(row))) => {
                let body = row.body.as_ref().filter(|_| job::body_is_due(row)).map_or(0, |body| body.len());
                let metadata: usize =
                    row.spec.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
                JOB_BYTES + body + metadata
            }
            Some(RowValue::Row(Row::Template(template))) => RECORD_BYTES + template.body.len(),
            Some(RowValue::Row(Row::Proof(_, proof))) => RECORD_BYTES + proof.len(),
            Some(RowValue::Row(_)) => RECORD_BYTES,
            Some(RowValue::Answer(chunks)) => chunks.iter().map(|chunk| chunk.text.len()).sum(),
        }
    }
}

/// Bytes to be kept.
enum Value<'a> {
    /// Of any length; in the state store if they are short.
    Row(&'a [u8]),
    /// In the journal, however short.
    Payload(&'a [u8]),
}

/// Leaves bodies out of a step that would have more than about `bytes_max` bytes: a step is written whole or not at
/// all. Only those of attended jobs that failed go (a node that dies may take many with it): such a dead letter can be
/// read, but not requeued. Says how many.
pub fn fit(changes: &mut [Change<RowKey, RowValue>], bytes_max: usize) -> usize {
    let bytes: usize = changes.iter().map(|change| RowCodec.bytes(change)).sum();
    let mut excess = bytes.saturating_sub(bytes_max);
    let mut left_out = 0;
    for (_, value) in changes.iter_mut().rev() {
        if excess == 0 {
            break;
        }
        if let Some(RowValue::Row(Row::Job(row))) = value
            && !job::body_is_kept_alive(row)
            && let Some(body) = row.body.take()
        {
            excess = excess.saturating_sub(body.len());
            left_out += 1;
        }
    }
    left_out
}

/// Puts a change's bytes; `None` deletes.
fn encode(change: &Change<RowKey, RowValue>, put: &mut dyn FnMut(&[u8], Option<Value<'_>>)) {
    let (key, value) = change;
    let bytes = keys::bytes_of(key);
    match (key, value) {
        (RowKey::Job(job), None) => {
            let tables = [Table::Jobs, Table::Bodies, Table::Extras, Table::Traces];
            tables.into_iter().for_each(|table| put(&keys::of_job(table, *job), None));
        }
        (_, None) => put(&bytes, None),
        (_, Some(RowValue::Answer(chunks))) => put(&bytes, Some(Value::Payload(&answer::encode(chunks)))),
        (_, Some(RowValue::Row(Row::Job(row)))) => encode_job(row, put),
        (_, Some(RowValue::Row(row))) => {
            if let Some(record) = record(row) {
                put(&bytes, Some(Value::Row(&record)));
            }
        }
    }
}

fn encode_job(row: &JobRow, put: &mut dyn FnMut(&[u8], Option<Value<'_>>)) {
    let id = row.id;
    let Parts { mut job, later, extras, trace } = Parts::of(row);
    let (extras, trace) = (versioned(&extras), versioned(&trace));
    if extras.len() <= EXTRAS_HERE_BYTES_MAX {
        job.extras = Place::Here(extras);
    } else if job::may_be_new(row) {
        put(&keys::of_job(Table::Extras, id), Some(Value::Payload(&extras)));
    }
    if trace.len() <= TRACE_HERE_BYTES_MAX {
        job.trace = Place::Here(trace);
    } else {
        put(&keys::of_job(Table::Traces, id), Some(Value::Payload(&trace)));
    }
    let job = JobV3 { job, later };
    put(&keys::of_job(Table::Jobs, id), Some(Value::Row(&with_version(JOB_VERSION, &job))));
    encode_body(row, put);
}

fn encode_body(row: &JobRow, put: &mut dyn FnMut(&[u8], Option<Value<'_>>)) {
    let key = keys::of_job(Table::Bodies, row.id);
    // The core drops bodies that aren't to be stored; a job of version 1 has only its body to say so.
    let forbidden = |body: &[u8]| row.state == JobState::Failed && forbids_storing(body);
    match row.body.as_ref().filter(|body| !forbidden(body)) {
        Some(body) if job::body_is_due(row) => put(&key, Some(Value::Payload(&behind_version(body)))),
        Some(_) => {}
        None if !row.state.is_live() && job::body_is_kept_alive(row) => put(&key, None),
        None => {}
    }
}

fn behind_version(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + bytes.len());
    value.push(VERSION);
    value.extend_from_slice(bytes);
    value
}

/// The value of a row that isn't a job; `None` for one that says that something is forgotten.
fn record(row: &Row) -> Option<Vec<u8>> {
    Some(match row {
        Row::Posting(posting) => versioned(&PostingV1::of(posting)),
        Row::Balance(balance) => with_version(SECOND, &BalanceV2::of(balance)),
        Row::Node(node) => with_version(SECOND, &NodeV2::of(node)),
        Row::Namespace(settings) => versioned(&NamespaceV1::of(settings)),
        Row::Key(key) => versioned(&KeyV1::of(key)),
        Row::DeadLetter(job, requeued_as) => {
            versioned(&DeadLetterV1 { job: *job, requeued_as: *requeued_as })
        }
        Row::Paused(scope) => versioned(&ScopeV1::of(scope)),
        Row::Price(rule) => versioned(&PriceRuleV1::of(rule)),
        Row::Template(template) => versioned(&TemplateV1::of(template)),
        Row::Subcloud(subcloud) => versioned(&SubcloudV1::of(subcloud)),
        Row::Configuration(snapshot) => with_version(SECOND, &SnapshotV2::of(snapshot)),
        Row::Feedback(feedback) => versioned(&FeedbackV1::of(feedback)),
        Row::Proof(job, proof) => versioned(&ProofV1 { job: *job, proof: Arc::clone(proof) }),
        Row::Invite(invite) => versioned(&InviteV1::of(invite)),
        Row::Job(_)
        | Row::JobForgotten(_)
        | Row::OperationForgotten(..)
        | Row::AnswerForgotten(_)
        | Row::KeyForgotten(_)
        | Row::DeadLetterForgotten(_)
        | Row::Resumed(_)
        | Row::TemplateForgotten(..)
        | Row::SubcloudForgotten(..)
        | Row::InviteForgotten(_) => return None,
    })
}

fn versioned<T: Serialize>(body: &T) -> Vec<u8> {
    with_version(VERSION, body)
}

fn with_version<T: Serialize>(version: u8, body: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    let written = bincode::DefaultOptions::new().serialize_into(&mut bytes, body);
    written.expect("mirrors have only lengths that are known, and memory takes every byte");
    bytes
}
