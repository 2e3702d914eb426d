//! Random lives of a backlog, compared after every step with the naive model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::naive::{Job, Naive, NaiveLane};
use super::*;

const LANES: [(Environment, u32, Option<u32>); 7] = [
    (Environment::Mainnet, 0, Some(0)),
    (Environment::Mainnet, 0, Some(1)),
    (Environment::Mainnet, 0, None),
    (Environment::Mainnet, 1, Some(0)),
    (Environment::Mainnet, 1, None),
    (Environment::Testnet, 0, Some(0)),
    (Environment::Testnet, 1, None),
];
const BATCH_AGE: Span = Span(1_000);
/// One job in so many suits the node whose offers go on.
const OFFER_RARITY: u64 = 25;

#[derive(Debug, Clone)]
enum Op {
    /// `late`: with a sequence between those that were given before.
    Insert {
        lane: usize,
        tier: usize,
        namespace: u32,
        late: Option<u64>,
    },
    /// A dispatched job comes back.
    Return(usize),
    Remove(usize),
    Select {
        lanes: u8,
        rarity: u64,
        blocking: u64,
        cost: u64,
    },
    /// As `Select`, but the walk may go on after what comes between.
    Offer {
        cost: u64,
    },
    Carry {
        lane: usize,
        tier: usize,
        namespace: u32,
        tokens: i64,
    },
    Pause(usize),
    Resume(usize),
    Advance(u64),
    Weight(u32, u32),
}

fn scope(at: usize) -> Scope {
    match at {
        0..2 => Scope::Model(ModelKey::from(at as u32)),
        2..6 => Scope::Tier(Tier::ALL[at - 2]),
        _ => Scope::Namespace(namespace(at as u32 - 6)),
    }
}

fn op() -> impl Strategy<Value = Op> {
    let lane = 0..LANES.len();
    prop_oneof![
        12 => (lane.clone(), 0..4_usize, 0..5_u32, proptest::option::weighted(0.15, 0..1_000_u64))
            .prop_map(|(lane, tier, namespace, late)| Op::Insert { lane, tier, namespace, late }),
        2 => (0..100_usize).prop_map(Op::Return),
        2 => (0..100_usize).prop_map(Op::Remove),
        6 => (1..128_u8, 1..12_u64, 5..40_u64, 0..300_u64)
            .prop_map(|(lanes, rarity, blocking, cost)| Op::Select { lanes, rarity, blocking, cost }),
        3 => (0..300_u64).prop_map(|cost| Op::Offer { cost }),
        1 => (lane, 0..4_usize, 0..5_u32, -300..300_i64)
            .prop_map(|(lane, tier, namespace, tokens)| Op::Carry { lane, tier, namespace, tokens }),
        1 => (0..11_usize).prop_map(Op::Pause),
        2 => (0..11_usize).prop_map(Op::Resume),
        2 => (0..700_u64).prop_map(Op::Advance),
        1 => (0..5_u32, 1..=8_u32).prop_map(|(namespace, weight)| Op::Weight(namespace, weight)),
    ]
}

/// Long walks: many picky jobs, few of which suit, and always something new between two offers.
fn walk_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..2_usize, 0..4_usize, 0..5_u32)
            .prop_map(|(lane, tier, namespace)| Op::Insert { lane: [2, 4][lane], tier, namespace, late: None }),
        5 => (0..300_u64).prop_map(|cost| Op::Offer { cost }),
        1 => (0..100_usize).prop_map(Op::Remove),
        1 => (0..100_usize).prop_map(Op::Return),
        1 => (0..11_usize).prop_map(Op::Pause),
        2 => (0..11_usize).prop_map(Op::Resume),
    ]
}

struct World {
    backlog: Backlog,
    naive: Naive,
    lanes: Vec<LaneKey>,
    jobs: Jobs,
    places: BTreeMap<u64, Place>,
    gone: Vec<(Job, Stamp)>,
    cursor: Option<Cursor>,
    sequences: BTreeSet<u64>,
    now: Time,
    made: u64,
}

impl World {
    fn new() -> Self {
        let mut backlog = Backlog::new(BATCH_AGE);
        let homes = LANES.map(|(environment, model, shape)| (home(environment, model), shape));
        let lanes = homes.iter().map(|(home, shape)| lane(&mut backlog, *home, *shape)).collect();
        let naive = homes.iter().map(|(home, shape)| NaiveLane { home: *home, is_picky: shape.is_none() });
        Self {
            backlog,
            naive: Naive::new(naive.collect(), BATCH_AGE),
            lanes,
            jobs: Jobs::new(),
            places: BTreeMap::new(),
            gone: Vec::new(),
            cursor: None,
            sequences: BTreeSet::new(),
            now: Time(5_000_000),
            made: 0,
        }
    }

