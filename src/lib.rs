//! Switchbox: one binary that turns a single box into a low-latency inference network.

pub mod executor;
