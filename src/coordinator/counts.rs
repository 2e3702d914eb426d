//! Every gauge and counter of the core: what `/metrics` shows and what a recount must give again.

use super::effect::RefusalKind;
use super::event::ErrorClass;
use super::standing::{Check, Standing};

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
    /// Idempotency keys that stand for a job.
    keys,
    /// Dead letters that are listed.
    dead_letters,
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
    /// Assignments that a node refused.
    attempts_declined,
    /// Failed attempts whose request was wrong.
    errors_terminal,
    /// Failed attempts by a node's fault.
    errors_node,
    /// Failed attempts that may go better later.
    errors_transient,
    /// Jobs that went on with another model.
    fell_back,
    /// Dead letters that became new jobs.
    requeued,
    /// Requests that were attached to a job by their key.
    attached,
    /// Feedback that was given.
    feedback,
    /// Commands that changed nothing.
    rejected,
    /// Operations that had been done before.
    operations_repeated,
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
    /// Refusals: no output, or too large a body.
    refused_size_invalid,
    /// Refusals: it would expire before it may start.
    refused_ttl_invalid,
    /// Refusals: more constraints than a job may have.
    refused_too_many_constraints,
    /// Refusals: unknown subcloud.
    refused_subcloud_unknown,
    /// Refusals: a subcloud that doesn't admit it.
    refused_subcloud_forbidden,
    /// Refusals: a tier of the system's own.
    refused_tier_forbidden,
    /// Refusals: no node could run it.
    refused_unrunnable,
    /// Refusals: too few credits.
    refused_insufficient_credits,
    /// Refusals: a key that stands for another request.
    refused_key_conflict,
    /// Refusals: as many keys as may be.
    refused_keys_full,
    /// Refusals: as many names as may be.
    refused_names_full,
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
    /// Messages of nodes that named somebody else's reservation.
    foreign_messages,
    /// Messages that a node signed wrongly.
    bad_signatures,
    /// Faults that counted against a node.
    faults,
    /// Exclusions of nodes.
    exclusions,
    /// Nodes that were away because they weren't heard of.
    heartbeats_missed,
    /// Test jobs.
    tests,
    /// Test jobs that passed.
    tests_passed,
    /// Blind jobs.
    blind,
    /// Client jobs that were run again to compare the answers.
    validations,
    /// Validations that showed nothing: two differed, and nobody could say whose answer is wrong.
    validations_undecided,
    /// Blind and validation jobs that passed.
    checks_passed,
    /// Blind and validation jobs that failed.
    checks_failed,
    /// Of these, answers that were proven wrong.
    lies_proven,
    /// Blind and validation jobs that were due, and that the integrity account could not pay.
    checks_unpaid,
    /// Results that can't be.
    results_rejected,
    /// Results that are odd.
    results_flagged,
    /// Times that a node came to stand as ready, and so on for each standing.
    stood_ready,
    /// Untested.
    stood_untested,
    /// Paused.
    stood_paused,
    /// Draining.
    stood_draining,
    /// Away.
    stood_away,
    /// Excluded.
    stood_excluded,
    /// Frozen.
    stood_frozen,
    /// Banned.
    stood_banned,
}

impl Counts {
    /// Jobs that haven't ended.
    pub fn live(&self) -> u64 {
        self.jobs_queued + self.jobs_reserved + self.jobs_running
    }

    pub(super) fn refuse(&mut self, kind: RefusalKind) {
        use RefusalKind as K;
        *match kind {
            K::NamespaceQueueFull => &mut self.refused_namespace_queue_full,
            K::QueueFull => &mut self.refused_queue_full,
            K::QueueBytesFull => &mut self.refused_queue_bytes_full,
            K::Draining => &mut self.refused_draining,
            K::ModelUnknown => &mut self.refused_model_unknown,
            K::OutputTooLarge => &mut self.refused_output_too_large,
            K::SizeInvalid => &mut self.refused_size_invalid,
            K::TtlInvalid => &mut self.refused_ttl_invalid,
            K::TooManyConstraints => &mut self.refused_too_many_constraints,
            K::SubcloudUnknown => &mut self.refused_subcloud_unknown,
            K::SubcloudForbidden => &mut self.refused_subcloud_forbidden,
            K::TierForbidden => &mut self.refused_tier_forbidden,
            K::Unrunnable(_) => &mut self.refused_unrunnable,
            K::InsufficientCredits => &mut self.refused_insufficient_credits,
            K::KeyConflict => &mut self.refused_key_conflict,
            K::KeysFull => &mut self.refused_keys_full,
            K::NamesFull => &mut self.refused_names_full,
            // Counted at the door: the core never saw it, or never kept it.
            K::RingFull | K::JobUnknown | K::DiskReserve | K::StoreBehind => return,
        } += 1;
    }

    pub(super) fn count_error(&mut self, class: ErrorClass) {
        match class {
            ErrorClass::Terminal => self.errors_terminal += 1,
            ErrorClass::Node => self.errors_node += 1,
            ErrorClass::Transient => self.errors_transient += 1,
        }
    }

    pub(super) fn standing(&mut self, standing: Standing) {
        *match standing {
            Standing::Ready => &mut self.stood_ready,
            Standing::Untested => &mut self.stood_untested,
            Standing::Paused => &mut self.stood_paused,
            Standing::Draining => &mut self.stood_draining,
            Standing::Away => &mut self.stood_away,
            Standing::Excluded => &mut self.stood_excluded,
            Standing::Frozen => &mut self.stood_frozen,
            Standing::Banned => &mut self.stood_banned,
        } += 1;
    }

    pub(super) fn check(&mut self, check: Check) {
        match check {
            Check::Passed => self.checks_passed += 1,
            Check::Failed => self.checks_failed += 1,
            Check::Lied => {
                self.checks_failed += 1;
                self.lies_proven += 1;
            }
        }
    }
}
