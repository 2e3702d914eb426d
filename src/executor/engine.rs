//! A thread that serves all sequences of one model, step by step. A step decodes one token of every sequence
//! that has its prompt behind it, as one batch, and reads one chunk of one other prompt. Sequences come and
//! go between steps only; commands are looked at before every step, so a cancelled sequence is served in at
//! most the step that was being prepared. Knows nothing of jobs or HTTP.

mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Sender, unbounded};
use switchbox_kernels::Arithmetic;

use self::steps::Steps;
use super::model::Model;
use super::sequence::{SequenceRequest, Submitted};

/// Most sequences that an engine holds, waiting and running; more are refused.
pub const SEQUENCES_MAX: usize = 1_024;

/// How an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Threads that compute, the engine's own included; at least one.
    pub threads: usize,
    /// Tokens of a prompt that one step reads: bounds how long decoding sequences wait for a step.
    pub prefill_chunk: usize,
    /// Which arithmetic.
    pub numerics: Numerics,
}

impl Default for EngineOptions {
    /// All cores, chunks of 64, the fastest arithmetic.
    fn default() -> EngineOptions {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        EngineOptions { threads, prefill_chunk: 64, numerics: Numerics::Auto }
    }
}

/// Which arithmetic to compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numerics {
    /// The fastest that the processor has.
    Auto,
    /// Scalar f32, for comparison.
    Reference,
}

impl Numerics {
    /// The kernels' name for it on this processor.
    pub fn arithmetic(self) -> Arithmetic {
        match self {
            Numerics::Auto => Arithmetic::detect(),
            Numerics::Reference => Arithmetic::Reference,
        }
    }
}

/// What an engine has done, readable at any time; all only grow but the gauges.
#[derive(Debug, Default)]
pub struct EngineCounters {
    /// Steps begun.
    pub steps: AtomicU64,
    /// Steps that read a chunk of a prompt.
    pub prefill_steps: AtomicU64,
    /// Steps that decoded.
    pub decode_steps: AtomicU64,
    /// Tokens of prompts read.
    pub prefill_tokens: AtomicU64,
    /// Tokens decoded (the first token of a sequence comes from its prompt's last chunk, and is none).
    pub decode_tokens: AtomicU64,
    /// Sequences that a step has served.
    pub sequences_started: AtomicU64,
    /// Sequences ended, for any reason, refused ones included.
    pub sequences_finished: AtomicU64,
    /// Sequences cancelled while reading their prompt.
    pub cancelled_in_prefill: AtomicU64,
    /// Sequences cancelled while decoding.
    pub cancelled_in_decode: AtomicU64,
    /// Sequences cancelled before any step served them.
    pub cancelled_waiting: AtomicU64,
    /// Steps begun after a cancel was sent that still served its sequence; all cancels together.
    pub steps_after_cancel: AtomicU64,
    /// The most of them for one cancel.
    pub steps_after_cancel_max: AtomicU64,
    /// Gauge: sequences held, waiting or running.
    pub running: AtomicU64,
    /// Gauge: bytes of all sequences' caches.
    pub kv_bytes: AtomicU64,
}

/// What a handle tells the thread.
enum Command {
    Submit(Box<Submitted>),
    /// With the number of the last step begun when it was sent.
    Cancel {
        id: u64,
        step: u64,
    },
}

/// A handle on a running engine. When the last one is dropped, all sequences are cancelled and the thread
/// ends.
#[derive(Clone)]
pub struct Engine {
    commands: Sender<Command>,
    counters: Arc<EngineCounters>,
}

impl Engine {
    /// Starts the thread. If the system refuses it, every sequence submitted fails and says so.
    pub fn start(model: Arc<Model>, options: EngineOptions) -> Engine {
        let (sender, receiver) = unbounded();
        let counters = Arc::new(EngineCounters::default());
        let shared = Arc::clone(&counters);
        let spawned = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || Steps::new(model, options, shared).run(&receiver));
        if let Err(error) = spawned {
            tracing::error!(%error, "the engine's thread cannot be started");
        }
        Engine { commands: sender, counters }
    }

    /// Hands over a sequence. Never blocks; its sink hears of everything else.
    pub fn submit(&self, sequence: SequenceRequest) {
        // If the thread is gone the command comes back and is dropped, which tells the sink.
        let _ = self.commands.send(Command::Submit(Box::new(sequence.into())));
    }

    /// Ends a sequence as cancelled, before the next step. Unknown or ended ones are ignored.
    pub fn cancel(&self, id: u64) {
        let step = self.counters.steps.load(Ordering::SeqCst);
        let _ = self.commands.send(Command::Cancel { id, step });
    }

    /// What it has done.
    pub fn counters(&self) -> &EngineCounters {
        &self.counters
    }
}
