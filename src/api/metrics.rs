//! `/metrics`: every gauge and counter, in Prometheus' text format and, for the recount, as JSON of the same names.
//!
//! One list of families serves both, so that a number can't have two names.

mod core;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::tally::Tally;
use crate::archive::StoreState;
use crate::coordinator::Counts;
use crate::door::DoorGauges;
use crate::node::tally::NodesTally;
use crate::runtime::Catalog;
use crate::runtime::upstream::Server;

const PREFIX: &str = "switchbox_";

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up.
    Counter,
}

/// The samples of one name.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Samples,
}

enum Samples {
    One(u64),
    /// By the value of one label.
    By(&'static str, Vec<(String, u64)>),
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family { name, help, kind: Kind::Gauge, samples: Samples::One(value) }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family { name, help, kind: Kind::Counter, samples: Samples::One(value) }
}

fn by<const N: usize>(label: &'static str, samples: [(&str, u64); N]) -> Samples {
    Samples::By(label, samples.map(|(value, count)| (value.to_owned(), count)).into())
}

/// What can be seen without asking the core.
pub(super) struct Edges<'a> {
    pub(super) door: DoorGauges,
    pub(super) bodies_in_flight_bytes: u64,
    pub(super) tally: &'a Tally,
    pub(super) nodes: &'a NodesTally,
    /// None where the box keeps nothing.
    pub(super) store: Option<StoreState>,
}

fn of_edges(edges: &Edges<'_>) -> Vec<Family> {
    let Edges { door, bodies_in_flight_bytes, tally, nodes: _, store: _ } = edges;
    let refused = by(
        "bound",
        [
            ("connections", tally.connections_refused.count()),
            ("heads", tally.heads_refused.count()),
            ("tls", tally.tls_refused.count()),
            ("keys", tally.keys_refused.count()),
            ("origins", tally.origins_refused.count()),
            ("bodies", tally.bodies_refused.count()),
        ],
    );
    let answers = by("class", tally.answers());
    vec![
        gauge("queue_depth", "Events pushed and not yet stepped.", door.queue_depth),
        counter("queue_refused_total", "Requests that found no room for their event.", door.refused),
        gauge("sessions", "Requests that hold a session.", door.sessions),
        gauge("outputs", "Outputs that the driver knows.", door.outputs),
        gauge("last_lsn", "The last step that changed rows.", door.last_lsn.0),
        gauge("durable_lsn", "The last step on stable storage.", door.durable_lsn.0),
        gauge(
            "bodies_in_flight_bytes",
            "Room for request bodies that are being read.",
            *bodies_in_flight_bytes,
        ),
        gauge(
            "stored_bytes_held",
            "Bytes of stored jobs and answers that were looked up and are held for their clients.",
            door.stored_bytes,
        ),
        gauge("job_waiters", "Requests that wait for the end of a job.", door.waiters),
        Family { name: "http_answers_total", help: "Answers.", kind: Kind::Counter, samples: answers },
        Family {
            name: "http_refused_total",
            help: "What the inference listener refused before it was a job, by the bound.",
            kind: Kind::Counter,
            samples: refused,
        },
    ]
}

/// What came of agents' connections.
fn of_nodes(tally: &NodesTally) -> Vec<Family> {
    let closes = tally.closes().map(|(code, count)| (code.to_owned(), count));
    let ends = closes.chain([("broken".to_owned(), tally.broken.value())]).collect();
    let refused = by(
        "why",
        [
            ("signature", tally.refused_signature.value()),
            ("elsewhere", tally.refused_elsewhere.value()),
            ("output", tally.refused_output.value()),
        ],
    );
    vec![
        counter(
            "node_connections_total",
            "Connections of agents that were upgraded.",
            tally.connections.value(),
        ),
        counter("node_sessions_total", "Sessions of agents that joined.", tally.sessions.value()),
        Family {
            name: "node_closes_total",
            help: "Connections of agents that ended, by how.",
            kind: Kind::Counter,
            samples: Samples::By("code", ends),
        },
        counter(
            "node_strikes_total",
            "Statements of nodes that weren't signed as they must be.",
            tally.strikes.value(),
        ),
        Family {
            name: "node_results_refused_total",
            help: "Results of nodes that weren't believed, by why.",
            kind: Kind::Counter,
            samples: refused,
        },
        counter(
            "node_outputs_too_large_total",
            "Attempts that sent more output than they may.",
            tally.outputs_too_large.value(),
        ),
        counter(
            "node_stray_messages_total",
            "Messages of nodes that named no live reservation.",
            tally.stray_messages.value(),
        ),
        counter(
            "node_messages_ignored_total",
            "Messages of nodes of an unknown kind that may be skipped.",
            tally.messages_ignored.value(),
        ),
        counter(
            "node_snapshots_sent_total",
            "Configurations that nodes fetched.",
            tally.snapshots_sent.value(),
        ),
    ]
}

