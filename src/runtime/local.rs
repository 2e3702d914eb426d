//! The built-in executor as a runtime: prompts are prepared here, computed on the engine's thread.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Attempt, INLINE_BODY_BYTES_MAX, Stop};
use crate::clock::Clock;
use crate::coordinator::event::{ErrorClass, FinishReason, JobError, Status};
use crate::executor::{
    ChatMessage, Engine, EngineCounters, EngineOptions, Finish, Flow, IgnoreEos, Model, ModelError, Outcome,
    Sampling, SequenceRequest, Sink, SpecialTokens, runtime_name,
};
use crate::ids::{Digest, RuntimeName};
use crate::node::{Bytes, Slot, SlotResult};
use crate::output::{AppendError, Chunk, Output};
use crate::request::{Message, Prompt, Request};

/// A model on this box's own executor.
pub struct Local {
    shared: Arc<Shared>,
}

struct Shared {
    model: Arc<Model>,
    /// SHA-256 of its file.
    digest: OnceLock<Digest>,
    /// What computes it, to the byte.
    runtime: Option<RuntimeName>,
    engine: Engine,
    next_sequence: AtomicU64,
}

impl Local {
    /// Maps a model and starts its engine.
    ///
    /// # Errors
    /// When the file can't be read, isn't whole, or holds what isn't supported.
    pub fn load(path: &Path, options: EngineOptions) -> Result<Self, ModelError> {
        let model = Arc::new(Model::open(path)?);
        let engine = Engine::start(Arc::clone(&model), options);
        let runtime = runtime_name(options.numerics.arithmetic()).parse().ok();
        let (digest, next_sequence) = (OnceLock::new(), AtomicU64::new(1));
        Ok(Self { shared: Arc::new(Shared { model, digest, runtime, engine, next_sequence }) })
    }

    /// Renders a smallest chat, as a start does to see that the model's template comes to an end at all.
    ///
    /// # Errors
    /// When it hasn't within `patience`. One that refuses this chat may still take others, and is let be.
    pub fn try_template(&self, patience: Duration) -> Result<(), TemplateStuck> {
        let (done, ended) = std::sync::mpsc::channel();
        let model = Arc::clone(&self.shared.model);
        std::thread::spawn(move || {
            let said = [ChatMessage { role: "user", content: "Hello" }];
            // Whether it took the chat doesn't matter, and nobody may wait any more.
            let _ = model.encode_chat(&said);
            let _ = done.send(());
        });
        ended.recv_timeout(patience).map_err(|_| TemplateStuck)
    }

    pub(super) fn context_tokens(&self) -> u32 {
        self.shared.model.facts().context_length
    }

    /// Names its file. The first name counts: the file is mapped as it was then.
    pub(super) fn name_file(&self, digest: Digest) {
        let _ = self.shared.digest.set(digest);
    }

