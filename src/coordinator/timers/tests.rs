//! The wheel against an ordered set, crowds in one bucket, jumps of years, and how fast it is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;
const YEAR: u64 = 365 * 86_400 * SECOND;

#[derive(Debug, Clone)]
enum Act {
    /// So much after now (or before, if negative).
    Set(i64),
    /// One of those that are set.
    Clear(usize),
    /// Time passes, and everything due is taken.
    Pass(u64),
    /// Time passes, and only so many are taken.
    PassAndTake(u64, usize),
}

fn spans() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..40_000_u64,
        3 => 0..10 * SECOND,
        2 => 0..4_000 * SECOND,
        1 => 0..30 * YEAR,
        1 => (0..9_u32, 0..3_u64).prop_map(|(level, off)| (64_u64.pow(level) * 10_000).saturating_add(off)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => spans().prop_map(|span| Act::Set(span as i64)),
        1 => (0..20_000_i64).prop_map(|span| Act::Set(-span)),
        2 => any::<prop::sample::Index>().prop_map(|at| Act::Clear(at.index(1 << 16))),
        3 => spans().prop_map(Act::Pass),
        1 => (spans(), 0..5_usize).prop_map(|(span, most)| Act::PassAndTake(span, most)),
    ]
}

/// A wheel beside an ordered set.
struct Pair {
    wheel: Timers<u32>,
    model: BTreeSet<(Time, u32)>,
    keys: Vec<Option<TimerKey>>,
    now: Time,
    /// What the last one fired at, in ticks, as the wheel orders: those of the past count as of then.
    last: u64,
}

impl Pair {
    fn new(now: Time) -> Self {
        let wheel = Timers::starting_at(now);
        Self { wheel, model: BTreeSet::new(), keys: Vec::new(), now, last: 0 }
    }

    fn set(&mut self, at: Time) {
        let number = self.keys.len() as u32;
        self.keys.push(Some(self.wheel.set(at, number)));
        self.model.insert((at, number));
    }

    fn clear(&mut self, choice: usize) {
        if self.model.is_empty() {
            return;
        }
        let (at, number) = *self.model.iter().nth(choice % self.model.len()).expect("within the length");
        self.model.remove(&(at, number));
        let key = self.keys[number as usize].take().expect("it is set");
        assert_eq!(self.wheel.at(key), at);
        self.wheel.clear(key);
        assert!(!self.wheel.is_set(key));
    }

