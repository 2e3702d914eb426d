//! The rows of a group before it is known where in the journal they will lie.

use crate::row::{KEY_BYTES_MAX, Key, VALUE_BYTES_MAX};

/// Collects the rows of a group. What is put later wins.
#[derive(Debug, Default)]
pub struct Rows {
    pub(crate) changes: Vec<(Key, Pending)>,
    pub(crate) payloads: Vec<u8>,
    row_bytes: usize,
}

/// A row whose payload has no place yet.
#[derive(Debug)]
pub(crate) enum Pending {
    Deleted,
    Value(Box<[u8]>),
    /// Where it starts among the group's payloads.
    Payload {
        start: usize,
        len: usize,
        crc: u32,
    },
}

impl Rows {
    /// Puts a row with a value of its own.
    ///
    /// # Panics
    /// When the key is empty, starts with 0 or is longer than [`KEY_BYTES_MAX`], or the value is longer than
    /// [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes belongs into a payload", value.len());
        self.push(key, value.len(), Pending::Value(value.into()));
    }

    /// Puts a row whose value, of any length, lies in the journal and never in the state store.
    ///
    /// # Panics
    /// As [`Rows::put`], for the key.
    pub fn put_payload(&mut self, key: &[u8], payload: &[u8]) {
        let pending = Pending::Payload {
            start: self.payloads.len(),
            len: payload.len(),
            crc: crc32fast::hash(payload),
        };
        self.payloads.extend_from_slice(payload);
        self.push(key, crate::row::PayloadRef::BYTES, pending);
    }

    /// Deletes a row, if it is there.
    ///
    /// # Panics
    /// As [`Rows::put`], for the key.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(key, 0, Pending::Deleted);
    }

    /// Bytes that these rows take in the journal.
    pub fn bytes(&self) -> usize {
        self.payloads.len() + self.row_bytes
    }

    /// Whether nothing was put or deleted.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push(&mut self, key: &[u8], body: usize, pending: Pending) {
        let fit = !key.is_empty() && key[0] != 0 && key.len() <= KEY_BYTES_MAX;
        assert!(fit, "not a key: {} bytes, table {:?}", key.len(), key.first());
        self.row_bytes += crate::row::row_bytes(key, None) + body;
        self.changes.push((key.into(), pending));
    }
}
