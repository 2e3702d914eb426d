//! A message as JSON text: one object with its kind in `type`.
//!
//! What is read came from outside: its size, depth, lists and texts have bounds, unknown fields are skipped, and what
//! is wrong is said without a copy of what came.

use std::borrow::Cow;

use memchr::{memchr2_iter, memmem};
use serde::{Deserialize, Serialize};

use super::close::CloseCode;
use super::{DEPTH_MAX, MESSAGE_BYTES_MAX, to_agent, to_box};

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed<M> {
    /// A message.
    Known(M),
    /// One of a kind that this side doesn't know, which its sender said it needn't: its kind.
    Ignored(String),
}

/// Why something isn't a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than it may be.
    #[error("the message has {bytes} bytes and may have {max} here")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The most, now.
        max: usize,
    },
    /// Objects and lists too deep within one another.
    #[error("the message is nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// No JSON object with a `type`.
    #[error("the message isn't a JSON object with a `type`: {0}")]
    NotAMessage(String),
    /// A kind that this side doesn't know.
    #[error(
        "unknown kind of message `{0}`; mark it `\"optional\": true` if it may be ignored, or update this side"
    )]
    Unknown(String),
    /// A field is missing or wrong.
    #[error("the message `{kind}` is wrong: {problem}")]
    Malformed {
        /// Which kind.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl ParseError {
    /// How the connection is closed for it.
    pub fn code(&self) -> CloseCode {
        match self {
            ParseError::TooLarge { .. } => CloseCode::TooLarge,
            ParseError::Unknown(_) => CloseCode::MessageUnknown,
            ParseError::TooDeep | ParseError::NotAMessage(_) | ParseError::Malformed { .. } => {
                CloseCode::MessageInvalid
            }
        }
    }
}

/// Why a message can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// It would be longer than its receiver takes.
    #[error("the message `{kind}` would have {bytes} bytes, and {MESSAGE_BYTES_MAX} is the most")]
    TooLarge {
        /// Which kind.
        kind: &'static str,
        /// How long.
        bytes: usize,
    },
    /// The request's body isn't UTF-8, so no JSON string can carry it.
    #[error("the message `{kind}` can't be written: {problem}")]
    NotText {
        /// Which kind.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Bytes of an unknown kind that an error shows.
const KIND_SHOWN_BYTES_MAX: usize = 64;
/// Bytes of a parser's complaint that an error shows.
const PROBLEM_SHOWN_BYTES_MAX: usize = 200;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    optional: bool,
}

fn check_bounds(text: &str, bytes_max: usize) -> Result<(), ParseError> {
    if text.len() > bytes_max {
        return Err(ParseError::TooLarge { bytes: text.len(), max: bytes_max });
    }
    if is_too_deep(text) { Err(ParseError::TooDeep) } else { Ok(()) }
}

/// The kind of a message that begins with it and surely has nothing more that a head has, found without reading the
/// rest as JSON. What our own sides write is like that.
fn kind_in_front(text: &str) -> Option<&str> {
    let (kind, rest) = text.strip_prefix(r#"{"type":""#)?.split_once('"')?;
    let has = |part: &str| memmem::find(rest.as_bytes(), part.as_bytes()).is_some();
    // As it stands, or as it may be written with escapes.
    let may_have_more = [r#"type""#, r#"optional""#, r"\u"].into_iter().any(has);
    (!may_have_more).then_some(kind)
}

fn head(text: &str) -> Result<Head<'_>, ParseError> {
    if !text.trim_start().starts_with('{') {
        return Err(ParseError::NotAMessage("it begins otherwise".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| ParseError::NotAMessage(problem(&error)))
}

/// Counts brackets outside strings; what isn't JSON may be counted wrongly, and is refused later.
fn is_too_deep(text: &str) -> bool {
    if memchr2_iter(b'{', b'[', text.as_bytes()).nth(DEPTH_MAX).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn body<'a, T: Deserialize<'a>>(text: &'a str, kind: &'static str) -> Result<T, ParseError> {
    serde_json::from_str(text).map_err(|_| ParseError::Malformed {
        kind,
        problem: cut(&field_problem::<T>(text), PROBLEM_SHOWN_BYTES_MAX),
    })
}

/// What is wrong with a text that isn't a `T`, and in which field.
pub(super) fn field_problem<'a, T: Deserialize<'a>>(text: &'a str) -> String {
    let mut read = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut read) {
        Err(error) if error.path().iter().len() > 0 => format!("`{}`: {}", error.path(), error.inner()),
        Err(error) => error.inner().to_string(),
        // The object is whole: it is what stands behind it.
        Ok(_) => "something stands behind the object".to_owned(),
    }
}

fn unknown<M>(head: Head<'_>) -> Result<Parsed<M>, ParseError> {
    let kind = cut(&head.kind, KIND_SHOWN_BYTES_MAX);
    if head.optional { Ok(Parsed::Ignored(kind)) } else { Err(ParseError::Unknown(kind)) }
}

fn problem(error: &serde_json::Error) -> String {
    cut(&error.to_string(), PROBLEM_SHOWN_BYTES_MAX)
}

fn cut(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn render<M: Serialize>(message: &M, kind: &'static str) -> Result<String, RenderError> {
    let text = serde_json::to_string(message)
        .map_err(|error| RenderError::NotText { kind, problem: problem(&error) })?;
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(RenderError::TooLarge { kind, bytes: text.len() });
    }
    Ok(text)
}

/// Defines what one side sends: its kinds with their words.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident($body:ty) = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "type")]
        #[allow(clippy::large_enum_variant, reason = "the largest come once a connection, and go on by reference")]
        pub enum $name {
            $($(#[$about])* #[serde(rename = $word)] $variant($body),)+
        }

        impl $name {
            /// The words of all kinds.
            pub const KINDS: &'static [&'static str] = &[$($word),+];

            /// Its kind, as in `type`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $word,)+
                }
            }

            /// Reads a message of at most `bytes_max` bytes.
            ///
            /// # Errors
            /// When it isn't one; [`ParseError::code`] says how to close the connection.
            pub fn parse(text: &str, bytes_max: usize) -> Result<Parsed<Self>, ParseError> {
                check_bounds(text, bytes_max)?;
                if let Some(kind) = kind_in_front(text)
                    && let Some(message) = Self::of_kind(kind, text)
                {
                    return message.map(Parsed::Known);
                }
                let head = head(text)?;
                Self::of_kind(&head.kind, text).map_or_else(|| unknown(head), |message| message.map(Parsed::Known))
            }

            /// The message of that kind; `None` where this side doesn't know it.
            fn of_kind(kind: &str, text: &str) -> Option<Result<Self, ParseError>> {
                match kind {
                    $($word => Some(body(text, $word).map(Self::$variant)),)+
                    _ => None,
                }
            }

            /// Writes it as JSON text.
            ///
            /// # Errors
            /// When no receiver would take it: it is too long, or carries what isn't UTF-8.
            pub fn render(&self) -> Result<String, RenderError> {
                render(self, self.kind())
            }
        }
    };
}

