//! The rows of a group before it is known where in the journal they will lie.

use crate::journal::frame::HEAD_BYTES;
use crate::row::{KEY_BYTES_MAX, PayloadRef, RowChange, Stored, VALUE_BYTES_MAX};

/// Collects the rows of a group. What is put later wins.
#[derive(Debug, Default)]
pub struct Rows {
    /// Payloads have no place yet: their segment is 0, their offset one among the group's payloads.
    pub(crate) changes: Vec<RowChange>,
    /// What becomes the group's frame: room for its head, then the payloads. Nothing while there is no payload.
    frame: Vec<u8>,
    row_bytes: usize,
}

impl Rows {
    /// Uses the memory of a frame that was written.
    pub(crate) fn in_memory_of(mut frame: Vec<u8>) -> Self {
        frame.clear();
        Self { frame, ..Self::default() }
    }

    /// Puts a row with a value of its own.
    ///
    /// # Panics
    /// When the key is empty, starts with 0 or is longer than [`KEY_BYTES_MAX`], or the value is longer than
    /// [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes belongs into a payload", value.len());
        self.push(key, value.len(), Some(Stored::Value(value.into())));
    }

    /// Puts a row whose value, of any length, lies in the journal and never in the state store.
    ///
    /// # Panics
    /// As [`Rows::put`], for the key; and when the group's payloads have 4 GiB.
    pub fn put_payload(&mut self, key: &[u8], payload: &[u8]) {
        let word = |len: usize| u32::try_from(len).expect("a step's payloads have less than 4 GiB in all");
        let at = PayloadRef {
            segment: 0,
            offset: word(self.payload_bytes()),
            len: word(payload.len()),
            crc: crc32fast::hash(payload),
        };
        self.with_head();
        self.frame.extend_from_slice(payload);
        self.push(key, PayloadRef::BYTES, Some(Stored::Payload(at)));
    }

    /// Deletes a row, if it is there.
    ///
    /// # Panics
    /// As [`Rows::put`], for the key.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(key, 0, None);
    }

    /// Bytes that these rows take in the journal.
    pub fn bytes(&self) -> usize {
        self.payload_bytes() + self.row_bytes
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.frame.len().saturating_sub(HEAD_BYTES)
    }

    fn with_head(&mut self) {
        if self.frame.is_empty() {
            self.frame.resize(HEAD_BYTES, 0);
        }
    }

    /// The rows, and the beginning of their frame: room for its head, and the payloads.
    pub(crate) fn into_parts(mut self) -> (Vec<RowChange>, Vec<u8>) {
        self.with_head();
        self.frame.reserve(crate::disk::blocks(HEAD_BYTES + self.bytes()) - self.frame.len());
        (self.changes, self.frame)
    }

    /// Whether nothing was put or deleted.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push(&mut self, key: &[u8], body: usize, stored: Option<Stored>) {
        let fit = !key.is_empty() && key[0] != 0 && key.len() <= KEY_BYTES_MAX;
        assert!(fit, "not a key: {} bytes, table {:?}", key.len(), key.first());
        self.row_bytes += crate::row::row_bytes(key, None) + body;
        self.changes.push((key.into(), stored));
    }
}
