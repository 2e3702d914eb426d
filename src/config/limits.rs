//! Every bound and deadline that can be set in `[limits]`: its default and the range that makes sense, in one
//! table. Decides nothing else.

use std::collections::BTreeMap;

use super::document::{ConfigError, Stated};
use crate::archive::STORED_BYTES_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const WEEK: u64 = 7 * 24 * HOUR;
/// The largest body that the core takes.
pub(super) const BODY_BYTES_MAX: u64 = 64 * MIB;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $default:expr, $least:expr => $most:expr;)*) => {
        /// Bounds and deadlines, each with its unit last.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// The keys of `[limits]`.
        pub(super) const KEYS: &[&str] = &[$(stringify!($name)),*];

        impl Limits {
            fn in_ranges(stated: &BTreeMap<&'static str, Stated<u64>>) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($name: match stated.get(stringify!($name)) {
                        Some(stated) => stated.in_range($least, $most, $default)?,
                        None => $default,
                    },)*
                })
            }
        }
    };
}

limits! {
    /// Jobs that may wait in all.
    queue_jobs_max: 10_000, 1 => 10_000_000;
    /// Jobs of one namespace that may wait.
    namespace_queue_jobs_max: 5_000, 1 => 10_000_000;
    /// Bytes of bodies of live jobs.
    queue_bytes_max: 256 * MIB, 4 * KIB => 1_024 * GIB;
    /// Bytes of outputs of running and unread jobs.
    output_budget_bytes: 256 * MIB, 4 * KIB => 1_024 * GIB;
    /// Bytes of one output.
    output_bytes_max: 16 * MIB, KIB => GIB;
    /// Finished jobs by name or key, and failed ones, whose rows and results stay readable. Of too many, the oldest of
    /// the namespace that keeps the most is forgotten.
    finished_jobs_max: 10_000, 1 => 10_000_000;
    /// The same of all other requests, and of the box's own jobs: the newest so many.
    finished_unnamed_jobs_max: 10_000, 1 => 10_000_000;
    /// Bytes of the bodies and results kept with them; a result counts 64 bytes a token.
    finished_bytes_max: 4 * GIB, 4 * KIB => 1_048_576 * GIB;
    /// How long they are kept.
    finished_age_max_ms: WEEK, SECOND => 520 * WEEK;
    /// Dead letters that are listed and can be requeued. Of too many, the namespace that has the most loses its oldest.
    dead_letters_max: 1_000, 1 => 1_000_000;
    /// Deposits and other operations of operators that are kept one by one; older ones are in the balances alone. Those
    /// of the last day are kept whatever their number.
    operation_postings_max: 200_000, 1 => 10_000_000;
    /// How long.
    operation_postings_age_max_ms: 400 * 24 * HOUR, 24 * HOUR => 5_200 * WEEK;
    /// Bytes of disk below which no new jobs are taken; at least twice the state is kept free.
    disk_reserve_bytes: 2 * GIB, MIB => 1_024 * GIB;
    /// Attempts that may fail before the job does.
    attempts_max: 3, 1 => 100;
    /// From assignment to the node's acceptance.
    accept_timeout_ms: 10 * SECOND, 10 => HOUR;
    /// From acceptance to the first output.
    first_output_timeout_ms: 120 * SECOND, 10 => 24 * HOUR;
    /// Between two pieces of output.
    progress_timeout_ms: 60 * SECOND, 10 => 24 * HOUR;
    /// For a whole attempt.
    attempt_timeout_ms: 1_800 * SECOND, 10 => WEEK;
    /// From a stop to the node's word that it stopped.
    stop_timeout_ms: 10 * SECOND, 10 => HOUR;
    /// Without a heartbeat for so long, a node is away: it gets no work, and keeps what it has.
    heartbeat_ttl_ms: 15 * SECOND, 100 => HOUR;
    /// Away for so long, a node has lost what it had.
    reconnect_ttl_ms: 60 * SECOND, 100 => 24 * HOUR;
    /// Connections of nodes at once.
    node_sessions_max: 2_048, 1 => 100_000;
    /// From the upgrade of a node's connection until it is ready for work.
    node_handshake_timeout_ms: 5 * SECOND, 10 => HOUR;
    /// Silence of a node after which it is pinged.
    node_ping_ms: 20 * SECOND, 10 => HOUR;
    /// Silence of a node after which its connection counts as dead.
    node_silence_ms: 50 * SECOND, 10 => HOUR;
    /// How long a job may wait before it is dispatched, unless its client says less.
    job_ttl_ms: 600 * SECOND, 10 => WEEK;
    /// Bytes of a request's body.
    body_bytes_max: 4 * MIB, KIB => BODY_BYTES_MAX;
    /// Bytes of all bodies that are being read or parsed.
    bodies_bytes_max: 256 * MIB, KIB => 1_024 * GIB;
    /// How long a client may leave what was sent to it unread.
    client_stall_ms: 30 * SECOND, 100 => HOUR;
    /// From the opening of a connection, or its last answer, to a whole request head.
    header_read_timeout_ms: 10 * SECOND, 100 => HOUR;
    /// Between two pieces of a body.
    body_idle_timeout_ms: 15 * SECOND, 100 => HOUR;
    /// For a whole body.
    body_timeout_ms: 60 * SECOND, 100 => HOUR;
    /// Connections at once.
    connections_max: 4_096, 1 => 1_000_000;
    /// Connections at once from one address (an IPv6 /64 counts as one).
    connections_per_ip_max: 64, 1 => 1_000_000;
    /// The same from this very machine, where every program has the same address.
    connections_per_loopback_max: 3_584, 1 => 1_000_000;
    /// Silence on a stream after which a comment is sent.
    keepalive_delay_ms: 10 * SECOND, 10 => HOUR;
    /// Bytes of stored answers that were looked up and that clients haven't taken yet; half of them of one namespace.
    stored_bytes_max: STORED_BYTES_MAX, MIB => 1_024 * GIB;
    /// Requests that may wait for the end of a job at once; half of them of one namespace.
    job_waiters_max: 1_024, 1 => 1_000_000;
    /// From the wish to stop until what still waits on a connection is ended; other jobs are left for the next start.
    drain_deadline_ms: 30 * SECOND, 1 => 24 * HOUR;
}

