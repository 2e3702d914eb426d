//! The backlog against a model that scans everything, its fairness, its lanes, and its speed.

mod fair;
mod naive;
mod properties;
mod speed;
mod stories;

use super::super::slab::{Key, Slab};
use super::*;

/// Job keys without jobs; a job is known by its number.
struct Jobs(Slab<u64>);

impl Jobs {
    fn new() -> Self {
        Self(Slab::new())
    }

    fn make(&mut self, number: u64) -> Key {
        self.0.insert(number)
    }
}

fn namespace(at: u32) -> NamespaceKey {
    NamespaceKey::from(at)
}

fn home(environment: Environment, model: u32) -> Home {
    Home { environment, model: ModelKey::from(model) }
}

/// A lane that may be new.
fn lane(backlog: &mut Backlog, home: Home, shape: Option<u32>) -> LaneKey {
    match backlog.lane(home, shape.map(super::super::names::ShapeKey::from), Time(0)) {
        LaneOf::Existing(lane) | LaneOf::Created { lane, .. } => lane,
    }
}

#[test]
fn a_queue_with_gaps_is_a_map_by_sequence() {
    let mut dice = speed::Dice(0xDA94_2042_E4DD_58B5);
    let (mut fifo, mut map, mut jobs) =
        (fifo::Fifo::default(), std::collections::BTreeMap::new(), Jobs::new());
    for round in 0..20_000 {
        let sequence = round / 4 + dice.below(1_000);
        if dice.below(10_000) < round / 2 || map.contains_key(&sequence) {
            assert_eq!(fifo.remove(sequence), map.remove(&sequence));
        } else {
            let job = Waiting { key: jobs.make(0), since: round };
            fifo.insert(sequence, job);
            map.insert(sequence, job);
        }
        let mut after = map.range(sequence + 1..).map(|(sequence, _)| *sequence);
        assert_eq!(fifo.after(sequence).map(|offer| offer.sequence), after.next());
        assert_eq!(fifo.first().map(|offer| offer.sequence), map.keys().next().copied());
        assert_eq!((fifo.len(), fifo.get(sequence)), (map.len(), map.get(&sequence).copied()));
        assert_eq!(fifo.faults(), Vec::<String>::new());
    }
    assert!(fifo.iter().map(|offer| offer.sequence).eq(map.keys().copied()));
}
