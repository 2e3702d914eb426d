//! Names of things: newtypes with one text form each (`job_…`, `res_…`, `node_…`). Values only, never behaviour.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

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
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The box's own node.
    pub fn local() -> Self {
        Self("node_local".into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The unit of billing, fairness, limits and logs. Keys belong to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}
