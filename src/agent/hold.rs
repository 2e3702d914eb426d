//! One attempt that the node holds: what was assigned, what came out so far, how much of that was sent, and its result.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::bells::Bell;
use super::results::Record;
use crate::budget::Share;
use crate::coordinator::event::{Environment, Status};
use crate::ids::{JobId, ModelName, ReservationId};
use crate::node::SlotResult;
use crate::output::{self, ChunkKind, Output};
use crate::wire::statement::StatedStatus;
use crate::wire::to_agent::Assign;
use crate::wire::to_box;
use crate::wire::{
    CHUNKS_MAX, ERROR_MESSAGE_BYTES_MAX, Hash, Identity, OutputHasher, PublicKey, ResultStatement, Signed,
    StoppedStatement, request_hash,
};

/// Bytes of text in one message of output, unless one chunk alone has more: one frame, however JSON writes it.
const BATCH_BYTES_MAX: usize = 16 << 10;

/// What of an assignment outlives its start.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assigned {
    pub(super) reservation: ReservationId,
    pub(super) job: JobId,
    pub(super) environment: Environment,
    pub(super) model: ModelName,
    pub(super) model_index: u32,
    pub(super) model_digest: Option<Hash>,
    pub(super) request_hash: Hash,
    /// Tokens of cache that it may take.
    pub(super) kv_tokens: u64,
}

impl Assigned {
    /// Of an assignment, on a model that the node has under that digest.
    pub(super) fn of(assign: &Assign, model_digest: Option<Hash>) -> Self {
        Self {
            reservation: assign.reservation,
            job: assign.job,
            environment: assign.environment,
            model: assign.model.clone(),
            model_index: assign.model_index,
            model_digest,
            request_hash: request_hash(assign.endpoint, &assign.body.0),
            kv_tokens: u64::from(assign.input_tokens) + u64::from(assign.output_tokens_max),
        }
    }
}

/// How far an attempt is.
pub(super) enum Phase {
    /// Its runtime is at it.
    Running,
    /// It was told to stop, for that reason.
    Stopping(Cause),
    /// Its result is there, and kept until the box settles it.
    Ended(Ended),
}

/// Why an attempt was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The box doesn't want it any more, or it is handed back: whatever its runtime answers, the box hears `stopped`.
    Unwanted,
    /// The node leaves, and some of its output went out: the box hears a failed result.
    Leaving,
}

/// A result on its way.
pub(super) struct Ended {
    pub(super) result: Box<Signed<ResultStatement>>,
    /// Whether it went out on this connection.
    pub(super) sent: Sent,
    /// Whether it is on the disk, or on its way there.
    pub(super) kept: Kept,
}

/// Whether something is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    No,
    Yes,
}

/// Whether something went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    No,
    Yes,
}

/// An attempt that the node holds.
pub(super) struct Hold {
    pub(super) assigned: Assigned,
    pub(super) output: Arc<Output>,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    /// Chunks that went out on this connection, or that the box has from before.
    sent: u32,
    hasher: OutputHasher,
    /// Chunks that are in the hash.
    hashed: u32,
    bell: Arc<Bell>,
    waker: Waker,
    /// Its part of the agent's memory for attempts.
    _share: Share,
}

/// What a hold has to send next.
pub(super) enum Next {
    /// Nothing, until its bell rings.
    Nothing,
    /// Output; there may be more.
    Output(to_box::Output),
    /// The result, once.
    Completed(Box<to_box::Completed>),
}

impl Hold {
    /// An attempt that begins.
    pub(super) fn new(assigned: Assigned, output: Arc<Output>, bell: Arc<Bell>, share: Share) -> Self {
        let waker = Waker::from(Arc::clone(&bell));
        Self {
            assigned,
            output,
            phase: Phase::Running,
            since: Instant::now(),
            sent: 0,
            hasher: OutputHasher::new(),
            hashed: 0,
            bell,
            waker,
            _share: share,
        }
    }

    /// A result of an earlier run of the agent.
    pub(super) fn of_record(record: Record, bell: Arc<Bell>, share: Share) -> Option<Self> {
        let Record { hold, chunks, .. } = record;
        let result = Box::new(hold.result?);
        let stated = &result.statement;
        let assigned = Assigned {
            reservation: stated.reservation,
            job: stated.job,
            environment: stated.environment,
            model: stated.model.clone(),
            model_index: stated.model_index,
            model_digest: stated.model_digest,
            request_hash: stated.request_hash,
            kv_tokens: hold.kv_tokens,
        };
        let output = Output::new(u64::MAX);
        for (chunk, index) in chunks.iter().zip(0..) {
            // It has room for everything.
            output.append(index, chunk_of(chunk), 0).ok()?;
        }
        let phase = Phase::Ended(Ended { result, sent: Sent::No, kept: Kept::Yes });
        Some(Self { phase, ..Self::new(assigned, output, bell, share) })
    }

    /// What the disk is to hold of it, if it has a result that isn't there.
    pub(super) fn take_to_keep(&mut self, box_key: PublicKey) -> Option<Record> {
        let Phase::Ended(ended @ Ended { kept: Kept::No, .. }) = &mut self.phase else { return None };
        ended.kept = Kept::Yes;
        let chunks = self.output.written().iter().map(wire_chunk).collect();
        Some(Record::new(box_key, self.listed(), chunks))
    }

