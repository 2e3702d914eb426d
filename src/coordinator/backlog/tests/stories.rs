//! Single rules of CORE section 5, each where it shows.

use super::super::lane::LANE_IDLE;
use super::*;
use crate::coordinator::names::ShapeKey;

const MAINNET: Environment = Environment::Mainnet;

/// A backlog with one picky and one ordinary lane, and the numbers of its jobs.
struct Story {
    backlog: Backlog,
    jobs: Jobs,
    places: Vec<Place>,
    ordinary: LaneKey,
    picky: LaneKey,
}

impl Story {
    fn new() -> Self {
        let mut backlog = Backlog::new(Span(100));
        let ordinary = lane(&mut backlog, home(MAINNET, 0), Some(0));
        let picky = lane(&mut backlog, home(MAINNET, 0), None);
        Self { backlog, jobs: Jobs::new(), places: Vec::new(), ordinary, picky }
    }

    fn insert(&mut self, lane: LaneKey, tier: Tier, of: u32) -> usize {
        self.again(lane, tier, of, None, Time(0))
    }

    fn again(&mut self, lane: LaneKey, tier: Tier, of: u32, stamp: Option<Stamp>, now: Time) -> usize {
        let number = self.places.len();
        let key = self.jobs.make(number as u64);
        let sequence = number as u64;
        let arrival = Arrival { key, lane, tier, namespace: namespace(of), sequence, stamp, waited: Span(0) };
        self.places.push(self.backlog.insert(arrival, now));
        assert_eq!(self.backlog.check(), Vec::<String>::new());
        number
    }

    fn select(&mut self, from: Option<Cursor>, now: Time, suits: impl Fn(usize) -> Suit) -> Selection {
        let lanes = [self.ordinary, self.picky];
        let numbers = &self.jobs.0;
        self.backlog.select(&lanes, from, now, |key, _| suits(numbers[key] as usize))
    }

    fn selected(&mut self, now: Time) -> Option<(usize, Tier)> {
        match self.select(None, now, |_| Suit::Yes) {
            Selection::Job { key, charged } => Some((self.jobs.0[key] as usize, charged)),
            _ => None,
        }
    }

    fn dispatch(&mut self, number: usize, charged: Tier, cost: u64) -> Stamp {
        let stamp = self.backlog.dispatch(&self.places[number], charged, cost, Time(0));
        assert_eq!(self.backlog.check(), Vec::<String>::new());
        stamp
    }
}

#[test]
fn an_aged_batch_job_runs_and_is_charged_as_standard() {
    let mut story = Story::new();
    let batch = story.insert(story.ordinary, Tier::Batch, 0);
    let standard = story.insert(story.ordinary, Tier::Standard, 1);
    assert_eq!(
        story.selected(Time(100)),
        Some((standard, Tier::Standard)),
        "it isn't older than the age yet"
    );
    assert_eq!(story.selected(Time(101)), Some((batch, Tier::Standard)), "its sequence is smaller");
    assert_eq!(story.dispatch(batch, Tier::Standard, 10), Stamp { tier: Tier::Standard, start: 0 });
    let next = story.insert(story.ordinary, Tier::Standard, 0);
    story.dispatch(standard, Tier::Standard, 1);
    let other = story.insert(story.ordinary, Tier::Standard, 1);
    assert_eq!(story.selected(Time(101)), Some((other, Tier::Standard)), "namespace 0 was charged for 10");
    story.dispatch(other, Tier::Standard, 1);
    assert_eq!(story.selected(Time(101)), Some((next, Tier::Standard)));
}

#[test]
fn who_was_paused_hides_nobody_who_came_later_and_is_older() {
    let mut story = Story::new();
    let paused = story.insert(story.ordinary, Tier::Batch, 0);
    let aged = story.insert(story.ordinary, Tier::Batch, 1);
    story.backlog.pause(Scope::Namespace(namespace(0)), Time(0));
    story.backlog.resume(Scope::Namespace(namespace(0)), Time(90));
    assert_eq!(story.selected(Time(101)), Some((aged, Tier::Standard)), "the other waited 11 only");
    story.dispatch(aged, Tier::Standard, 1);
    assert_eq!(story.selected(Time(101)), Some((paused, Tier::Batch)));
}

