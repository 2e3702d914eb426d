//! A row: a key with a value of its own, or with a payload that lies in the journal.
//!
//! On disk (frames and snapshots): `kind u8 | key length u16 | value length u16 | key | value`. Kinds: 0 deleted
//! (no value), 1 value, 2 payload (the value is a [`PayloadRef`], 16 bytes).

use crate::bytes::Reader;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value that a row holds itself, in bytes. Anything longer is a payload: sled would put a page of
/// longer values into side files that it never syncs.
pub const VALUE_BYTES_MAX: usize = 4096;

/// A row's key: a table byte (not 0, which is the store's own) and what identifies the row in it. Rows are
/// ordered by these bytes, so numbers go big-endian.
pub type Key = Box<[u8]>;

/// Where in the journal a payload lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PayloadRef {
    /// The segment's number.
    pub segment: u32,
    /// Its first byte in the segment.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
    /// CRC-32 of its bytes.
    pub crc: u32,
}

impl PayloadRef {
    /// Bytes of a reference on disk.
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let numbers = [self.segment, self.offset, self.len, self.crc];
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let payload = Self { segment: r.u32()?, offset: r.u32()?, len: r.u32()?, crc: r.u32()? };
        r.is_empty().then_some(payload)
    }
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A value of at most [`VALUE_BYTES_MAX`] bytes.
    Value(Box<[u8]>),
    /// Bytes that lie in the journal.
    Payload(PayloadRef),
}

impl Stored {
    /// The payload, where it is one.
    pub(crate) fn payload(&self) -> Option<PayloadRef> {
        match self {
            Self::Value(_) => None,
            Self::Payload(payload) => Some(*payload),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Value(_) => Kind::Value,
            Self::Payload(_) => Kind::Payload,
        }
    }

    /// Calls `f` with the bytes that stand for it on disk.
    pub(crate) fn with_body<T>(&self, f: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Value(value) => f(value),
            Self::Payload(payload) => f(&payload.to_bytes()),
        }
    }

    pub(crate) fn from_body(kind: u8, body: &[u8]) -> Option<Self> {
        match kind {
            k if k == Kind::Value as u8 => (body.len() <= VALUE_BYTES_MAX).then(|| Self::Value(body.into())),
            k if k == Kind::Payload as u8 => PayloadRef::from_bytes(body).map(Self::Payload),
            _ => None,
        }
    }
}

/// A key with what it holds from now on; `None` deletes it.
pub(crate) type RowChange = (Key, Option<Stored>);

/// How a row is told apart on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Deleted = 0,
    Value = 1,
    Payload = 2,
}

/// Bytes of a row on disk beside its key and value.
const ROW_HEAD_BYTES: usize = 5;

/// Bytes of a row on disk.
pub(crate) fn row_bytes(key: &[u8], stored: Option<&Stored>) -> usize {
    ROW_HEAD_BYTES + key.len() + stored.map_or(0, |stored| stored.with_body(<[u8]>::len))
}

pub(crate) fn write_row(key: &[u8], stored: Option<&Stored>, out: &mut Vec<u8>) {
    let mut write = |kind: Kind, body: &[u8]| {
        out.push(kind as u8);
        let len =
            |bytes: &[u8]| u16::try_from(bytes.len()).expect("keys and values are bounded").to_le_bytes();
        out.extend_from_slice(&len(key));
        out.extend_from_slice(&len(body));
        out.extend_from_slice(key);
        out.extend_from_slice(body);
    };
    match stored {
        None => write(Kind::Deleted, &[]),
        Some(stored) => stored.with_body(|body| write(stored.kind(), body)),
    }
}

pub(crate) fn read_row(r: &mut Reader<'_>) -> Option<RowChange> {
    let kind = r.u8()?;
    let (key_len, len) = (usize::from(r.u16()?), usize::from(r.u16()?));
    let (key, body) = (r.take(key_len)?, r.take(len)?);
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return None;
    }
    let stored = match kind {
        0 if body.is_empty() => None,
        kind => Some(Stored::from_body(kind, body)?),
    };
    Some((key.into(), stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_stored() -> impl Strategy<Value = Option<Stored>> {
        let value = proptest::collection::vec(any::<u8>(), 0..100).prop_map(|v| Stored::Value(v.into()));
        let payload = any::<(u32, u32, u32, u32)>().prop_map(|(segment, offset, len, crc)| {
            Stored::Payload(PayloadRef { segment, offset, len, crc })
        });
        proptest::option::of(prop_oneof![value, payload])
    }

    proptest! {
        #[test]
        fn rows_come_back(key in proptest::collection::vec(any::<u8>(), 1..40), stored in any_stored()) {
            let mut bytes = Vec::new();
            write_row(&key, stored.as_ref(), &mut bytes);
            prop_assert_eq!(bytes.len(), row_bytes(&key, stored.as_ref()));
            let mut r = Reader(&bytes);
            prop_assert_eq!(read_row(&mut r), Some((key.into_boxed_slice(), stored)));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut r = Reader(&bytes);
            if let Some((key, stored)) = read_row(&mut r) {
                let mut again = Vec::new();
                write_row(&key, stored.as_ref(), &mut again);
                prop_assert_eq!(&bytes[..again.len()], &again[..]);
            }
        }
    }
}
