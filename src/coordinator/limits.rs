//! The bounds and deadlines that the core decides by. Each has its unit last.

use crate::credits::Price;
use crate::time::Span;

/// Bytes of output that a job's budget counts for each token it may generate.
pub const BYTES_PER_TOKEN_MAX: u64 = 64;
/// Declines in a row after which a job fails.
pub const DECLINES_MAX: u32 = 8;
/// Timers that one tick handles; the rest is for the next.
pub const TICK_TIMERS_MAX: usize = 1_000;

/// How much work is let in, and how long things may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Jobs that may wait in all.
    pub queue_jobs_max: u64,
    /// Jobs of one namespace that may wait.
    pub namespace_queue_jobs_max: u64,
    /// Bytes of bodies of live jobs.
    pub queue_bytes_max: u64,
    /// Bytes of outputs of running and unread jobs.
    pub output_budget_bytes: u64,
    /// Bytes of one output.
    pub output_bytes_max: u64,
    /// Finished jobs whose rows stay readable; fewer if their bodies exceed `queue_bytes_max`.
    pub finished_jobs_max: usize,
    /// Attempts that may fail, and nodes that may lose a job, before it fails.
    pub attempts_max: u32,
    /// The first backoff after a failure; doubles with each.
    pub backoff: Span,
    /// The longest backoff.
    pub backoff_max: Span,
    /// From assignment to the node's acceptance.
    pub accept_timeout: Span,
    /// From acceptance to the first output.
    pub first_output_timeout: Span,
    /// Between two pieces of output.
    pub progress_timeout: Span,
    /// For a whole attempt.
    pub attempt_timeout: Span,
    /// From a stop to the node's word that it stopped.
    pub stop_timeout: Span,
    /// What a model costs unless said otherwise.
    pub price: Price,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_jobs_max: 10_000,
            namespace_queue_jobs_max: 5_000,
            queue_bytes_max: 256 << 20,
            output_budget_bytes: 256 << 20,
            output_bytes_max: 16 << 20,
            finished_jobs_max: 10_000,
            attempts_max: 3,
            backoff: Span::from_ms(100),
            backoff_max: Span::from_secs(30),
            accept_timeout: Span::from_secs(10),
            first_output_timeout: Span::from_secs(120),
            progress_timeout: Span::from_secs(60),
            attempt_timeout: Span::from_secs(1_800),
            stop_timeout: Span::from_secs(10),
            price: Price { input: 1_000_000, output: 1_000_000 },
        }
    }
}
