//! The bounds and deadlines that the core decides by. Each has its unit last.

use super::command::Unrunnable;
use super::snapshot::{Participation, Snapshot};
use super::spec::Environment;
use super::standing::{PenaltyRules, Trust};
use crate::credits::{Credits, Price};
use crate::time::Span;

/// Bytes of output that a job's budget counts for each token it may generate, unless its answer may be more than text.
pub const BYTES_PER_TOKEN_MAX: u32 = 64;
/// Declines in a row after which a job fails.
pub const DECLINES_MAX: u32 = 8;
/// Local attempts that the box didn't survive, after which a job is a dead letter.
pub const BOX_CUTS_MAX: u32 = 2;
/// Timers that one tick handles; the rest is for the next.
pub const TICK_TIMERS_MAX: usize = 256;
/// Looks at jobs and nodes that one step may spend on placing; the rest is for the next.
pub const PLACE_LOOKS_MAX: u32 = 2_048;
/// Nodes that a placement compares by their whole score.
pub const CANDIDATES_MAX: usize = 16;
/// Nodes that failed a job and are remembered with it.
pub const FAILED_NODES_MAX: usize = 8;
/// Jobs that a pause looks at to say how many would expire.
pub const PAUSE_LOOK_MAX: usize = 4_096;
/// Waiting jobs that one tick moves to a fallback model.
pub const FALLBACK_SWEEP_MAX: usize = 32;
/// Keys that one tick forgets.
pub const KEYS_EXPIRED_MAX: usize = 256;
/// How long a job that fits a node, but not what is free of it, waits before the node is kept for it.
pub const FIT_WAIT: Span = Span::from_secs(1);
/// How long an idempotency key means something.
pub const KEY_LIFE: Span = Span::from_secs(24 * 3_600);

/// How much work is let in, and how long things may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Jobs that may wait in all.
    pub queue_jobs_max: u64,
    /// Jobs of one namespace that may wait, where its settings don't say less.
    pub namespace_queue_jobs_max: u64,
    /// Bytes of bodies of live jobs.
    pub queue_bytes_max: u64,
    /// Bytes of one body.
    pub body_bytes_max: u64,
    /// Bytes of outputs of running and unread jobs.
    pub output_budget_bytes: u64,
    /// Bytes of one output.
    pub output_bytes_max: u64,
    /// Finished jobs with a name or a key, and failed ones, whose rows stay readable. Of too many, the oldest of the
    /// namespace that keeps the most goes; of bytes and dead letters too.
    pub finished_jobs_max: usize,
    /// The same of the system's own jobs, and of those whose client had its answer on its connection.
    pub finished_unnamed_jobs_max: usize,
    /// Bytes of the bodies and answers kept with them; answers count as many as their tokens may have.
    pub finished_bytes_max: u64,
    /// How long they are kept.
    pub finished_age_max: Span,
    /// Dead letters that are listed and may be requeued, among the finished jobs.
    pub dead_letters_max: usize,
    /// Postings of operators (deposits and the like) that are kept; those of jobs are, as long as their jobs.
    pub operation_postings_max: usize,
    /// How long, a day at least.
    pub operation_postings_age_max: Span,
    /// Idempotency keys that a namespace may have at once.
    pub keys_per_namespace_max: usize,
    /// Namespaces, models and nodes that the box can tell apart, of each.
    pub names_max: usize,
    /// Attempts that may fail, and nodes that may lose a job, before it fails.
    pub attempts_max: u32,
    /// Failed attempts on a model before a job's fallback is used, where it doesn't say.
    pub fallback_after_failures: u32,
    /// The first backoff after a failure; doubles with each.
    pub backoff: Span,
    /// The longest backoff.
    pub backoff_max: Span,
    /// How long a batch job waits before it competes as a standard one.
    pub batch_age: Span,
    /// From assignment to the node's acceptance.
    pub accept_timeout: Span,
    /// From acceptance to the first output, loading of the model not included.
    pub first_output_timeout: Span,
    /// Between two pieces of output.
    pub progress_timeout: Span,
    /// For a whole attempt.
    pub attempt_timeout: Span,
    /// From a stop to the node's word that it stopped.
    pub stop_timeout: Span,
    /// Without a heartbeat for so long, a node is away.
    pub heartbeat_timeout: Span,
    /// Away for so long, it has lost what it ran.
    pub away_timeout: Span,
    /// How long a test job may wait and run, a cold load included.
    pub test_timeout: Span,
    /// From a failed or impossible test job to the next one.
    pub test_retry: Span,
    /// What a model costs where no price says otherwise.
    pub price: Price,
    /// The operator's part of what is charged, in millionths.
    pub fee_ppm: u32,
    /// What becomes of a node's reliability and quality.
    pub penalties: PenaltyRules,
    /// What nodes must put up with, where no configuration says otherwise.
    pub participation: Participation,
    /// How far below zero the balance of a namespace without settings of its own may go; `None` is as far as it likes.
    pub credit: Option<Credits>,
    /// Least trust of nodes where a namespace has no settings of its own.
    pub trust: Trust,
    /// What becomes of jobs that no node could run, likewise.
    pub unrunnable: Unrunnable,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_jobs_max: 10_000,
            namespace_queue_jobs_max: 5_000,
            queue_bytes_max: 256 << 20,
            body_bytes_max: 64 << 20,
            output_budget_bytes: 256 << 20,
            output_bytes_max: 16 << 20,
            finished_jobs_max: 10_000,
            finished_unnamed_jobs_max: 10_000,
            finished_bytes_max: 4 << 30,
            finished_age_max: Span::from_secs(7 * 24 * 3_600),
            dead_letters_max: 1_000,
            operation_postings_max: 200_000,
            operation_postings_age_max: Span::from_secs(400 * 24 * 3_600),
            keys_per_namespace_max: 100_000,
            names_max: 100_000,
            attempts_max: 3,
            fallback_after_failures: 2,
            backoff: Span::from_ms(100),
            backoff_max: Span::from_secs(30),
            batch_age: Span::from_secs(3_600),
            accept_timeout: Span::from_secs(10),
            first_output_timeout: Span::from_secs(120),
            progress_timeout: Span::from_secs(60),
            attempt_timeout: Span::from_secs(1_800),
            stop_timeout: Span::from_secs(10),
            heartbeat_timeout: Span::from_secs(15),
            away_timeout: Span::from_secs(60),
            test_timeout: Span::from_secs(300),
            test_retry: Span::from_secs(60),
            price: Price::uncached(1_000_000, 1_000_000),
            fee_ppm: 0,
            penalties: PenaltyRules::default(),
            participation: Participation::default(),
            credit: None,
            trust: Trust::Own,
            unrunnable: Unrunnable::Accept,
        }
    }
}

impl Limits {
    /// Takes over what a configuration says of time and penalties. Both environments share the box's clockwork and a
    /// node's conduct, so mainnet's counts.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        if snapshot.environment != Environment::Mainnet {
            return;
        }
        let timeouts = snapshot.timeouts;
        self.penalties = snapshot.penalties;
        self.accept_timeout = timeouts.accept;
        self.first_output_timeout = timeouts.first_output;
        self.progress_timeout = timeouts.progress;
        self.attempt_timeout = timeouts.attempt;
        self.stop_timeout = timeouts.stop;
        self.heartbeat_timeout = timeouts.heartbeat_ttl;
        self.away_timeout = timeouts.reconnect_ttl;
    }
}
