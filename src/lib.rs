//! Switchbox: one binary that turns a single box into a low-latency inference network.

pub mod api;
pub mod coordinator;
pub mod credits;
pub mod door;
pub mod executor;
pub mod ids;
pub mod output;
pub mod queue;
pub mod request;
pub mod runtime;
mod sync;
pub mod time;
