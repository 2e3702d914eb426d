//! A map from ids (boot epoch and counter) to small values, for the tables that hold a million jobs.
//!
//! Open addressing with linear probing in fixed shards. A shard grows at once, and it is small, so that no
//! insert stops the core for long; the shards' bounds are staggered, for an even hash would otherwise bring
//! all of them to the same bound at the same moment. It never hashes with a random seed, and no decision may
//! depend on the order in which it iterates.

use std::num::NonZeroU64;

use crate::ids::{ClientId, JobId, ReservationId};

/// Bits of the hash that choose the shard.
const SHARD_BITS: u32 = 10;
const SHARDS: usize = 1 << SHARD_BITS;
/// The first table of a shard.
const SLOTS_MIN: usize = 8;
/// Counters of ids lie below this.
const COUNTER_END: u64 = 1 << 40;
/// The odd number next to 2^64 divided by the golden ratio: spreads dense counters evenly over the top bits.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// An id as the index sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EpochId {
    epoch: u32,
    counter: u64,
}

impl From<JobId> for EpochId {
    fn from(id: JobId) -> Self {
        Self { epoch: id.epoch, counter: id.counter }
    }
}

impl From<ReservationId> for EpochId {
    fn from(id: ReservationId) -> Self {
        Self { epoch: id.epoch, counter: id.counter }
    }
}

/// A client's number has no epoch: its upper bits stand for one.
impl From<ClientId> for EpochId {
    fn from(id: ClientId) -> Self {
        Self::from_bits(id.0)
    }
}

impl From<EpochId> for ClientId {
    fn from(id: EpochId) -> Self {
        Self(u64::from(id.epoch) * COUNTER_END + id.counter)
    }
}

impl EpochId {
    /// Any number as an id: its upper bits stand for the epoch.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self { epoch: (bits / COUNTER_END) as u32, counter: bits % COUNTER_END }
    }

    fn hash(self) -> u64 {
        (self.counter ^ u64::from(self.epoch).rotate_left(40)).wrapping_mul(SPREAD)
    }

    fn shard(self) -> usize {
        (self.hash() >> (64 - SHARD_BITS)) as usize
    }

    /// The slot where a search begins in a table of `slots` (a power of two).
    fn home(self, slots: usize) -> usize {
        ((self.hash() << SHARD_BITS) >> (64 - slots.trailing_zeros())) as usize
    }
}

/// Whether an id can be filed: no other was ever given, but a node may name one.
pub(super) fn is_countable(id: impl Into<EpochId>) -> bool {
    id.into().counter < COUNTER_END
}

/// A taken slot. The counter is kept one higher, so that an empty slot takes no extra room.
#[derive(Debug, Clone, Copy)]
struct Slot<V> {
    counter_after: NonZeroU64,
    epoch: u32,
    value: V,
}

impl<V: Copy> Slot<V> {
    fn id(&self) -> EpochId {
        EpochId { epoch: self.epoch, counter: self.counter_after.get() - 1 }
    }
}

#[derive(Debug, Clone)]
struct Shard<V> {
    slots: Vec<Option<Slot<V>>>,
    taken: usize,
}

/// Values by id.
#[derive(Debug)]
pub(super) struct IdIndex<V> {
    shards: Vec<Shard<V>>,
    len: usize,
}

impl<V: Copy> Default for IdIndex<V> {
    fn default() -> Self {
        Self { shards: vec![Shard { slots: Vec::new(), taken: 0 }; SHARDS], len: 0 }
    }
}

