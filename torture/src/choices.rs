//! A small, seeded source of choices: a run can be repeated as far as threads allow.

/// Choices that follow from a seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        // Never zero, and seeds side by side give choices far apart.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which isn't 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.number()) * n as u128) >> 64) as usize
    }

    /// Whether something happens that happens so many times in a thousand.
    pub fn in_thousand(&mut self, times: u32) -> bool {
        self.below(1000) < times as usize
    }

    /// One of them; there is one.
    pub fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_cover_their_range_and_repeat() {
        let (mut a, mut b, mut seen) = (Choices::new(7), Choices::new(7), [0; 10]);
        for _ in 0..1000 {
            let chosen = a.below(10);
            assert_eq!(chosen, b.below(10));
            seen[chosen] += 1;
        }
        assert!(seen.iter().all(|times| (50..200).contains(times)), "{seen:?}");
    }
}
