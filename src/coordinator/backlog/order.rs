//! The namespaces of one tier in the order of their virtual starts, searchable by lane.
//!
//! One order serves all lanes, because virtual time belongs to the namespace: a dispatch moves one entry, however
//! many lanes the namespace waits in. Entries stand in blocks, and each block knows the lanes its namespaces wait
//! in, so that a search passes over what it has no use for. Which lanes these are may be overstated (a set is
//! folded, and a removal doesn't narrow it), never understated; a search that was misled mends the block.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::super::names::{LaneKey, NamespaceKey};
use super::flow::FlowKey;

const WORDS: usize = 8;
/// Lanes that a set tells apart; beyond them, lanes share places.
pub(super) const LANES_EXACT_MAX: usize = WORDS * 64;
const BLOCK_ENTRIES_MAX: usize = 32;

/// A set of lanes, folded: what it holds is in it, what is in it may not be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LaneSet([u64; WORDS]);

impl LaneSet {
    pub(super) fn insert(&mut self, lane: LaneKey) {
        self.0[lane.index() / 64 % WORDS] |= 1 << (lane.index() % 64);
    }

    pub(super) fn contains(&self, lane: LaneKey) -> bool {
        self.0[lane.index() / 64 % WORDS] & 1 << (lane.index() % 64) != 0
    }

    pub(super) fn unite(&mut self, other: &LaneSet) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine |= others;
        }
    }

    pub(super) fn meets(&self, other: &LaneSet) -> bool {
        self.0.iter().zip(other.0).fold(0, |met, (mine, others)| met | mine & others) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The same in one word, with more lanes to a place.
    fn folded(&self) -> u64 {
        self.0.iter().fold(0, |all, word| all | word)
    }
}

/// Where a namespace stands: by virtual start, then by the oldest job it has in any lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) start: u64,
    pub(super) sequence: u64,
    pub(super) namespace: NamespaceKey,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    rank: Rank,
    lanes: u64,
}

#[derive(Debug)]
struct Block {
    /// The rank of the last entry, here so that a search for a block stays within the blocks.
    last: Rank,
    entries: Vec<Entry>,
    lanes: LaneSet,
}

impl Block {
    fn new(entries: Vec<Entry>, lanes: LaneSet) -> Self {
        let last = entries.last().expect("a block has entries").rank;
        Self { last, entries, lanes }
    }

    fn place(&self, rank: Rank) -> usize {
        self.entries.partition_point(|entry| entry.rank < rank)
    }
}

/// All namespaces of a tier that have a job to offer.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: Vec<Block>,
}

/// What a search asks of a namespace.
pub(super) trait Offers {
    /// The lanes in which it waits.
    fn lanes(&self, namespace: NamespaceKey) -> &LaneSet;
    /// The oldest job that the search may have of it: its sequence, and the flow it is in.
    fn first(&self, namespace: NamespaceKey) -> Option<(u64, FlowKey)>;
    /// Whether the search is beyond that one.
    fn is_passed(&self, found: &Found) -> bool;
    /// Once it is, the same as `first` of the namespace whose flow that is.
    fn after(&self, flow: FlowKey) -> Option<(u64, FlowKey)>;
}

impl Order {
    pub(super) fn insert(&mut self, rank: Rank, lanes: &LaneSet) {
        let entry = Entry { rank, lanes: lanes.folded() };
        if self.blocks.is_empty() {
            self.blocks.push(Block::new(vec![entry], *lanes));
            return;
        }
        let at = self.block_of(rank).min(self.blocks.len() - 1);
        let block = &mut self.blocks[at];
        block.entries.insert(block.place(rank), entry);
        block.last = block.last.max(rank);
        block.lanes.unite(lanes);
        if block.entries.len() > BLOCK_ENTRIES_MAX {
            self.split(at);
        }
    }

    pub(super) fn remove(&mut self, rank: Rank) {
        let (at, place) = self.find(rank);
        let block = &mut self.blocks[at];
        block.entries.remove(place);
        match block.entries.last() {
            None => drop(self.blocks.remove(at)),
            Some(last) => {
                block.last = last.rank;
                self.join(at);
            }
        }
    }

    /// Tells that the lanes of a namespace are these now.
    pub(super) fn relane(&mut self, rank: Rank, lanes: &LaneSet) {
        let (at, place) = self.find(rank);
        self.blocks[at].entries[place].lanes = lanes.folded();
        self.blocks[at].lanes.unite(lanes);
    }

    fn block_of(&self, rank: Rank) -> usize {
        self.blocks.partition_point(|block| block.last < rank)
    }

    fn find(&self, rank: Rank) -> (usize, usize) {
        let at = self.block_of(rank);
        let place = self.blocks.get(at).map_or(0, |block| block.place(rank));
        let found = self.blocks.get(at).and_then(|block| block.entries.get(place));
        assert!(found.is_some_and(|entry| entry.rank == rank), "{rank:?} is not in the order");
        (at, place)
    }

    fn split(&mut self, at: usize) {
        let block = &mut self.blocks[at];
        let (mut lower, lanes) = (std::mem::take(&mut block.entries), block.lanes);
        let upper = lower.split_off(BLOCK_ENTRIES_MAX / 2);
        self.blocks[at] = Block::new(lower, lanes);
        self.blocks.insert(at + 1, Block::new(upper, lanes));
    }

