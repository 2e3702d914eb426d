//! Switchbox: one binary that turns a single box into a low-latency inference network.

pub mod clock;
pub mod coordinator;
pub mod credits;
pub mod door;
pub mod driver;
pub mod executor;
pub mod ids;
pub mod node;
pub mod outbox;
pub mod output;
pub mod queue;
pub mod rows;
pub mod sender;
mod sync;
pub mod time;
