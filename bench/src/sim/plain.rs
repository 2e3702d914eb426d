//! What the scenarios with one question share: nodes about which nothing is special, and deadlines that never come.
//!
//! Only values; each scenario has its own world.

use switchbox::coordinator::effect::{Assignment, Effect};
use switchbox::coordinator::event::{
    Completion, Environment, Event, FinishReason, ModelOffer, NodeHello, Progress, Revoked, Seen, Status,
    Stopped, Verified,
};
use switchbox::coordinator::integrity::OutputDigest;
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::standing::Trust;
use switchbox::ids::{NodeId, Session};
use switchbox::time::{Span, Time};

/// Limits under which nothing is ever late, and everybody's jobs go to anybody.
pub(super) fn patient() -> Limits {
    let hour = Span::from_secs(3_600);
    Limits {
        accept_timeout: hour,
        first_output_timeout: hour,
        progress_timeout: hour,
        attempt_timeout: hour,
        heartbeat_timeout: hour,
        away_timeout: hour,
        trust: Trust::Open,
        ..Limits::default()
    }
}

/// A stranger's node with one model, and room for all that its slots take.
pub(super) fn stranger(node: NodeId, offer: ModelOffer) -> NodeHello {
    NodeHello {
        node,
        session: Session(1),
        trust: Trust::Open,
        environments: vec![Environment::Mainnet],
        slots: offer.slots,
        models: vec![offer],
        kv_tokens: 1_000_000,
        memory_bytes: 1 << 34,
        gpu: None,
        region: None,
        configurations: Vec::new(),
        running: Vec::new(),
        results: Vec::new(),
    }
}

/// What the box hears back of an effect where outputs are never read and nodes stop at once; nothing of most.
pub(super) fn heard_back(effect: &Effect, now: Time) -> Option<Event> {
    Some(match effect {
        Effect::CloseOutput(reservation) => {
            let reservation = *reservation;
            Event::Revoked(Revoked { reservation, delivered: 0, written: 0, written_tokens: 0 })
        }
        Effect::CheckProgress(reservation) => {
            Event::Progress(Progress { reservation: *reservation, written: 1, last_at: Some(now) })
        }
        Effect::Stop { node, reservation } => {
            let (node, reservation) = (node.clone(), *reservation);
            let stopped = Stopped { node, reservation, input_tokens: 0, output_tokens: 0 };
            Event::Stopped(Verified::local(stopped))
        }
        _ => return None,
    })
}

/// A whole answer of so many tokens.
pub(super) fn answered(
    node: NodeId,
    assignment: &Assignment,
    output_tokens: u32,
    digest: OutputDigest,
    now: Time,
) -> Event {
    Event::Completed(Verified::local(Completion {
        node,
        reservation: assignment.reservation,
        status: Status::Succeeded(FinishReason::Stop),
        input_tokens: assignment.input_tokens,
        cached_tokens: 0,
        output_tokens,
        digest: Some(digest),
        proof: None,
        seen: Seen {
            chunks: 1,
            bytes: u64::from(output_tokens) * 4,
            tokens: Some(output_tokens),
            first_at: Some(now),
            last_at: Some(now),
        },
    }))
}
