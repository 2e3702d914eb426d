//! What is signed: a tag, a zero byte, then fields, each as its length (4 bytes, big-endian) and its bytes.
//!
//! Numbers are 8 bytes, big-endian. Never the output of a serializer: these bytes are the same in every language and
//! for ever. A tag says what the bytes are for, so a signature for one purpose is none for another.

use super::keys::Hex;

/// A layout under construction.
pub(super) struct Layout(Vec<u8>);

impl Layout {
    /// Of that purpose.
    pub(super) fn new(tag: &str) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(tag.as_bytes());
        bytes.push(0);
        Self(bytes)
    }

    /// The next field is these bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        // Every field is of a message, and so shorter than one.
        let length = u32::try_from(bytes.len()).expect("a field is shorter than a message");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The next field is this text.
    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// The next field is this number.
    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// The next field is what is there, or empty.
    pub(super) fn maybe<const N: usize>(self, hash: Option<&Hex<N>>) -> Self {
        self.bytes(hash.map_or(&[][..], |hash| &hash.0))
    }

    /// All of it.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The fields of a layout of that purpose; `None` if the bytes are none.
pub(super) fn fields_of<'a>(tag: &str, bytes: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let mut rest = bytes.strip_prefix(tag.as_bytes())?.strip_prefix(&[0])?;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (field, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        fields.push(field);
        rest = behind;
    }
    Some(fields)
}