impl<V: Copy> IdIndex<V> {
    /// Files a value; answers with the one that it replaces.
    pub(super) fn insert(&mut self, id: impl Into<EpochId>, value: V) -> Option<V> {
        let id: EpochId = id.into();
        assert!(id.counter < COUNTER_END, "an id's counter is below 2^40, not {}", id.counter);
        let number = id.shard();
        let shard = &mut self.shards[number];
        if let Some(at) = shard.position(id) {
            return shard.slots[at].as_mut().map(|slot| std::mem::replace(&mut slot.value, value));
        }
        if shard.taken >= taken_max(shard.slots.len(), number) {
            shard.grow();
        }
        shard.put(Slot { counter_after: NonZeroU64::MIN.saturating_add(id.counter), epoch: id.epoch, value });
        self.len += 1;
        None
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, id: impl Into<EpochId>) -> Option<V> {
        let id: EpochId = id.into();
        let shard = &mut self.shards[id.shard()];
        let at = shard.position(id)?;
        self.len -= 1;
        shard.take(at)
    }

    /// The value of an id.
    pub(super) fn find(&self, id: impl Into<EpochId>) -> Option<V> {
        let id: EpochId = id.into();
        let shard = &self.shards[id.shard()];
        shard.position(id).and_then(|at| shard.slots[at]).map(|slot| slot.value)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values, in an order that is always the same for the same past and means nothing.
    pub(super) fn iter(&self) -> impl Iterator<Item = (EpochId, V)> + '_ {
        self.shards.iter().flat_map(|shard| shard.slots.iter().flatten()).map(|slot| (slot.id(), slot.value))
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let counted = self.iter().count();
        if counted != self.len {
            violations.push(format!("index: kept {}, counted {counted}", self.len));
        }
        for (number, shard) in self.shards.iter().enumerate() {
            let counted = shard.slots.iter().flatten().count();
            if counted != shard.taken || shard.taken > taken_max(shard.slots.len(), number) {
                violations.push(format!("index shard {number}: kept {}, counted {counted}", shard.taken));
            }
        }
        let lost = self.iter().filter(|(id, _)| self.find(*id).is_none()).count();
        if lost > 0 {
            violations.push(format!("index: {lost} ids aren't found where a search looks"));
        }
        violations
    }
}

/// How full a shard may get: between half and three quarters, another bound for each shard.
fn taken_max(slots: usize, shard: usize) -> usize {
    slots / 2 + slots * shard / (4 * SHARDS)
}

