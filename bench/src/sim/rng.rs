//! The only source of chance: a seeded SplitMix64, so that a seed says everything. Never reads anything outside.

use switchbox::time::Span;

/// A stream of numbers that a seed determines.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream for a seed and a purpose; streams of two purposes have nothing in common.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose.wrapping_add(0x51ed_270b_a1f3_77c1))))
    }

    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `0..n`; 0 when there is none.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(n)) >> 64) as u64
    }

    /// One of `low..=high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether something happens that does so in that many cases of a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// One of several words.
    pub(crate) fn choose(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len() as u64) as usize]
    }

    /// A span between two, in milliseconds.
    pub(crate) fn ms(&mut self, low: u64, high: u64) -> Span {
        Span(self.range(low * 1_000, high * 1_000))
    }
}

/// Spreads every bit over all (the finaliser of SplitMix64).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 32 bytes that a number and a purpose determine: a digest of nothing in particular.
pub(crate) fn bytes32(purpose: u64, number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut rng = Rng::new(number, purpose);
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.draw().to_le_bytes()));
    bytes
}
