//! The product from outside: the real binary, real sockets, real signals. Each module is one concern.
//!
//! No test asserts a wall-clock time: they wait for conditions, with deadlines that only a hang reaches.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::print_stdout,
    reason = "nothing links to tests; the storm prints its count"
)]

mod harness;

mod admission;
mod agent_alone;
mod agents;
mod api_keys;
mod backup;
mod bad_input;
mod bad_peers;
mod cancels;
mod concurrency;
mod damaged;
mod disconnects;
mod doctor;
mod durable;
mod killed_streams;
mod named_jobs;
mod nodes;
mod operator;
mod receipts;
mod settled;
mod shutdown;
mod snapshots;
mod stalled;
mod startup;
mod templates;
mod tidy;
mod tls;
mod upstream;
mod upstream_quirks;
