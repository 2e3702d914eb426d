//! What a model costs, by tier and environment, from which date on. The price in force at acceptance is the
//! job's: nothing here reaches back to a job.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::super::event::{Environment, Tier};
use crate::credits::Price;
use crate::ids::ModelName;
use crate::time::Time;

/// Rules in all.
pub const PRICE_RULES_MAX: usize = 10_000;
/// One column a tier, one for rules of any tier.
const TIERS: usize = Tier::ALL.len() + 1;
/// One row an environment, one for rules of any.
const ENVIRONMENTS: usize = 3;
/// Lists of prices that are kept to be shared.
const LISTS_SHARED_MAX: usize = 1_024;

/// A price with what it is for; what it doesn't name it is for all of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceRule {
    /// Only in this world.
    pub environment: Option<Environment>,
    /// Only for this model.
    pub model: Option<ModelName>,
    /// Only in this tier.
    pub tier: Option<Tier>,
    /// From when on.
    pub from: Time,
    /// The price.
    pub price: Price,
}

/// There are `PRICE_RULES_MAX` rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceRulesFull;

impl fmt::Display for PriceRulesFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {PRICE_RULES_MAX} price rules, as many as there may be")
    }
}

/// The rules for one model, or for all: for each tier and environment by date.
#[derive(Debug, Default)]
struct Sheet([[Vec<(Time, Price)>; ENVIRONMENTS]; TIERS]);

/// All prices.
#[derive(Debug)]
pub struct PriceTable {
    default: Price,
    of_model: BTreeMap<ModelName, Sheet>,
    of_any: Sheet,
    len: usize,
    /// What jobs have lately been priced at.
    lists: BTreeSet<Arc<[Price]>>,
}

impl PriceTable {
    /// A table without rules: everything has the default price.
    pub fn new(default: Price) -> Self {
        Self { default, of_model: BTreeMap::new(), of_any: Sheet::default(), len: 0, lists: BTreeSet::new() }
    }

    /// Adds a rule; one for the same things from the same time on replaces the one before.
    pub fn set(&mut self, rule: &PriceRule) -> Result<(), PriceRulesFull> {
        let full = self.len >= PRICE_RULES_MAX;
        let new = self.dated(rule).is_none_or(|dated| position(dated, rule.from).is_err());
        if full && new {
            return Err(PriceRulesFull);
        }
        let sheet = match &rule.model {
            Some(model) => self.of_model.entry(model.clone()).or_default(),
            None => &mut self.of_any,
        };
        let dated = &mut sheet.0[column(rule.tier)][row(rule.environment)];
        match position(dated, rule.from) {
            Ok(at) => dated[at].1 = rule.price,
            Err(at) => dated.insert(at, (rule.from, rule.price)),
        }
        self.len += usize::from(new);
        Ok(())
    }

    /// Takes out the rule for the same things from the same time on, whatever its price; says whether there
    /// was one.
    pub fn remove(&mut self, rule: &PriceRule) -> bool {
        let sheet = match &rule.model {
            Some(model) => self.of_model.get_mut(model),
            None => Some(&mut self.of_any),
        };
        let dated = sheet.map(|sheet| &mut sheet.0[column(rule.tier)][row(rule.environment)]);
        let found = dated.and_then(|dated| Some((position(dated, rule.from).ok()?, dated)));
        let Some((at, dated)) = found else { return false };
        dated.remove(at);
        self.len -= 1;
        if let Some(model) = &rule.model
            && self.of_model.get(model).is_some_and(Sheet::is_empty)
        {
            self.of_model.remove(model);
        }
        true
    }

    /// The price in force: that of the most specific rule (by model, then by tier, then by environment), of
    /// those the latest.
    pub fn price_at(&self, environment: Environment, model: &ModelName, tier: Tier, at: Time) -> Price {
        let of_model = self.of_model.get(model).and_then(|sheet| sheet.price_at(environment, tier, at));
        of_model.or_else(|| self.of_any.price_at(environment, tier, at)).unwrap_or(self.default)
    }

    /// These prices, in memory that jobs of the same prices share.
    pub(in crate::coordinator) fn shared(&mut self, prices: &[Price]) -> Arc<[Price]> {
        if let Some(list) = self.lists.get(prices) {
            return Arc::clone(list);
        }
        if self.lists.len() >= LISTS_SHARED_MAX {
            self.lists.clear();
        }
        let list: Arc<[Price]> = prices.into();
        self.lists.insert(Arc::clone(&list));
        list
    }

    /// All rules, in a fixed order.
    pub fn rules(&self) -> impl Iterator<Item = PriceRule> + '_ {
        let sheets = self.of_model.iter().map(|(model, sheet)| (Some(model), sheet));
        sheets.chain([(None, &self.of_any)]).flat_map(|(model, sheet)| {
            sheet.dated().map(move |(tier, environment, from, price)| {
                let model = model.cloned();
                PriceRule { environment, model, tier, from, price }
            })
        })
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every broken invariant in a sentence.
    pub fn check(&self) -> Vec<String> {
        let counted = self.rules().count();
        let mut violations = Vec::new();
        if counted != self.len || counted > PRICE_RULES_MAX {
            violations.push(format!("price rules: kept {}, counted {counted}", self.len));
        }
        let sheets = self.of_model.values().chain([&self.of_any]);
        if !sheets.flat_map(|sheet| sheet.0.iter().flatten()).all(|dated| dated.is_sorted_by_key(|d| d.0)) {
            violations.push("price rules aren't in order of date".to_owned());
        }
        violations
    }

    fn dated(&self, rule: &PriceRule) -> Option<&Vec<(Time, Price)>> {
        let sheet = match &rule.model {
            Some(model) => self.of_model.get(model)?,
            None => &self.of_any,
        };
        Some(&sheet.0[column(rule.tier)][row(rule.environment)])
    }
}

impl Sheet {
    fn price_at(&self, environment: Environment, tier: Tier, at: Time) -> Option<Price> {
        let most_specific_first =
            [(Some(tier), Some(environment)), (Some(tier), None), (None, Some(environment)), (None, None)];
        most_specific_first.into_iter().find_map(|(tier, environment)| {
            let dated = &self.0[column(tier)][row(environment)];
            let begun = dated.partition_point(|(from, _)| *from <= at);
            Some(dated[begun.checked_sub(1)?].1)
        })
    }

    fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(Vec::is_empty)
    }

    fn dated(&self) -> impl Iterator<Item = (Option<Tier>, Option<Environment>, Time, Price)> + '_ {
        let tiers = Tier::ALL.into_iter().map(Some).chain([None]);
        let environments = [Some(Environment::Mainnet), Some(Environment::Testnet), None];
        let places = tiers.flat_map(move |tier| environments.map(|environment| (tier, environment)));
        places.flat_map(|(tier, environment)| {
            let dated = &self.0[column(tier)][row(environment)];
            dated.iter().map(move |(from, price)| (tier, environment, *from, *price))
        })
    }
}

fn position(dated: &[(Time, Price)], from: Time) -> Result<usize, usize> {
    dated.binary_search_by_key(&from, |(from, _)| *from)
}

fn column(tier: Option<Tier>) -> usize {
    match tier {
        Some(Tier::Realtime) => 0,
        Some(Tier::Standard) => 1,
        Some(Tier::Batch) => 2,
        Some(Tier::Background) => 3,
        None => 4,
    }
}

fn row(environment: Option<Environment>) -> usize {
    match environment {
        Some(Environment::Mainnet) => 0,
        Some(Environment::Testnet) => 1,
        None => 2,
    }
}
