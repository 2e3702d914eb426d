//! What the box knows of an attempt that another machine has: what it was given, and what came of it so far.
//!
//! It outlives connections: a node that comes back goes on where the box says. Both a node's words and its signature
//! are held against this; nothing here is believed because a node says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use crate::choice;
use crate::coordinator::effect::Assignment;
use crate::coordinator::event::Seen;
use crate::ids::{NodeId, ReservationId};
use crate::output::{AppendError, Chunk, ChunkKind, Output};
use crate::sync::lock;
use crate::time::Time;
use crate::wire::to_box;
use crate::wire::{Hash, Issued, OutputHasher, request_hash};

/// Chunks of an output beyond two for each token that it may have.
const CHUNKS_SPARE: u32 = 256;

/// The attempts that remote nodes have, by their reservations.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<ReservationId, Arc<RemoteAttempt>>>);

impl Attempts {
    /// One that begins, or may go on.
    pub fn insert(&self, attempt: Arc<RemoteAttempt>) {
        lock(&self.0).insert(attempt.assignment.reservation, attempt);
    }

    /// One that is over.
    pub fn remove(&self, reservation: ReservationId) {
        lock(&self.0).remove(&reservation);
    }

    /// The attempt of a reservation, if it is that node's.
    pub fn of(&self, node: &NodeId, reservation: ReservationId) -> Option<Arc<RemoteAttempt>> {
        lock(&self.0).get(&reservation).filter(|attempt| attempt.node == *node).cloned()
    }
}

/// An attempt that a remote node has.
pub struct RemoteAttempt {
    node: NodeId,
    assignment: Assignment,
    output: Arc<Output>,
    /// What the node said it has under the model's name when it was given this.
    model_digest: OnceLock<Option<Hash>>,
    request_hash: OnceLock<Hash>,
    received: Mutex<Received>,
}

/// What has come of an output.
#[derive(Default)]
struct Received {
    chunks: u32,
    bytes: u64,
    /// Tokens as the node states them, and as many of those as there are bytes.
    tokens_stated: u64,
    tokens: u64,
    hasher: OutputHasher,
}

/// What became of a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Some of it was new.
    New,
    /// All of it was here.
    Known,
    /// Nobody wants it any more.
    Revoked,
}

/// Why a piece of output isn't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputRefusal {
    /// Something is missing before it.
    #[error(
        "output of {reservation} begins with chunk {index}, and chunk {expected} is next: send them in order"
    )]
    Gap {
        /// Of which attempt.
        reservation: ReservationId,
        /// What came.
        index: u32,
        /// What is next.
        expected: u32,
    },
    /// A JSON chunk isn't one.
    #[error(transparent)]
    NotAChunk(#[from] choice::NotAChunk),
    /// There is more than the attempt may have.
    #[error("the node sent more output than the attempt may have")]
    TooLarge,
}

impl RemoteAttempt {
    /// An attempt that is given to a node.
    pub fn new(node: NodeId, assignment: Assignment, output: Arc<Output>) -> Arc<Self> {
        Arc::new(Self {
            node,
            assignment,
            output,
            model_digest: OnceLock::new(),
            request_hash: OnceLock::new(),
            received: Mutex::default(),
        })
    }

    /// What the node was given.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Notes what the node offers under the model's name. The first note counts: it is from when the node was given it.
    pub fn offered_as(&self, digest: Option<Hash>) {
        let _ = self.model_digest.set(digest);
    }

    /// The hash of what was asked. Takes time in proportion to the body, the first time.
    pub fn request_hash(&self) -> Hash {
        let Assignment { endpoint, body, .. } = &self.assignment;
        *self.request_hash.get_or_init(|| request_hash(*endpoint, body))
    }

    /// Whether its output is closed: nobody wants more of it.
    pub fn is_revoked(&self) -> bool {
        self.output.is_closed()
    }

    /// Chunks that have come: the index of the next one.
    pub fn chunks(&self) -> u32 {
        lock(&self.received).chunks
    }

