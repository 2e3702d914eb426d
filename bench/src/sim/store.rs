//! A store that commits in groups, with delay, and that a crash leaves with any prefix at or above what it acknowledged.
//!
//! It knows rows by their keys; what they mean is nobody's business here.

use std::collections::BTreeMap;

use switchbox::coordinator::effect::Row;
use switchbox::coordinator::job::JobRow;
use switchbox::coordinator::ledger::Subject;
use switchbox::ids::{JobId, Lsn};

/// Rows in the order in which they were written.
#[derive(Debug, Default)]
pub(crate) struct Store {
    log: Vec<(Lsn, Row)>,
    /// The last step that was written.
    pub(crate) written: Lsn,
    /// The last step that was acknowledged.
    pub(crate) durable: Lsn,
    /// The group that is on its way to the disk.
    pub(crate) syncing: Option<Lsn>,
}

impl Store {
    /// Adds a step's rows.
    pub(crate) fn append(&mut self, lsn: Lsn, rows: impl IntoIterator<Item = Row>) {
        self.log.extend(rows.into_iter().map(|row| (lsn, row)));
        self.written = self.written.max(lsn);
    }

    /// The group on its way has arrived.
    pub(crate) fn synced(&mut self) {
        if let Some(lsn) = self.syncing.take() {
            self.durable = self.durable.max(lsn);
        }
    }

    /// Everything that was written is on the disk.
    pub(crate) fn settle(&mut self) {
        (self.durable, self.syncing) = (self.written, None);
    }

    /// Power fails: everything after some step at or above the last acknowledged one is gone.
    pub(crate) fn crash(&mut self, choice: u64) -> Lsn {
        let span = self.written.0 - self.durable.0 + 1;
        let kept = Lsn(self.durable.0 + choice % span);
        self.log.retain(|(lsn, _)| *lsn <= kept);
        (self.written, self.durable, self.syncing) = (kept, kept, None);
        kept
    }

    /// Every row that was ever written and not lost, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.log.iter().map(|(_, row)| row)
    }

    /// What the store holds: the newest row of each key, in key order.
    pub(crate) fn state(&self) -> Vec<Row> {
        let mut state: BTreeMap<String, &Row> = BTreeMap::new();
        for row in self.rows() {
            match key_of(row) {
                Key::Holds(key) => drop(state.insert(key, row)),
                Key::Ends(key) => drop(state.remove(&key)),
            }
            if let Row::JobForgotten(job) = row {
                state.remove(&posting_of(Subject::Job(*job)));
            }
        }
        state.into_values().cloned().map(without_bodies_of_its_own).collect()
    }

    /// A job's newest row.
    pub(crate) fn job(&self, id: JobId) -> Option<&JobRow> {
        self.rows()
            .filter_map(|row| if let Row::Job(job) = row { Some(&**job) } else { None })
            .filter(|job| job.id == id)
            .last()
    }
}

/// Bodies of the system's own jobs aren't written.
fn without_bodies_of_its_own(mut row: Row) -> Row {
    if let Row::Job(job) = &mut row
        && job.origin.is_system()
    {
        job.body = None;
    }
    row
}

enum Key {
    Holds(String),
    Ends(String),
}

fn key_of(row: &Row) -> Key {
    use Key::{Ends, Holds};
    match row {
        Row::Job(job) => Holds(format!("job {}", job.id)),
        Row::JobForgotten(job) => Ends(format!("job {job}")),
        // Answers are the driver's; whose is there is the oracle's to know.
        Row::AnswerForgotten(job) => Ends(format!("answer {job}")),
        Row::Posting(posting) => Holds(posting_of(posting.id.subject)),
        Row::OperationForgotten(operation, _) => Ends(posting_of(Subject::Operation(*operation))),
        Row::Balance(balance) => Holds(format!("balance {:?}", balance.account)),
        Row::Node(node) => Holds(format!("node {}", node.node)),
        Row::Namespace(settings) => Holds(format!("namespace {}", settings.namespace)),
        Row::Key(key) => Holds(format!("key {:?}", key.key)),
        Row::KeyForgotten(key) => Ends(format!("key {key:?}")),
        Row::DeadLetter(job, _) => Holds(format!("dead {job}")),
        Row::DeadLetterForgotten(job) => Ends(format!("dead {job}")),
        Row::Paused(scope) => Holds(format!("paused {scope:?}")),
        Row::Resumed(scope) => Ends(format!("paused {scope:?}")),
        Row::Price(rule) => {
            Holds(format!("price {:?} {:?} {:?} {:?}", rule.environment, rule.model, rule.tier, rule.from))
        }
        Row::Template(template) => Holds(format!("template {} {}", template.model, template.name)),
        Row::TemplateForgotten(model, name) => Ends(format!("template {model} {name}")),
        Row::Subcloud(subcloud) => Holds(format!("subcloud {:?} {}", subcloud.environment, subcloud.name)),
        Row::SubcloudForgotten(environment, name) => Ends(format!("subcloud {environment:?} {name}")),
        Row::Invite(invite) => Holds(format!("invite {}", invite.token)),
        Row::InviteForgotten(token) => Ends(format!("invite {token}")),
        Row::Configuration(snapshot) => Holds(format!("configuration {:?}", snapshot.environment)),
        Row::Feedback(feedback) => Holds(format!("feedback {}", feedback.job)),
        Row::Proof(job, _) => Holds(format!("proof {job}")),
    }
}

/// There is one posting of a job, and operations of a simulation have ids of their own.
fn posting_of(subject: Subject) -> String {
    format!("posting {subject:?}")
}
