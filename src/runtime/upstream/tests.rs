//! What servers really send, taken apart without a server: each quirk with where it is known from.

mod answers;
mod bodies;
mod faults;
mod streams;