    fn file(&mut self, job: Job) {
        let arrival = Arrival {
            key: job.key,
            lane: self.lanes[job.lane],
            tier: job.tier,
            namespace: namespace(job.namespace),
            sequence: job.sequence,
            stamp: job.stamp,
            waited: job.waited,
        };
        self.places.insert(job.number, self.backlog.insert(arrival, self.now));
        self.naive.change(|naive| naive.jobs.push(job));
    }

    fn insert(&mut self, lane: usize, tier: usize, namespace: u32, late: Option<u64>) {
        self.made += 1;
        let number = self.made;
        let late = late.map(|late| late % number * 2 + 1).filter(|late| !self.sequences.contains(late));
        let sequence = late.unwrap_or(number * 2);
        self.sequences.insert(sequence);
        let key = self.jobs.make(number);
        let (stamp, aged_start, waited) = (None, None, Span(0));
        let tier = Tier::ALL[tier];
        self.file(Job { number, key, lane, tier, namespace, sequence, stamp, aged_start, waited });
    }

    fn bring_back(&mut self, at: usize) {
        if self.gone.is_empty() {
            return;
        }
        let (mut job, stamp) = self.gone.swap_remove(at % self.gone.len());
        job.stamp = Some(stamp);
        job.aged_start = (stamp.tier != job.tier).then_some(AgedStart::Returned(stamp.start));
        self.file(job);
    }

    fn remove(&mut self, at: usize) {
        let Some((number, place)) = self.places.iter().nth(at).map(|(number, place)| (*number, *place))
        else {
            return;
        };
        self.places.remove(&number);
        self.backlog.remove(&place, self.now);
        self.naive.jobs.retain(|job| job.number != number);
    }

    fn dispatch(&mut self, number: u64, charged: Tier, cost: u64) {
        let job = self.naive.job(number);
        let place = self.places.remove(&number).expect("a selected job waits");
        assert_eq!(self.backlog.waited(&place, self.now), job.waited, "the wait of {job:?}");
        let stamp = self.backlog.dispatch(&place, charged, cost, self.now);
        assert_eq!(stamp, self.naive.dispatch(number, charged, cost as i64), "the stamp of {job:?}");
        self.gone.push((job, stamp));
    }

    /// One offer without a past: it looks at what the naive model looks at, and finds the same.
    fn select(&mut self, mask: u8, rarity: u64, blocking: u64, cost: u64) {
        let asked: Vec<usize> = (0..LANES.len()).filter(|lane| mask & 1 << lane != 0).collect();
        let lanes: Vec<LaneKey> = asked.iter().map(|lane| self.lanes[*lane]).collect();
        let suits = |number: u64| match number {
            _ if number.is_multiple_of(rarity) => Suit::Yes,
            _ if number.is_multiple_of(blocking) => Suit::Block,
            _ => Suit::No,
        };
        let numbers = &self.jobs.0;
        let found = self.backlog.select(&lanes, None, self.now, |key, _| suits(numbers[key]));
        if let Selection::Later(mut cursor) = found.clone() {
            // Nothing comes between, so the walk in pieces is the whole walk.
            let whole = loop {
                match self.backlog.select(&lanes, Some(cursor), self.now, |key, _| suits(numbers[key])) {
                    Selection::Later(next) => cursor = next,
                    whole => break whole,
                }
            };
            let (expected, looks) = self.naive.select(&asked, suits);
            assert!(looks > SKIPS_MAX, "{looks} looks were too many");
            self.agree(whole, expected, cost);
        } else {
            let (expected, looks) = self.naive.select(&asked, suits);
            assert!(looks <= SKIPS_MAX, "{looks} looks were not too many");
            self.agree(found, expected, cost);
        }
    }

    fn agree(&mut self, found: Selection, expected: Option<(u64, Tier, Suit)>, cost: u64) {
        match (found, expected) {
            (Selection::Nothing, None) => {}
            (Selection::Blocked(key), Some((number, _, Suit::Block))) => assert_eq!(self.jobs.0[key], number),
            (Selection::Job { key, charged }, Some((number, tier, Suit::Yes))) => {
                assert_eq!((self.jobs.0[key], charged), (number, tier));
                self.dispatch(number, charged, cost);
            }
            (found, expected) => panic!("found {found:?} instead of {expected:?}"),
        }
    }