/// What is kept on disk, and whether that goes well.
fn of_store(state: &StoreState) -> Vec<Family> {
    let StoreState { trouble, gauges } = state;
    let bytes = by(
        "of",
        [
            ("journal", gauges.journal_bytes),
            ("state", gauges.state_bytes),
            ("payloads", gauges.payload_bytes),
            ("dirty_rows", gauges.dirty_bytes),
        ],
    );
    vec![
        gauge(
            "store_snapshots_failing",
            "1 while no snapshot can be made, and so no journal removed.",
            u64::from(trouble.is_some()),
        ),
        gauge(
            "store_disk_free_bytes",
            "Bytes that may still be written to the disk.",
            gauges.disk_free_bytes,
        ),
        gauge(
            "store_disk_reserve_bytes",
            "Bytes of free disk below which no new work is taken.",
            gauges.disk_reserve_bytes,
        ),
        Family { name: "store_bytes", help: "Bytes of the store.", kind: Kind::Gauge, samples: bytes },
        gauge(
            "store_groups_behind",
            "Groups in the journal and not yet in the state store.",
            gauges.group.saturating_sub(gauges.applied_group),
        ),
        counter("store_checkpoints_total", "Checkpoints.", gauges.checkpoints),
        counter("store_snapshots_total", "Snapshots.", gauges.snapshots),
        counter("store_segments_removed_total", "Segments of the journal removed.", gauges.segments_removed),
    ]
}

/// What the executors of all models have done.
fn of_executors(catalog: &Catalog) -> Vec<Family> {
    let entries = catalog.entries();
    let all: Vec<_> =
        entries.iter().filter_map(|entry| Some((&entry.name, entry.executor_counters()?))).collect();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    macro_rules! sum {
        ($field:ident) => {
            all.iter().map(|(_, counters)| load(&counters.$field)).sum()
        };
    }
    let steps = all.iter().map(|(name, counters)| (name.to_string(), load(&counters.steps))).collect();
    let late_most = all.iter().map(|(_, counters)| load(&counters.steps_after_cancel_max)).max();
    let cancelled = by(
        "phase",
        [
            ("waiting", sum!(cancelled_waiting)),
            ("prefill", sum!(cancelled_in_prefill)),
            ("decode", sum!(cancelled_in_decode)),
        ],
    );
    vec![
        Family {
            name: "executor_steps_total",
            help: "Steps begun.",
            kind: Kind::Counter,
            samples: Samples::By("model", steps),
        },
        counter(
            "executor_steps_after_cancel_total",
            "Steps that still served a sequence after its cancel was sent.",
            sum!(steps_after_cancel),
        ),
        gauge("executor_steps_after_cancel_max", "The most of them for one cancel.", late_most.unwrap_or(0)),
        Family {
            name: "executor_cancelled_total",
            help: "Sequences cancelled.",
            kind: Kind::Counter,
            samples: cancelled,
        },
        counter("executor_prefill_tokens_total", "Tokens of prompts read.", sum!(prefill_tokens)),
        counter("executor_decode_tokens_total", "Tokens decoded.", sum!(decode_tokens)),
        gauge("executor_running", "Sequences held, waiting or running.", sum!(running)),
        gauge("executor_kv_bytes", "Bytes of all sequences' caches.", sum!(kv_bytes)),
    ]
}

/// Other servers that models are served of.
fn of_servers(catalog: &Catalog) -> Vec<Family> {
    let servers = catalog.servers();
    let each = |count: &dyn Fn(&Server) -> u64| {
        Samples::By(
            "server",
            servers.iter().map(|server| (server.url().to_string(), count(server))).collect(),
        )
    };
    let family = |name, help, kind, samples| Family { name, help, kind, samples };
    vec![
        family(
            "upstream_up",
            "1 while the server answers: only then its models' jobs start.",
            Kind::Gauge,
            each(&|server| server.is_up().into()),
        ),
        family(
            "upstream_failures_total",
            "Requests that the server failed.",
            Kind::Counter,
            each(&Server::failures),
        ),
        family(
            "upstream_usage_estimated_total",
            "Answers and cancels whose tokens the server didn't state, so that they were estimated.",
            Kind::Counter,
            each(&Server::estimates),
        ),
    ]
}