    /// Joins a block with the next where both are nearly empty.
    fn join(&mut self, at: usize) {
        let next = self.blocks.get(at + 1).map_or(BLOCK_ENTRIES_MAX, |next| next.entries.len());
        if self.blocks[at].entries.len() + next <= BLOCK_ENTRIES_MAX / 2 {
            let next = self.blocks.remove(at + 1);
            let block = &mut self.blocks[at];
            block.last = next.last;
            block.entries.extend(next.entries);
            block.lanes.unite(&next.lanes);
        }
    }

    /// The smallest (start, sequence) that these lanes offer and that isn't passed, among namespaces that start at
    /// `from` or later. A search that has begun goes on from where it is.
    ///
    /// A rank's sequence is that of the namespace's oldest job in *any* lane, so among equal starts the search
    /// goes on for as long as that could still be smaller than what was found.
    pub(super) fn first(
        &mut self,
        reach: &LaneSet,
        from: u64,
        offers: &impl Offers,
        progress: &mut Progress,
    ) -> Option<Found> {
        progress.leave_passed(offers);
        let begin = || self.blocks.partition_point(|block| block.last.start < from);
        let mut at = *progress.block.get_or_insert_with(begin);
        while let Some(block) = self.blocks.get(at) {
            let Some(entry) = block.entries.get(progress.entry) else {
                if !progress.is_met {
                    self.narrow(at, offers);
                }
                at += 1;
                progress.enter(at);
                continue;
            };
            if is_past(entry, progress.best()) {
                break;
            }
            if progress.entry == 0 && !block.lanes.meets(reach) {
                at += 1;
                progress.enter(at);
                continue;
            }
            progress.entry += 1;
            let Rank { start, namespace, .. } = entry.rank;
            if entry.lanes & reach.folded() == 0 || !offers.lanes(namespace).meets(reach) {
                continue;
            }
            progress.is_met = true;
            if start >= from {
                progress.take(start, offers.first(namespace));
            }
        }
        progress.best()
    }

    fn narrow(&mut self, at: usize, offers: &impl Offers) {
        let block = &mut self.blocks[at];
        block.lanes = LaneSet::default();
        for entry in &block.entries {
            block.lanes.unite(offers.lanes(entry.rank.namespace));
        }
    }

    /// All ranks in order, for recounts.
    pub(super) fn ranks(&self) -> impl Iterator<Item = Rank> {
        self.blocks.iter().flat_map(|block| block.entries.iter().map(|entry| entry.rank))
    }

    /// What a search relies on, said of each namespace that breaks it.
    pub(super) fn faults(&self, offers: &impl Offers) -> Vec<String> {
        let mut faults = Vec::new();
        for block in &self.blocks {
            let sizes: Range<usize> = 1..BLOCK_ENTRIES_MAX + 1;
            if !sizes.contains(&block.entries.len()) {
                faults.push(format!("a block of the order has {} entries", block.entries.len()));
            }
            if block.entries.last().map(|entry| entry.rank) != Some(block.last) {
                faults.push(format!("a block of the order ends elsewhere than at {:?}", block.last));
            }
            for entry in &block.entries {
                let lanes = offers.lanes(entry.rank.namespace);
                let mut all = block.lanes;
                all.unite(lanes);
                if entry.lanes != lanes.folded() || all != block.lanes {
                    faults.push(format!("the order doesn't know the lanes of {:?}", entry.rank));
                }
            }
        }
        faults
    }
}

/// What a search found: the virtual start, the job's sequence, and the flow it is in.
pub(super) type Found = (u64, u64, FlowKey);

/// How far a search has come: the namespaces it has met, by the first job that it may have of each.
///
/// Good while nothing of the order or of what its namespaces offer changes, but for what is passed.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The block it is in, once it has begun.
    block: Option<usize>,
    /// The next entry there.
    entry: usize,
    /// Whether an entry of that block waits in a lane that is asked for.
    is_met: bool,
    found: BinaryHeap<Reverse<Found>>,
}

impl Progress {
    /// Begins anew.
    pub(super) fn reset(&mut self) {
        self.enter(0);
        self.block = None;
        self.found.clear();
    }

    fn best(&self) -> Option<Found> {
        self.found.peek().map(|Reverse(found)| *found)
    }

    fn enter(&mut self, block: usize) {
        (self.block, self.entry, self.is_met) = (Some(block), 0, false);
    }

    fn take(&mut self, start: u64, first: Option<(u64, FlowKey)>) {
        self.found.extend(first.map(|(sequence, flow)| Reverse((start, sequence, flow))));
    }

    /// Instead of each that was passed, the next of its namespace.
    fn leave_passed(&mut self, offers: &impl Offers) {
        while let Some((start, _, flow)) = self.best().filter(|found| offers.is_passed(found)) {
            self.found.pop();
            self.take(start, offers.after(flow));
        }
    }
}

/// Whether nothing from this entry on could be before what was found.
fn is_past(entry: &Entry, best: Option<Found>) -> bool {
    best.is_some_and(|(start, sequence, _)| (entry.rank.start, entry.rank.sequence) >= (start, sequence))
}