    /// An offer that goes on where the last one stopped. Whatever came between, nobody is passed over for a lower
    /// tier; a batch job may have become aged behind the cursor, and still counts as one.
    fn offer(&mut self, cost: u64) {
        let suits = |number: u64| if number.is_multiple_of(OFFER_RARITY) { Suit::Yes } else { Suit::No };
        let cursor = self.cursor.take();
        let numbers = &self.jobs.0;
        let found = self.backlog.select(&self.lanes, cursor, self.now, |key, _| suits(numbers[key]));
        let all: Vec<usize> = (0..LANES.len()).collect();
        let expected = self.naive.select(&all, suits).0;
        for job in &mut self.naive.jobs {
            let lane = &self.backlog.lanes[self.lanes[job.lane].index()];
            job.aged_start = lane.ages.starts.get(&job.sequence).copied();
        }
        match found {
            Selection::Later(cursor) => self.cursor = Some(cursor),
            Selection::Job { key, charged } => {
                let number = self.jobs.0[key];
                let (best, tier, _) = expected.expect("what was selected can be");
                let best = tier.max(self.naive.job(best).tier);
                assert!(best >= charged, "{charged:?} was served while a job of {best:?} could run");
                self.dispatch(number, charged, cost);
            }
            Selection::Blocked(_) => panic!("nobody blocks"),
            Selection::Nothing => {}
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Insert { lane, tier, namespace, late } => self.insert(lane, tier, namespace, late),
            Op::Return(at) => self.bring_back(at),
            Op::Remove(at) => self.remove(at),
            Op::Select { lanes, rarity, blocking, cost } => self.select(lanes, rarity, blocking, cost),
            Op::Offer { cost } => self.offer(cost),
            Op::Carry { lane, tier, namespace: of, tokens } => {
                let (environment, tier) = (LANES[lane].0, Tier::ALL[tier]);
                self.backlog.carry(environment, tier, namespace(of), tokens);
                self.naive.starts.entry((environment, tier, of)).or_default().1 += tokens;
            }
            Op::Pause(at) => {
                self.backlog.pause(scope(at), self.now);
                self.naive.paused.insert(scope(at));
            }
            Op::Resume(at) => {
                self.backlog.resume(scope(at), self.now);
                self.naive.change(|naive| naive.paused.retain(|paused| *paused != scope(at)));
            }
            Op::Advance(us) => {
                self.now = self.now + Span(us);
                self.naive.advance(Span(us));
            }
            Op::Weight(of, weight) => {
                self.backlog.set_weight(namespace(of), weight);
                self.naive.weights.insert(of, weight);
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.backlog.check(), Vec::<String>::new());
        let (backlog, naive) = (&self.backlog, &self.naive);
        assert_eq!(backlog.len(), naive.jobs.len() as u64);
        let keys: BTreeSet<Key> = backlog.keys().collect();
        assert_eq!(keys, naive.jobs.iter().map(|job| job.key).collect());
        for tier in Tier::ALL {
            for (at, lane) in self.lanes.iter().enumerate() {
                let here = |job: &Job| job.lane == at && job.tier == tier;
                assert_eq!(backlog.waiting_in_lane(*lane, tier), naive.waiting(here));
                let runnable = naive.waiting(|job| here(job) && naive.is_runnable(job));
                assert_eq!(backlog.runnable_in_lane(*lane, tier), runnable);
                let above = naive.waiting(|job| job.lane == at && job.tier <= tier && naive.is_runnable(job));
                assert_eq!(backlog.runnable_at_or_above(&[*lane], tier), above > 0);
                let home = naive.lanes[at].home;
                let of = |job: &&Job| naive.lanes[job.lane].home == home;
                let ahead = naive.waiting(|job| of(&job) && job.tier <= tier);
                assert_eq!(backlog.ahead(home, tier), ahead);
                let oldest = naive.jobs.iter().filter(of).filter(|job| job.tier == tier);
                let oldest = oldest.min_by_key(|job| job.sequence).map(|job| job.key);
                assert_eq!(backlog.oldest(home, tier), oldest);
            }
        }
        for of in 0..5 {
            assert_eq!(backlog.waiting_of(namespace(of)), naive.waiting(|job| job.namespace == of));
        }
        let viewed: u64 = backlog.views().map(|view| view.jobs).sum();
        assert_eq!(viewed, backlog.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_scan_of_everything_does(ops in proptest::collection::vec(op(), 1..300)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
            world.compare();
        }
    }

    #[test]
    fn long_walks_pass_nobody_over(ops in proptest::collection::vec(walk_op(), 100..500)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
        }
        world.compare();
    }
}
