//! Bytes as rows again: for recovery, and for who asks for what isn't live any more.
//!
//! Nothing here panics, whatever the bytes are: an error names table, key and what is wrong.

use std::sync::Arc;

use bincode::Options;
use serde::de::DeserializeOwned;
use switchbox_storage::{Store, Stored};

use super::answer::StoredAnswer;
use super::former::BalanceV1;
use super::job::{ExtrasV1, JobV1, JobV2, JobV3, LaterV3, Parts, Place};
use super::keys::{self, Table};
use super::mirror::{Mirror, Unfit};
use super::records::{
    BalanceV2, DeadLetterV1, FeedbackV1, InviteV1, KeyV1, NamespaceV1, NodeV1, NodeV2, PostingV1,
    PriceRuleV1, ProofV1, ScopeV1, SnapshotV1, SnapshotV2, SubcloudV1, TemplateV1,
};
use super::trace::TraceEntryV1;
use super::{JOB_VERSION, SECOND, VERSION};
use crate::coordinator::effect::Row;
use crate::coordinator::job::JobRow;
use crate::coordinator::ledger::Balance;
use crate::ids::JobId;
use crate::rows::key_of;

/// Bytes of a key that an error shows.
const SHOWN_BYTES_MAX: usize = 64;

/// Why bytes aren't a row.
#[derive(Debug, thiserror::Error)]
#[error("a row of table `{table}` can't be read: {problem} (its key: {key})")]
pub struct DecodeError {
    /// The table's word, or its byte where no table has it.
    pub table: String,
    /// The key, in hexadecimal digits.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl DecodeError {
    pub(super) fn new(key: &[u8], problem: impl Into<String>) -> Self {
        let table = match (Table::of(key), key.first()) {
            (Some(table), _) => table.word().to_owned(),
            (None, byte) => format!("{byte:?}"),
        };
        let shown = &key[..key.len().min(SHOWN_BYTES_MAX)];
        Self { table, key: shown.iter().map(|byte| format!("{byte:02x}")).collect(), problem: problem.into() }
    }
}

/// Why rows can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store.
    #[error(transparent)]
    Store(#[from] switchbox_storage::Error),
    /// A row.
    #[error(transparent)]
    Row(#[from] DecodeError),
}

/// What is behind the version byte of a value of a table that is at its first version.
pub(super) fn body_of<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    versioned_body_of(key, value, VERSION).map(|(_, body)| body)
}

/// The version of a value, at most the `newest`, and what is behind it.
pub(super) fn versioned_body_of<'a>(
    key: &[u8],
    value: &'a [u8],
    newest: u8,
) -> Result<(u8, &'a [u8]), DecodeError> {
    match value.split_first() {
        Some((&version, body)) if (1..=newest).contains(&version) => Ok((version, body)),
        Some((version, _)) => {
            let problem =
                format!("it has version {version}, and this program reads version {newest}: use a newer one");
            Err(DecodeError::new(key, problem))
        }
        None => Err(DecodeError::new(key, "it is empty")),
    }
}

fn mirror<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, DecodeError> {
    mirror_of_body(key, body_of(key, value)?)
}

fn mirror_of_body<T: DeserializeOwned>(key: &[u8], body: &[u8]) -> Result<T, DecodeError> {
    // Lengths beyond the bytes that are there are refused before memory is taken for them.
    let options = bincode::DefaultOptions::new().with_limit(body.len() as u64);
    options.deserialize(body).map_err(|error| DecodeError::new(key, error.to_string()))
}

fn record<M: DeserializeOwned + Mirror<C>, C>(key: &[u8], value: &[u8]) -> Result<C, DecodeError> {
    let mirror: M = mirror(key, value)?;
    mirror.back().map_err(|Unfit(problem)| DecodeError::new(key, problem))
}

/// The row of a key and its value, for every table but those of jobs' parts. A job is asked for its parts, which are
/// rows of their own, through `part`.
///
/// # Errors
/// When the bytes aren't a row of that key, and what `part` returns.
pub fn decode<E: From<DecodeError>>(
    key: &[u8],
    value: &[u8],
    part: &mut dyn FnMut(Table, JobId) -> Result<Option<Vec<u8>>, E>,
) -> Result<Row, E> {
    let table = Table::of(key).ok_or_else(|| DecodeError::new(key, "there is no such table"))?;
    let row = match table {
        Table::Jobs => Row::Job(Box::new(decode_job(key, value, part)?)),
        table => decode_record(table, key, value)?,
    };
    let own_key = key_of(&row).map(|key| keys::bytes_of(&key));
    if own_key.as_deref() != Some(key) {
        return Err(DecodeError::new(key, "its key is another row's").into());
    }
    Ok(row)
}

