//! Model checks of the real `queue.rs` and `output.rs`: loom runs those very files through all interleavings
//! and all values that a relaxed load may return, within each model's bound on preemptions.
//!
//! `RUSTFLAGS="--cfg switchbox_loom" cargo test -p switchbox-loom --release --target-dir target/loom`
//!
//! Empty unless built with `--cfg switchbox_loom`. The variants are the same source text with one mistake put
//! in by `build.rs`; their tests pass only if loom finds the mistake, so they show that the models look.

#[cfg(all(test, switchbox_loom))]
mod sync;
#[cfg(all(test, switchbox_loom))]
mod tests;

/// The real files, under the models.
#[cfg(all(test, switchbox_loom))]
#[path = "."]
#[allow(dead_code, unreachable_pub)]
mod real {
    #[path = "../../src/output.rs"]
    pub mod output;
    #[path = "output_models.rs"]
    pub mod output_models;
    #[path = "../../src/queue.rs"]
    pub mod queue;
    #[path = "queue_models.rs"]
    pub mod queue_models;
}

#[cfg(all(test, switchbox_loom))]
macro_rules! variant {
    ($name:ident, $source:ident, $models:ident, $path:literal) => {
        /// A variant, under the same models.
        #[cfg(all(test, switchbox_loom))]
        #[path = "."]
        #[allow(dead_code, unused, unreachable_pub, clippy::all)]
        pub(crate) mod $name {
            pub mod $source {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            #[path = $path]
            pub mod $models;
        }
    };
}

#[cfg(all(test, switchbox_loom))]
#[path = "."]
mod variants {
    variant!(relaxed_push, queue, queue_models, "queue_models.rs");
    variant!(relaxed_release, queue, queue_models, "queue_models.rs");
    variant!(one_batch, queue, queue_models, "queue_models.rs");
    variant!(flag_then_look, queue, queue_models, "queue_models.rs");
    variant!(room_for_one_more, queue, queue_models, "queue_models.rs");
    variant!(two_atomics, output, output_models, "output_models.rs");
    variant!(look_then_register, output, output_models, "output_models.rs");
    variant!(closed_looked_at_before, output, output_models, "output_models.rs");
}
