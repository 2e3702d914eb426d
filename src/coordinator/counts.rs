//! Every gauge and counter of the core: what `/metrics` shows and what a recount must give again.

/// Defines `Counts` with its fields also as a list of names and values, so that no view of it can miss one.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Gauges and counters of the core.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Every value under its name.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counts! {
    /// Jobs that wait, those in backoff included.
    jobs_queued,
    /// Jobs that a node was told of.
    jobs_reserved,
    /// Jobs that a node began.
    jobs_running,
    /// Of the last two, those that wait for their node to stop.
    jobs_cancelling,
    /// Reservations that aren't gone.
    reservations,
    /// Slots taken.
    slots_taken,
    /// Slots in all.
    slots_total,
    /// Nodes that are here.
    nodes,
    /// Live holds.
    holds,
    /// Micro-credits held.
    held_credits,
    /// Bytes of the output budget that are taken.
    output_bytes_held,
    /// Bytes of the bodies of live jobs.
    body_bytes_held,
    /// Requests whose client hasn't left.
    clients,
    /// Timers that are set.
    timers,
    /// Jobs accepted since the start.
    accepted,
    /// Jobs that ended with an answer.
    succeeded,
    /// Jobs that ended without.
    failed,
    /// Jobs that were cancelled.
    cancelled,
    /// Jobs whose TTL passed.
    expired,
    /// Attempts that failed or timed out.
    attempts_failed,
    /// Attempts that a node lost.
    attempts_lost,
    /// Refusals: the namespace's queue was full.
    refused_namespace_queue_full,
    /// Refusals: the queue was full.
    refused_queue_full,
    /// Refusals: the queue's bytes were used up.
    refused_queue_bytes_full,
    /// Refusals: draining.
    refused_draining,
    /// Refusals: unknown model.
    refused_model_unknown,
    /// Refusals: the output would be too large.
    refused_output_too_large,
    /// Clients that left while their job waited.
    disconnects_queued,
    /// Clients that left before the first output of their running job.
    disconnects_prefill,
    /// Clients that left during output.
    disconnects_decode,
    /// Clients that left a finished job's output unread.
    disconnects_unread,
    /// Messages of nodes that named a reservation which isn't live.
    late_messages,
}

impl Counts {
    /// Jobs that haven't ended.
    pub fn live(&self) -> u64 {
        self.jobs_queued + self.jobs_reserved + self.jobs_running
    }
}