fn decode_record(table: Table, key: &[u8], value: &[u8]) -> Result<Row, DecodeError> {
    Ok(match table {
        Table::Settlements | Table::Operations => Row::Posting(record::<PostingV1, _>(key, value)?),
        Table::Balances => Row::Balance(balance_of(key, value)?),
        Table::Nodes => Row::Node(Box::new(second::<NodeV1, NodeV2, _>(key, value)?)),
        Table::Namespaces => Row::Namespace(Box::new(record::<NamespaceV1, _>(key, value)?)),
        Table::Keys => Row::Key(record::<KeyV1, _>(key, value)?),
        Table::DeadLetters => {
            let DeadLetterV1 { job, requeued_as } = mirror(key, value)?;
            Row::DeadLetter(job, requeued_as)
        }
        Table::Paused => Row::Paused(record::<ScopeV1, _>(key, value)?),
        Table::Prices => Row::Price(record::<PriceRuleV1, _>(key, value)?),
        Table::Templates => Row::Template(Box::new(record::<TemplateV1, _>(key, value)?)),
        Table::Subclouds => Row::Subcloud(Box::new(record::<SubcloudV1, _>(key, value)?)),
        Table::Configurations => {
            Row::Configuration(Box::new(second::<SnapshotV1, SnapshotV2, _>(key, value)?))
        }
        Table::Feedback => Row::Feedback(record::<FeedbackV1, _>(key, value)?),
        Table::Proofs => {
            let ProofV1 { job, proof } = mirror(key, value)?;
            Row::Proof(job, proof)
        }
        Table::Invites => Row::Invite(Box::new(record::<InviteV1, _>(key, value)?)),
        Table::Jobs | Table::Bodies | Table::Extras | Table::Traces | Table::Answers => {
            return Err(DecodeError::new(key, "it is a part of a job"));
        }
    })
}

/// A record of a table that is at its second version.
fn second<V1, V2, C>(key: &[u8], value: &[u8]) -> Result<C, DecodeError>
where
    V1: DeserializeOwned + Mirror<C>,
    V2: DeserializeOwned + Mirror<C>,
{
    let back = match versioned_body_of(key, value, SECOND)? {
        (1, body) => mirror_of_body::<V1>(key, body)?.back(),
        (_, body) => mirror_of_body::<V2>(key, body)?.back(),
    };
    back.map_err(|Unfit(problem)| DecodeError::new(key, problem))
}

fn balance_of(key: &[u8], value: &[u8]) -> Result<Balance, DecodeError> {
    second::<BalanceV1, BalanceV2, _>(key, value)
}

fn decode_job<E: From<DecodeError>>(
    key: &[u8],
    value: &[u8],
    part: &mut dyn FnMut(Table, JobId) -> Result<Option<Vec<u8>>, E>,
) -> Result<JobRow, E> {
    let id = keys::job_of(key).ok_or_else(|| DecodeError::new(key, "it is no job's key"))?;
    let JobV3 { mut job, later } = match versioned_body_of(key, value, JOB_VERSION)? {
        (1, body) => JobV3 { job: mirror_of_body::<JobV1>(key, body)?, later: LaterV3::of_version_1() },
        (2, body) => {
            let JobV2 { job, later } = mirror_of_body(key, body)?;
            JobV3 { job, later: LaterV3::of_version_2(later) }
        }
        (_, body) => mirror_of_body(key, body)?,
    };
    let mut bytes_at = |place: &mut Place, table: Table| match std::mem::replace(place, Place::Apart) {
        Place::Here(bytes) => Ok(bytes),
        Place::Apart => part(table, id)?.ok_or_else(|| {
            E::from(DecodeError::new(key, format!("its row of table `{}` is missing", table.word())))
        }),
    };
    let extras = bytes_at(&mut job.extras, Table::Extras)?;
    let trace = bytes_at(&mut job.trace, Table::Traces)?;
    let extras: ExtrasV1 = mirror(key, &extras)?;
    let trace: Vec<TraceEntryV1> = mirror(key, &trace)?;
    let body = match part(Table::Bodies, id)? {
        Some(bytes) => Some(Arc::from(body_of(key, &bytes)?)),
        None => None,
    };
    let row = Parts { job, later, extras, trace }.back(id, body);
    row.map_err(|Unfit(problem)| DecodeError::new(key, problem).into())
}

