//! The node protocol, version 1, as pure code: messages, signatures, hashes, the handshake and the join string.
//!
//! `docs/node-protocol.md` states it for everybody; this is the same for both sides, the box and the agent (neither listens or
//! dials yet). Nothing here does I/O, reads a clock or draws random bytes: callers bring text, time and nonces.
//!
//! How the two sides use it:
//! - *Messages*: [`FromAgent`] and [`FromBox`], each with `parse(text)` and `render()`. A WebSocket text message is one
//!   of them. `parse` gives [`Parsed::Ignored`] for an unknown kind that its sender marked optional.
//! - *Handshake*: [`handshake::BoxSide`] and [`handshake::AgentSide`]; each step takes the peer's message and gives the
//!   next, or a [`Refusal`] with its [`CloseCode`].
//! - *Statements*: a node signs a [`ResultStatement`] or [`StoppedStatement`] with [`Signed::sign`]; the box checks with
//!   [`verify::result`] and [`verify::stopped`], the only places that make a `Verified` of what came over a socket.
//! - *Hashes*: [`request_hash`], [`OutputHasher`].
//! - *Join string*: [`JoinString`]. *Receipts*: [`receipt::Receipt`].

pub mod close;
pub mod handshake;
pub mod hash;
pub mod join;
pub mod keys;
mod layout;
pub mod message;
pub mod receipt;
pub mod statement;
#[cfg(test)]
mod tests;
mod text;
pub mod to_agent;
pub mod to_box;
pub mod verify;
pub mod version;

pub use close::{Advice, CloseCode, Refusal};
pub use hash::{Hash, OutputHasher, request_hash};
pub use join::{JoinError, JoinString};
pub use keys::{Identity, InviteToken, Nonce, PublicKey, Signature};
pub use message::{FromAgent, FromBox, ParseError, Parsed, RenderError};
pub use statement::{ResultStatement, StoppedStatement};
pub use verify::{Issued, Parties, Signed, StatementError};
pub use version::{CAPABILITIES, JSON_CHUNKS, VERSION, Version};

/// Where a box takes agents' WebSockets.
pub const PATH: &str = "/v1/nodes/connect";
/// The WebSocket subprotocol; both sides name it.
pub const SUBPROTOCOL: &str = "switchbox.v1";

/// Bytes of a message before the box said `admitted`.
pub const HANDSHAKE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a message after that.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one frame: larger messages are sent as fragments, so that pings pass between them.
pub const FRAGMENT_BYTES_MAX: usize = 64 * 1024;
/// Objects and lists within one another in a message.
pub const DEPTH_MAX: usize = 16;

/// Models that a node offers.
pub const MODELS_MAX: usize = 64;
/// Reservations that a node lists when it connects.
pub const HOLDS_MAX: usize = 1_024;
/// Chunks in one `output`.
pub const CHUNKS_MAX: usize = 4_096;
/// Capabilities that a side states.
pub const CAPABILITIES_MAX: usize = 16;
/// Bytes of a capability's name.
pub const CAPABILITY_BYTES_MAX: usize = 32;
/// Bytes of a model's name.
pub const MODEL_NAME_BYTES_MAX: usize = 256;
/// Bytes of a reason: of a decline, a standing, a goodbye.
pub const REASON_BYTES_MAX: usize = 512;
/// Bytes of what a failed result says for the client.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// GPUs of one node.
pub const GPUS_MAX: u32 = 64;
/// The largest number in a message: the largest that every JSON parser keeps exactly.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// How long an agent may take from the upgrade to `ready`, in milliseconds.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
/// A ping of the box after so much silence, in milliseconds.
pub const PING_INTERVAL_MS: u64 = 20_000;
/// No frame at all for so long, and the peer counts as dead, in milliseconds.
pub const SILENCE_MAX_MS: u64 = 50_000;
/// Messages in a second, sustained, that name no live reservation of their node. What does is slowed down by reading
/// the socket no faster than the box can use it, and closes nothing.
pub const STRAY_MESSAGES_PER_SECOND_MAX: u32 = 200;
/// Wrong signatures on one connection; the last of them ends it.
pub const STRIKES_MAX: u32 = 3;
/// Messages that wait to be sent to one peer.
pub const OUTBOX_MESSAGES_MAX: usize = 4_096;
/// Bytes that wait to be sent to one peer.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
