//! The engine's loop, on its own thread. A panic while a sequence is computed or spoken for ends that
//! sequence, never the loop.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, TryRecvError};

use super::{Command, EngineCounters, EngineOptions, SEQUENCES_MAX};
use crate::executor::forward::{Forward, Rows, Wanted};
use crate::executor::model::Model;
use crate::executor::sequence::{Finish, LastChunk, Sequence, Submitted};

/// Everything that the thread owns.
pub(super) struct Steps {
    model: Arc<Model>,
    options: EngineOptions,
    counters: Arc<EngineCounters>,
    forward: Option<Forward>,
    /// Prompts not read to their end; the front is next.
    reading: VecDeque<Sequence>,
    decoding: Vec<Sequence>,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Handles {
    Held,
    Dropped,
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Steps {
    pub(super) fn new(model: Arc<Model>, options: EngineOptions, counters: Arc<EngineCounters>) -> Steps {
        let arithmetic = options.numerics.arithmetic();
        // Fewer threads compute the same, later.
        let forward = Forward::new(arithmetic, options.threads).or_else(|error| {
            tracing::error!(%error, threads = options.threads, "threads refused: computing on one");
            Forward::new(arithmetic, 1)
        });
        let (reading, decoding) = (VecDeque::new(), Vec::new());
        Steps { model, options, counters, forward: forward.ok(), reading, decoding }
    }

    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        while self.take_commands(commands) == Handles::Held {
            if self.reading.is_empty() && self.decoding.is_empty() {
                continue;
            }
            let step = self.counters.steps.fetch_add(1, Ordering::SeqCst) + 1;
            self.decode(step);
            self.prefill(step);
            self.gauge();
        }
        for mut sequence in self.reading.drain(..).chain(self.decoding.drain(..)) {
            count(&self.counters.sequences_finished, 1);
            sequence.finish(Finish::Cancelled);
        }
    }

    /// Takes all commands that are there; waits for one if there is nothing to do.
    fn take_commands(&mut self, commands: &Receiver<Command>) -> Handles {
        loop {
            let command = if self.reading.is_empty() && self.decoding.is_empty() {
                commands.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                commands.try_recv()
            };
            match command {
                Ok(Command::Submit(request)) => self.submit(*request),
                Ok(Command::Cancel { id, step }) => self.cancel(id, step),
                Err(TryRecvError::Empty) => return Handles::Held,
                Err(TryRecvError::Disconnected) => return Handles::Dropped,
            }
            self.gauge();
        }
    }

    fn submit(&mut self, request: Submitted) {
        let mut refusal = None;
        if self.reading.len() + self.decoding.len() >= SEQUENCES_MAX {
            refusal = Some(format!("the engine already holds {SEQUENCES_MAX} sequences; try again later"));
        } else if self.reading.iter().chain(&self.decoding).any(|s| s.id == request.id) {
            refusal = Some(format!("a sequence of the id {} is running", request.id));
        }
        let sequence = match refusal {
            Some(reason) => {
                request.refuse(Finish::Failed(reason));
                None
            }
            None => Sequence::new(&self.model, request),
        };
        match sequence {
            Some(sequence) => self.reading.push_back(sequence),
            None => count(&self.counters.sequences_finished, 1),
        }
    }

    fn cancel(&mut self, id: u64, step: u64) {
        let (counter, mut sequence);
        if let Some(at) = self.decoding.iter().position(|s| s.id == id) {
            (counter, sequence) = (&self.counters.cancelled_in_decode, self.decoding.remove(at));
        } else if let Some(at) = self.reading.iter().position(|s| s.id == id)
            && let Some(found) = self.reading.remove(at)
        {
            sequence = found;
            counter = match sequence.is_started() {
                true => &self.counters.cancelled_in_prefill,
                false => &self.counters.cancelled_waiting,
            };
        } else {
            return;
        }
        count(counter, 1);
        let after = sequence.served_after(step);
        count(&self.counters.steps_after_cancel, after);
        self.counters.steps_after_cancel_max.fetch_max(after, Ordering::Relaxed);
        // Counted first: who hears of the end finds it counted.
        count(&self.counters.sequences_finished, 1);
        sequence.finish(Finish::Cancelled);
    }

    /// One token of every decoding sequence.
    fn decode(&mut self, step: u64) {
        if self.decoding.is_empty() {
            return;
        }
        count(&self.counters.decode_steps, 1);
        let mut sequences = std::mem::take(&mut self.decoding);
        sequences.iter_mut().for_each(|s| s.serve(step));
        let ends = match guarded(|| self.decode_batch(&mut sequences)) {
            Ok(ends) => ends,
            // Who is at fault does not show in a batch: each alone, then. Caches hold nothing of this step
            // yet, and a row's result does not depend on its batch.
            Err(_) => {
                let alone = |s| guarded(|| self.decode_batch(std::slice::from_mut(s)));
                sequences.iter_mut().map(alone).map(|end| end.map_or_else(Some, |e| e[0].clone())).collect()
            }
        };
        count(&self.counters.decode_tokens, sequences.len() as u64);
        for (mut sequence, end) in sequences.into_iter().zip(ends) {
            match end {
                None => self.decoding.push(sequence),
                Some(reason) => self.finish(&mut sequence, reason),
            }
        }
    }

    /// Runs the batch and lets each sequence choose its token; returns who ended, and why.
    fn decode_batch(&mut self, sequences: &mut [Sequence]) -> Vec<Option<Finish>> {
        let Some(forward) = self.forward.as_mut() else {
            return vec![Some(no_threads()); sequences.len()];
        };
        let mut batch: Vec<Rows<'_>> = sequences.iter_mut().map(Sequence::decode_row).collect();
        let logits = forward.run(&self.model, &mut batch);
        drop(batch);
        let vocab = self.model.shape().vocab;
        let model = &self.model;
        let advance =
            |(s, logits): (&mut Sequence, &[f32])| guarded(|| s.advance(model, logits)).unwrap_or_else(Some);
        sequences.iter_mut().zip(logits.chunks_exact(vocab)).map(advance).collect()
    }

    /// One chunk of the prompt whose turn it is.
    fn prefill(&mut self, step: u64) {
        let Some(mut sequence) = self.reading.pop_front() else { return };
        count(&self.counters.prefill_steps, 1);
        if !sequence.is_started() {
            count(&self.counters.sequences_started, 1);
        }
        let chunk = self.options.prefill_chunk;
        let end = guarded(|| {
            sequence.serve(step);
            let Some(forward) = self.forward.as_mut() else { return (LastChunk::No, Some(no_threads())) };
            let (tokens, kv, last) = sequence.chunk(chunk);
            count(&self.counters.prefill_tokens, tokens.len() as u64);
            let wanted = if last == LastChunk::Yes { Wanted::Last } else { Wanted::None };
            let logits = forward.run(&self.model, &mut [Rows { tokens, kv, wanted }]);
            match last {
                LastChunk::Yes => (last, sequence.advance(&self.model, logits)),
                LastChunk::No => (last, None),
            }
        });
        match end.unwrap_or_else(|fault| (LastChunk::No, Some(fault))) {
            (_, Some(reason)) => self.finish(&mut sequence, reason),
            (LastChunk::Yes, None) => self.decoding.push(sequence),
            (LastChunk::No, None) => self.reading.push_back(sequence),
        }
    }

    fn finish(&self, sequence: &mut Sequence, reason: Finish) {
        if reason == Finish::Cancelled {
            // Its sink wanted no more before the cancel's command was looked at.
            count(&self.counters.cancelled_in_decode, 1);
        }
        if let Finish::Failed(reason) = &reason {
            tracing::error!(sequence = sequence.id, %reason, "a sequence failed");
        }
        count(&self.counters.sequences_finished, 1);
        sequence.finish(reason);
    }

    fn gauge(&self) {
        let all = || self.reading.iter().chain(&self.decoding);
        self.counters.running.store(all().count() as u64, Ordering::Relaxed);
        self.counters.kv_bytes.store(all().map(|s| s.kv.bytes()).sum(), Ordering::Relaxed);
    }
}

fn no_threads() -> Finish {
    Finish::Failed("the system refused the engine's threads; raise its limit and start again".to_owned())
}

/// Runs a part of a step; a panic in it becomes the end of the sequence.
fn guarded<T>(part: impl FnOnce() -> T) -> Result<T, Finish> {
    catch_unwind(AssertUnwindSafe(part)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        tracing::error!(panic = text, "a panic in a step");
        Finish::Failed(format!("an internal fault: {text}; please report it"))
    })
}
