//! Every timer of the core, in a hierarchical wheel: setting and clearing take constant time at any number.
//!
//! No timer fires early; each fires within 10 ms of its time as long as the caller keeps asking. Nothing here
//! reads a clock, and no call walks more than a bounded number of timers or loops over empty buckets, however
//! many are due at once and however far time jumps.
//!
//! A level's bucket spans 64 buckets of the level below. Each level has 128 buckets, those of the current
//! bucket above and those of the next one: so the next bucket above can be moved down *before* its time comes,
//! a bounded number of timers a tick, and it is empty when its time has come. Where there were too many to
//! move, those that are due fire straight from where they are.

use crate::time::Time;

/// How finely time is told, in microseconds.
const RESOLUTION_US: u64 = 10_000;
/// Timers that are moved between levels for each new tick that `due` hears of.
pub(super) const MOVED_PER_TICK_MAX: u32 = 4_096;
const LEVEL_BITS: u32 = 6;
/// 9 levels of 6 bits reach further than the largest `Time`.
const LEVELS: usize = 9;
/// Buckets of a level: twice 64.
const BUCKETS: usize = 128;
/// Nodes of a page: memory grows by pages, for moving all timers to a larger table would take too long.
const PAGE_NODES: usize = 4_096;
/// Ends a list.
const NONE: u32 = u32::MAX;

/// Names a timer that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimerKey {
    place: u32,
    /// Counts what the place was used for, so that a key of a timer that has fired or was cleared is known.
    generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Node<T> {
    at: Time,
    what: T,
    before: u32,
    after: u32,
    /// Odd while the timer is set.
    generation: u32,
    bucket: u16,
}

/// A list of nodes, first set first.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    first: u32,
    last: u32,
}

/// Timers with what each is for.
#[derive(Debug)]
pub(super) struct Timers<T> {
    pages: Vec<Vec<Node<T>>>,
    /// Places to use again, linked by `after`: a list of its own would have to be moved when it grows.
    free: u32,
    len: usize,
    buckets: Vec<Bucket>,
    /// For each level, which buckets hold something.
    occupied: [u128; LEVELS],
    /// The tick whose bucket fires; everything before it has fired.
    current: u64,
    /// The last tick that `due` was asked for.
    asked: u64,
    /// Timers that may still be moved in this tick.
    moves_left: u32,
}

impl<T: Copy> Timers<T> {
    /// No timers, at a time near which they will be set (far from it, the first ones take longer to sort).
    pub(super) fn starting_at(now: Time) -> Self {
        Self {
            pages: Vec::new(),
            free: NONE,
            len: 0,
            buckets: vec![Bucket { first: NONE, last: NONE }; LEVELS * BUCKETS],
            occupied: [0; LEVELS],
            current: tick_before(now),
            asked: tick_before(now),
            moves_left: MOVED_PER_TICK_MAX,
        }
    }

    /// Sets a timer; one in the past is due at once.
    pub(super) fn set(&mut self, at: Time, what: T) -> TimerKey {
        let place = self.take_place(at, what);
        self.file(place);
        self.len += 1;
        TimerKey { place, generation: self.node(place).generation }
    }

    /// Clears a timer that is set, and has not fired.
    pub(super) fn clear(&mut self, key: TimerKey) {
        assert!(self.is_set(key), "the key of a timer that isn't set: {key:?}");
        self.drop_timer(key.place);
    }

    /// Whether the key's timer is still to fire.
    pub(super) fn is_set(&self, key: TimerKey) -> bool {
        let page = self.pages.get(key.place as usize / PAGE_NODES);
        let node = page.and_then(|page| page.get(key.place as usize % PAGE_NODES));
        node.is_some_and(|node| node.generation == key.generation && node.generation % 2 == 1)
    }

    /// When a timer that is set will fire.
    pub(super) fn at(&self, key: TimerKey) -> Time {
        assert!(self.is_set(key), "the key of a timer that isn't set: {key:?}");
        self.node(key.place).at
    }

