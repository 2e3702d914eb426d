//! For tests: numbers that look random and follow from a seed, so that what fails can be told and repeated.

/// Rolls the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// The next number (splitmix: every seed is as good as another).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of so many sides, from 0.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        (self.bits() % sides.max(1) as u64) as usize
    }

    /// Whether one of so many sides came.
    pub(crate) fn once_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

/// What an environment variable says, for tests that can do more than they do every day.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}