#[test]
fn pauses_do_not_age() {
    let scopes = [Scope::Model(ModelKey::from(0)), Scope::Namespace(namespace(0)), Scope::Tier(Tier::Batch)];
    for scope in scopes {
        let mut story = Story::new();
        let batch = story.insert(story.ordinary, Tier::Batch, 0);
        story.backlog.pause(scope, Time(60));
        assert_eq!(story.selected(Time(500)), None, "{scope:?}");
        assert_eq!(story.backlog.explain_paused(ModelKey::from(0), namespace(0), Tier::Batch), Some(scope));
        story.backlog.resume(scope, Time(1_000));
        assert_eq!(story.selected(Time(1_040)), Some((batch, Tier::Batch)), "{scope:?}");
        assert_eq!(story.selected(Time(1_041)), Some((batch, Tier::Standard)), "{scope:?}");
        assert_eq!(story.backlog.waited(&story.places[batch], Time(1_041)), Span(101));
    }
}

#[test]
fn who_was_away_has_no_claim_on_the_past() {
    let scopes = [Scope::Model(ModelKey::from(1)), Scope::Namespace(namespace(1))];
    for scope in scopes {
        let mut story = Story::new();
        let elsewhere = lane(&mut story.backlog, home(MAINNET, 1), Some(0));
        story.insert(elsewhere, Tier::Standard, 1);
        story.backlog.pause(scope, Time(0));
        for _ in 0..3 {
            let busy = story.insert(story.ordinary, Tier::Standard, 0);
            story.dispatch(busy, Tier::Standard, 10);
        }
        story.backlog.resume(scope, Time(0));
        let place = story.places[0];
        let stamp = story.backlog.dispatch(&place, Tier::Standard, 1, Time(0));
        assert_eq!(stamp.start, 2 * 10 * clock::TOKEN_SCALE, "{scope:?}: the start of the last dispatch");
    }
}

#[test]
fn a_returned_job_keeps_its_start_and_its_cost_is_given_back() {
    let mut story = Story::new();
    let lost = story.insert(story.ordinary, Tier::Standard, 0);
    let stamp = story.dispatch(lost, Tier::Standard, 1_000);
    let other = story.insert(story.ordinary, Tier::Standard, 1);
    story.dispatch(other, Tier::Standard, 1);
    story.insert(story.ordinary, Tier::Standard, 1);
    story.insert(story.ordinary, Tier::Standard, 0);
    let again = story.again(story.picky, Tier::Standard, 0, Some(stamp), Time(0));
    story.backlog.carry(MAINNET, Tier::Standard, namespace(0), -1_000);
    assert_eq!(story.selected(Time(0)), Some((again, Tier::Standard)), "it is where it was");
    assert_eq!(story.dispatch(again, Tier::Standard, 1_000), stamp);
    assert_eq!(story.selected(Time(0)).map(|(number, _)| number), Some(2), "and its namespace paid once");
}

#[test]
fn nobody_passes_a_job_that_waits_for_room() {
    let mut story = Story::new();
    let large = story.insert(story.ordinary, Tier::Standard, 0);
    story.insert(story.ordinary, Tier::Standard, 1);
    story.insert(story.ordinary, Tier::Batch, 1);
    let key = story.places[large].flow;
    assert_eq!(story.backlog.flows[key].head().map(|head| story.jobs.0[head.key]), Some(0));
    let blocked = story.select(None, Time(0), |number| if number == large { Suit::Block } else { Suit::Yes });
    let Selection::Blocked(key) = blocked else { panic!("{blocked:?}") };
    assert_eq!(story.jobs.0[key], large as u64);
}

