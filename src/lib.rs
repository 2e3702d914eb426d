//! Switchbox: one binary that turns a single box into a low-latency inference network.

pub mod api;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod credits;
pub mod datadir;
pub mod door;
pub mod driver;
pub mod executor;
pub mod ids;
pub mod node;
pub mod outbox;
pub mod output;
pub mod persist;
pub mod queue;
pub mod request;
pub mod rows;
pub mod runtime;
pub mod secrets;
pub mod sender;
pub mod serve;
mod sync;
pub mod time;