/// Everything, for Prometheus.
pub(super) fn text(counts: &Counts, edges: &Edges<'_>, catalog: &Catalog) -> String {
    let mut out = String::with_capacity(8 << 10);
    for family in core::families(counts) {
        write_family(&mut out, PREFIX, &family);
    }
    for family in of_edges(edges) {
        write_family(&mut out, PREFIX, &family);
    }
    for family in of_nodes(edges.nodes) {
        write_family(&mut out, PREFIX, &family);
    }
    for family in edges.store.iter().flat_map(of_store) {
        write_family(&mut out, PREFIX, &family);
    }
    for family in of_executors(catalog).into_iter().chain(of_servers(catalog)) {
        write_family(&mut out, PREFIX, &family);
    }
    if let Some(bytes) = resident_bytes() {
        write_family(&mut out, "", &gauge("process_resident_memory_bytes", "Resident memory.", bytes));
    }
    out
}

/// What the core counts, under the metrics' names without their prefix; labelled ones as objects.
pub(super) fn counts_json(counts: &Counts) -> Value {
    let member = |family: Family| {
        let value = match family.samples {
            Samples::One(value) => value.into(),
            Samples::By(_, samples) => {
                samples.into_iter().map(|(label, value)| (label, Value::from(value))).collect()
            }
        };
        (family.name.to_owned(), value)
    };
    Value::Object(core::families(counts).into_iter().map(member).collect::<Map<_, _>>())
}

fn write_family(out: &mut String, prefix: &str, family: &Family) {
    let Family { name, help, kind, samples } = family;
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    // Writing to a string doesn't fail.
    let _ = writeln!(out, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    match samples {
        Samples::One(value) => {
            let _ = writeln!(out, "{prefix}{name} {value}");
        }
        Samples::By(label, samples) => {
            for (of, value) in samples {
                let _ = writeln!(out, "{prefix}{name}{{{label}=\"{}\"}} {value}", escaped_label(of));
            }
        }
    }
}

fn escaped_label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Memory of this process; `None` where the system doesn't tell.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Lsn;

    #[test]
    fn the_text_is_typed_and_each_name_is_told_once() {
        let counts = Counts { jobs_queued: 3, succeeded: 7, late_messages: 1, ..Counts::default() };
        let door = DoorGauges {
            queue_depth: 1,
            refused: 2,
            sessions: 3,
            outputs: 4,
            last_lsn: Lsn(6),
            durable_lsn: Lsn(5),
            stored_bytes: 8,
            waiters: 2,
        };
        let tally = Tally::default();
        tally.keys_refused.add();
        let nodes = NodesTally::default();
        nodes.closed(crate::wire::CloseCode::Silent);
        let edges = Edges { door, bodies_in_flight_bytes: 9, tally: &tally, nodes: &nodes, store: None };
        let text = text(&counts, &edges, &Catalog::default());
        for line in [
            "# TYPE switchbox_jobs gauge",
            "switchbox_jobs{state=\"queued\"} 3",
            "# TYPE switchbox_jobs_finished_total counter",
            "switchbox_jobs_finished_total{end=\"succeeded\"} 7",
            "switchbox_late_messages_total{kind=\"dead_reservation\"} 1",
            "switchbox_queue_refused_total 2",
            "switchbox_durable_lsn 5",
            "switchbox_executor_running 0",
            "switchbox_http_refused_total{bound=\"keys\"} 1",
            "switchbox_bodies_in_flight_bytes 9",
            "switchbox_stored_bytes_held 8",
            "switchbox_job_waiters 2",
            "switchbox_node_closes_total{code=\"silent\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), all);
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn labels_are_escaped() {
        let samples = Samples::By("model", vec![("a\"b\\c\nd".into(), 1)]);
        let mut out = String::new();
        write_family(&mut out, PREFIX, &Family { name: "x", help: "X.", kind: Kind::Gauge, samples });
        assert!(out.ends_with("switchbox_x{model=\"a\\\"b\\\\c\\nd\"} 1\n"), "{out}");
    }

    #[test]
    fn the_recount_has_the_same_names() {
        let json = counts_json(&Counts { jobs_running: 2, holds: 2, ..Counts::default() });
        assert_eq!((&json["jobs"]["running"], &json["holds"]), (&2.into(), &2.into()));
    }
}