    /// SHA-256 of its file, once that is known.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.shared.digest.get().copied()
    }

    pub(super) fn runtime(&self) -> Option<RuntimeName> {
        self.shared.runtime.clone()
    }

    pub(super) fn counters(&self) -> &EngineCounters {
        self.shared.engine.counters()
    }

    pub(super) fn input_tokens(&self, request: &Request) -> Result<u32, String> {
        let tokens = self.shared.encode(request)?;
        Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
    }

    /// Tokens of a generated text; `None` if it can't be tokenized.
    pub(super) fn output_tokens(&self, text: &str) -> Option<u32> {
        let tokens = self.shared.model.tokenizer().encode(text, SpecialTokens::Plain).ok()?;
        Some(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn start(&self, attempt: Attempt) {
        // Whatever comes is taken, in turn: from here on it is the first output that must come in time.
        attempt.slot.accepted();
        if attempt.assignment.body.len() > INLINE_BODY_BYTES_MAX {
            tokio::spawn(Arc::clone(&self.shared).prepare_and_submit(attempt));
            return;
        }
        let parsed = crate::request::parse(attempt.assignment.endpoint, &attempt.assignment.body);
        let prepared = parsed.map_err(|error| error.message).and_then(|request| {
            let prompt = self.shared.encode(&request)?;
            Ok((request, prompt))
        });
        self.shared.submit(attempt, prepared);
    }
}

/// A chat template that takes too long for any prompt.
#[derive(Debug, thiserror::Error)]
#[error("its chat template doesn't come to an end: the file is at fault, fetch it again or use another")]
pub struct TemplateStuck;

/// A request with its prompt's tokens, or what is wrong with it.
type Prepared = Result<(Request, Vec<u32>), String>;

impl Shared {
    fn encode(&self, request: &Request) -> Result<Vec<u32>, String> {
        let encoded = match &request.prompt {
            Prompt::Text(text) => self.model.encode_text(text),
            Prompt::Chat(messages) => {
                self.model.encode_chat(&messages.iter().map(chat_message).collect::<Vec<_>>())
            }
        };
        encoded.map_err(|error| error.to_string())
    }

    async fn prepare_and_submit(self: Arc<Self>, attempt: Attempt) {
        let request = attempt.request().await.map_err(|error| error.message);
        let prepared: Prepared = match request {
            Ok(request) => {
                let shared = Arc::clone(&self);
                let encode = move || shared.encode(&request).map(|prompt| (request, prompt));
                let encoded = tokio::task::spawn_blocking(encode).await;
                encoded.unwrap_or_else(|_| Err("the prompt could not be prepared".to_owned()))
            }
            Err(message) => Err(message),
        };
        self.submit(attempt, prepared);
    }

    /// On the io thread, like the stop: so either the stop is seen here, or the engine knows the sequence.
    fn submit(&self, attempt: Attempt, prepared: Prepared) {
        let Attempt { assignment, output, slot, stop, clock } = attempt;
        if stop.is_told() {
            return slot.stopped(0, 0);
        }
        let (request, prompt) = match prepared {
            Ok(prepared) => prepared,
            Err(message) => {
                let status = Status::Failed(JobError { class: ErrorClass::Terminal, message });
                return slot.completed(SlotResult::without_output(status));
            }
        };
        let id = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let alive = Arc::clone(&stop);
        let sink =
            EngineSink { output, slot, clock, chunks: 0, failure: None, begun: Begun::No, _alive: alive };
        stop.cancels(self.engine.clone(), id);
        self.engine.submit(SequenceRequest {
            id,
            prompt,
            max_tokens: assignment.output_tokens_max,
            sampling: sampling_of(&request),
            stop: request.stop,
            ignore_eos: IgnoreEos::No,
            sink: Box::new(sink),
        });
    }
}

fn chat_message(said: &Message) -> ChatMessage<'_> {
    ChatMessage { role: said.role.name(), content: &said.content }
}

fn sampling_of(request: &Request) -> Sampling {
    let seed = request.seed.unwrap_or_else(|| getrandom::u64().unwrap_or(0));
    Sampling {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: 0,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        seed,
    }
}

/// Carries what the engine generates into the output, and its end to the core. On the engine's thread.
struct EngineSink {
    output: Arc<Output>,
    slot: Slot,
    clock: Clock,
    chunks: u32,
    failure: Option<AppendError>,
    begun: Begun,
    /// Tells the session that the attempt may still be stopped.
    _alive: Arc<Stop>,
}

/// Whether any step has served a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    No,
    Yes,
}

impl Sink for EngineSink {
    fn started(&mut self) {
        self.begun = Begun::Yes;
    }

    fn text(&mut self, piece: &str, tokens: u32) -> Flow {
        let chunk = Chunk::text(piece, tokens);
        match self.output.append(self.chunks, chunk, self.clock.now().0) {
            Ok(()) => {
                self.chunks += 1;
                Flow::Continue
            }
            Err(error) => {
                self.failure = Some(error);
                Flow::Stop
            }
        }
    }

    fn finished(self: Box<Self>, outcome: Outcome) {
        let Self { slot, chunks, failure, begun, .. } = *self;
        let failed = |class, message| Status::Failed(JobError { class, message });
        let status = match (outcome.reason, failure) {
            (_, Some(error @ (AppendError::TooLarge { .. } | AppendError::Gap { .. }))) => {
                failed(ErrorClass::Node, error.to_string())
            }
            (Finish::Stop, _) => Status::Succeeded(FinishReason::Stop),
            (Finish::Length, _) => Status::Succeeded(FinishReason::Length),
            (Finish::Failed(message), _) => failed(ErrorClass::Node, message),
            // Stopped in the engine's queue: nothing was used.
            (Finish::Cancelled, _) if begun == Begun::No => return slot.stopped(0, 0),
            (Finish::Cancelled, _) => return slot.stopped(outcome.prompt_tokens, outcome.completion_tokens),
        };
        let (input_tokens, output_tokens) = (outcome.prompt_tokens, outcome.completion_tokens);
        slot.completed(SlotResult {
            status,
            input_tokens,
            cached_tokens: 0,
            output_tokens,
            chunks,
            bytes: Bytes::Promised,
        });
    }
}