messages! {
    /// What an agent sends.
    FromAgent {
        /// The first message of a connection.
        Hello(to_box::Hello) = "hello",
        /// Proves the node's key, once the box has proven its own.
        Authenticate(to_box::Authenticate) = "authenticate",
        /// What the node offers and what it still holds: it is ready for work.
        Ready(Box<to_box::Ready>) = "ready",
        /// It takes an assignment, and begins.
        Accepted(to_box::Accepted) = "accepted",
        /// It refuses an assignment.
        Declined(to_box::Declined) = "declined",
        /// A part of an output.
        Output(to_box::Output) = "output",
        /// The signed result of an attempt.
        Completed(Box<to_box::Completed>) = "completed",
        /// The signed word that it stopped an attempt, told to or not.
        Stopped(to_box::Stopped) = "stopped",
        /// It is still here.
        Heartbeat(to_box::Heartbeat) = "heartbeat",
        /// Its owner asks for something.
        Wish(to_box::Wished) = "wish",
        /// What it offers has changed.
        Offer(to_box::Offer) = "offer",
        /// It wants a configuration.
        SnapshotRequest(to_box::SnapshotRequest) = "snapshot_request",
        /// Why it closes the connection.
        Goodbye(to_agent::Goodbye) = "goodbye",
    }
}

messages! {
    /// What a box sends.
    FromBox {
        /// Proves the box's key, and asks the node to prove its own.
        Challenge(to_agent::Challenge) = "challenge",
        /// The node's key is proven: large messages may come now.
        Admitted(to_agent::Admitted) = "admitted",
        /// The answer to `ready`: work may come now.
        Welcome(to_agent::Welcome) = "welcome",
        /// Run this.
        Assign(Box<to_agent::Assign>) = "assign",
        /// Stop that.
        Stop(to_agent::Stop) = "stop",
        /// A result is kept: the node needn't keep it.
        ResultAccepted(to_agent::Settled) = "result_accepted",
        /// Nothing waits for a result, which isn't the node's fault: it needn't keep it.
        ResultUnknown(to_agent::Settled) = "result_unknown",
        /// A result is refused and won't be accepted later either.
        ResultRefused(to_agent::ResultRefused) = "result_refused",
        /// There is a configuration that the node doesn't have.
        Configuration(to_agent::Configuration) = "configuration",
        /// A configuration, signed.
        Snapshot(to_agent::SnapshotText) = "snapshot",
        /// Where the node stands, and why.
        Standing(to_agent::Standing) = "standing",
        /// What the node has earned.
        Earnings(to_agent::Earnings) = "earnings",
        /// It drains and nothing is left: it may leave.
        Drained(to_agent::Empty) = "drained",
        /// It isn't welcome.
        Banned(to_agent::Empty) = "banned",
        /// Why the box closes the connection.
        Goodbye(to_agent::Goodbye) = "goodbye",
    }
}
