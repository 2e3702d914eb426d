//! Where a name stands in a table, by the name's hash: comparing numbers is several times faster than comparing
//! names.
//!
//! The table itself keeps the names. A name whose hash is taken by another stands under the next free number after
//! it; whoever finds names of one hash gains nothing.

use std::hash::{Hash, Hasher};

use super::index::{EpochId, IdIndex};

/// Places by the hash of what stands there. None is ever taken out.
#[derive(Debug, Default)]
pub(super) struct ByHash {
    places: IdIndex<u32>,
}

/// The number under which a place will be found, once it is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u64);

impl From<Number> for EpochId {
    fn from(number: Number) -> Self {
        EpochId::from_bits(number.0)
    }
}

impl ByHash {
    /// Where a name stands, `stands_at` being asked whether it is that place; or the number to file it under.
    pub(super) fn find(&self, name: &impl Hash, stands_at: impl Fn(usize) -> bool) -> Result<usize, Number> {
        let mut number = Number(hash_of(name));
        while let Some(place) = self.places.find(number) {
            if stands_at(place as usize) {
                return Ok(place as usize);
            }
            number.0 = number.0.wrapping_add(1);
        }
        Err(number)
    }

    /// Files the place of a name that wasn't found.
    pub(super) fn file(&mut self, number: Number, place: usize) {
        self.places.insert(number, u32::try_from(place).expect("tables have fewer than 2^32 places"));
    }
}

/// Hashes words of eight bytes, always the same way. It spreads names; it doesn't resist who looks for two of
/// one hash.
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn hash_of(name: &impl Hash) -> u64 {
    let mut hasher = WordHasher(0);
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_hash_are_told_apart() {
        let (mut by_hash, names) = (ByHash::default(), ["a", "b"]);
        // As if the two had one hash, and `b` were asked for.
        by_hash.file(Number(hash_of(&"b")), 0);
        let found = by_hash.find(&"b", |place| names[place] == "b");
        assert_eq!(found, Err(Number(hash_of(&"b").wrapping_add(1))));
        by_hash.file(found.expect_err("just seen"), 1);
        assert_eq!(by_hash.find(&"b", |place| names[place] == "b"), Ok(1));
    }
}
