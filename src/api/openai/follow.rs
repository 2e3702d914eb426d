//! A job from its client's side: which messages came, which output belongs to the answer, what may leave when.
//!
//! Dropping a [`Follow`] before [`Follow::served`] means that the client went away, which cancels the job.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::api::error::ApiError;
use crate::api::status::DrainFlag;
use crate::archive::{Piece, Position, StoredAnswer, StoredJob};
use crate::budget::Part;
use crate::coordinator::effect::{Answer, CancelCause, End, Finished, Refusal};
use crate::coordinator::event::{Durability, Storing};
use crate::door::{ClientMessage, ClientSession, Opened};
use crate::ids::{JobId, Lsn};
use crate::output::{Chunk, ChunkKind, Take};

use super::whole::Whole;

/// The last that is heard of a job.
#[derive(Debug)]
pub(in crate::api) enum Outcome {
    /// It was not accepted.
    Refused(Refusal),
    /// It ended.
    Finished(Box<Finished>),
    /// There is no more to hear, for this reason.
    Broken(Box<ApiError>),
}

/// What becomes of a job whose server leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// It ends: nobody could have its answer.
    Ends,
    /// It goes on, and its key leads to it.
    GoesOn,
}

/// What a stream does next.
#[derive(Debug)]
pub(in crate::api) enum Step {
    /// Sends a piece of the answer.
    Chunk(Chunk),
    /// Ends; everything of the answer was taken before.
    End(Outcome),
    /// Ends without the output that its job has: a bug.
    Lost,
}

/// An answer is missing output that its job has.
#[derive(Debug)]
pub(super) struct OutputLost;

/// One submitted job as its client sees it.
pub(in crate::api) struct Follow {
    session: ClientSession,
    job: Option<JobId>,
    /// The newest attempt's output, unless it was revoked.
    opened: Option<Opened>,
    durability: Durability,
    acceptance: Acceptance,
    outcome: Option<Outcome>,
    /// The job whose answer this is, once there is one.
    answered: Option<JobId>,
    /// An answer that was given before, and how much of it was taken.
    stored: Option<(StoredAnswer, Position)>,
    /// The memory of that answer, and then of what was made of it.
    stored_room: Option<Part>,
    afterwards: Afterwards,
    /// Ready once the server leaves.
    left: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What is known of the job's acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    /// Nothing yet.
    Awaited,
    /// The step that it happened in, which must be durable before anything shows it.
    Made(Lsn),
    /// It may be shown.
    Showable,
}

impl Follow {
    /// Follows what was just submitted through `session`, at most until `drain` says that the server leaves.
    pub(super) fn new(
        session: ClientSession,
        durability: Durability,
        afterwards: Afterwards,
        drain: DrainFlag,
    ) -> Self {
        Self {
            session,
            job: None,
            opened: None,
            durability,
            acceptance: Acceptance::Awaited,
            outcome: None,
            answered: None,
            stored: None,
            stored_room: None,
            afterwards,
            left: Box::pin(async move { drain.left().await }),
        }
    }

    /// The job's id, once it was accepted.
    pub(in crate::api) fn job(&self) -> Option<JobId> {
        self.job
    }

    /// The client has everything: the job is left to rest.
    pub(in crate::api) fn served(self) {
        match self.answered {
            Some(job) => self.session.took(job),
            None => self.session.served(),
        }
    }

