//! Credits: integers in micro-credits, and prices. Values only; who owes whom is the ledger's.

use std::fmt;

/// An amount of micro-credits; negative where an account owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Per 1,000,000 prompt tokens.
    pub input: u64,
    /// Per 1,000,000 generated tokens.
    pub output: u64,
}

impl Price {
    /// Cost of a job, rounded up to a whole micro-credit; saturates at the largest amount.
    pub fn cost(&self, input_tokens: u32, output_tokens: u32) -> Credits {
        let exact = u128::from(self.input) * u128::from(input_tokens)
            + u128::from(self.output) * u128::from(output_tokens);
        Credits(i64::try_from(exact.div_ceil(1_000_000)).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_rounds_up_and_saturates() {
        let price = Price { input: 1_000_000, output: 2_000_001 };
        assert_eq!(price.cost(3, 0), Credits(3));
        assert_eq!(price.cost(0, 1), Credits(3));
        let dear = Price { input: u64::MAX, output: u64::MAX };
        assert_eq!(dear.cost(u32::MAX, u32::MAX), Credits(i64::MAX));
        assert_eq!(Credits(-1_500_000).to_string(), "-1.500000");
    }
}
