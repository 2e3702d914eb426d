//! Switchbox: one binary that turns a single box into a low-latency inference network.

pub mod coordinator;
pub mod credits;
pub mod executor;
pub mod ids;
pub mod output;
pub mod queue;
mod sync;
pub mod time;
