//! The seam between whoever assigns work in this process and what runs it: what a node is sent, and how it answers.
//!
//! A box assigns to its own node through the driver, an agent what a box elsewhere sent it. A [`Slot`] makes it
//! impossible to answer twice, or not at all: it carries the way of its answers, and dropping it is a failed result.
//! [`remote`] is the seam for nodes of other machines.

pub mod attempt;
pub mod remote;
pub mod tally;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::coordinator::effect::Assignment;
use crate::coordinator::event::{
    Completion, Declined, ErrorClass, Event, JobError, Seen, Status, Stopped, Verified,
};
use crate::coordinator::integrity::OutputDigest;
use crate::driver::{Attach, Envelope};
use crate::ids::{NodeId, ReservationId};
use crate::output::Output;
use crate::queue::{Permit, Room};
use crate::sender::Sender;
use crate::time::Time;
use crate::wire::OutputHasher;

/// What a node of this process is sent.
pub enum NodeMail {
    /// Run this.
    Assign {
        /// What to run.
        assignment: Assignment,
        /// Where its output goes.
        output: Arc<Output>,
        /// How to answer.
        slot: Slot,
    },
    /// Stop that.
    Stop(ReservationId),
}

/// Events that an assignment can cause: accepted or declined, then completed or stopped.
pub const EVENTS_PER_SLOT: usize = 2;

/// Room for the answers of one node.
pub struct SlotRoom {
    room: Arc<Room>,
    sender: Sender,
}

impl SlotRoom {
    /// Room for the answers to `slots` assignments at once.
    pub fn new(slots: usize, sender: Sender) -> Self {
        Self { room: Room::new(slots), sender }
    }

    /// Takes the room for one assignment, if there is any.
    pub fn take(&self, reservation: ReservationId, output: &Arc<Output>) -> Option<Slot> {
        let permit = self.room.take()?;
        let output = Arc::clone(output);
        Some(Slot {
            reservation,
            output,
            answer: Some(Answering::Core { permit, sender: self.sender.clone() }),
        })
    }
}

/// Whom an assignment is answered to.
enum Answering {
    /// The core of this process. The permit is the room in its ring.
    Core { permit: Permit, sender: Sender },
    /// The agent of this process, which tells a box elsewhere.
    Agent(mpsc::UnboundedSender<SlotAnswer>),
}

/// What an agent is answered. At most [`EVENTS_PER_SLOT`] come for each assignment, so whoever bounds those bounds these.
#[derive(Debug)]
pub struct SlotAnswer {
    /// Which assignment.
    pub reservation: ReservationId,
    /// What its runtime says.
    pub answer: Answer,
}

/// What a runtime says of an assignment.
#[derive(Debug)]
pub enum Answer {
    /// It begins.
    Accepted,
    /// It refuses, for this reason.
    Declined(String),
    /// It is through.
    Completed(SlotResult),
    /// It stopped, having used so many tokens.
    Stopped {
        /// Of the prompt.
        input_tokens: u32,
        /// Generated.
        output_tokens: u32,
    },
}

/// The right and the duty to answer an assignment once.
pub struct Slot {
    reservation: ReservationId,
    output: Arc<Output>,
    answer: Option<Answering>,
}

impl Slot {
    /// For an assignment of a box elsewhere, answered to the agent of this process.
    pub fn of_agent(
        reservation: ReservationId,
        output: &Arc<Output>,
        answers: &mpsc::UnboundedSender<SlotAnswer>,
    ) -> Self {
        Self { reservation, output: Arc::clone(output), answer: Some(Answering::Agent(answers.clone())) }
    }

    /// Which assignment.
    pub fn reservation(&self) -> ReservationId {
        self.reservation
    }

    /// The node begins. Call at most once, before the result.
    pub fn accepted(&self) {
        match &self.answer {
            Some(Answering::Core { sender, .. }) => {
                let event = Event::Accepted(NodeId::local(), self.reservation);
                sender.push(Envelope { event, attach: Attach::Nothing, permit: None });
            }
            Some(Answering::Agent(answers)) => tell(answers, self.reservation, Answer::Accepted),
            None => {}
        }
    }

