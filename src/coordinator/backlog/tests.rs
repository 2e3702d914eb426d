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