    /// Takes one timer that is due: by and large the earliest.
    pub(super) fn due(&mut self, now: Time) -> Option<(Time, T)> {
        let target = tick_before(now).max(self.asked);
        if target > self.asked {
            self.asked = target;
            self.moves_left = MOVED_PER_TICK_MAX;
        }
        loop {
            self.move_down();
            if let Some(place) = self.next_due(target) {
                let Node { at, what, .. } = *self.node(place);
                self.drop_timer(place);
                return Some((at, what));
            }
            let next = self.next_occupied();
            self.current = next.unwrap_or(target).min(target).max(self.current);
            if next.is_none_or(|next| next > target) {
                return None;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut counted = 0;
        for index in 0..self.buckets.len() {
            counted += self.check_bucket(index, &mut violations);
        }
        let places: usize = self.pages.iter().map(Vec::len).sum();
        let link = |place: u32| Some(place).filter(|place| *place != NONE);
        let free = std::iter::successors(link(self.free), |place| link(self.node(*place).after));
        let (kept, free) = (self.len, free.count());
        if counted != kept || places != kept + free {
            violations.push(format!("timers: kept {kept}, counted {counted}, {places} places, {free} free"));
        }
        violations
    }

    /// Checks one bucket, and counts its timers.
    fn check_bucket(&self, index: usize, violations: &mut Vec<String>) -> usize {
        let (level, slot) = (index / BUCKETS, index % BUCKETS);
        let Bucket { first, last } = self.buckets[index];
        let (mut count, mut before, mut place) = (0, NONE, first);
        while place != NONE {
            let node = self.node(place);
            let tick = tick_after(node.at);
            let near_enough = level_of(tick.max(self.current), self.current) <= level;
            // What was set for the past, or wasn't moved down before its time, lies where the present is.
            let own_slot = slot_of(tick, level) == slot || slot_of(self.current, level) == slot;
            let linked = node.before == before && usize::from(node.bucket) == index;
            if !near_enough || !own_slot || !linked {
                violations
                    .push(format!("the timer at {place} for {:?} is misfiled in {level}/{slot}", node.at));
            }
            (count, before, place) = (count + 1, place, node.after);
        }
        if last != before || (self.occupied[level] >> slot & 1 == 1) != (first != NONE) {
            violations.push(format!("timer bucket {level}/{slot} doesn't know what it holds"));
        }
        count
    }

    fn node(&self, place: u32) -> &Node<T> {
        &self.pages[place as usize / PAGE_NODES][place as usize % PAGE_NODES]
    }

    fn node_mut(&mut self, place: u32) -> &mut Node<T> {
        &mut self.pages[place as usize / PAGE_NODES][place as usize % PAGE_NODES]
    }

    fn take_place(&mut self, at: Time, what: T) -> u32 {
        if self.free != NONE {
            let place = self.free;
            let node = self.node_mut(place);
            (node.at, node.what, node.generation) = (at, what, node.generation.wrapping_add(1));
            self.free = self.node(place).after;
            return place;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE_NODES) {
            self.pages.push(Vec::with_capacity(PAGE_NODES));
        }
        let page = self.pages.len() - 1;
        let place = page * PAGE_NODES + self.pages[page].len();
        self.pages[page].push(Node { at, what, before: NONE, after: NONE, generation: 1, bucket: 0 });
        u32::try_from(place).expect("fewer than 2^32 timers")
    }

    fn drop_timer(&mut self, place: u32) {
        self.unlink(place);
        let free = std::mem::replace(&mut self.free, place);
        let node = self.node_mut(place);
        (node.after, node.generation) = (free, node.generation.wrapping_add(1));
        self.len -= 1;
    }

    /// Links a node at the end of the bucket that its time belongs to, as seen from the current tick.
    fn file(&mut self, place: u32) {
        let tick = tick_after(self.node(place).at).max(self.current);
        let level = level_of(tick, self.current);
        let slot = slot_of(tick, level);
        let index = level * BUCKETS + slot;
        let last = std::mem::replace(&mut self.buckets[index].last, place);
        let node = self.node_mut(place);
        (node.before, node.after, node.bucket) = (last, NONE, index as u16);
        match last {
            NONE => self.buckets[index].first = place,
            last => self.node_mut(last).after = place,
        }
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, place: u32) {
        let Node { before, after, bucket, .. } = *self.node(place);
        let index = usize::from(bucket);
        match before {
            NONE => self.buckets[index].first = after,
            before => self.node_mut(before).after = after,
        }
        match after {
            NONE => self.buckets[index].last = before,
            after => self.node_mut(after).before = before,
        }
        if self.buckets[index].first == NONE {
            self.occupied[index / BUCKETS] &= !(1 << (index % BUCKETS));
        }
    }

    /// The first timer of a level's bucket that lies `ahead` buckets after the current one.
    fn first(&self, level: usize, ahead: u64) -> Option<u32> {
        let slot = ((self.current >> shift(level)) + ahead) as usize % BUCKETS;
        (self.occupied[level] >> slot & 1 == 1).then(|| self.buckets[level * BUCKETS + slot].first)
    }

    /// Moves what has come near to lower levels, the most urgent first, as far as this tick's moves reach.
    fn move_down(&mut self) {
        let near = [0, 1].into_iter().flat_map(|ahead| (1..LEVELS).map(move |level| (level, ahead)));
        for (level, ahead) in near {
            while let Some(place) = self.first(level, ahead) {
                if self.moves_left == 0 {
                    return;
                }
                self.moves_left -= 1;
                self.unlink(place);
                self.file(place);
            }
        }
    }

    /// A timer of the current tick; else one that wasn't moved down in time although it is due.
    fn next_due(&self, target: u64) -> Option<u32> {
        let is_due = |place: &u32| tick_after(self.node(*place).at) <= target;
        (0..LEVELS).find_map(|level| self.first(level, 0).filter(is_due))
    }

    /// The first tick after the current one whose bucket holds something, of whatever level.
    fn next_occupied(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_in(level)).min()
    }

    fn next_in(&self, level: usize) -> Option<u64> {
        let slot = self.current >> shift(level);
        let later = self.occupied[level].rotate_right((slot % BUCKETS as u64) as u32) & !1;
        (later != 0).then(|| (slot + u64::from(later.trailing_zeros())) << shift(level))
    }
}

/// The last tick that has begun at that time.
fn tick_before(time: Time) -> u64 {
    time.0 / RESOLUTION_US
}

/// The first tick at which that time has passed.
fn tick_after(time: Time) -> u64 {
    time.0.div_ceil(RESOLUTION_US)
}

/// By how many bits a tick exceeds the number of a level's bucket.
fn shift(level: usize) -> u32 {
    LEVEL_BITS * level as u32
}

fn slot_of(tick: u64, level: usize) -> usize {
    (tick >> shift(level)) as usize % BUCKETS
}

/// The lowest level with a bucket for that tick: the one above has it in its current bucket or in the next.
fn level_of(tick: u64, current: u64) -> usize {
    let near = |level: &usize| (tick >> shift(level + 1)) - (current >> shift(level + 1)) <= 1;
    (0..LEVELS).find(near).expect("the highest level reaches every tick")
}

#[cfg(test)]
mod tests;
