//! The core at sizes that no box will see: a world that is set up once, then stepped and timed through the core's
//! public interface, its feature `mutants` off.
//!
//! The world only answers what the core wants done; time is simulated, and a seed makes every choice.

pub mod cost;
pub mod stats;
pub mod worst;

mod rig;

pub use rig::{Rig, Shape, Size, Timed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
