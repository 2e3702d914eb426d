//! The nodes of a lane that have room, so kept that a job finds its best one among the first few.
//!
//! What a node costs a job has two parts: what is the same for every job (a share of the load, failures, a cold model)
//! and the job's tokens at the node's pace. How much each weighs depends on the job, so no single order serves a small
//! job and a large one. Here nodes stand in classes by the first part, and within a class by the second: of two in a
//! class the faster is better for nearly every job, and a job looks at the first of each class in turn.
//!
//! A place rests on the node alone, not on means over all nodes, which move with every job: places made at different
//! moments must compare, for a node is put in its place only when something about it changes. A cold load can't be
//! weighed against an attempt without such a mean, so cold nodes are a class of their own.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::super::names::NodeKey;

/// Where classes end: what a node costs every job, in thousandths of an attempt. Beyond the last is one more.
const CLASS_ENDS: [i64; 3] = [125, 500, 1_500];
/// Those, the one beyond, the class of nodes of which nothing is measured, and the cold ones.
const CLASSES: usize = CLASS_ENDS.len() + 3;
/// Nodes of which nothing is measured yet: all are as fast as the mean, so the least loaded is the best.
const UNMEASURED: u8 = 0;

/// Where a node stands among those of its lane that have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::coordinator) struct Place {
    class: u8,
    /// Within the class, the smaller the better.
    cost_us: i64,
}

impl Place {
    /// For a node whose pace was measured: `share` is what it costs every job, in thousandths of an attempt;
    /// `pace_us` what a job of a fixed size takes there.
    pub(in crate::coordinator) fn measured(share: i64, pace_us: i64) -> Self {
        let ended = CLASS_ENDS.iter().filter(|end| share > **end).count();
        Self { class: UNMEASURED + 1 + ended as u8, cost_us: pace_us }
    }

    /// For a node that must load the model first: loading, and a job of a fixed size, in microseconds.
    pub(in crate::coordinator) fn cold(cost_us: i64) -> Self {
        Self { class: CLASSES as u8 - 1, cost_us }
    }

    /// For a node of which nothing was measured: what it costs every job, in thousandths of an attempt.
    pub(in crate::coordinator) fn unmeasured(share: i64) -> Self {
        Self { class: UNMEASURED, cost_us: share }
    }
}

/// Nodes with room, in classes.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Ready {
    classes: [BTreeSet<(i64, NodeKey)>; CLASSES],
}

impl Ready {
    pub(in crate::coordinator) fn insert(&mut self, place: Place, node: NodeKey) {
        self.classes[usize::from(place.class)].insert((place.cost_us, node));
    }

    pub(in crate::coordinator) fn remove(&mut self, place: Place, node: NodeKey) {
        self.classes[usize::from(place.class)].remove(&(place.cost_us, node));
    }

    pub(in crate::coordinator) fn contains(&self, place: Place, node: NodeKey) -> bool {
        self.classes[usize::from(place.class)].contains(&(place.cost_us, node))
    }

    pub(in crate::coordinator) fn is_empty(&self) -> bool {
        self.classes.iter().all(BTreeSet::is_empty)
    }

    /// All, class after class; those after one that was had before.
    pub(in crate::coordinator) fn after(
        &self,
        last: Option<(Place, NodeKey)>,
    ) -> impl Iterator<Item = (Place, NodeKey)> {
        let from = last.map_or(0, |(place, _)| usize::from(place.class));
        (from..CLASSES).flat_map(move |class| {
            let before = last.filter(|(place, _)| usize::from(place.class) == class);
            let bound =
                before.map_or(Bound::Unbounded, |(place, node)| Bound::Excluded((place.cost_us, node)));
            let of_class = self.classes[class].range((bound, Bound::Unbounded));
            of_class.map(move |(cost_us, node)| (Place { class: class as u8, cost_us: *cost_us }, *node))
        })
    }

    /// All, one of each class in turn.
    pub(in crate::coordinator) fn in_turn(&self) -> impl Iterator<Item = NodeKey> {
        let mut of_class = self.classes.each_ref().map(BTreeSet::iter);
        let (mut turn, mut dry) = (0, 0);
        std::iter::from_fn(move || {
            while dry < CLASSES {
                let next = of_class[turn].next();
                turn = (turn + 1) % CLASSES;
                if let Some((_, node)) = next {
                    dry = 0;
                    return Some(*node);
                }
                dry += 1;
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes by number, at their places.
    fn ready(places: &[Place]) -> Ready {
        let mut ready = Ready::default();
        places.iter().enumerate().for_each(|(at, place)| ready.insert(*place, NodeKey::at(at)));
        ready
    }

    #[test]
    fn a_slow_idle_node_is_looked_at_before_the_second_of_the_fast_busy_ones() {
        let busy = |pace_us| Place::measured(400, pace_us);
        let ready = ready(&[busy(1), busy(2), busy(3), Place::measured(0, 1_000), Place::unmeasured(7)]);
        let order: Vec<usize> = ready.in_turn().map(NodeKey::index).collect();
        assert_eq!(order, [4, 3, 0, 1, 2], "each once, one of each class in turn");
    }

    #[test]
    fn whoever_goes_on_after_a_node_sees_the_rest_once() {
        let measured = |share, pace_us| Place::measured(share, pace_us);
        let ready = ready(&[measured(9_999, 1), measured(0, 5), measured(0, 5), Place::unmeasured(3)]);
        let all: Vec<_> = ready.after(None).collect();
        assert_eq!(all.iter().map(|(_, node)| node.index()).collect::<Vec<_>>(), [3, 1, 2, 0]);
        for (at, last) in all.iter().enumerate() {
            assert_eq!(ready.after(Some(*last)).collect::<Vec<_>>(), all[at + 1..]);
        }
    }
}