    /// The node refuses.
    pub fn declined(mut self, reason: String) {
        self.send(Answer::Declined(reason));
    }

    /// The attempt is through.
    pub fn completed(mut self, result: SlotResult) {
        self.send(Answer::Completed(result));
    }

    /// The attempt was stopped, having used so many tokens.
    pub fn stopped(mut self, input_tokens: u32, output_tokens: u32) {
        self.send(Answer::Stopped { input_tokens, output_tokens });
    }

    /// The assignment was taken back before the node saw it: there is nothing to answer.
    pub(crate) fn take_back(mut self) {
        self.answer = None;
    }

    fn send(&mut self, answer: Answer) {
        match self.answer.take() {
            Some(Answering::Core { permit, sender }) => {
                let event = self.event_of(answer);
                sender.push(Envelope { event, attach: Attach::Nothing, permit: Some(permit) });
            }
            Some(Answering::Agent(answers)) => tell(&answers, self.reservation, answer),
            None => {}
        }
    }

    /// As the core hears it.
    fn event_of(&self, answer: Answer) -> Event {
        let (node, reservation) = (NodeId::local(), self.reservation);
        match answer {
            Answer::Accepted => Event::Accepted(node, reservation),
            Answer::Declined(reason) => Event::Declined(Declined { node, reservation, reason }),
            Answer::Completed(result) => Event::Completed(Verified::local(self.completion(result))),
            Answer::Stopped { input_tokens, output_tokens } => {
                Event::Stopped(Verified::local(Stopped { node, reservation, input_tokens, output_tokens }))
            }
        }
    }

    /// What the output's bytes are compared by.
    fn digest(&self) -> OutputDigest {
        let mut hasher = OutputHasher::new();
        self.output.written().iter().for_each(|chunk| hasher.chunk(chunk));
        OutputDigest(hasher.hash().0)
    }

    fn completion(&self, result: SlotResult) -> Completion {
        let SlotResult { status, input_tokens, cached_tokens, output_tokens, chunks, bytes } = result;
        let extent = self.output.extent();
        let at = |us: u64| (extent.chunks > 0).then_some(Time(us));
        let seen = Seen {
            chunks,
            bytes: extent.bytes,
            tokens: Some(output_tokens),
            first_at: at(extent.first_at_us),
            last_at: at(extent.last_at_us),
        };
        Completion {
            node: NodeId::local(),
            reservation: self.reservation,
            status,
            input_tokens,
            cached_tokens,
            output_tokens,
            digest: (bytes == Bytes::Promised).then(|| self.digest()),
            seen,
            proof: None,
        }
    }
}

/// An agent that is gone is told nothing: its process ends.
fn tell(answers: &mpsc::UnboundedSender<SlotAnswer>, reservation: ReservationId, answer: Answer) {
    let _ = answers.send(SlotAnswer { reservation, answer });
}

impl Drop for Slot {
    fn drop(&mut self) {
        let message = "the runtime dropped the job without a result".to_owned();
        let status = Status::Failed(JobError { class: ErrorClass::Node, message });
        self.send(Answer::Completed(SlotResult::without_output(status)));
    }
}

/// A result as the runtime states it.
#[derive(Debug)]
pub struct SlotResult {
    /// How it went.
    pub status: Status,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Of those, found in a cache.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// Chunks of output.
    pub chunks: u32,
    /// Whether they may be compared with another node's.
    pub bytes: Bytes,
}

/// What a runtime says of the bytes of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// Whoever computes with the same name gives the same to the same request, where it allows one answer only.
    Promised,
    /// They may be others the next time.
    Any,
}

impl SlotResult {
    /// Of an attempt that came to nothing before it began.
    pub fn without_output(status: Status) -> Self {
        Self { status, input_tokens: 0, cached_tokens: 0, output_tokens: 0, chunks: 0, bytes: Bytes::Any }
    }
}
