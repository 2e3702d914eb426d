//! Lanes whose jobs may have to move to another model, and how far each of them was looked through: a few jobs a tick,
//! in turns.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::backlog::Position;
use super::names::LaneKey;

/// Lanes to look through.
#[derive(Debug)]
pub(super) struct Deserted<P = Position> {
    lanes: BTreeMap<LaneKey, Sweep<P>>,
    /// Whose turn was last.
    last: Option<LaneKey>,
}

/// How far a lane was looked through.
#[derive(Debug)]
struct Sweep<P> {
    /// The last job that was looked at.
    after: Option<P>,
    /// Something changed meanwhile: once more from the beginning.
    again: bool,
}

impl<P> Default for Deserted<P> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), last: None }
    }
}

impl<P> Default for Sweep<P> {
    fn default() -> Self {
        Self { after: None, again: false }
    }
}

impl<P: Copy> Deserted<P> {
    /// All jobs of a lane are to be looked at as things are now.
    pub(super) fn look_at(&mut self, lane: LaneKey) {
        let sweep = self.lanes.entry(lane).or_default();
        sweep.again = sweep.after.is_some();
    }

    /// The lane whose turn it is, and the job that was looked at last there.
    pub(super) fn next(&mut self) -> Option<(LaneKey, Option<P>)> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.lanes.range((after, Bound::Unbounded)).next();
        let (lane, sweep) = later.or_else(|| self.lanes.first_key_value())?;
        self.last = Some(*lane);
        Some((*lane, sweep.after))
    }

    /// A lane was looked through so far; with `None`, to its end.
    pub(super) fn looked(&mut self, lane: LaneKey, after: Option<P>) {
        let Some(sweep) = self.lanes.get_mut(&lane) else { return };
        match (after, sweep.again) {
            (None, false) => drop(self.lanes.remove(&lane)),
            (None, true) => *sweep = Sweep::default(),
            (Some(_), _) => sweep.after = after,
        }
    }

    /// There is no such lane any more.
    pub(super) fn forget(&mut self, lane: LaneKey) {
        self.lanes.remove(&lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(at: u32) -> LaneKey {
        LaneKey::from(at)
    }

    #[test]
    fn lanes_take_turns() {
        let mut deserted = Deserted::<u32>::default();
        [3, 5].map(lane).into_iter().for_each(|lane| deserted.look_at(lane));
        let at = 7;
        for turn in [3, 5, 3, 5] {
            assert_eq!(deserted.next().map(|(lane, _)| lane), Some(lane(turn)));
            deserted.looked(lane(turn), Some(at));
        }
        assert_eq!(deserted.next(), Some((lane(3), Some(at))));
        deserted.looked(lane(3), None);
        deserted.forget(lane(5));
        assert_eq!(deserted.next(), None);
    }

    #[test]
    fn what_comes_during_a_sweep_is_seen_by_another() {
        let mut deserted = Deserted::<u32>::default();
        deserted.look_at(lane(1));
        let at = 7;
        deserted.looked(lane(1), Some(at));
        deserted.look_at(lane(1));
        assert_eq!(deserted.next(), Some((lane(1), Some(at))), "it doesn't begin anew at each arrival");
        deserted.looked(lane(1), None);
        assert_eq!(deserted.next(), Some((lane(1), None)));
        deserted.looked(lane(1), None);
        assert_eq!(deserted.next(), None);
    }
}