    fn take(&mut self, most: usize) {
        for _ in 0..most {
            let Some((at, number)) = self.wheel.due(self.now) else {
                let overdue = self.model.first().filter(|(at, _)| tick_after(*at) <= tick_before(self.now));
                assert_eq!(overdue, None, "is overdue at {:?}", self.now);
                return;
            };
            assert!(at <= self.now, "early: {at:?} at {:?}", self.now);
            assert!(self.model.remove(&(at, number)), "fired but not set: {number}");
            let key = self.keys[number as usize].take().expect("it is set");
            assert!(!self.wheel.is_set(key), "a key is stale once its timer has fired");
            let tick = tick_after(at).max(self.last);
            assert!(tick_after(at) >= self.last || self.wheel.current == self.last, "out of order: {at:?}");
            self.last = tick.max(self.wheel.current);
        }
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Set(span) if span < 0 => self.set(Time(self.now.0.saturating_sub(span.unsigned_abs()))),
            Act::Set(span) => self.set(Time(self.now.0.saturating_add(span.unsigned_abs()))),
            Act::Clear(choice) => self.clear(choice),
            Act::Pass(span) => {
                self.now.0 = self.now.0.saturating_add(span);
                self.take(usize::MAX);
            }
            Act::PassAndTake(span, most) => {
                self.now.0 = self.now.0.saturating_add(span);
                self.take(most);
            }
        }
        assert_eq!(self.wheel.len(), self.model.len());
        assert_eq!(self.wheel.check(), Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn it_fires_what_an_ordered_set_would(start in 0..60 * YEAR, acts in prop::collection::vec(act(), 1..120)) {
        let mut pair = Pair::new(Time(start));
        acts.into_iter().for_each(|act| pair.perform(act));
        pair.now = Time(u64::MAX);
        pair.take(usize::MAX);
        prop_assert_eq!(pair.wheel.len(), 0);
    }
}

#[test]
fn the_end_of_time_is_a_time() {
    let mut pair = Pair::new(Time(0));
    [u64::MAX, u64::MAX - 1, 0, 1, u64::MAX / 2].into_iter().for_each(|at| pair.set(Time(at)));
    pair.now = Time(u64::MAX / RESOLUTION_US * RESOLUTION_US - 1);
    pair.take(usize::MAX);
    assert_eq!(pair.wheel.len(), 2, "the last tick hasn't begun");
    assert_eq!(pair.wheel.check(), Vec::<String>::new());
}

#[test]
#[should_panic(expected = "isn't set")]
fn a_stale_key_is_noticed() {
    let mut wheel = Timers::starting_at(Time(0));
    let key = wheel.set(Time(5), 'a');
    wheel.clear(key);
    wheel.set(Time(5), 'b');
    wheel.clear(key);
}

/// Ticks from `now` on, `each` timers at most a tick; answers with what fired, and how late in ticks at most.
fn run(wheel: &mut Timers<u32>, mut now: Time, ticks: u64, each: usize) -> (usize, u64) {
    let (mut fired, mut latest) = (0, 0);
    for _ in 0..ticks {
        now.0 += RESOLUTION_US;
        let before = wheel.moves_left;
        for _ in 0..each {
            let Some((at, _)) = wheel.due(now) else { break };
            assert!(at <= now);
            fired += 1;
            latest = latest.max(tick_before(now) - tick_after(at));
        }
        assert!(wheel.moves_left <= before.max(MOVED_PER_TICK_MAX));
    }
    (fired, latest)
}

#[test]
fn a_crowd_in_a_far_bucket_is_moved_down_before_its_time() {
    let start = Time(60 * YEAR);
    let mut wheel = Timers::starting_at(start);
    // 300,000 over 50 s that begin in ten minutes: 60 a tick, within what a caller takes. Set in no order of
    // time, so that moving the first ones of a bucket isn't enough.
    for n in 0..300_000_u32 {
        wheel.set(Time(start.0 + 600 * SECOND + u64::from(n * 7_919 % 300_000) * 166), n);
    }
    let (fired, latest) = run(&mut wheel, start, 65_100, 1_000);
    assert_eq!((fired, latest, wheel.len()), (300_000, 0, 0));
}

#[test]
fn all_at_once_fire_as_fast_as_they_are_taken() {
    let start = Time(60 * YEAR);
    let mut wheel = Timers::starting_at(start);
    for n in 0..300_000_u32 {
        wheel.set(Time(start.0 + 100 * SECOND), n);
    }
    let (fired, latest) = run(&mut wheel, start, 10_299, 1_000);
    assert_eq!((fired, latest, wheel.len()), (300_000, 299, 0));
}

#[test]
fn after_a_jump_all_that_is_due_fires_and_nothing_else() {
    let start = Time(60 * YEAR);
    let mut wheel = Timers::starting_at(Time(0));
    for n in 0..50_000_u32 {
        wheel.set(Time(start.0 + u64::from(n) * 40_000), n);
    }
    let now = Time(start.0 + 1_000 * SECOND);
    let (fired, _) = run(&mut wheel, now, 60, 1_000);
    let due = (1_000 * SECOND + 60 * RESOLUTION_US) / 40_000 + 1;
    assert_eq!(fired as u64, due, "of those between the jump's ends");
    assert_eq!(wheel.check(), Vec::<String>::new());
}

fn longest_tick(wheel: &mut Timers<u32>, mut now: Time, ticks: u64) -> (usize, Duration) {
    let (mut fired, mut longest) = (0, Duration::ZERO);
    for _ in 0..ticks {
        now.0 += RESOLUTION_US;
        let before = Instant::now();
        fired += (0..1_000).map_while(|_| wheel.due(now)).count();
        longest = longest.max(before.elapsed());
    }
    (fired, longest)
}

#[test]
#[ignore = "a measurement: run it with --release -- --ignored --nocapture"]
#[allow(clippy::print_stdout)]
fn speed_at_a_million() {
    const JOBS: u32 = 1_000_000;
    let start = Time(60 * YEAR);
    let mut wheel = Timers::starting_at(start);
    let at = |n: u32| Time(start.0 + 600 * SECOND + u64::from(n.wrapping_mul(7_919) % JOBS) * 100);
    let begin = Instant::now();
    let keys: Vec<TimerKey> = (0..JOBS).map(|n| wheel.set(at(n), n)).collect();
    println!("set: {:?}", begin.elapsed() / JOBS);
    let begin = Instant::now();
    keys.iter().step_by(2).for_each(|key| wheel.clear(*key));
    println!("clear: {:?}", begin.elapsed() * 2 / JOBS);
    println!(
        "half a million over 100 s (fired, longest tick): {:?}",
        longest_tick(&mut wheel, start, 72_000)
    );
    for n in 0..JOBS {
        wheel.set(Time(start.0 + 800 * SECOND), n);
    }
    let at_once = longest_tick(&mut wheel, Time(start.0 + 720 * SECOND), 9_100);
    println!("a million at once (fired, longest tick): {at_once:?}, left {}", wheel.len());
}
