//! What namespaces get under saturation, against what their weights entitle them to, while they are backlogged.

use super::speed::Dice;
use super::*;

const NAMESPACES: usize = 20;
const NODES: usize = 4;
/// It submits a hundred times as much as any other.
const GREEDY: usize = 0;
/// It can only run on the last node.
const RARE: usize = 19;
/// Those from here to `RARE` come and go.
const FITFUL: usize = 12;

/// A saturated box of four nodes, counted in tokens.
struct Market {
    backlog: Backlog,
    jobs: Jobs,
    places: Vec<(Place, usize, u64)>,
    lanes: [LaneKey; 2],
    waiting: [u64; NAMESPACES],
    served: [u64; NAMESPACES],
    /// In thousandths of a token.
    entitled: [u64; NAMESPACES],
    dice: Dice,
}

fn weight(of: usize) -> u64 {
    1 + (of as u64 * 3) % 8
}

/// Tokens of a job, 10 to 1,000 by namespace.
fn size(of: usize) -> u64 {
    [10, 1_000, 30, 300, 100][of % 5]
}

impl Market {
    fn new() -> Self {
        let mut backlog = Backlog::new(Span::from_secs(60));
        let lanes = [0, 1].map(|shape| lane(&mut backlog, home(Environment::Mainnet, 0), Some(shape)));
        for of in 0..NAMESPACES {
            backlog.set_weight(namespace(of as u32), weight(of) as u32);
        }
        Self {
            backlog,
            jobs: Jobs::new(),
            places: Vec::new(),
            lanes,
            waiting: [0; NAMESPACES],
            served: [0; NAMESPACES],
            entitled: [0; NAMESPACES],
            dice: Dice(0x2545_F491_4F6C_DD1D),
        }
    }

    fn submit(&mut self, of: usize, count: u64) {
        for _ in 0..count {
            let number = self.places.len() as u64;
            let arrival = Arrival {
                key: self.jobs.make(number),
                lane: self.lanes[usize::from(of == RARE)],
                tier: Tier::Standard,
                namespace: namespace(of as u32),
                sequence: number,
                stamp: None,
                waited: Span(0),
            };
            let expected = size(of) / 2 + self.dice.below(size(of));
            self.places.push((self.backlog.insert(arrival, Time(0)), of, expected));
        }
        self.waiting[of] += count;
    }

    /// A node takes a job and is busy for its tokens.
    fn serve(&mut self, node: usize) -> u64 {
        let lanes = if node == NODES - 1 { &self.lanes[..] } else { &self.lanes[..1] };
        let Selection::Job { key, charged } = self.backlog.select(lanes, None, Time(0), |_, _| Suit::Yes)
        else {
            panic!("the greedy one always waits")
        };
        let (place, of, expected) = self.places[self.jobs.0[key] as usize];
        self.backlog.dispatch(&place, charged, expected, Time(0));
        let actual = 1 + self.dice.below(expected);
        let overcharged = expected as i64 - actual as i64;
        self.backlog.carry(Environment::Mainnet, Tier::Standard, place.namespace, -overcharged);
        self.count(of, actual);
        actual
    }

    fn count(&mut self, of: usize, tokens: u64) {
        let backlogged = |of: &usize| self.waiting[*of] > 0;
        let weights: u64 = (0..NAMESPACES).filter(backlogged).map(weight).sum();
        for backlogged in (0..NAMESPACES).filter(backlogged) {
            self.entitled[backlogged] += tokens * 1_000 * weight(backlogged) / weights;
        }
        self.served[of] += tokens;
        self.waiting[of] -= 1;
    }

    fn refill(&mut self, burst: u64) {
        for of in (0..NAMESPACES).filter(|of| *of != GREEDY) {
            let is_fitful = (FITFUL..RARE).contains(&of);
            match (self.waiting[of], is_fitful) {
                (0..20, false) => self.submit(of, 20),
                // Some seconds of work, and then nothing until the dice say so.
                (0, true) if self.dice.below(400) == 0 => self.submit(of, burst * 1_000 / size(of)),
                _ => {}
            }
        }
    }
}

/// Jain's index in thousandths.
fn jain(shares: &[u64]) -> u128 {
    let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
    let squares: u128 = shares.iter().map(|share| u128::from(*share) * u128::from(*share)).sum();
    sum * sum * 1_000 / (shares.len() as u128 * squares)
}

#[test]
fn shares_follow_weights_whatever_is_submitted() {
    let mut market = Market::new();
    market.submit(GREEDY, 200_000);
    let mut free_at = [0; NODES];
    for _ in 0..100_000 {
        market.refill(50);
        let node = (0..NODES).min_by_key(|node| free_at[*node]).expect("there are nodes");
        free_at[node] += market.serve(node);
    }
    let shares: Vec<u64> = market
        .served
        .iter()
        .zip(market.entitled)
        .map(|(served, entitled)| served * 1_000_000 / entitled)
        .collect();
    let index = jain(&shares);
    assert!(index >= 950, "Jain's index is {index} thousandths; tokens per entitlement: {shares:?}");
    let fitful = &market.served[FITFUL..RARE];
    assert!(fitful.iter().all(|served| *served > 0), "those that come and go came: {fitful:?}");
}

#[test]
fn the_index_tells_unfair_shares() {
    assert_eq!(jain(&[7; 20]), 1_000);
    assert!(jain(&[&[14_u64; 10][..], &[7; 10][..]].concat()) < 950);
}