    /// Takes in chunks, the first of which has `index`. What is here already is left as it is.
    ///
    /// # Errors
    /// When something is missing before them, or they are too many. What came before the wrong one was taken.
    pub fn append(
        &self,
        index: u32,
        chunks: Vec<to_box::Chunk>,
        now: Time,
    ) -> Result<Appended, OutputRefusal> {
        let mut received = lock(&self.received);
        if self.output.is_closed() {
            return Ok(Appended::Revoked);
        }
        let expected = received.chunks;
        if index > expected {
            let reservation = self.assignment.reservation;
            return Err(OutputRefusal::Gap { reservation, index, expected });
        }
        let news = chunks.into_iter().skip((expected - index) as usize);
        let mut appended = Appended::Known;
        for chunk in news {
            appended = match self.append_next(&mut received, chunk, now)? {
                Appended::Revoked => return Ok(Appended::Revoked),
                appended => appended,
            };
        }
        Ok(appended)
    }

    fn append_next(
        &self,
        received: &mut Received,
        chunk: to_box::Chunk,
        now: Time,
    ) -> Result<Appended, OutputRefusal> {
        let chunks_max = self.assignment.output_tokens_max.saturating_mul(2).saturating_add(CHUNKS_SPARE);
        if received.chunks >= chunks_max {
            return Err(OutputRefusal::TooLarge);
        }
        let to_box::Chunk { kind, text, tokens } = chunk;
        if kind == to_box::ChunkKind::Json {
            choice::check(&text)?;
        }
        let (bytes, stated) =
            (received.bytes + text.len() as u64, received.tokens_stated + u64::from(tokens));
        // The box has seen at most as many tokens as bytes, whatever the node says.
        let seen = stated.min(bytes);
        let counted = u32::try_from(seen - received.tokens).unwrap_or(u32::MAX);
        let piece = Chunk { kind: kind_of(kind), text, tokens: counted };
        match self.output.append(received.chunks, piece.clone(), now.0) {
            Ok(()) => {}
            Err(AppendError::Closed) => return Ok(Appended::Revoked),
            Err(AppendError::TooLarge { .. }) => return Err(OutputRefusal::TooLarge),
            Err(AppendError::Gap { .. }) => unreachable!("only this writes to the output, under its lock"),
        }
        received.hasher.chunk(&piece);
        received.chunks += 1;
        (received.bytes, received.tokens_stated, received.tokens) = (bytes, stated, seen);
        Ok(Appended::New)
    }

    /// What statements about it must say.
    pub fn issued(&self) -> Issued {
        let assignment = &self.assignment;
        let output_hash = (!self.output.is_closed()).then(|| lock(&self.received).hasher.hash());
        Issued {
            environment: assignment.environment,
            job: assignment.job,
            reservation: assignment.reservation,
            model: Arc::clone(&assignment.model),
            model_index: assignment.model_index,
            model_digest: self.model_digest.get().copied().flatten(),
            request_hash: self.request_hash(),
            output_hash,
        }
    }

    /// All of its output, for who counts its tokens; `None` where some of it isn't text, or it was revoked.
    pub fn text(&self) -> Option<String> {
        if self.output.is_closed() {
            return None;
        }
        let chunks = self.output.written();
        let is_text = chunks.iter().all(|chunk| chunk.kind == ChunkKind::Text);
        is_text.then(|| chunks.iter().map(|chunk| &*chunk.text).collect())
    }

    /// What the box saw of its output; `tokens` are its own count.
    pub fn seen(&self, tokens: Option<u32>) -> Seen {
        let extent = self.output.extent();
        let at = |us: u64| (extent.chunks > 0).then_some(Time(us));
        Seen {
            chunks: extent.chunks,
            bytes: extent.bytes,
            tokens,
            first_at: at(extent.first_at_us),
            last_at: at(extent.last_at_us),
        }
    }
}

fn kind_of(kind: to_box::ChunkKind) -> ChunkKind {
    match kind {
        to_box::ChunkKind::Text => ChunkKind::Text,
        to_box::ChunkKind::Json => ChunkKind::Json,
    }
}
