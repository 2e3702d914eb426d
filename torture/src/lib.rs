//! The torture rig: real boxes under real load, killed, cut and rotted; what clients were told must hold afterwards.
//!
//! ```text
//!  load ── HTTP ──▶ box ── LD_PRELOAD ──▶ recorder ──▶ log of operations
//!   │ acknowledgements        kill -9, or the N-th          │
//!   ▼                         operation fails               ▼
//!  client ──────────▶ judge ◀── rows ◀── start ◀── disk: images of power cuts
//! ```
//!
//! The verdict always compares with what *clients* were told ([`client`]), never with what the box thinks it said.
//! Each phase is a module: [`kills`], [`points`], [`cuts`], [`rot`], [`poison`]; [`controls`] are boxes with bugs
//! planted that the phases must find.
#![allow(clippy::print_stdout, reason = "the rig's report is its output")]

pub mod again;
pub mod choices;
pub mod client;
pub mod controls;
pub mod cuts;
pub mod disk;
pub mod finding;
pub mod http;
pub mod judge;
pub mod kills;
pub mod load;
pub mod online;
pub mod points;
pub mod poison;
pub mod process;
pub mod recording;
pub mod report;
pub mod rot;
pub mod rows;
pub mod scratch;
pub mod stage;
pub mod tools;
