//! What the core counts, as families of metrics: one table, so that a count is shown once and under one name.
//!
//! It names the core's fields by their names; a test holds it to naming all of them.

use std::collections::BTreeMap;

use super::{Family, Kind, Samples};
use crate::coordinator::Counts;

/// A family and the fields that it shows.
struct CoreFamily {
    name: &'static str,
    kind: Kind,
    fields: Fields,
    help: &'static str,
}

enum Fields {
    One(&'static str),
    /// By a label: its values, each with its field.
    By(&'static str, &'static [(&'static str, &'static str)]),
}

const fn one(name: &'static str, kind: Kind, field: &'static str, help: &'static str) -> CoreFamily {
    CoreFamily { name, kind, fields: Fields::One(field), help }
}

const fn by(
    name: &'static str,
    kind: Kind,
    label: &'static str,
    values: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> CoreFamily {
    CoreFamily { name, kind, fields: Fields::By(label, values), help }
}

use Kind::{Counter, Gauge};

const FAMILIES: [CoreFamily; 42] = [
    by(
        "jobs",
        Gauge,
        "state",
        STATES,
        "Live jobs by state; cancelling ones count as reserved or running too.",
    ),
    one("jobs_accepted_total", Counter, "accepted", "Jobs accepted."),
    by("jobs_finished_total", Counter, "end", ENDS, "Jobs ended."),
    by("refusals_total", Counter, "kind", REFUSALS, "Jobs refused."),
    one("attempts_failed_total", Counter, "attempts_failed", "Attempts that failed or timed out."),
    one("attempts_lost_total", Counter, "attempts_lost", "Attempts that a node lost."),
    one("attempts_declined_total", Counter, "attempts_declined", "Assignments that a node refused."),
    by("attempt_errors_total", Counter, "class", ERRORS, "Failed attempts by what may be done about them."),
    one("jobs_fell_back_total", Counter, "fell_back", "Jobs that went on with another model."),
    one("jobs_requeued_total", Counter, "requeued", "Dead letters that became new jobs."),
    one(
        "requests_attached_total",
        Counter,
        "attached",
        "Requests that joined a job by their idempotency key.",
    ),
    one("feedback_total", Counter, "feedback", "Opinions on answers that were given."),
    one("commands_rejected_total", Counter, "rejected", "Commands that changed nothing."),
    one(
        "operations_repeated_total",
        Counter,
        "operations_repeated",
        "Ledger operations that had been done before.",
    ),
    one("reservations", Gauge, "reservations", "Reservations that aren't gone."),
    one("slots_taken", Gauge, "slots_taken", "Slots of nodes that are taken."),
    one("slots", Gauge, "slots_total", "Slots of nodes in all."),
    one("nodes", Gauge, "nodes", "Nodes that are here."),
    one("holds", Gauge, "holds", "Live holds, one for each live job."),
    one("held_credits", Gauge, "held_credits", "Micro-credits held."),
    one("output_bytes_held", Gauge, "output_bytes_held", "Bytes of the output budget that are taken."),
    one("body_bytes_held", Gauge, "body_bytes_held", "Bytes of the bodies of live jobs."),
    one("clients", Gauge, "clients", "Requests that the core knows and whose client hasn't left."),
    one("timers", Gauge, "timers", "Timers that are set."),
    one("idempotency_keys", Gauge, "keys", "Idempotency keys that stand for a job."),
    one("dead_letters", Gauge, "dead_letters", "Dead letters that are listed."),
    by(
        "disconnects_total",
        Counter,
        "phase",
        PHASES,
        "Clients that left before their answer, by what their job did.",
    ),
    by("late_messages_total", Counter, "kind", LATE, "Messages of nodes that changed nothing."),
    one("bad_signatures_total", Counter, "bad_signatures", "Messages that a node signed wrongly."),
    one("node_faults_total", Counter, "faults", "Faults that counted against a node."),
    one("node_exclusions_total", Counter, "exclusions", "Exclusions of nodes."),
    one(
        "heartbeats_missed_total",
        Counter,
        "heartbeats_missed",
        "Nodes that went away because they weren't heard of.",
    ),
    one("test_jobs_total", Counter, "tests", "Test jobs begun."),
    one("test_jobs_passed_total", Counter, "tests_passed", "Test jobs that passed."),
    one("blind_jobs_total", Counter, "blind", "Blind jobs begun."),
    one(
        "validation_jobs_total",
        Counter,
        "validations",
        "Client jobs that were run again to compare answers.",
    ),
    one(
        "validations_undecided_total",
        Counter,
        "validations_undecided",
        "Of these, ones that showed nothing: answers differed, and nobody could say whose is wrong.",
    ),
    one("lies_proven_total", Counter, "lies_proven", "Answers that were proven wrong."),
    by("checks_total", Counter, "verdict", CHECKS, "Blind and validation jobs by their verdict."),
    one(
        "checks_unpaid_total",
        Counter,
        "checks_unpaid",
        "Blind and validation jobs that were due, and that the integrity account could not pay.",
    ),
    by(
        "results_suspect_total",
        Counter,
        "kind",
        RESULTS,
        "Results that can't be (rejected) or are odd (flagged).",
    ),
    by("node_standings_total", Counter, "standing", STANDINGS, "Times that a node came to a standing."),
];

const STATES: &[(&str, &str)] = &[
    ("queued", "jobs_queued"),
    ("reserved", "jobs_reserved"),
    ("running", "jobs_running"),
    ("cancelling", "jobs_cancelling"),
];

const ENDS: &[(&str, &str)] =
    &[("succeeded", "succeeded"), ("failed", "failed"), ("cancelled", "cancelled"), ("expired", "expired")];

const REFUSALS: &[(&str, &str)] = &[
    ("namespace_queue_full", "refused_namespace_queue_full"),
    ("queue_full", "refused_queue_full"),
    ("queue_bytes_full", "refused_queue_bytes_full"),
    ("draining", "refused_draining"),
    ("model_unknown", "refused_model_unknown"),
    ("output_too_large", "refused_output_too_large"),
    ("size_invalid", "refused_size_invalid"),
    ("ttl_invalid", "refused_ttl_invalid"),
    ("too_many_constraints", "refused_too_many_constraints"),
    ("subcloud_unknown", "refused_subcloud_unknown"),
    ("subcloud_forbidden", "refused_subcloud_forbidden"),
    ("tier_forbidden", "refused_tier_forbidden"),
    ("unrunnable", "refused_unrunnable"),
    ("insufficient_credits", "refused_insufficient_credits"),
    ("key_conflict", "refused_key_conflict"),
    ("keys_full", "refused_keys_full"),
    ("names_full", "refused_names_full"),
];

const ERRORS: &[(&str, &str)] =
    &[("terminal", "errors_terminal"), ("node", "errors_node"), ("transient", "errors_transient")];

const PHASES: &[(&str, &str)] = &[
    ("queued", "disconnects_queued"),
    ("prefill", "disconnects_prefill"),
    ("decode", "disconnects_decode"),
    ("unread", "disconnects_unread"),
];

const LATE: &[(&str, &str)] =
    &[("dead_reservation", "late_messages"), ("foreign_reservation", "foreign_messages")];

const CHECKS: &[(&str, &str)] = &[("passed", "checks_passed"), ("failed", "checks_failed")];

const RESULTS: &[(&str, &str)] = &[("rejected", "results_rejected"), ("flagged", "results_flagged")];

const STANDINGS: &[(&str, &str)] = &[
    ("ready", "stood_ready"),
    ("untested", "stood_untested"),
    ("paused", "stood_paused"),
    ("draining", "stood_draining"),
    ("away", "stood_away"),
    ("excluded", "stood_excluded"),
    ("frozen", "stood_frozen"),
    ("banned", "stood_banned"),
];

/// What the core counts.
pub(super) fn families(counts: &Counts) -> Vec<Family> {
    let values: BTreeMap<&str, u64> = counts.entries().collect();
    let value = |field: &str| values.get(field).copied().unwrap_or_default();
    let family = |of: &CoreFamily| {
        let samples = match &of.fields {
            Fields::One(field) => Samples::One(value(field)),
            Fields::By(label, parts) => Samples::By(
                label,
                parts.iter().map(|(part, field)| ((*part).to_owned(), value(field))).collect(),
            ),
        };
        Family { name: of.name, help: of.help, kind: of.kind, samples }
    };
    FAMILIES.iter().map(family).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that is renamed or new in the core, or shown twice, fails here.
    #[test]
    fn every_count_is_shown_once() {
        let mut shown: Vec<&str> = Vec::new();
        for family in &FAMILIES {
            match family.fields {
                Fields::One(field) => shown.push(field),
                Fields::By(_, parts) => shown.extend(parts.iter().map(|(_, field)| field)),
            }
            assert!(family.help.ends_with('.'), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        }
        let mut counted: Vec<&str> = Counts::default().entries().map(|(name, _)| name).collect();
        shown.sort_unstable();
        counted.sort_unstable();
        assert_eq!(shown, counted);
    }
}
