//! What a whole run must have touched: every transition, refusal, error class, standing, charging case and ledger step.

use super::coverage::{CHECKS_MIN, Demand};
use super::oracle::{CASES, FATES, Line};

/// Every change of state that a row can show.
const TRANSITIONS: [&str; 17] = [
    "new -> queued",
    "new -> reserved",
    "queued -> reserved",
    "queued -> cancelled",
    "queued -> expired",
    "reserved -> queued",
    "reserved -> running",
    "reserved -> succeeded",
    "reserved -> failed",
    "reserved -> cancelled",
    "reserved -> expired",
    "running -> queued",
    "running -> succeeded",
    "running -> failed",
    "running -> cancelled",
    "running -> expired",
    "running -> reserved",
];

/// Refusals that the core itself makes (a full ring is the door's).
const REFUSALS: [&str; 18] = [
    "NamespaceQueueFull",
    "QueueFull",
    "QueueBytesFull",
    "Draining",
    "OutputTooLarge",
    "SizeInvalid",
    "TtlInvalid",
    "TooManyConstraints",
    "SubcloudUnknown",
    "SubcloudForbidden",
    "TierForbidden",
    "Unrunnable",
    "InsufficientCredits",
    "KeyConflict",
    "KeysFull",
    "NamesFull",
    "ModelUnknown",
    "JobUnknown",
];

const FAULTS: [&str; 8] = [
    "AttemptFailed",
    "FailedCheck",
    "TimedOut",
    "Died",
    "FailedTest",
    "BadSignature",
    "ForeignReservation",
    "UnissuedReservation",
];

const STANDINGS: [&str; 6] = ["frozen", "excluded", "draining", "paused", "untested", "ready"];

const WORLD: [&str; 9] = [
    "crashes",
    "shutdowns",
    "nodes that died",
    "results repeated",
    "late messages of earlier connections",
    "assignments taken back",
    "answers from the store",
    "dead letters requeued",
    "seeds run twice",
];

/// Lines that only the fairness scenario tests, once a run of it.
const SELDOM: [Line; 2] = [Line::Fair, Line::WaitBounded];

/// All of it.
pub(crate) fn demands() -> Vec<Demand> {
    let mut demands = Vec::new();
    let mut ask = |group: &'static str, names: &[&str]| {
        demands.extend(names.iter().map(|name| Demand { group, name: (*name).to_owned(), least: 1 }));
    };
    ask("transition", &TRANSITIONS);
    ask("refusal", &REFUSALS);
    ask("fault", &FAULTS);
    ask("standing", &STANDINGS);
    ask("charge", &CASES);
    ask("world", &WORLD);
    ask("error class", &["terminal", "node", "transient"]);
    ask("ledger", &["capture", "deposit", "adjust", "transfer"]);
    ask("origin", &["client", "requeued", "test", "blind", "validation"]);
    ask("forgotten", &["old", "unnamed", "named"]);
    ask("answers not to be stored", &["read", "gone"]);
    ask("placed", &["by the job", "by the node"]);
    ask("commands", &["done", "rejected"]);
    ask("configuration", &FATES);
    ask("node messages", &["result accepted", "result unknown", "standing", "drained", "banned"]);
    ask("node messages", &["configuration", "configuration on connecting"]);
    ask(
        "dead reservations",
        &["of an earlier epoch", "its own, late or repeated", "another node's", "never issued"],
    );
    demands.extend(Line::ALL.iter().map(|line| {
        let least = if SELDOM.contains(line) { 1 } else { CHECKS_MIN };
        Demand { group: "oracle", name: line.word().to_owned(), least }
    }));
    demands
}