/// Whether a start could read a row, whatever table it is in. Of a job the parts that are rows of their own are looked
/// at when it is their turn.
///
/// # Errors
/// When it couldn't.
pub fn check(key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
    let table = Table::of(key).ok_or_else(|| DecodeError::new(key, "there is no such table"))?;
    match table {
        Table::Bodies => body_of(key, value).map(drop),
        Table::Answers => StoredAnswer::decode(key, value).map(drop),
        Table::Extras => mirror::<ExtrasV1>(key, value).map(drop),
        Table::Traces => mirror::<Vec<TraceEntryV1>>(key, value).map(drop),
        Table::Jobs => {
            let mut apart = |table, _| if table == Table::Bodies { Ok(None) } else { Err(Part::Apart) };
            match decode_job(key, value, &mut apart) {
                Ok(_) | Err(Part::Apart) => Ok(()),
                Err(Part::Wrong(error)) => Err(error),
            }
        }
        _ => decode::<DecodeError>(key, value, &mut |_, _| Ok(None)).map(drop),
    }
}

/// Why a job wasn't decoded to its end.
enum Part {
    Apart,
    Wrong(DecodeError),
}

impl From<DecodeError> for Part {
    fn from(error: DecodeError) -> Self {
        Part::Wrong(error)
    }
}

/// A row's part of the ledger's sum, which is zero over all rows.
pub fn audit(key: &[u8], value: &[u8]) -> i128 {
    if Table::of(key) != Some(Table::Balances) {
        return 0;
    }
    // What can't be read is refused when it is loaded.
    balance_of(key, value).map_or(0, |balance| i128::from(balance.balance.0))
}

/// A job's row with everything that is kept of it.
///
/// # Errors
/// When the store can't be read, or holds something else than was written.
pub fn read_job(store: &Store, job: JobId) -> Result<Option<JobRow>, LoadError> {
    read_parts(store, job, &mut |table, job| Ok(store.value(&keys::of_job(table, job))?))
}

/// As [`read_job`], for who doesn't need the body, or can't have it because it is damaged.
///
/// # Errors
/// As [`read_job`], but for the body.
pub fn read_job_without_body(store: &Store, job: JobId) -> Result<Option<JobRow>, LoadError> {
    read_parts(store, job, &mut |table, job| match table {
        Table::Bodies => Ok(None),
        table => Ok(store.value(&keys::of_job(table, job))?),
    })
}

fn read_parts(
    store: &Store,
    job: JobId,
    part: &mut dyn FnMut(Table, JobId) -> Result<Option<Vec<u8>>, LoadError>,
) -> Result<Option<JobRow>, LoadError> {
    let key = keys::of_job(Table::Jobs, job);
    let Some(value) = store.value(&key)? else { return Ok(None) };
    decode_job(&key, &value, part).map(Some)
}

/// A job's stored answer.
///
/// # Errors
/// As [`read_job`].
pub fn read_answer(store: &Store, job: JobId) -> Result<Option<StoredAnswer>, LoadError> {
    let key = keys::of_job(Table::Answers, job);
    let Some(value) = store.value(&key)? else { return Ok(None) };
    Ok(Some(StoredAnswer::decode(&key, &value)?))
}

/// What proves a job's result; `None` where a remote node didn't answer it.
///
/// # Errors
/// As [`read_job`].
pub fn read_proof(store: &Store, job: JobId) -> Result<Option<Arc<[u8]>>, LoadError> {
    let key = keys::of_job(Table::Proofs, job);
    let Some(value) = store.value(&key)? else { return Ok(None) };
    mirror(&key, &value).map(|ProofV1 { proof, .. }| Some(proof)).map_err(LoadError::from)
}

/// How many bytes a job's row has in the store, its body and its answer not counted; 0 without one.
///
/// # Errors
/// As [`read_job`].
pub fn row_len(store: &Store, job: JobId) -> Result<u64, LoadError> {
    let parts = [Table::Jobs, Table::Extras, Table::Traces];
    parts.into_iter().try_fold(0, |bytes, table| Ok(bytes + len_of(store, table, job)?))
}

/// About how many bytes a job's stored answer takes in memory; 0 without one.
///
/// # Errors
/// As [`read_job`].
pub fn answer_len(store: &Store, job: JobId) -> Result<u64, LoadError> {
    len_of(store, Table::Answers, job)
}

/// The same of its body.
///
/// # Errors
/// As [`read_job`].
pub fn body_len(store: &Store, job: JobId) -> Result<u64, LoadError> {
    len_of(store, Table::Bodies, job)
}

fn len_of(store: &Store, table: Table, job: JobId) -> Result<u64, LoadError> {
    Ok(match store.read(&keys::of_job(table, job))? {
        None => 0,
        Some(Stored::Value(value)) => value.len() as u64,
        Some(Stored::Payload(at)) => u64::from(at.len),
    })
}
