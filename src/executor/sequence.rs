//! One sequence from its request to its outcome: what is left to compute, what was said. Computes nothing
//! itself. Its sink hears `finished` exactly once, whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::detokenize::{Detokenizer, Scan, StopMatcher};
use super::forward::{Rows, Wanted};
use super::kv::KvCache;
use super::model::Model;
use super::sampling::{Sampler, Sampling};

/// A sequence to run.
pub struct SequenceRequest {
    /// The caller's name for it, for [`cancel`](super::Engine::cancel); unique among the running ones.
    pub id: u64,
    /// Tokens of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; the model's context may allow fewer.
    pub max_tokens: u32,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether to go on after the model ended its answer.
    pub ignore_eos: IgnoreEos,
    /// Who hears of it.
    pub sink: Box<dyn Sink>,
}

/// Whether a sequence goes on after the model ended its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreEos {
    /// An end token ends it.
    No,
    /// It runs to `max_tokens`, for measurements.
    Yes,
}

/// Hears of a sequence, on the engine's thread: must not block.
pub trait Sink: Send {
    /// A step serves the sequence for the first time.
    fn started(&mut self);
    /// More of the answer: whole characters. `tokens` counts the generated tokens since the last piece.
    fn text(&mut self, piece: &str, tokens: u32) -> Flow;
    /// The end; exactly once.
    fn finished(self: Box<Self>, outcome: Outcome);
}

/// Whether a sink wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the sequence as cancelled.
    Stop,
}

/// How a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub reason: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, without the end token.
    pub completion_tokens: u32,
    /// Microseconds from the first step to the first token (or the end).
    pub prefill_us: u64,
    /// Microseconds from the first token to the end.
    pub decode_us: u64,
}

/// Why a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its answer, or a stop string came.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
    /// By the caller or the sink.
    Cancelled,
    /// It cannot be run, or a fault ended it; says why.
    Failed(String),
}

/// A sink that cannot be forgotten: dropped without an end, it hears of a failure.
pub(crate) struct Ears(Option<Box<dyn Sink>>);

impl Ears {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Ears {
        Ears(Some(sink))
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(sink) = self.0.take()
            && catch_unwind(AssertUnwindSafe(|| sink.finished(outcome))).is_err()
        {
            tracing::error!("a sink panicked when it was told the end of its sequence");
        }
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        let reason = Finish::Failed("the engine has ended; start the program again".to_owned());
        self.finish(Outcome { reason, prompt_tokens: 0, completion_tokens: 0, prefill_us: 0, decode_us: 0 });
    }
}

/// A sequence on the engine's thread.
pub(crate) struct Sequence {
    pub(crate) id: u64,
    pub(crate) kv: KvCache,
    prompt: Vec<u32>,
    /// Most tokens to generate, within the context.
    limit: u32,
    ignore_eos: IgnoreEos,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    ears: Ears,
    last: u32,
    generated: u32,
    /// Generated tokens that no piece of text has covered yet.
    unsaid: u32,
    first_step: Option<Instant>,
    first_token: Option<Instant>,
    /// Numbers of the last steps that served it, for the count of steps after a cancel.
    served: [u64; 8],
}

impl Sequence {
    /// Checks a request against the model.
    ///
    /// # Errors
    /// Returns nothing and tells the sink, if the request cannot be run at all.
    pub(crate) fn new(model: &Model, request: Submitted) -> Option<Sequence> {
        let Submitted { id, prompt, max_tokens, sampling, stop, ignore_eos, ears } = request;
        let context = model.facts().context_length;
        let left = (context as usize).saturating_sub(prompt.len()) as u32;
        let unknown = prompt.iter().find(|token| **token as usize >= model.shape().vocab).copied();
        let mut sequence = Sequence {
            id,
            kv: model.kv_cache(),
            limit: max_tokens.min(left),
            ignore_eos,
            sampler: Sampler::new(sampling),
            detokenizer: Detokenizer::default(),
            stops: StopMatcher::new(stop),
            ears,
            last: 0,
            generated: 0,
            unsaid: 0,
            first_step: None,
            first_token: None,
            served: [0; 8],
            prompt,
        };
        let refusal = if sequence.prompt.is_empty() {
            Some("the prompt has no tokens; send some text".to_owned())
        } else if let Some(token) = unknown {
            Some(format!("the prompt holds token {token}, which the model does not have"))
        } else if left == 0 {
            let tokens = sequence.prompt.len();
            Some(format!("the prompt has {tokens} tokens, the model's context holds {context}; send less"))
        } else {
            None
        };
        match refusal {
            Some(reason) => sequence.finish(Finish::Failed(reason)),
            None if sequence.limit == 0 => sequence.finish(Finish::Length),
            None => return Some(sequence),
        }
        None
    }

