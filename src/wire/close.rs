//! Why a connection ends, as WebSocket close codes, and what the agent should do about each.

use std::fmt;

/// A close code of this protocol; `docs/node-protocol.md` lists them with their remedies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseCode {
    /// The peer is through and leaves.
    Normal,
    /// Frames that aren't RFC 6455's.
    FrameInvalid,
    /// A text message that isn't UTF-8.
    TextInvalid,
    /// A message longer than it may be, or too many bytes of fragments.
    TooLarge,
    /// The box stops or restarts.
    Restarting,
    /// Not a message: no JSON object, a field missing, or out of its bounds.
    MessageInvalid,
    /// A kind of message that this side doesn't know, and that isn't marked optional.
    MessageUnknown,
    /// A message that has no place here now.
    OutOfOrder,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The agent's version is older than the box serves.
    AgentTooOld,
    /// The agent's version is newer than the box knows.
    AgentTooNew,
    /// A signature of the handshake is wrong.
    SignatureInvalid,
    /// The box doesn't know the key, and no invite came with it.
    KeyUnknown,
    /// The invite is unknown, used up or too old.
    InviteInvalid,
    /// The operator refuses the node.
    Banned,
    /// The operator registered the node for none of the environments that it names.
    EnvironmentRefused,
    /// The box has as many nodes as it can have.
    Full,
    /// Another connection of the same key took over.
    Superseded,
    /// Too many messages or bytes in a second.
    TooFast,
    /// No frame came for too long, or no heartbeat.
    Silent,
    /// The peer doesn't read what it is sent.
    TooSlow,
    /// Too many wrong signatures on one connection.
    Struck,
    /// It drained, and nothing is left.
    Drained,
    /// From an agent: the box isn't the one that it knows.
    BoxUnknown,
}

/// What an agent does when a connection ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Dial again, with backoff.
    Retry,
    /// Dial again, not sooner than in a minute, with backoff from there.
    RetryLater,
    /// Don't dial again: somebody has to change something first.
    GiveUp,
}

impl CloseCode {
    /// All.
    pub const ALL: [CloseCode; 24] = [
        CloseCode::Normal,
        CloseCode::FrameInvalid,
        CloseCode::TextInvalid,
        CloseCode::TooLarge,
        CloseCode::Restarting,
        CloseCode::MessageInvalid,
        CloseCode::MessageUnknown,
        CloseCode::OutOfOrder,
        CloseCode::HandshakeTimeout,
        CloseCode::AgentTooOld,
        CloseCode::AgentTooNew,
        CloseCode::SignatureInvalid,
        CloseCode::KeyUnknown,
        CloseCode::InviteInvalid,
        CloseCode::Banned,
        CloseCode::EnvironmentRefused,
        CloseCode::Full,
        CloseCode::Superseded,
        CloseCode::TooFast,
        CloseCode::Silent,
        CloseCode::TooSlow,
        CloseCode::Struck,
        CloseCode::Drained,
        CloseCode::BoxUnknown,
    ];

    /// On the wire.
    pub fn code(self) -> u16 {
        match self {
            CloseCode::Normal => 1000,
            CloseCode::FrameInvalid => 1002,
            CloseCode::TextInvalid => 1007,
            CloseCode::TooLarge => 1009,
            CloseCode::Restarting => 1012,
            CloseCode::MessageInvalid => 4000,
            CloseCode::MessageUnknown => 4001,
            CloseCode::OutOfOrder => 4002,
            CloseCode::HandshakeTimeout => 4003,
            CloseCode::AgentTooOld => 4004,
            CloseCode::AgentTooNew => 4005,
            CloseCode::SignatureInvalid => 4006,
            CloseCode::KeyUnknown => 4007,
            CloseCode::InviteInvalid => 4008,
            CloseCode::Banned => 4009,
            CloseCode::EnvironmentRefused => 4010,
            CloseCode::Full => 4011,
            CloseCode::Superseded => 4012,
            CloseCode::TooFast => 4013,
            CloseCode::Silent => 4014,
            CloseCode::TooSlow => 4015,
            CloseCode::Struck => 4016,
            CloseCode::Drained => 4017,
            CloseCode::BoxUnknown => 4100,
        }
    }