#[test]
fn a_long_walk_goes_on_and_misses_nobody() {
    let mut story = Story::new();
    let served = story.insert(story.picky, Tier::Realtime, 0);
    story.dispatch(served, Tier::Realtime, 1);
    for _ in 0..SKIPS_MAX + 1 {
        story.insert(story.picky, Tier::Realtime, 0);
    }
    let batch = story.insert(story.ordinary, Tier::Batch, 0);
    let later = SKIPS_MAX as usize + 3;
    let suits = move |number| if number == batch || number == later { Suit::Yes } else { Suit::No };
    let Selection::Later(cursor) = story.select(None, Time(0), suits) else {
        panic!("too many for one offer")
    };
    let Selection::Job { key, charged } = story.select(Some(cursor.clone()), Time(0), suits) else {
        panic!("all realtime jobs were refused")
    };
    assert_eq!((story.jobs.0[key], charged), (batch as u64, Tier::Batch));
    // A namespace with an earlier start comes while the walk rests: it is before the cursor.
    story.insert(story.ordinary, Tier::Realtime, 1);
    let Selection::Later(top) = story.select(Some(cursor), Time(0), suits) else {
        panic!("batch may not pass a realtime job that wasn't asked")
    };
    let Selection::Job { key, .. } = story.select(Some(top), Time(0), suits) else { panic!("it suits") };
    assert_eq!(story.jobs.0[key], later as u64);
}

#[test]
fn a_walk_in_a_lower_tier_begins_again_for_a_higher_one() {
    let mut story = Story::new();
    for _ in 0..SKIPS_MAX {
        story.insert(story.picky, Tier::Batch, 0);
    }
    let batch = story.insert(story.picky, Tier::Batch, 0);
    let suits = move |number| if number >= batch { Suit::Yes } else { Suit::No };
    let Selection::Later(cursor) = story.select(None, Time(0), suits) else {
        panic!("too many for one offer")
    };
    let realtime = story.insert(story.ordinary, Tier::Realtime, 1);
    let Selection::Job { key, charged } = story.select(Some(cursor), Time(0), suits) else {
        panic!("it suits")
    };
    assert_eq!((story.jobs.0[key], charged), (realtime as u64, Tier::Realtime));
}

#[test]
fn lanes_are_bounded_and_the_idle_make_room() {
    let mut story = Story::new();
    let home = home(MAINNET, 0);
    let shape = |at: usize| Some(ShapeKey::from(at as u32));
    for at in 1..LANES_MAX {
        assert!(matches!(
            story.backlog.lane(home, shape(at), Time(at as u64)),
            LaneOf::Created { evicted: None, .. }
        ));
    }
    story.insert(story.ordinary, Tier::Batch, 0);
    assert_eq!(story.backlog.lanes_of(home).count(), LANES_MAX + 1);
    let full = LaneOf::Existing(story.picky);
    assert_eq!(
        story.backlog.lane(home, shape(LANES_MAX), Time(0) + LANE_IDLE),
        full,
        "nobody is idle for so long"
    );
    let first = story.backlog.lane(home, shape(1), Time(0));
    let LaneOf::Existing(oldest) = first else { panic!("{first:?}") };
    let room = story.backlog.lane(home, shape(LANES_MAX), Time(1) + LANE_IDLE);
    assert_eq!(room, LaneOf::Created { lane: oldest, evicted: Some(oldest) }, "the ordinary lane has a job");
    assert_eq!(story.backlog.shape_of(oldest), shape(LANES_MAX));
    assert_eq!(story.backlog.home_of(oldest), home);
    assert_eq!(story.backlog.check(), Vec::<String>::new());
}

#[test]
fn many_lanes_are_told_apart() {
    let mut story = Story::new();
    let lanes: Vec<LaneKey> =
        (0..1_200).map(|at| lane(&mut story.backlog, home(MAINNET, 1 + at / 200), Some(at % 200))).collect();
    for (at, lane) in lanes.iter().enumerate() {
        let number = story.places.len() as u64;
        let arrival = Arrival {
            key: story.jobs.make(number),
            lane: *lane,
            tier: Tier::Standard,
            namespace: namespace(at as u32 % 100),
            sequence: number,
            stamp: None,
            waited: Span(0),
        };
        story.places.push(story.backlog.insert(arrival, Time(0)));
    }
    assert_eq!(story.backlog.check(), Vec::<String>::new());
    for number in (0..lanes.len()).rev() {
        let found = story.backlog.select(&lanes[number..], None, Time(0), |_, _| Suit::Yes);
        let Selection::Job { key, .. } = found else { panic!("{found:?} for lane {number}") };
        assert_eq!(story.jobs.0[key], number as u64);
        story.backlog.dispatch(&story.places[number], Tier::Standard, 0, Time(0));
    }
    assert_eq!((story.backlog.len(), story.backlog.check()), (0, Vec::new()));
}
