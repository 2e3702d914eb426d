//! What the sessions of remote nodes came to, for the operator: one counter for everything that is refused.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::CloseCode;

/// Counters of all sessions.
#[derive(Debug, Default)]
pub struct NodesTally {
    /// Connections that were upgraded.
    pub connections: Count,
    /// Handshakes that were completed.
    pub sessions: Count,
    /// Wrong signatures.
    pub strikes: Count,
    /// Results that weren't believed, by why.
    pub refused_signature: Count,
    /// As `refused_signature`: they spoke of something else than was assigned.
    pub refused_elsewhere: Count,
    /// As `refused_signature`: they spoke of another output than came.
    pub refused_output: Count,
    /// Attempts that sent more than they may.
    pub outputs_too_large: Count,
    /// Messages that named no live reservation.
    pub stray_messages: Count,
    /// Kinds of messages that aren't known here, and were marked optional.
    pub messages_ignored: Count,
    /// Configurations that were sent.
    pub snapshots_sent: Count,
    closed: [Count; CloseCode::ALL.len()],
    /// Connections that ended without a close frame.
    pub broken: Count,
}

impl NodesTally {
    /// A connection ended so.
    pub fn closed(&self, code: CloseCode) {
        let at = CloseCode::ALL.iter().position(|known| *known == code);
        if let Some(counter) = at.and_then(|at| self.closed.get(at)) {
            counter.add();
        }
    }

    /// How many connections ended how.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CloseCode::ALL.iter().zip(&self.closed).map(|(code, count)| (code.word(), count.value()))
    }
}

/// Something that only goes up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Once more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