    /// Waits for the end. Takes no output, so that until then a failed attempt can run again.
    pub(super) async fn outcome(&mut self) -> Outcome {
        poll_fn(|cx| {
            self.poll_messages(cx);
            self.outcome.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Waits for the next step of a stream; safe to drop.
    pub(super) async fn step(&mut self) -> Step {
        poll_fn(|cx| self.poll_step(cx)).await
    }

    /// Waits until the job's acceptance may be shown, or there is an outcome to show instead.
    pub(super) async fn settled(&mut self) {
        poll_fn(|cx| {
            self.poll_messages(cx);
            if self.outcome.is_some() { Poll::Ready(()) } else { self.poll_acceptance(cx) }
        })
        .await;
    }

    /// Gives back an outcome that [`Step::End`] brought: the next step will bring it again.
    pub(super) fn put_back(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// The next step of a stream.
    pub(in crate::api) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.poll_messages(cx);
        let Some(outcome) = self.outcome.take() else {
            return self.poll_output(cx);
        };
        if let Some((stored, position)) = &mut self.stored {
            if let Some(chunk) = stored.next_chunk(position) {
                self.outcome = Some(outcome);
                return Poll::Ready(Step::Chunk(chunk));
            }
            self.stored = None;
        }
        let Some(extent) = answer_extent(&outcome) else {
            return Poll::Ready(Step::End(outcome));
        };
        // What acknowledges the end is on disk, and so is everything before it.
        let taken = match self.answer_reader(extent.attempt) {
            _ if extent.chunks == 0 => return Poll::Ready(Step::End(outcome)),
            None => return Poll::Ready(Step::Lost),
            Some(opened) if opened.reader.cursor() >= extent.chunks => {
                return Poll::Ready(Step::End(outcome));
            }
            Some(opened) => opened.reader.poll_take(cx),
        };
        self.outcome = Some(outcome);
        match ready!(taken) {
            Take::Chunk(chunk) => Poll::Ready(Step::Chunk(chunk)),
            Take::Closed => Poll::Ready(Step::Lost),
        }
    }

    /// Output of an attempt that still runs.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.opened.is_none() {
            return Poll::Pending;
        }
        // Taking a chunk delivers it, after which the job can't run again: so not before it may leave.
        ready!(self.poll_acceptance(cx));
        let Some(opened) = &mut self.opened else {
            return Poll::Pending;
        };
        match ready!(opened.reader.poll_take(cx)) {
            Take::Chunk(chunk) => Poll::Ready(Step::Chunk(chunk)),
            Take::Closed => {
                self.opened = None;
                Poll::Pending
            }
        }
    }

    /// Ready once the job's acceptance may be shown. Its message is the first of an accepted job.
    fn poll_acceptance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.acceptance {
            Acceptance::Awaited => return Poll::Pending,
            Acceptance::Made(lsn) => ready!(self.session.poll_committed(cx, lsn)),
            Acceptance::Showable => {}
        }
        self.acceptance = Acceptance::Showable;
        Poll::Ready(())
    }

    /// Takes all of a finished job's answer.
    pub(super) async fn take_answer(
        &mut self,
        finished: &Finished,
        whole: &mut Whole<'_>,
    ) -> Result<(), OutputLost> {
        if let Some((stored, _)) = self.stored.take() {
            for (kind, text) in stored.pieces() {
                whole.add(kind, text);
                breathe_after(kind).await;
            }
            return Ok(());
        }
        if finished.chunks == 0 {
            return Ok(());
        }
        let opened = self.answer_reader(finished.attempt).ok_or(OutputLost)?;
        while opened.reader.cursor() < finished.chunks {
            match opened.reader.take().await {
                Take::Chunk(chunk) => {
                    whole.add(chunk.kind, &chunk.text);
                    breathe_after(chunk.kind).await;
                }
                Take::Closed => return Err(OutputLost),
            }
        }
        // From here on the text is only what was made of it.
        self.opened = None;
        Ok(())
    }

    fn answer_reader(&mut self, attempt: u32) -> Option<&mut Opened> {
        self.opened.as_mut().filter(|opened| opened.attempt == attempt)
    }

