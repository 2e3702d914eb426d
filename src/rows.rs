//! Rows of the core, and answers, as keys and values of the store. (Their bytes are `persist`'s.)

use std::sync::Arc;

use switchbox_storage::Change;

use crate::coordinator::command::Scope;
use crate::coordinator::effect::Row;
use crate::coordinator::event::{Environment, Tier};
use crate::coordinator::ledger::{Account, Posting, Subject};
use crate::ids::{Digest, IdempotencyKey, JobId, ModelName, Namespace, NodeId, OperationId, SubcloudName};
use crate::output::Chunk;
use crate::time::Time;

/// What a row is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// A job.
    Job(JobId),
    /// The answer of a job that outlives its client's connection.
    Answer(JobId),
    /// A job's settlement.
    Settlement(JobId),
    /// Credits that an operator moved. An id may be used again after a day, so the time belongs to it.
    Operation(OperationId, Time),
    /// An account's balance.
    Balance(Account),
    /// A node's record.
    Node(NodeId),
    /// A namespace's settings.
    Namespace(Namespace),
    /// An idempotency key.
    Key(IdempotencyKey),
    /// A dead letter.
    DeadLetter(JobId),
    /// Something that is paused.
    Paused(Scope),
    /// A price, by what it is for and its date of effect.
    Price(Option<Environment>, Option<ModelName>, Option<Tier>, Time),
    /// A blind job's template, by model and name.
    Template(ModelName, Arc<str>),
    /// A subcloud.
    Subcloud(Environment, SubcloudName),
    /// The configuration in force.
    Configuration(Environment),
    /// What a client thought of an answer.
    Feedback(JobId),
    /// What proves a job's result.
    Proof(JobId),
    /// An open invite, by the digest of its token.
    Invite(Digest),
}

/// What is kept.
#[derive(Debug, Clone)]
pub enum RowValue {
    /// A row of the core's.
    Row(Row),
    /// An answer: the output's pieces, shared with who reads it.
    Answer(Arc<[Chunk]>),
}

/// Turns a row into the changes that keep it.
pub(crate) fn changes_of(row: Row, changes: &mut Vec<Change<RowKey, RowValue>>) {
    match row {
        Row::JobForgotten(job) => {
            // Its settlement is in the balances.
            let keys = [RowKey::Job, RowKey::Answer, RowKey::Settlement, RowKey::Feedback, RowKey::Proof];
            changes.extend(keys.map(|key| (key(job), None)));
        }
        Row::OperationForgotten(operation, at) => changes.push((RowKey::Operation(operation, at), None)),
        Row::AnswerForgotten(job) => changes.push((RowKey::Answer(job), None)),
        Row::KeyForgotten(key) => changes.push((RowKey::Key(key), None)),
        Row::DeadLetterForgotten(job) => changes.push((RowKey::DeadLetter(job), None)),
        Row::Resumed(scope) => changes.push((RowKey::Paused(scope), None)),
        Row::TemplateForgotten(model, name) => changes.push((RowKey::Template(model, name), None)),
        Row::SubcloudForgotten(environment, name) => {
            changes.push((RowKey::Subcloud(environment, name), None));
        }
        Row::InviteForgotten(token) => changes.push((RowKey::Invite(token), None)),
        row => {
            if let Some(key) = key_of(&row) {
                changes.push((key, Some(RowValue::Row(row))));
            }
        }
    }
}

/// What a row that is kept is found by; `None` for one that says that something is forgotten.
pub fn key_of(row: &Row) -> Option<RowKey> {
    Some(match row {
        Row::Job(job) => RowKey::Job(job.id),
        Row::Posting(posting) => posting_key(posting),
        Row::Balance(balance) => RowKey::Balance(balance.account.clone()),
        Row::Node(node) => RowKey::Node(node.node.clone()),
        Row::Namespace(settings) => RowKey::Namespace(settings.namespace.clone()),
        Row::Key(key) => RowKey::Key(key.key),
        Row::DeadLetter(job, _) => RowKey::DeadLetter(*job),
        Row::Paused(scope) => RowKey::Paused(scope.clone()),
        Row::Price(rule) => RowKey::Price(rule.environment, rule.model.clone(), rule.tier, rule.from),
        Row::Template(template) => RowKey::Template(template.model.clone(), template.name.clone()),
        Row::Subcloud(subcloud) => RowKey::Subcloud(subcloud.environment, subcloud.name.clone()),
        Row::Configuration(snapshot) => RowKey::Configuration(snapshot.environment),
        Row::Feedback(feedback) => RowKey::Feedback(feedback.job),
        Row::Proof(job, _) => RowKey::Proof(*job),
        Row::Invite(invite) => RowKey::Invite(invite.token),
        Row::JobForgotten(_)
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

fn posting_key(posting: &Posting) -> RowKey {
    match posting.id.subject {
        Subject::Job(job) => RowKey::Settlement(job),
        Subject::Operation(operation) => RowKey::Operation(operation, posting.at),
    }
}
