//! The HTTP surface over the real core and the echo runtime, in one process, on sockets of its own.

mod admin;
mod chat;
mod edges;
mod keys;
mod rig;
mod speed;
