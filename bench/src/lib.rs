//! What measures and tries Switchbox from outside and may be used by others: the simulator of its core.

pub mod sim;
