//! Names of things: newtypes with one text form each (`job_…`, `res_…`, `node_…`). Values only, never behaviour.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is wrong with the text of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` isn't a {kind} id: expected `{prefix}` followed by 18 hexadecimal digits")]
pub struct IdError {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

const COUNTER_DIGITS: usize = 10;
const EPOCH_DIGITS: usize = 8;
const DIGITS: usize = EPOCH_DIGITS + COUNTER_DIGITS;

/// Defines an id made of the boot epoch and a counter within it, so that no id is ever given twice.
macro_rules! epoch_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name {
            /// Boot epoch (unix seconds or later) of the process that made the id.
            pub epoch: u32,
            /// Position within the epoch, below 2^40.
            pub counter: u64,
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(hex_digits(self.epoch, self.counter, &mut [0; DIGITS]))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let (epoch, counter) = parse_epoch_id(text, $prefix).ok_or_else(|| IdError {
                    text: text.chars().take(64).collect(),
                    kind: $kind,
                    prefix: $prefix,
                })?;
                Ok(Self { epoch, counter })
            }
        }
    };
}

epoch_id!(
    /// One inference request, from acceptance to outcome.
    JobId, "job", "job_"
);
epoch_id!(
    /// One claim of a job on a node's capacity. It fences: what names a dead reservation changes nothing.
    ReservationId, "reservation", "res_"
);

/// The digits of an id, most significant first; by hand, for every answer shows one.
fn hex_digits(epoch: u32, counter: u64, digits: &mut [u8; DIGITS]) -> &str {
    let number = u128::from(epoch) << (4 * COUNTER_DIGITS) | u128::from(counter);
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

fn parse_epoch_id(text: &str, prefix: &str) -> Option<(u32, u64)> {
    let digits = text.strip_prefix(prefix)?;
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if digits.len() != DIGITS || !digits.bytes().all(hex) {
        return None;
    }
    let (epoch, counter) = digits.split_at(EPOCH_DIGITS);
    Some((u32::from_str_radix(epoch, 16).ok()?, u64::from_str_radix(counter, 16).ok()?))
}

/// A machine that runs jobs. `node_local` is the box itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The box's own node.
    pub fn local() -> Self {
        Self("node_local".into())
    }

    /// A node of that name, as its key was registered.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The unit of billing, fairness, limits and logs. Keys belong to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The namespace of a box that has not been given others.
    pub fn default_namespace() -> Self {
        Self("default".into())
    }

    /// A namespace of that name.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The model's name as clients write it.
pub type ModelName = Arc<str>;

/// Bytes of a checked name.
pub const NAME_BYTES_MAX: usize = 64;
/// What a shown wrong name is cut to, so that an error never carries a whole request back.
const SHOWN_CHARS_MAX: usize = 64;

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` isn't a {kind}: expected 1 to {NAME_BYTES_MAX} characters of a-z, 0-9, `.`, `_` and `-`")]
pub struct NameError {
    text: String,
    kind: &'static str,
}

fn checked_name(text: &str, kind: &'static str) -> Result<Arc<str>, NameError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(NameError { text: text.chars().take(SHOWN_CHARS_MAX).collect(), kind });
    }
    Ok(text.into())
}

/// Defines a name that was checked when it was made, so that nothing later needs to look again.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "Arc<str>")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                checked_name(text, $kind).map(Self)
            }
        }

        impl TryFrom<Arc<str>> for $name {
            type Error = NameError;
            fn try_from(text: Arc<str>) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A named group of nodes within one environment.
    SubcloudName, "subcloud name"
);
name!(
    /// Where a node stands, in the operator's words.
    Region, "region"
);
name!(
    /// A kind of GPU, such as `h100`.
    GpuClass, "GPU class"
);
name!(
    /// A runtime with all that its answers depend on, such as `switchbox-1-avx512`.
    RuntimeName, "runtime name"
);
name!(
    /// Which release of a model; it names one digest.
    ModelVersion, "model version"
);

/// A SHA-256 of something's bytes: a model's file, a configuration snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// SHA-256 of an idempotency key as the client wrote it: fixed in size, and no secret at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdempotencyKey(pub [u8; 32]);

/// Names one step of the ledger; the same step always has the same name, so repeating it is a no-op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u128);

/// Numbers the connections of a node; what an earlier connection says late is told from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Session(pub u64);

/// One request of one client connection: the address of its outbox. Never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Numbers the row-writing steps of the core, from 1. A reply "by LSN" leaves once that step is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_everything_else() {
        let id = JobId { epoch: 0x6925_0c5a, counter: 42 };
        assert_eq!(id.to_string(), "job_69250c5a000000002a");
        let last = JobId { epoch: u32::MAX, counter: (1 << 40) - 1 };
        assert_eq!(last.to_string(), format!("job_{}", "f".repeat(18)));
        assert_eq!("job_69250c5a000000002a".parse(), Ok(id));
        for bad in [
            "",
            "job_",
            "res_69250c5a000000002a",
            "job_69250c5a000000002A",
            "job_69250c5a00000000é",
            "job_69250c5a000000002a0",
            "job_+9250c5a000000002a",
        ] {
            let error = bad.parse::<JobId>().expect_err(bad).to_string();
            assert!(error.contains("job_"), "{error}");
        }
    }
    #[test]
    fn names_are_checked_and_shown_as_written() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for good in ["h100", "eu-west_1.b", "0", longest.as_str()] {
            let name: Region = good.parse().expect(good);
            assert_eq!((name.as_str(), name.to_string()), (good, good.to_owned()));
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "H100", "eu west", "é", "a/b", "a\0", long.as_str()] {
            let error = bad.parse::<GpuClass>().expect_err(bad).to_string();
            assert!(error.contains("isn't a GPU class") && error.contains("1 to 64"), "{error}");
        }
        let error = "X".repeat(1 << 20).parse::<SubcloudName>().expect_err("too long").to_string();
        assert!(error.len() < 256, "{}", error.len());
    }

    #[test]
    fn a_digest_shows_every_byte() {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (0xab, 0x01);
        let expected = format!("ab{}01", "0".repeat(60));
        assert_eq!(Digest(bytes).to_string(), expected);
    }
}
