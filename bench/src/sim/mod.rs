//! The simulator: a seeded world around the pure core, an oracle that judges every step, and the reports of both.
//!
//! Everything derives from a seed; nothing here reads a clock that a run depends on, and nothing here is the product.

mod action;
mod attempt;
mod choices;
mod clients;
mod configure;
mod coverage;
mod demands;
mod fair;
mod fuzz;
mod generate;
mod hash;
mod liars;
mod mutants;
mod nodes;
mod nonsense;
mod operator;
mod oracle;
mod plain;
mod power;
mod regret;
mod rng;
mod run;
mod scene;
mod shrink;
mod store;
mod world;

pub use fuzz::fuzz;
pub use liars::liars;
pub use mutants::{named, run_all};
pub use regret::regret;
pub use run::{Seeds, replay, run};
