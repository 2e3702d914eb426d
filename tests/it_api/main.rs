//! The HTTP surface over the real core and the echo runtime, in one process, on sockets of its own.

mod admin;
mod chat;
mod edges;
mod keys;
mod leaving;
mod rig;
mod speed;

/// The product's: the measurement would blame the surface for another one's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