impl Limits {
    /// Each in its range, and none making another pointless.
    pub(super) fn checked(stated: &BTreeMap<&'static str, Stated<u64>>) -> Result<Self, ConfigError> {
        let limits = Self::in_ranges(stated)?;
        for (part, whole, part_value, whole_value) in [
            ("body_bytes_max", "bodies_bytes_max", limits.body_bytes_max, limits.bodies_bytes_max),
            ("body_bytes_max", "queue_bytes_max", limits.body_bytes_max, limits.queue_bytes_max),
            ("output_bytes_max", "output_budget_bytes", limits.output_bytes_max, limits.output_budget_bytes),
            ("output_bytes_max", "stored_bytes_max", limits.output_bytes_max, limits.stored_bytes_max),
            ("body_bytes_max", "stored_bytes_max", limits.body_bytes_max, limits.stored_bytes_max),
        ] {
            if part_value <= whole_value {
                continue;
            }
            // Blamed is whichever was stated, the smaller one first.
            let (blamed, problem) = match (stated.get(whole), stated.get(part)) {
                (Some(whole), _) => {
                    (whole.with(()), format!("is below `limits.{part}`, which is {part_value}"))
                }
                (None, Some(part)) => {
                    (part.with(()), format!("is above `limits.{whole}`, which is {whole_value}"))
                }
                (None, None) => continue,
            };
            let remedy = format!("raise `limits.{whole}` or lower `limits.{part}`");
            return Err(blamed.refused(&problem, remedy));
        }
        Ok(limits)
    }
}
