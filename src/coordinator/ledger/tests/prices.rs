//! The price table against a look through all rules.

use proptest::prelude::*;

use super::super::super::event::Tier;
use super::*;
use crate::credits::Price;
use crate::ids::ModelName;

const DEFAULT: Price = Price::uncached(0, 0);

fn rule(model: Option<&str>, tier: Option<Tier>, environment: Option<Environment>, from: u64) -> PriceRule {
    let price = Price::uncached(from + 1, 1);
    PriceRule { environment, model: model.map(ModelName::from), tier, from: Time(from), price }
}

fn rules() -> impl Strategy<Value = PriceRule> {
    let model = prop::sample::select(vec![None, Some("m"), Some("n")]);
    let tier =
        prop::sample::select(vec![None, Some(Tier::Realtime), Some(Tier::Batch), Some(Tier::Background)]);
    let environment =
        prop::sample::select(vec![None, Some(Environment::Mainnet), Some(Environment::Testnet)]);
    (model, tier, environment, 0..6_u64, any::<u64>()).prop_map(|(model, tier, environment, from, price)| {
        PriceRule { price: Price::uncached(price, 1), ..rule(model, tier, environment, from) }
    })
}

fn is_for_the_same(a: &PriceRule, b: &PriceRule) -> bool {
    (&a.model, a.tier, a.environment, a.from) == (&b.model, b.tier, b.environment, b.from)
}

fn look_through(rules: &[PriceRule], environment: Environment, model: &str, tier: Tier, at: Time) -> Price {
    let fits = |rule: &&PriceRule| {
        rule.from <= at
            && rule.environment.is_none_or(|of| of == environment)
            && rule.tier.is_none_or(|of| of == tier)
            && rule.model.as_deref().is_none_or(|of| of == model)
    };
    let rank = |rule: &&PriceRule| {
        (rule.model.is_some(), rule.tier.is_some(), rule.environment.is_some(), rule.from)
    };
    rules.iter().filter(fits).max_by_key(rank).map_or(DEFAULT, |rule| rule.price)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_price_is_that_of_the_most_specific_rule_in_force(
        acts in prop::collection::vec((rules(), prop::bool::weighted(0.8)), 0..60),
    ) {
        let (mut table, mut plain) = (PriceTable::new(DEFAULT), Vec::<PriceRule>::new());
        for (rule, adds) in acts {
            let before = plain.len();
            plain.retain(|old| !is_for_the_same(old, &rule));
            if adds {
                table.set(&rule).expect("there is room");
                plain.push(rule);
            } else {
                prop_assert_eq!(table.remove(&rule), plain.len() < before);
            }
            prop_assert_eq!(table.check(), Vec::<String>::new());
            prop_assert_eq!((table.len(), table.is_empty()), (plain.len(), plain.is_empty()));
        }
        prop_assert!(table.rules().all(|rule| plain.contains(&rule)));
        for at in (0..7).map(Time) {
            for (model, tier) in ["m", "n", "o"].iter().flat_map(|m| Tier::ALL.map(|tier| (*m, tier))) {
                for environment in [Environment::Mainnet, Environment::Testnet] {
                    let price = table.price_at(environment, &model.into(), tier, at);
                    prop_assert_eq!(price, look_through(&plain, environment, model, tier, at));
                }
            }
        }
    }
}

#[test]
fn there_are_so_many_rules_and_no_more() {
    let mut table = PriceTable::new(DEFAULT);
    for from in 0..PRICE_RULES_MAX as u64 {
        table.set(&rule(Some("m"), None, None, from)).expect("there is room");
    }
    let refused = table.set(&rule(Some("n"), None, None, 0)).expect_err("it is full");
    assert_eq!(refused.to_string(), "there are 10000 price rules, as many as there may be");
    let again = PriceRule { price: DEFAULT, ..rule(Some("m"), None, None, 3) };
    table.set(&again).expect("one that is there can be replaced");
    assert_eq!(table.price_at(Environment::Mainnet, &"m".into(), Tier::Batch, Time(3)), DEFAULT);
    assert!(table.remove(&again));
    table.set(&rule(Some("n"), None, None, 0)).expect("there is room again");
    assert_eq!(table.check(), Vec::<String>::new());
}
