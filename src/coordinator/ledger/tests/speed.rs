//! How long the hot paths take, with 1,000 namespaces and 10,000 nodes.

use std::hint::black_box;
use std::time::Instant;

use super::super::super::event::Tier;
use super::*;
use crate::credits::Price;
use crate::ids::ModelName;

const JOBS: usize = 1_000_000;

#[test]
#[ignore = "a measurement: run it with --release -- --ignored --nocapture"]
#[allow(clippy::print_stdout)]
fn speed_of_holds_and_settlements() {
    let mut ledger = Ledger::default();
    let payers: Vec<Account> = (0..1_000).map(|n| of_namespace(&format!("namespace-{n}"))).collect();
    let nodes: Vec<NodeId> = (0..10_000).map(node).collect();
    for payer in &payers {
        ledger.set_line(payer, CreditLine::Unlimited).expect("a payer has a line");
    }
    let payer = |n: usize| &payers[n * 7_919 % payers.len()];
    let begin = Instant::now();
    (0..JOBS).for_each(|n| ledger.hold(payer(n), Credits(100)).expect("it can pay"));
    println!("hold: {:?}", begin.elapsed() / JOBS as u32);
    let begin = Instant::now();
    for n in 0..JOBS {
        let split = Split { node: Some(&nodes[n * 104_729 % nodes.len()]), fee_ppm: 50_000 };
        let (environment, owner) = (Environment::Mainnet, &payer(n).owner);
        let (held, cost, at) = (Credits(100), Credits(60), Time(1));
        black_box(ledger.settle(Settlement {
            job: job(1),
            environment,
            payer: owner,
            held,
            cost,
            split,
            at,
        }));
    }
    println!("settle: {:?}", begin.elapsed() / JOBS as u32);
    assert_eq!(ledger.check(), Vec::<String>::new());
}

#[test]
#[ignore = "a measurement: run it with --release -- --ignored --nocapture"]
#[allow(clippy::print_stdout)]
fn speed_of_prices() {
    let mut table = PriceTable::new(Price::uncached(1, 1));
    let models: Vec<ModelName> = (0..1_000).map(|n| format!("vendor/model-{n}").into()).collect();
    for (n, model) in models.iter().cycle().take(PRICE_RULES_MAX).enumerate() {
        let (tier, from) = (Tier::ALL.get(n % 5).copied(), Time(n as u64));
        let (environment, price) = (None, Price::uncached(1, 1));
        let rule = PriceRule { environment, model: Some(model.clone()), tier, from, price };
        table.set(&rule).expect("there is room");
    }
    let begin = Instant::now();
    for n in 0..JOBS {
        let model = &models[n * 7_919 % models.len()];
        black_box(table.price_at(Environment::Mainnet, model, Tier::ALL[n % 4], Time(n as u64)));
    }
    println!("price_at: {:?}", begin.elapsed() / JOBS as u32);
}
