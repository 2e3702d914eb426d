//! Choices that look random and are not: everything derives from the boot secret and from what is chosen for.
//!
//! The same secret, purpose and subject give the same choice, so a simulation replays exactly. Nothing here keeps
//! state or reads a random source, and none of it is a cipher: a number made here is never shown to anybody.

/// One million parts: the whole.
pub const PPM: u32 = 1_000_000;

/// The increment of SplitMix64 (the golden ratio of 2^64); without it zero would stay zero.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a choice is for. Two choices about one job must not lean on the same number, or one would tell the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Jitter of a backoff.
    Backoff,
    /// Whether a blind job follows a real one.
    BlindDraw,
    /// Which template the blind job takes.
    BlindTemplate,
    /// Which node the blind job goes to.
    BlindNode,
    /// Whether a real job is replicated to a second node.
    ValidationDraw,
    /// Which node the replica goes to.
    ValidationNode,
    /// Which template a test job takes.
    TestTemplate,
}

/// Noise for one choice about one subject (a job's counter, say, and its attempt).
pub fn noise(secret: &[u8; 32], purpose: Purpose, subject: u64, step: u64) -> u64 {
    let (words, _) = secret.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let parts = words.chain([purpose as u64, subject, step]);
    parts.fold(0, |state, part| mix(state.wrapping_add(GAMMA) ^ part))
}

/// The finaliser of SplitMix64: spreads every bit over all (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014; the constants are Stafford's variant 13).
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether this noise falls within a rate of so many in a million: never at 0, always at [`PPM`] and above.
pub fn draw(noise: u64, rate_ppm: u32) -> bool {
    scaled(noise, u64::from(PPM)) < u64::from(rate_ppm)
}

/// One of `n`, each as likely as the others; `None` if there is nothing to choose from.
pub fn choose(noise: u64, n: usize) -> Option<usize> {
    (n > 0).then(|| scaled(noise, n as u64) as usize)
}

/// Noise brought to 0..n by its high bits, so that no division favours the low results.
fn scaled(noise: u64, n: u64) -> u64 {
    ((u128::from(noise) * u128::from(n)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mix_is_the_published_finaliser() {
        // The first outputs of SplitMix64 seeded with 1234567, as its reference implementation prints them.
        let outputs = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423_u64];
        for (i, expected) in outputs.into_iter().enumerate() {
            assert_eq!(mix(1_234_567_u64.wrapping_add(GAMMA.wrapping_mul(i as u64 + 1))), expected);
        }
    }

    #[test]
    fn rates_hold_over_many_jobs() {
        let secret = [7; 32];
        for rate in [0, 1_000, 50_000, 500_000, PPM, u32::MAX] {
            let drawn =
                (0..100_000_u64).filter(|job| draw(noise(&secret, Purpose::BlindDraw, *job, 0), rate));
            let (drawn, expected) = (drawn.count() as i64, i64::from(rate.min(PPM)) / 10);
            assert!((drawn - expected).abs() <= expected.min(100_000 - expected) / 5, "{rate}: {drawn}");
        }
    }

    #[test]
    fn every_node_is_chosen_about_as_often() {
        let mut chosen = [0_u32; 7];
        for job in 0..70_000 {
            chosen[choose(noise(&[9; 32], Purpose::BlindNode, job, 0), 7).expect("seven")] += 1;
        }
        assert!(chosen.iter().all(|n| (9_500..10_500).contains(n)), "{chosen:?}");
        assert_eq!(choose(u64::MAX, 0), None);
    }

    #[test]
    fn every_part_of_what_it_derives_from_matters() {
        let secret = [1; 32];
        let base = noise(&secret, Purpose::BlindDraw, 1, 1);
        for byte in 0..32 {
            let mut other = secret;
            other[byte] ^= 1;
            assert_ne!(noise(&other, Purpose::BlindDraw, 1, 1), base, "byte {byte}");
        }
        assert_ne!(noise(&secret, Purpose::BlindNode, 1, 1), base);
        assert_ne!(noise(&secret, Purpose::BlindDraw, 2, 1), base);
        assert_ne!(noise(&secret, Purpose::BlindDraw, 1, 2), base);
    }

    proptest! {
        #[test]
        fn a_choice_is_one_of_those_there_are(noise: u64, n in 1..usize::MAX) {
            prop_assert!(choose(noise, n).is_some_and(|i| i < n));
        }
    }
}
