//! A large whole answer on its way out. Its job keeps its share of the output budget until the connection has taken
//! the last slice: otherwise clients that ask and never read would hold memory that nobody counts.

use bytes::Bytes;

use super::openai::Follow;
use crate::budget::Part;
use crate::door::ClientSession;
use crate::ids::JobId;

/// What the connection is handed at once, and what an answer may have to be handed over whole.
pub(super) const SLICE_BYTES_MAX: usize = 16 << 10;

/// An answer that was rendered and not yet read. Dropped before its last slice was taken, it is abandoned.
pub(super) struct UnreadAnswer {
    rendered: Vec<u8>,
    taken: usize,
    reader: Option<Reader>,
}

/// Who is told that the answer was taken.
enum Reader {
    /// Whoever follows the job.
    Follow(Follow),
    /// Who looked it up, with the memory that it takes.
    LookedUp(ClientSession, JobId, Part),
}

impl UnreadAnswer {
    /// The answer of the job that `follow` follows.
    pub(super) fn new(rendered: Vec<u8>, follow: Follow) -> Self {
        Self { rendered, taken: 0, reader: Some(Reader::Follow(follow)) }
    }

    /// The answer of a job that `session` looked up, and that is forgotten once it was taken.
    pub(super) fn looked_up(rendered: Vec<u8>, session: ClientSession, job: JobId, room: Part) -> Self {
        Self { rendered, taken: 0, reader: Some(Reader::LookedUp(session, job, room)) }
    }

    /// Bytes that were not taken yet.
    pub(super) fn bytes_left(&self) -> usize {
        self.rendered.len() - self.taken
    }

    /// Takes the next bytes. They are a copy: a view would keep all of the answer in memory, behind the budget's back.
    pub(super) fn take_slice(&mut self) -> Option<Bytes> {
        let len = self.bytes_left().min(SLICE_BYTES_MAX);
        let slice = Bytes::copy_from_slice(&self.rendered[self.taken..][..len]);
        self.taken += len;
        if self.bytes_left() == 0 {
            (self.rendered, self.taken) = (Vec::new(), 0);
            match self.reader.take() {
                Some(Reader::Follow(follow)) => follow.served(),
                Some(Reader::LookedUp(session, job, _room)) => session.took(job),
                None => {}
            }
        }
        (!slice.is_empty()).then_some(slice)
    }
}
