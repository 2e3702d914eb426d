//! Credits: integers in micro-credits, and prices. Values only; who owes whom is the ledger's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of micro-credits; negative where an account owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Credits(pub i64);

impl Credits {
    /// Nothing.
    pub const ZERO: Credits = Credits(0);
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:06}", self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000)
    }
}

/// What one million tokens cost, in micro-credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Price {
    /// Per 1,000,000 prompt tokens that had to be computed.
    pub input: u64,
    /// Per 1,000,000 prompt tokens that were found in a prefix cache.
    pub cached_input: u64,
    /// Per 1,000,000 generated tokens.
    pub output: u64,
}

/// Token counts that a price is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Tokens of the prompt, cached ones included.
    pub input: u32,
    /// Of those, the ones found in a prefix cache; what exceeds `input` doesn't count.
    pub cached_input: u32,
    /// Tokens generated.
    pub output: u32,
}

impl Price {
    /// A price without a discount for cached input.
    pub const fn uncached(input: u64, output: u64) -> Self {
        Self { input, cached_input: input, output }
    }

    /// Cost of a job, rounded up to a whole micro-credit; saturates at the largest amount.
    pub fn cost_of(&self, tokens: Tokens) -> Credits {
        let cached = tokens.cached_input.min(tokens.input);
        let exact = u128::from(self.input) * u128::from(tokens.input - cached)
            + u128::from(self.cached_input) * u128::from(cached)
            + u128::from(self.output) * u128::from(tokens.output);
        Credits(i64::try_from(exact.div_ceil(1_000_000)).unwrap_or(i64::MAX))
    }

    /// Cost of a job none of whose input was cached.
    pub fn cost(&self, input_tokens: u32, output_tokens: u32) -> Credits {
        self.cost_of(Tokens { input: input_tokens, cached_input: 0, output: output_tokens })
    }

    /// The most that a job of this size can cost, whatever turns out to be cached.
    pub fn worst_cost(&self, input_tokens: u32, output_tokens_max: u32) -> Credits {
        let dearest = Price { input: self.input.max(self.cached_input), ..*self };
        dearest.cost(input_tokens, output_tokens_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_rounds_up_and_saturates() {
        let price = Price::uncached(1_000_000, 2_000_001);
        assert_eq!(price.cost(3, 0), Credits(3));
        assert_eq!(price.cost(0, 1), Credits(3));
        let dear = Price::uncached(u64::MAX, u64::MAX);
        assert_eq!(dear.cost(u32::MAX, u32::MAX), Credits(i64::MAX));
        assert_eq!(Credits(-1_500_000).to_string(), "-1.500000");
    }

    #[test]
    fn cached_input_has_a_price_of_its_own() {
        let price = Price { input: 4_000_000, cached_input: 1_000_000, output: 8_000_000 };
        let cost = |input, cached_input, output| price.cost_of(Tokens { input, cached_input, output }).0;
        assert_eq!(cost(10, 0, 1), 48);
        assert_eq!(cost(10, 4, 1), 36);
        assert_eq!(cost(10, 10, 0), 10);
        assert_eq!(cost(10, 99, 0), 10, "no more than the whole prompt is cached");
    }

    #[test]
    fn the_worst_case_covers_a_cache_that_costs_more() {
        let odd = Price { input: 1_000_000, cached_input: 3_000_000, output: 0 };
        for cached_input in 0..=5 {
            assert!(odd.cost_of(Tokens { input: 5, cached_input, output: 7 }) <= odd.worst_cost(5, 7));
        }
        assert_eq!(odd.worst_cost(5, 7), Credits(15));
    }
}