    /// Something is to be sent, or may be.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    /// Chunks that there are.
    pub(super) fn chunks(&self) -> u32 {
        self.output.extent().chunks
    }

    /// Whether any of its output went out.
    pub(super) fn has_shown(&self) -> bool {
        self.sent > 0
    }

    /// As `ready` lists it.
    pub(super) fn listed(&self) -> to_box::Hold {
        let result = match &self.phase {
            Phase::Ended(ended) => Some((*ended.result).clone()),
            Phase::Running | Phase::Stopping(_) => None,
        };
        to_box::Hold {
            reservation: self.assigned.reservation,
            model: self.assigned.model.clone(),
            kv_tokens: self.assigned.kv_tokens,
            chunks: self.chunks(),
            result,
        }
    }

    /// On this connection the box wants output from that chunk on, and then the result. `false` if there is no such
    /// chunk.
    pub(super) fn resume(&mut self, from: u32) -> bool {
        let is_there = from <= self.chunks();
        if is_there {
            self.sent = from;
            if let Phase::Ended(ended) = &mut self.phase {
                ended.sent = Sent::No;
            }
            self.ring();
        }
        is_there
    }

    /// The box has everything, and will say what it thinks of the result.
    pub(super) fn taken(&mut self) {
        self.sent = self.chunks();
        if let Phase::Ended(ended) = &mut self.phase {
            ended.sent = Sent::Yes;
        }
    }

    /// Takes what is to be sent next.
    pub(super) fn next(&mut self) -> Next {
        if let Phase::Stopping(Cause::Unwanted) = self.phase {
            return Next::Nothing;
        }
        let cx = Context::from_waker(&self.waker);
        if let Poll::Ready(chunks) = self.output.poll_written_from(self.sent, BATCH_BYTES_MAX, &cx) {
            let index = self.sent;
            let chunks = &chunks[..chunks.len().min(CHUNKS_MAX)];
            self.hash(index, chunks);
            self.sent += u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            // There may be more; it is another's turn first.
            self.ring();
            let chunks = chunks.iter().map(wire_chunk).collect();
            return Next::Output(to_box::Output { reservation: self.assigned.reservation, index, chunks });
        }
        match &mut self.phase {
            Phase::Ended(Ended { result, sent: sent @ Sent::No, .. }) => {
                *sent = Sent::Yes;
                let Signed { statement, signature } = (**result).clone();
                Next::Completed(Box::new(to_box::Completed { chunks: self.sent, statement, signature }))
            }
            _ => Next::Nothing,
        }
    }

    /// Adds to the hash what isn't in it yet of the chunks that begin at `index`.
    fn hash(&mut self, index: u32, chunks: &[output::Chunk]) {
        for (chunk, at) in chunks.iter().zip(index..) {
            if at == self.hashed {
                self.hasher.chunk(chunk);
                self.hashed += 1;
            }
        }
    }

    /// The runtime is through: signs its result.
    pub(super) fn complete(&mut self, result: SlotResult, node: &Identity, box_key: PublicKey) {
        if self.hashed < self.chunks() {
            let written = self.output.written();
            self.hash(0, &written);
        }
        let SlotResult { status, input_tokens, cached_tokens, output_tokens, .. } = result;
        let statement = ResultStatement {
            environment: self.assigned.environment,
            job: self.assigned.job,
            reservation: self.assigned.reservation,
            model: self.assigned.model.clone(),
            model_digest: self.assigned.model_digest,
            model_index: self.assigned.model_index,
            request_hash: self.assigned.request_hash,
            output_hash: self.hasher.hash(),
            input_tokens,
            cached_tokens,
            output_tokens,
            status: stated(status),
        };
        let result = Box::new(Signed::sign(statement, node, box_key));
        self.phase = Phase::Ended(Ended { result, sent: Sent::No, kept: Kept::No });
        self.ring();
    }

    /// The word that it was stopped.
    pub(super) fn stopped(
        &self,
        input_tokens: u32,
        output_tokens: u32,
        node: &Identity,
        box_key: PublicKey,
    ) -> to_box::Stopped {
        let statement = StoppedStatement {
            environment: self.assigned.environment,
            job: self.assigned.job,
            reservation: self.assigned.reservation,
            input_tokens,
            output_tokens,
        };
        Signed::sign(statement, node, box_key)
    }
}

fn wire_chunk(chunk: &output::Chunk) -> to_box::Chunk {
    let kind = match chunk.kind {
        ChunkKind::Text => to_box::ChunkKind::Text,
        ChunkKind::Json => to_box::ChunkKind::Json,
    };
    to_box::Chunk { kind, text: Arc::clone(&chunk.text), tokens: chunk.tokens }
}

fn chunk_of(chunk: &to_box::Chunk) -> output::Chunk {
    match chunk.kind {
        to_box::ChunkKind::Text => output::Chunk::text(Arc::clone(&chunk.text), chunk.tokens),
        to_box::ChunkKind::Json => output::Chunk::json(Arc::clone(&chunk.text), chunk.tokens),
    }
}

fn stated(status: Status) -> StatedStatus {
    match status {
        Status::Succeeded(finish_reason) => StatedStatus::Succeeded { finish_reason },
        Status::Failed(error) => {
            let mut message = error.message;
            let end = message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX.min(message.len()));
            message.truncate(end);
            StatedStatus::Failed { class: error.class, message }
        }
    }
}
