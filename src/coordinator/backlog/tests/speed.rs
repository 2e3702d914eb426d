//! What a decision costs at sizes that no box will see. It reports and asserts nothing about time:
//! `cargo test --release -p switchbox --lib backlog -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

/// Small and repeatable.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

#[derive(Debug, Clone, Copy)]
struct Size {
    jobs: u64,
    lanes: u64,
    namespaces: u64,
    lanes_of_node: usize,
    /// The largest cost in tokens; 1 for equal costs, which makes every start a tie.
    cost_max: u64,
    /// Lanes in which a namespace waits.
    spread: u64,
}

struct Filled {
    size: Size,
    backlog: Backlog,
    jobs: Jobs,
    places: Vec<Option<Place>>,
    dice: Dice,
    made: u64,
}

impl Filled {
    fn new(size: Size) -> Self {
        let mut backlog = Backlog::new(Span::from_secs(3_600));
        for at in 0..size.lanes {
            let home = home(Environment::Mainnet, at as u32 / 4);
            lane(&mut backlog, home, Some(at as u32 % 4));
        }
        let (jobs, places, dice) = (Jobs::new(), Vec::new(), Dice(0x9E37_79B9_7F4A_7C15));
        let mut filled = Self { size, backlog, jobs, places, dice, made: 0 };
        for of in 0..size.namespaces {
            filled.backlog.set_weight(namespace(of as u32), 1 + of as u32 % 8);
        }
        (0..size.jobs).for_each(|_| filled.insert());
        filled
    }

    fn insert(&mut self) {
        let of = self.dice.below(self.size.namespaces);
        let lane = (of * 7 + self.dice.below(self.size.spread)) % self.size.lanes;
        self.insert_into(of, lane);
    }

    fn insert_into(&mut self, of: u64, lane: u64) {
        let number = self.places.len() as u64;
        self.made += 1;
        let arrival = Arrival {
            key: self.jobs.make(number),
            lane: LaneKey::from(lane as u32),
            tier: if self.made.is_multiple_of(4) { Tier::Batch } else { Tier::Standard },
            namespace: namespace(of as u32),
            sequence: self.made,
            stamp: None,
            waited: Span(0),
        };
        self.places.push(Some(self.backlog.insert(arrival, Time(self.made))));
    }

    /// Nanoseconds of a selection, of its dispatch and of an insert in the same place, in the mean; and the longest
    /// selection with its dispatch.
    fn measure(&mut self, rounds: u32) -> [u64; 4] {
        let [mut select, mut dispatch, mut insert, mut longest] = [0; 4];
        let nodes = self.size.lanes.div_ceil(self.size.lanes_of_node as u64);
        for _ in 0..rounds {
            let first = self.dice.below(nodes) * self.size.lanes_of_node as u64;
            let lanes: Vec<LaneKey> = (first..self.size.lanes.min(first + self.size.lanes_of_node as u64))
                .map(|lane| LaneKey::from(lane as u32))
                .collect();
            let cost = 1 + self.dice.below(self.size.cost_max);
            let begin = Instant::now();
            let found = self.backlog.select(&lanes, None, Time(self.made), |_, _| Suit::Yes);
            let selected = begin.elapsed();
            let Selection::Job { key, charged } = found else { panic!("{found:?} among many jobs") };
            let place = self.places[self.jobs.0[key] as usize].take().expect("it waits");
            let begin = Instant::now();
            self.backlog.dispatch(&place, charged, cost, Time(self.made));
            let dispatched = begin.elapsed();
            let begin = Instant::now();
            self.insert_into(place.namespace.index() as u64, place.lane.index() as u64);
            insert += begin.elapsed().as_nanos() as u64;
            select += selected.as_nanos() as u64;
            dispatch += dispatched.as_nanos() as u64;
            longest = longest.max((selected + dispatched).as_nanos() as u64);
        }
        [select, dispatch, insert]
            .map(|total| total / u64::from(rounds))
            .into_iter()
            .chain([longest])
            .collect::<Vec<_>>()
            .try_into()
            .expect("four")
    }
}

#[test]
#[ignore = "a report, for release builds"]
fn what_a_decision_costs() {
    let base =
        Size { jobs: 1_000_000, lanes: 50, namespaces: 1_000, lanes_of_node: 4, cost_max: 4_000, spread: 50 };
    let sizes = [
        base,
        Size { cost_max: 1, ..base },
        Size { spread: 2, ..base },
        Size { lanes: 500, spread: 500, ..base },
        Size { lanes: 500, spread: 2, ..base },
        Size { lanes: 500, spread: 500, lanes_of_node: 500, ..base },
        Size { lanes: 1, spread: 1, lanes_of_node: 1, ..base },
        Size { lanes: 1, spread: 1, lanes_of_node: 1, namespaces: 1, ..base },
        Size { jobs: 1_000, ..base },
    ];
    eprintln!("select / dispatch / insert, ns in the mean; longest select + dispatch, ns");
    for size in sizes {
        let mut filled = Filled::new(size);
        let clock = {
            let begin = Instant::now();
            for _ in 0..100_000 {
                std::hint::black_box(Instant::now());
            }
            begin.elapsed().as_nanos() as u64 / 100_000
        };
        let first = filled.measure(2_000);
        eprintln!(
            "{size:?}\n  first: {first:?}, then: {:?} (the clock itself: {clock})",
            filled.measure(200_000)
        );
    }
}

/// What an operator's pause costs in lanes and namespaces; no job is walked.
#[test]
#[ignore = "a report, for release builds"]
fn what_a_pause_costs() {
    let spread = Size {
        jobs: 1_000_000,
        lanes: 500,
        namespaces: 1_000,
        lanes_of_node: 4,
        cost_max: 4_000,
        spread: 500,
    };
    let mut backlog = Filled::new(spread).backlog;
    let scopes =
        [Scope::Model(ModelKey::from(1)), Scope::Namespace(namespace(1)), Scope::Tier(Tier::Standard)];
    for scope in scopes {
        let begin = Instant::now();
        backlog.pause(scope, Time(2_000_000));
        let paused = begin.elapsed();
        backlog.resume(scope, Time(2_000_001));
        eprintln!("{scope:?}: pause {paused:?}, resume {:?}", begin.elapsed() - paused);
    }
    assert_eq!(backlog.check(), Vec::<String>::new());
}
