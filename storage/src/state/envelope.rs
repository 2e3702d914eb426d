//! The envelope of what the state store holds: `53 42 | kind u8 | version 1 | CRC-32 u32 | body`.
//!
//! The CRC is over kind, version, key and body, so a value under another key is noticed too. Kinds: 1 value, 2
//! reference to a payload, 3 mark.

use crc32fast::Hasher;

use crate::bytes::Reader;
use crate::row::Stored;

const MAGIC: [u8; 2] = *b"SB";
const VERSION: u8 = 1;
/// Kind of a [`super::mark::Mark`].
pub(crate) const MARK: u8 = 3;

fn crc(kind: u8, version: u8, key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&[kind, version]);
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

pub(crate) fn seal(kind: u8, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(8 + body.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&[kind, VERSION]);
    sealed.extend_from_slice(&crc(kind, VERSION, key, body).to_le_bytes());
    sealed.extend_from_slice(body);
    sealed
}

pub(crate) fn seal_stored(key: &[u8], stored: &Stored) -> Vec<u8> {
    stored.with_body(|body| seal(stored.kind() as u8, key, body))
}

/// Kind and body of what was sealed under `key`; `None` if these bytes weren't.
pub(crate) fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Option<(u8, &'a [u8])> {
    let mut r = Reader(sealed);
    let (magic, kind, version, sum) = (r.array::<2>()?, r.u8()?, r.u8()?, r.u32()?);
    let fine = magic == MAGIC && version == VERSION && sum == crc(kind, version, key, r.0);
    fine.then_some((kind, r.0))
}

pub(crate) fn open_stored(key: &[u8], sealed: &[u8]) -> Option<Stored> {
    let (kind, body) = open(key, sealed)?;
    Stored::from_body(kind, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_under_the_key_opens() {
        let sealed = seal_stored(b"key", &Stored::Value((*b"value").into()));
        assert_eq!(sealed[..4], [0x53, 0x42, 1, 1]);
        assert_eq!(open_stored(b"key", &sealed), Some(Stored::Value((*b"value").into())));
        assert_eq!(open_stored(b"kez", &sealed), None);
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 4;
            assert_eq!(open_stored(b"key", &flipped), None, "byte {at}");
        }
        assert_eq!(open_stored(b"key", &[]), None);
    }
}
