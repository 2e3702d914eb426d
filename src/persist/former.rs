//! Mirrors of former versions that lack fields of today: what they mean without them. They are read and never written.

use serde::{Deserialize, Serialize};

use super::mirror::{Mirror, Unfit};
use super::records::{AccountV1, WeightsV1};
use crate::coordinator::ledger::Balance;
use crate::coordinator::standing::{PenaltyRules, Quality};
use crate::credits::Credits;
use crate::time::Span;

/// A balance that doesn't say what was folded into it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BalanceV1 {
    account: AccountV1,
    balance: Credits,
}

impl Mirror<Balance> for BalanceV1 {
    fn of(core: &Balance) -> Self {
        Self { account: Mirror::of(&core.account), balance: core.balance }
    }
    fn back(self) -> Result<Balance, Unfit> {
        Ok(Balance { account: self.account.back()?, balance: self.balance, folded: None })
    }
}

/// Checks, of which none was known to be a lie.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct QualityV1 {
    checks: u32,
    passed: u32,
    checks_ever: u64,
    failed_ever: u64,
}

impl Mirror<Quality> for QualityV1 {
    fn of(core: &Quality) -> Self {
        let Quality { checks, passed, checks_ever, failed_ever, lies: _ } = *core;
        Self { checks, passed, checks_ever, failed_ever }
    }
    fn back(self) -> Result<Quality, Unfit> {
        let Self { checks, passed, checks_ever, failed_ever } = self;
        Ok(Quality { checks, passed, checks_ever, failed_ever, lies: 0 })
    }
}

/// Rules that knew no proven lies.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PenaltyRulesV1 {
    weights: WeightsV1,
    success_repair: u32,
    half_life: Span,
    exclude_below: u32,
    failures_in_a_row_max: u32,
    cooldown: Span,
    cooldown_max: Span,
    forgive_after: Span,
    quality_min: u32,
    quality_checks_min: u32,
}

impl Mirror<PenaltyRules> for PenaltyRulesV1 {
    fn of(core: &PenaltyRules) -> Self {
        Self {
            weights: Mirror::of(&core.weights),
            success_repair: core.success_repair,
            half_life: core.half_life,
            exclude_below: core.exclude_below,
            failures_in_a_row_max: core.failures_in_a_row_max,
            cooldown: core.cooldown,
            cooldown_max: core.cooldown_max,
            forgive_after: core.forgive_after,
            quality_min: core.quality_min,
            quality_checks_min: core.quality_checks_min,
        }
    }
    fn back(self) -> Result<PenaltyRules, Unfit> {
        Ok(PenaltyRules {
            weights: self.weights.back()?,
            success_repair: self.success_repair,
            half_life: self.half_life,
            exclude_below: self.exclude_below,
            failures_in_a_row_max: self.failures_in_a_row_max,
            cooldown: self.cooldown,
            cooldown_max: self.cooldown_max,
            forgive_after: self.forgive_after,
            quality_min: self.quality_min,
            quality_checks_min: self.quality_checks_min,
            lies_max: PenaltyRules::default().lies_max,
        })
    }
}

/// They are drawn as what today's would be without what they lack.
#[cfg(test)]
mod drawn {
    use super::super::draw::{Draw, Source};
    use super::super::records::{PenaltyRulesV2, QualityV2};
    use super::*;

    impl Draw for QualityV1 {
        fn draw(source: &mut Source) -> Self {
            Self::of(&QualityV2::draw(source).back().expect("drawn to be one"))
        }
    }

    impl Draw for PenaltyRulesV1 {
        fn draw(source: &mut Source) -> Self {
            Self::of(&PenaltyRulesV2::draw(source).back().expect("drawn to be one"))
        }
    }
}
