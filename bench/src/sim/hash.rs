//! The hash over everything that the core wanted done: equal for two runs of a seed, or the core isn't deterministic.

use std::fmt::{self, Debug, Write};

/// FNV-1a over the Debug rendering of what is fed to it, eight bytes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EffectHash(pub(crate) u64);

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl EffectHash {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a value.
    pub(crate) fn feed(&mut self, value: &impl Debug) {
        write!(self, "{value:?};").expect("a hash takes anything");
    }
}

impl Write for EffectHash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 =
                (self.0 ^ u64::from_le_bytes(word) ^ chunk.len() as u64).wrapping_mul(PRIME).rotate_left(23);
        }
        Ok(())
    }
}
