//! The seam between the driver and nodes: what a node is sent, and how it answers. This is the one for a node of this
//! process; [`remote`] is that for nodes of other machines.
//!
//! The same messages a remote node would exchange, over a channel. A [`Slot`] makes it impossible to answer
//! twice, or not at all: it carries the room for its answers, and dropping it is a failed result.

pub mod attempt;
pub mod remote;
pub mod tally;

use std::sync::Arc;

use crate::coordinator::effect::Assignment;
use crate::coordinator::event::{
    Completion, Declined, ErrorClass, Event, JobError, Seen, Status, Stopped, Verified,
};
use crate::driver::{Attach, Envelope};
use crate::ids::{NodeId, ReservationId};
use crate::output::Output;
use crate::queue::{Permit, Room};
use crate::sender::Sender;
use crate::time::Time;

/// What a node is sent.
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
        Some(Slot { reservation, output, answer: Some(Answering { permit, sender: self.sender.clone() }) })
    }
}

struct Answering {
    permit: Permit,
    sender: Sender,
}

/// The right and the duty to answer an assignment once.
pub struct Slot {
    reservation: ReservationId,
    output: Arc<Output>,
    answer: Option<Answering>,
}

impl Slot {
    /// Which assignment.
    pub fn reservation(&self) -> ReservationId {
        self.reservation
    }

    /// The node begins. Call at most once, before the result.
    pub fn accepted(&self) {
        if let Some(answer) = &self.answer {
            let event = Event::Accepted(NodeId::local(), self.reservation);
            answer.sender.push(Envelope { event, attach: Attach::Nothing, permit: None });
        }
    }

    /// The node refuses.
    pub fn declined(mut self, reason: String) {
        let (node, reservation) = (NodeId::local(), self.reservation);
        self.send(Event::Declined(Declined { node, reservation, reason }));
    }

    /// The attempt is through.
    pub fn completed(mut self, result: SlotResult) {
        self.complete(result);
    }

    /// The attempt was stopped, having used so many tokens.
    pub fn stopped(mut self, input_tokens: u32, output_tokens: u32) {
        let (node, reservation) = (NodeId::local(), self.reservation);
        let stopped = Stopped { node, reservation, input_tokens, output_tokens };
        self.send(Event::Stopped(Verified::local(stopped)));
    }

    /// The assignment was taken back before the node saw it: there is nothing to answer.
    pub(crate) fn take_back(mut self) {
        self.answer = None;
    }

    fn complete(&mut self, result: SlotResult) {
        let SlotResult { status, input_tokens, cached_tokens, output_tokens, chunks } = result;
        let reservation = self.reservation;
        let extent = self.output.extent();
        let at = |us: u64| (extent.chunks > 0).then_some(Time(us));
        let seen = Seen {
            chunks,
            bytes: extent.bytes,
            tokens: Some(output_tokens),
            first_at: at(extent.first_at_us),
            last_at: at(extent.last_at_us),
        };
        let completion = Completion {
            node: NodeId::local(),
            reservation,
            status,
            input_tokens,
            cached_tokens,
            output_tokens,
            digest: None,
            seen,
            proof: None,
        };
        self.send(Event::Completed(Verified::local(completion)));
    }

    fn send(&mut self, event: Event) {
        if let Some(Answering { permit, sender }) = self.answer.take() {
            sender.push(Envelope { event, attach: Attach::Nothing, permit: Some(permit) });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let message = "the runtime dropped the job without a result".to_owned();
        let status = Status::Failed(JobError { class: ErrorClass::Node, message });
        self.complete(SlotResult::without_output(status));
    }
}

/// A result as the runtime states it.
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
}

impl SlotResult {
    /// Of an attempt that came to nothing before it began.
    pub fn without_output(status: Status) -> Self {
        Self { status, input_tokens: 0, cached_tokens: 0, output_tokens: 0, chunks: 0 }
    }
}
