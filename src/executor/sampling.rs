//! Picks the next token from logits. Pure: the same logits, options, seed and earlier tokens give the same
//! token, whatever else runs. No generator is carried along: each position's number is a hash of (seed,
//! position).

use std::collections::HashMap;

use switchbox_kernels::pointwise::argmax;

/// Tokens whose probability is below e^-24 of the best one's are never drawn: together they weigh less than
/// one in 200,000 even in a vocabulary of 100,000, and leaving them out spares the sort.
const NEGLIGIBLE: f32 = 24.0;

/// How to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; above, logits are divided by it.
    pub temperature: f32,
    /// Only the most likely tokens whose probabilities reach this sum are drawn from; 1 takes all.
    pub top_p: f32,
    /// Only this many of the most likely tokens are drawn from; 0 takes all.
    pub top_k: u32,
    /// Subtracted from a token's logit for each time that it was generated.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if it was generated.
    pub presence_penalty: f32,
    /// Fixes the choices.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// Chooses one sequence's tokens.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// How often each token was generated; kept only for penalties.
    counts: HashMap<u32, u32>,
    generated: u64,
    penalised: Vec<f32>,
}

impl Sampler {
    /// For a sequence that has generated nothing yet.
    pub fn new(sampling: Sampling) -> Sampler {
        Sampler { sampling, counts: HashMap::new(), generated: 0, penalised: Vec::new() }
    }

    /// The next token for `logits: [vocab]`; `None` if none of them is a finite number.
    pub fn next(&mut self, logits: &[f32]) -> Option<u32> {
        let has_penalties = self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0;
        let token = if has_penalties {
            self.penalised.clear();
            self.penalised.extend_from_slice(logits);
            for (token, count) in &self.counts {
                let frequency = self.sampling.frequency_penalty * *count as f32;
                self.penalised[*token as usize] -= frequency + self.sampling.presence_penalty;
            }
            self.choose(&self.penalised)?
        } else {
            self.choose(logits)?
        };
        self.generated += 1;
        if has_penalties {
            *self.counts.entry(token).or_default() += 1;
        }
        Some(token)
    }

    fn choose(&self, logits: &[f32]) -> Option<u32> {
        let best = argmax(logits);
        let max = logits.get(best).copied().filter(|max| max.is_finite())?;
        let Sampling { temperature, top_p, top_k, seed, .. } = self.sampling;
        if temperature <= 0.0 || top_k == 1 {
            return Some(best as u32);
        }
        let mut candidates: Vec<(u32, f64)> = (0u32..)
            .zip(logits)
            .filter(|(_, logit)| max - **logit < NEGLIGIBLE * temperature)
            .map(|(token, logit)| (token, f64::from((logit - max) / temperature).exp()))
            .collect();
        if top_p < 1.0 || top_k > 0 {
            narrow(&mut candidates, top_p, top_k);
        }
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = uniform(seed, self.generated) * total;
        for (token, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return Some(*token);
            }
        }
        // Rounding may leave a crumb: it belongs to the last one.
        candidates.last().map(|(token, _)| *token)
    }
}

/// Keeps the likeliest: at most `top_k` (0: any number), as few as reach `top_p` of the sum, at least one.
fn narrow(candidates: &mut Vec<(u32, f64)>, top_p: f32, top_k: u32) {
    candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if top_k > 0 {
        candidates.truncate(top_k as usize);
    }
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut reached = 0.0;
    let enough = candidates.iter().position(|(_, weight)| {
        reached += weight;
        reached >= f64::from(top_p) * total
    });
    candidates.truncate(enough.map_or(candidates.len(), |n| n + 1));
}

/// A number in [0, 1) for a position: two rounds of splitmix64 over seed and position.
fn uniform(seed: u64, position: u64) -> f64 {
    let bits = splitmix(splitmix(seed).wrapping_add(position));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 1.0, 2.0, 1.0, f32::NEG_INFINITY];

    fn draw(sampling: Sampling, n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..n).map(|_| sampler.next(&LOGITS).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(draw(Sampling::default(), 3), [2, 2, 2]);
        assert_eq!(Sampler::new(Sampling::default()).next(&[3.0, 3.0]), Some(0));
        assert_eq!(Sampler::new(Sampling::default()).next(&[f32::NAN, 1.0]), Some(1));
        for bad in [&[f32::NAN, f32::NAN][..], &[f32::INFINITY], &[]] {
            assert_eq!(Sampler::new(Sampling { temperature: 1.0, ..Sampling::default() }).next(bad), None);
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let n = 40_000;
        let drawn = draw(Sampling { temperature: 1.0, seed: 7, ..Sampling::default() }, n);
        let total: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
        for (token, logit) in LOGITS.iter().enumerate() {
            let expected = f64::from(*logit).exp() / total;
            let found = drawn.iter().filter(|t| **t == token as u32).count() as f64 / n as f64;
            assert!((found - expected).abs() < 0.01, "token {token}: {found} for {expected}");
        }
    }

    #[test]
    fn the_seed_fixes_the_choice() {
        let at = |seed| draw(Sampling { temperature: 1.5, seed, ..Sampling::default() }, 50);
        assert_eq!(at(1), at(1));
        assert_ne!(at(1), at(2));
    }

    #[test]
    fn top_p_and_top_k_cut_the_tail() {
        let base = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let only = |sampling| {
            let mut tokens = draw(sampling, 500);
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        // Softmax: 0.072, 0.197, 0.534, 0.197.
        assert_eq!(only(Sampling { top_p: 0.5, ..base }), [2]);
        assert_eq!(only(Sampling { top_p: 0.7, ..base }), [1, 2]);
        assert_eq!(only(Sampling { top_p: 0.9, ..base }), [1, 2, 3]);
        assert_eq!(only(Sampling { top_p: 0.0, ..base }), [2]);
        assert_eq!(only(Sampling { top_k: 2, ..base }), [1, 2]);
        assert_eq!(only(base), [0, 1, 2, 3]);
    }

    #[test]
    fn penalties_push_repeats_down() {
        assert_eq!(draw(Sampling { presence_penalty: 1.5, ..Sampling::default() }, 4), [2, 1, 3, 2]);
        assert_eq!(draw(Sampling { frequency_penalty: 0.6, ..Sampling::default() }, 4), [2, 2, 1, 3]);
    }
}