    /// Takes in every message that is there; once the server leaves, that is the last.
    fn poll_messages(&mut self, cx: &mut Context<'_>) {
        self.take_messages(cx);
        if self.outcome.is_none() && self.left.as_mut().poll(cx).is_ready() {
            let error = match self.afterwards {
                Afterwards::GoesOn => Some(ApiError::goes_on(self.job)),
                Afterwards::Ends => ApiError::ended(&End::Cancelled(CancelCause::Shutdown)),
            };
            self.outcome = error.map(broken);
        }
    }

    fn take_messages(&mut self, cx: &mut Context<'_>) {
        while self.outcome.is_none()
            && let Poll::Ready(message) = self.session.poll_next(cx)
        {
            match message {
                ClientMessage::Accepted { job, lsn } => {
                    self.job = Some(job);
                    self.acceptance = match self.durability {
                        Durability::Strict => Acceptance::Made(lsn),
                        Durability::Relaxed => Acceptance::Showable,
                    };
                }
                ClientMessage::Opened(opened) => self.opened = Some(opened),
                ClientMessage::Refused(refusal) => self.outcome = Some(Outcome::Refused(refusal)),
                ClientMessage::Finished(finished) => {
                    let succeeded = matches!(finished.end, End::Succeeded(_));
                    self.answered = succeeded.then_some(finished.job);
                    self.outcome = Some(Outcome::Finished(finished));
                }
                // An answer that isn't kept must not read as an empty one.
                ClientMessage::Stored(stored) if stored.answer.is_none() => {
                    let taken = stored.row.spec.storing == Storing::Forbidden;
                    let lost = || ApiError::unreadable(stored.row.id, Piece::Answer);
                    self.outcome = Some(broken(if taken { ApiError::answer_taken() } else { lost() }));
                }
                ClientMessage::Stored(stored) => {
                    let finished = finished_of(&stored);
                    let StoredJob { answer, room, .. } = *stored;
                    (self.job, self.answered) = (Some(finished.job), Some(finished.job));
                    self.acceptance = Acceptance::Showable;
                    self.stored = answer.map(|answer| (answer, Position::default()));
                    self.stored_room = Some(room);
                    self.outcome = Some(Outcome::Finished(Box::new(finished)));
                }
                ClientMessage::Unreadable(job, piece) => {
                    self.outcome = Some(broken(ApiError::unreadable(job, piece)));
                }
                ClientMessage::ShareFull => self.outcome = Some(broken(ApiError::share_full())),
                // Its answer was forgotten between the look at its key and the look into the store.
                ClientMessage::Answer(answer) if matches!(*answer, Answer::Refused(..)) => {
                    self.outcome = Some(broken(ApiError::just_forgotten()));
                }
                // Nothing else was asked here.
                ClientMessage::Answer(_) => {}
            }
        }
    }
}

/// Merging JSON takes its time: others get their turn in between.
async fn breathe_after(kind: ChunkKind) {
    if kind == ChunkKind::Json {
        tokio::task::consume_budget().await;
    }
}

fn broken(error: ApiError) -> Outcome {
    Outcome::Broken(Box::new(error))
}

/// The last word on a job that ended before, as it was then. Its output is gone; its answer's text is kept apart.
fn finished_of(stored: &StoredJob) -> Finished {
    let row = &stored.row;
    Finished {
        job: row.id,
        end: row.end.clone().unwrap_or(End::Expired),
        attempt: row.attempts,
        chunks: 0,
        usage: row.usage,
        queue: row.dispatched_at.unwrap_or(row.submitted_at).since(row.submitted_at),
        node: row.node.clone(),
        model: row.model().clone(),
        charged: row.charged,
    }
}

struct AnswerExtent {
    attempt: u32,
    chunks: u32,
}

/// Which output is the answer; `None` if there is no answer.
fn answer_extent(outcome: &Outcome) -> Option<AnswerExtent> {
    match outcome {
        Outcome::Finished(finished) if matches!(finished.end, End::Succeeded(_)) => {
            Some(AnswerExtent { attempt: finished.attempt, chunks: finished.chunks })
        }
        _ => None,
    }
}
