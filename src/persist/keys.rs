//! Keys of rows: a table byte, then what identifies the row in it, ordered as its bytes. Numbers go big-endian.
//!
//! Names end with a zero byte. One that is long, or has a control character in it, is kept as its SHA-256 behind a
//! byte 1: keys are short, and the value says the name.

use sha2::{Digest as _, Sha256};

use crate::coordinator::command::Scope;
use crate::coordinator::event::{Environment, Tier};
use crate::coordinator::ledger::{Account, Owner};
use crate::ids::JobId;
use crate::rows::RowKey;

/// The longest name that a key spells out, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// A job's id in a key: epoch and counter.
const JOB_BYTES: usize = 12;

/// The tables. Numbers are on disk: one that was given is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Jobs.
    Jobs = 1,
    /// Jobs' bodies, as clients sent them.
    Bodies = 2,
    /// Long constraints and metadata of jobs.
    Extras = 3,
    /// Long traces of jobs.
    Traces = 4,
    /// Answers of jobs that outlive their client's connection.
    Answers = 5,
    /// Postings of jobs.
    Settlements = 6,
    /// Postings of operators.
    Operations = 7,
    /// Balances of accounts.
    Balances = 8,
    /// Nodes' records.
    Nodes = 9,
    /// Settings of namespaces.
    Namespaces = 10,
    /// Idempotency keys.
    Keys = 11,
    /// Dead letters.
    DeadLetters = 12,
    /// What is paused.
    Paused = 13,
    /// Prices.
    Prices = 14,
    /// Templates of blind jobs.
    Templates = 15,
    /// Subclouds.
    Subclouds = 16,
    /// Configurations in force.
    Configurations = 17,
    /// What clients thought of answers.
    Feedback = 18,
    /// What proves jobs' results.
    Proofs = 19,
    /// Open invites.
    Invites = 20,
}

impl Table {
    /// All.
    pub const ALL: [Table; 20] = [
        Table::Jobs,
        Table::Bodies,
        Table::Extras,
        Table::Traces,
        Table::Answers,
        Table::Settlements,
        Table::Operations,
        Table::Balances,
        Table::Nodes,
        Table::Namespaces,
        Table::Keys,
        Table::DeadLetters,
        Table::Paused,
        Table::Prices,
        Table::Templates,
        Table::Subclouds,
        Table::Configurations,
        Table::Feedback,
        Table::Proofs,
        Table::Invites,
    ];

    /// The table that a key is in.
    pub fn of(key: &[u8]) -> Option<Table> {
        let byte = *key.first()?;
        Table::ALL.into_iter().find(|table| *table as u8 == byte)
    }

    /// The word for it, as errors and `doctor` say it.
    pub fn word(self) -> &'static str {
        match self {
            Table::Jobs => "jobs",
            Table::Bodies => "bodies",
            Table::Extras => "extras",
            Table::Traces => "traces",
            Table::Answers => "answers",
            Table::Settlements => "settlements",
            Table::Operations => "operations",
            Table::Balances => "balances",
            Table::Nodes => "nodes",
            Table::Namespaces => "namespaces",
            Table::Keys => "keys",
            Table::DeadLetters => "dead_letters",
            Table::Paused => "paused",
            Table::Prices => "prices",
            Table::Templates => "templates",
            Table::Subclouds => "subclouds",
            Table::Configurations => "configurations",
            Table::Feedback => "feedback",
            Table::Proofs => "proofs",
            Table::Invites => "invites",
        }
    }
}

/// The key of a job's row in one of the tables that are by job.
pub(super) fn of_job(table: Table, job: JobId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + JOB_BYTES);
    key.push(table as u8);
    key.extend_from_slice(&job.epoch.to_be_bytes());
    key.extend_from_slice(&job.counter.to_be_bytes());
    key
}

/// The job that such a key names.
pub(super) fn job_of(key: &[u8]) -> Option<JobId> {
    let (epoch, counter) = key.get(1..)?.split_first_chunk::<4>()?;
    let job =
        JobId { epoch: u32::from_be_bytes(*epoch), counter: u64::from_be_bytes(counter.try_into().ok()?) };
    Some(job)
}

/// The key that a row is kept under.
pub(super) fn bytes_of(key: &RowKey) -> Vec<u8> {
    match key {
        RowKey::Job(job) => of_job(Table::Jobs, *job),
        RowKey::Answer(job) => of_job(Table::Answers, *job),
        RowKey::Settlement(job) => of_job(Table::Settlements, *job),
        RowKey::DeadLetter(job) => of_job(Table::DeadLetters, *job),
        RowKey::Feedback(job) => of_job(Table::Feedback, *job),
        RowKey::Proof(job) => of_job(Table::Proofs, *job),
        RowKey::Operation(operation, at) => {
            Key::of(Table::Operations).bytes(&operation.0.to_be_bytes()).bytes(&at.0.to_be_bytes()).0
        }
        RowKey::Balance(Account { environment, owner }) => {
            let key = Key::of(Table::Balances).byte(environment_byte(*environment));
            match owner {
                Owner::Namespace(namespace) => key.byte(1).name(&namespace.to_string()),
                Owner::Node(node) => key.byte(2).name(&node.to_string()),
                Owner::Fee => key.byte(3),
                Owner::Integrity => key.byte(4),
                Owner::Issuance => key.byte(5),
            }
            .0
        }
        RowKey::Invite(token) => Key::of(Table::Invites).bytes(&token.0).0,
        RowKey::Node(node) => Key::of(Table::Nodes).name(&node.to_string()).0,
        RowKey::Namespace(namespace) => Key::of(Table::Namespaces).name(&namespace.to_string()).0,
        RowKey::Key(key) => Key::of(Table::Keys).bytes(&key.0).0,
        RowKey::Paused(scope) => {
            let key = Key::of(Table::Paused);
            match scope {
                Scope::Model(model) => key.byte(1).name(model),
                Scope::Namespace(namespace) => key.byte(2).name(&namespace.to_string()),
                Scope::Tier(tier) => key.byte(3).byte(tier_byte(*tier)),
            }
            .0
        }
        RowKey::Price(environment, model, tier, from) => {
            let key = Key::of(Table::Prices)
                .byte(environment.map_or(0, environment_byte))
                .byte(tier.map_or(0, tier_byte));
            let key = match model {
                None => key.byte(0),
                Some(model) => key.byte(1).name(model),
            };
            key.bytes(&from.0.to_be_bytes()).0
        }
        RowKey::Template(model, name) => Key::of(Table::Templates).name(model).name(name).0,
        RowKey::Subcloud(environment, name) => {
            Key::of(Table::Subclouds).byte(environment_byte(*environment)).name(name.as_str()).0
        }
        RowKey::Configuration(environment) => {
            Key::of(Table::Configurations).byte(environment_byte(*environment)).0
        }
    }
}

/// A key as it grows.
struct Key(Vec<u8>);

impl Key {
    fn of(table: Table) -> Self {
        Self(vec![table as u8])
    }

    fn byte(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn name(self, name: &str) -> Self {
        let plain = name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte >= b' ');
        if plain { self.bytes(name.as_bytes()).byte(0) } else { self.byte(1).bytes(&Sha256::digest(name)) }
    }
}

fn environment_byte(environment: Environment) -> u8 {
    match environment {
        Environment::Mainnet => 1,
        Environment::Testnet => 2,
    }
}

fn tier_byte(tier: Tier) -> u8 {
    match tier {
        Tier::Realtime => 1,
        Tier::Standard => 2,
        Tier::Batch => 3,
        Tier::Background => 4,
    }
}