impl<V: Copy> Shard<V> {
    fn position(&self, id: EpochId) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = id.home(self.slots.len());
        while let Some(slot) = &self.slots[at] {
            if slot.id() == id {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Puts a slot whose id isn't here yet; there is room.
    fn put(&mut self, slot: Slot<V>) {
        let mut at = slot.id().home(self.slots.len());
        while self.slots[at].is_some() {
            at = self.after(at);
        }
        self.slots[at] = Some(slot);
        self.taken += 1;
    }

    /// Empties a slot and moves those behind it up, so that searches need no tombstones.
    fn take(&mut self, mut hole: usize) -> Option<V> {
        let taken = self.slots[hole].take();
        self.taken -= 1;
        let mask = self.slots.len() - 1;
        let mut at = self.after(hole);
        while let Some(slot) = self.slots[at] {
            let home = slot.id().home(self.slots.len());
            let distance_of_home = at.wrapping_sub(home) & mask;
            let distance_of_hole = at.wrapping_sub(hole) & mask;
            if distance_of_home >= distance_of_hole {
                self.slots[hole] = Some(slot);
                self.slots[at] = None;
                hole = at;
            }
            at = self.after(at);
        }
        taken.map(|slot| slot.value)
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, vec![None; slots]);
        self.taken = 0;
        before.into_iter().flatten().for_each(|slot| self.put(slot));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Insert(JobId, u32),
        Remove(JobId),
        Find(JobId),
    }

    /// Few enough that acts meet; the stride brings many ids into one shard, and so into long probes.
    fn id() -> impl Strategy<Value = JobId> {
        let counter = prop_oneof![0..200_u64, (0..60_u64).prop_map(in_shard_zero)];
        (0..3_u32, counter).prop_map(|(epoch, counter)| JobId { epoch, counter })
    }

    /// The first counter from 4,096 n whose hash falls into the first shard in epoch 0.
    fn in_shard_zero(n: u64) -> u64 {
        let in_it = |counter: &u64| EpochId { epoch: 0, counter: *counter }.shard() == 0;
        (n * 4_096..).find(in_it).expect("one in 1,024 is")
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (id(), any::<u32>()).prop_map(|(id, value)| Act::Insert(id, value)),
            2 => id().prop_map(Act::Remove),
            1 => id().prop_map(Act::Find),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn it_is_a_map(acts in prop::collection::vec(act(), 1..400)) {
            let mut model = BTreeMap::new();
            let mut index = IdIndex::default();
            for act in acts {
                match act {
                    Act::Insert(id, value) => prop_assert_eq!(index.insert(id, value), model.insert(id, value)),
                    Act::Remove(id) => prop_assert_eq!(index.remove(id), model.remove(&id)),
                    Act::Find(id) => prop_assert_eq!(index.find(id), model.get(&id).copied()),
                }
                prop_assert_eq!(index.len(), model.len());
            }
            prop_assert_eq!(index.check(), Vec::<String>::new());
            let mut all: Vec<_> = index.iter().collect();
            all.sort_unstable();
            let expected: Vec<_> = model.into_iter().map(|(id, value)| (EpochId::from(id), value)).collect();
            prop_assert_eq!(all, expected);
        }
    }

    #[test]
    fn a_shard_grows_past_many_doublings_and_shrinks_to_nothing() {
        let mut index = IdIndex::default();
        let ids: Vec<JobId> = (0..2_000).map(|n| JobId { epoch: 0, counter: in_shard_zero(n) }).collect();
        for (n, id) in ids.iter().enumerate() {
            index.insert(*id, n);
        }
        assert_eq!(index.shards[0].taken, index.len(), "all are in one shard");
        assert_eq!(index.check(), Vec::<String>::new());
        ids.iter().for_each(|id| assert!(index.remove(*id).is_some()));
        assert_eq!((index.len(), index.iter().count()), (0, 0));
        assert_eq!(index.find(JobId { epoch: u32::MAX, counter: u64::MAX }), None, "whatever is asked");
    }

    #[test]
    #[should_panic(expected = "below 2^40")]
    fn an_id_that_cannot_be_is_not_filed() {
        IdIndex::default().insert(JobId { epoch: 1, counter: COUNTER_END }, ());
    }

    fn mean(count: u64, act: impl FnMut(u64)) -> Duration {
        let begin = Instant::now();
        (0..count).for_each(act);
        begin.elapsed() / count as u32
    }

    /// Of single acts, which a preempted thread is part of.
    fn longest(count: u64, mut act: impl FnMut(u64)) -> Duration {
        let timed = |n| {
            let begin = Instant::now();
            act(n);
            begin.elapsed()
        };
        (0..count).map(timed).max().unwrap_or_default()
    }

    #[test]
    #[ignore = "a measurement: run it with --release -- --ignored --nocapture"]
    #[allow(clippy::print_stdout)]
    fn speed_at_a_million() {
        const JOBS: u64 = 1_000_000;
        let mut index = IdIndex::default();
        let id = |n: u64| JobId { epoch: 1_764_000_000, counter: n };
        let scattered = |n: u64| id(n.wrapping_mul(7_919) % JOBS);
        let insert = mean(JOBS, |n| {
            index.insert(id(n), n as u32);
        });
        let find = mean(JOBS, |n| {
            black_box(index.find(scattered(n)));
        });
        let replace = mean(JOBS, |n| {
            index.remove(scattered(n));
            index.insert(id(n + JOBS), n as u32);
        });
        println!("insert {insert:?}, find {find:?}, remove and insert {replace:?}");
        let mut index = IdIndex::default();
        let insert = longest(JOBS, |n| {
            index.insert(id(n), n as u32);
        });
        let clock = longest(JOBS, |n| {
            black_box(n);
        });
        println!("longest insert {insert:?}; of nothing at all {clock:?}");
    }
}