    /// The word that logs, metrics and `goodbye` use.
    pub fn word(self) -> &'static str {
        match self {
            CloseCode::Normal => "normal",
            CloseCode::FrameInvalid => "frame_invalid",
            CloseCode::TextInvalid => "text_invalid",
            CloseCode::TooLarge => "too_large",
            CloseCode::Restarting => "restarting",
            CloseCode::MessageInvalid => "message_invalid",
            CloseCode::MessageUnknown => "message_unknown",
            CloseCode::OutOfOrder => "out_of_order",
            CloseCode::HandshakeTimeout => "handshake_timeout",
            CloseCode::AgentTooOld => "agent_too_old",
            CloseCode::AgentTooNew => "agent_too_new",
            CloseCode::SignatureInvalid => "signature_invalid",
            CloseCode::KeyUnknown => "key_unknown",
            CloseCode::InviteInvalid => "invite_invalid",
            CloseCode::Banned => "banned",
            CloseCode::EnvironmentRefused => "environment_refused",
            CloseCode::Full => "full",
            CloseCode::Superseded => "superseded",
            CloseCode::TooFast => "too_fast",
            CloseCode::Silent => "silent",
            CloseCode::TooSlow => "too_slow",
            CloseCode::Struck => "struck",
            CloseCode::Drained => "drained",
            CloseCode::BoxUnknown => "box_unknown",
        }
    }

    /// The code of a number; `None` for one of another protocol.
    pub fn of(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    /// What an agent does when its connection ended so. A code it doesn't know is a broken connection: [`Advice::Retry`].
    pub fn advice(self) -> Advice {
        match self {
            CloseCode::Normal
            | CloseCode::TextInvalid
            | CloseCode::FrameInvalid
            | CloseCode::TooLarge
            | CloseCode::Restarting
            | CloseCode::MessageInvalid
            | CloseCode::OutOfOrder
            | CloseCode::HandshakeTimeout
            | CloseCode::Silent
            | CloseCode::TooSlow => Advice::Retry,
            CloseCode::AgentTooOld
            | CloseCode::AgentTooNew
            | CloseCode::MessageUnknown
            | CloseCode::EnvironmentRefused
            | CloseCode::Full
            | CloseCode::TooFast
            | CloseCode::Struck
            | CloseCode::BoxUnknown => Advice::RetryLater,
            CloseCode::SignatureInvalid
            | CloseCode::KeyUnknown
            | CloseCode::InviteInvalid
            | CloseCode::Banned
            | CloseCode::Superseded
            | CloseCode::Drained => Advice::GiveUp,
        }
    }
}

/// Why one side won't go on, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How the connection is closed.
    pub code: CloseCode,
    /// What was wrong and what to do, in a sentence; no secrets, at most `REASON_BYTES_MAX` bytes.
    pub reason: String,
}

impl Refusal {
    /// With that reason.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        let mut end = super::REASON_BYTES_MAX;
        if reason.len() > end {
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.truncate(end);
        }
        Self { code, reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.reason, self.code.code(), self.code.word())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_its_own_and_comes_back() {
        let codes: BTreeSet<u16> = CloseCode::ALL.iter().map(|code| code.code()).collect();
        let words: BTreeSet<&str> = CloseCode::ALL.iter().map(|code| code.word()).collect();
        assert_eq!((codes.len(), words.len()), (CloseCode::ALL.len(), CloseCode::ALL.len()));
        assert!(CloseCode::ALL.into_iter().all(|code| CloseCode::of(code.code()) == Some(code)));
        assert_eq!(CloseCode::of(4999), None);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let refusal = Refusal::new(CloseCode::Full, "é".repeat(600));
        assert_eq!(refusal.reason, "é".repeat(256));
        let refusal = Refusal::new(CloseCode::Full, format!("a{}", "é".repeat(600)));
        assert_eq!(refusal.reason.len(), 511);
    }
}