    /// The next `chunk` tokens of the prompt, and whether they are the last.
    pub(crate) fn chunk(&mut self, chunk: usize) -> (&[u32], &mut KvCache, LastChunk) {
        let from = self.kv.len();
        let to = self.prompt.len().min(from + chunk.max(1));
        let last = if to == self.prompt.len() { LastChunk::Yes } else { LastChunk::No };
        (&self.prompt[from..to], &mut self.kv, last)
    }

    /// The token to decode from.
    pub(crate) fn decode_row(&mut self) -> Rows<'_> {
        Rows { tokens: std::slice::from_ref(&self.last), kv: &mut self.kv, wanted: Wanted::Last }
    }

    /// A step with this number serves the sequence.
    pub(crate) fn serve(&mut self, step: u64) {
        self.served.rotate_right(1);
        self.served[0] = step;
        if self.first_step.is_none() {
            self.first_step = Some(Instant::now());
            if let Some(sink) = self.ears.0.as_mut() {
                sink.started();
            }
        }
    }

    /// Whether any step served it.
    pub(crate) fn is_started(&self) -> bool {
        self.first_step.is_some()
    }

    /// How many steps after number `step` served it (up to the last 8).
    pub(crate) fn served_after(&self, step: u64) -> u64 {
        self.served.iter().filter(|n| **n > step).count() as u64
    }

    /// Chooses the next token and says its text. Returns the reason if that ends the sequence.
    pub(crate) fn advance(&mut self, model: &Model, logits: &[f32]) -> Option<Finish> {
        self.first_token.get_or_insert_with(Instant::now);
        let Some(token) = self.sampler.next(logits) else {
            let reason = "the model computed no finite number; its file is probably damaged";
            return Some(Finish::Failed(reason.to_owned()));
        };
        if self.ignore_eos == IgnoreEos::No && model.tokenizer().is_end(token) {
            return Some(self.say_rest().unwrap_or(Finish::Stop));
        }
        self.last = token;
        self.generated += 1;
        self.unsaid += 1;
        let mut text = String::new();
        self.detokenizer.push(model.tokenizer().visible_bytes(token), &mut text);
        match self.stops.push(&text) {
            Scan::Stopped(text) => return Some(self.say(&text).unwrap_or(Finish::Stop)),
            Scan::Clear(text) => {
                if let Some(end) = self.say(&text) {
                    return Some(end);
                }
            }
        }
        (self.generated >= self.limit).then(|| self.say_rest().unwrap_or(Finish::Length))
    }

    /// Says a piece, if there is one; returns the reason if the sink wants no more.
    fn say(&mut self, text: &str) -> Option<Finish> {
        if text.is_empty() {
            return None;
        }
        let tokens = std::mem::take(&mut self.unsaid);
        let sink = self.ears.0.as_mut()?;
        (sink.text(text, tokens) == Flow::Stop).then_some(Finish::Cancelled)
    }

    /// Says what was held back; returns the reason if that completes a stop string or the sink stops.
    fn say_rest(&mut self) -> Option<Finish> {
        let mut text = String::new();
        self.detokenizer.finish(&mut text);
        match self.stops.push(&text) {
            Scan::Stopped(text) => Some(self.say(&text).unwrap_or(Finish::Stop)),
            Scan::Clear(text) => {
                let text = text + &self.stops.finish();
                self.say(&text)
            }
        }
    }

    /// Tells the sink the end.
    pub(crate) fn finish(&mut self, reason: Finish) {
        let now = Instant::now();
        let micros = |from: Option<Instant>, to: Instant| {
            from.map_or(0, |from| to.saturating_duration_since(from).as_micros() as u64)
        };
        self.ears.finish(Outcome {
            reason,
            prompt_tokens: self.prompt.len() as u32,
            completion_tokens: self.generated,
            prefill_us: micros(self.first_step, self.first_token.unwrap_or(now)),
            decode_us: micros(self.first_token, now),
        });
    }
}

/// Whether a chunk ends the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastChunk {
    /// More follows.
    No,
    /// The next token can be chosen after it.
    Yes,
}

/// A request on its way to the engine's thread, its sink secured.
pub(crate) struct Submitted {
    pub(crate) id: u64,
    prompt: Vec<u32>,
    max_tokens: u32,
    sampling: Sampling,
    stop: Vec<String>,
    ignore_eos: IgnoreEos,
    ears: Ears,
}

impl Submitted {
    /// Ends the request before it began.
    pub(crate) fn refuse(mut self, reason: Finish) {
        let prompt_tokens = self.prompt.len() as u32;
        let outcome = Outcome { reason, prompt_tokens, completion_tokens: 0, prefill_us: 0, decode_us: 0 };
        self.ears.finish(outcome);
    }
}

impl From<SequenceRequest> for Submitted {
    fn from(request: SequenceRequest) -> Submitted {
        let SequenceRequest { id, prompt, max_tokens, sampling, stop, ignore_eos, sink } = request;
        Submitted { id, prompt, max_tokens, sampling, stop, ignore_eos, ears: Ears::new(sink) }
    }
}
