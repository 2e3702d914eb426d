//! Model checks of the real `queue.rs` and `output.rs`; empty unless built with `--cfg switchbox_loom`.
