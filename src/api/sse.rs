//! Server-sent events: the body of a stream. It writes what is there, all of it in one piece, and when nothing is
//! there for long a comment. Only `data:` lines and comments: clients choke on anything else.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::auth::InFlight;
use super::error::ApiError;
use super::openai::render::Events;
use super::openai::{Follow, Outcome, Step, output_lost};
use crate::coordinator::effect::End;
use crate::output::Chunk;

/// Events are gathered up to this size before they are handed to the connection.
const PIECE_BYTES_MAX: usize = 16 << 10;
const PIECE_BYTES_USUAL: usize = 1 << 10;
const COMMENT: &[u8] = b": waiting\n\n";

/// A job's events, until the client has them or goes away.
pub(super) struct EventStream {
    /// `None` once everything was written. Dropped before that, it cancels the job.
    follow: Option<Follow>,
    events: Events,
    opening: Opening,
    keepalive: Keepalive,
    _in_flight: InFlight,
}

/// What a stream begins with.
enum Opening {
    /// A chunk that was taken before the headers left.
    Chunk(Chunk),
    /// A comment, for the job has nothing yet.
    Comment,
    /// It has begun.
    Done,
}

impl EventStream {
    /// The events of the job that `follow` follows, after `first`, which was taken from it before.
    pub(super) fn new(
        follow: Follow,
        events: Events,
        first: Option<Chunk>,
        keepalive: Duration,
        in_flight: InFlight,
    ) -> Self {
        let opening = first.map_or(Opening::Comment, Opening::Chunk);
        let keepalive = Keepalive { every: keepalive, wrote_at: Instant::now(), due: None };
        Self { follow: Some(follow), events, opening, keepalive, _in_flight: in_flight }
    }

    /// The next bytes, or `None` at the end.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = Vec::new();
        if self.follow.is_none() {
            return Poll::Ready(None);
        }
        let opening = std::mem::replace(&mut self.opening, Opening::Done);
        if let Opening::Chunk(chunk) = &opening {
            out.reserve(PIECE_BYTES_USUAL);
            self.events.piece(&mut out, chunk.kind, &chunk.text);
        }
        self.gather(cx, &mut out);
        if out.is_empty() {
            match opening {
                Opening::Comment => out.extend_from_slice(COMMENT),
                Opening::Chunk(_) | Opening::Done => match self.keepalive.poll_due(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => out.extend_from_slice(COMMENT),
                },
            }
        }
        self.keepalive.wrote_at = Instant::now();
        Poll::Ready(Some(out.into()))
    }

    /// Writes every event that is there, up to a piece.
    fn gather(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        while out.len() < PIECE_BYTES_MAX
            && let Some(follow) = &mut self.follow
            && let Poll::Ready(step) = follow.poll_step(cx)
        {
            if out.capacity() == 0 {
                out.reserve(PIECE_BYTES_USUAL);
            }
            match step {
                Step::Chunk(chunk) => self.events.piece(out, chunk.kind, &chunk.text),
                Step::End(outcome) => self.end(out, &outcome),
                Step::Lost => {
                    // Not `served`: whatever holds the output is told that nobody waits for it any more.
                    self.follow = None;
                    write_error(out, &output_lost());
                }
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, outcome: &Outcome) {
        if let Some(follow) = self.follow.take() {
            follow.served();
        }
        match outcome {
            Outcome::Finished(finished) => match (&finished.end, ApiError::ended(&finished.end)) {
                (End::Succeeded(reason), _) => self.events.finish(out, *reason, finished.usage),
                (_, error) => write_error(out, &error.unwrap_or_else(output_lost)),
            },
            // The model's name is only used for models that nobody serves, which is found out before.
            Outcome::Refused(refusal) => write_error(out, &ApiError::refused(refusal, "")),
            Outcome::Broken(error) => write_error(out, error),
        }
    }
}

/// An error after the headers: an event of its own, and no `[DONE]` behind it.
fn write_error(out: &mut Vec<u8>, error: &ApiError) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&error.render());
    out.extend_from_slice(b"\n\n");
}

/// When the next comment is due. The timer isn't moved with each event: it looks when it fires.
struct Keepalive {
    every: Duration,
    wrote_at: Instant,
    due: Option<Pin<Box<Sleep>>>,
}

impl Keepalive {
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due_at = self.wrote_at + self.every;
            let due = self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due_at)));
            if due.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= due_at {
                self.due = None;
                return Poll::Ready(());
            }
            due.as_mut().reset(due_at);
        }
    }
}
