//! Jobs by sequence, in one piece of memory: they come at the end and leave at the front, nearly always.
//!
//! A job that leaves from the middle of many leaves a gap; gaps are closed before they are an eighth, so that no
//! walk is much longer than the jobs it finds. It is never first or last a gap.

use std::collections::VecDeque;

use super::super::slab::Key;
use super::flow::Offer;

/// Jobs that are moved at most, to close a gap at once.
const MOVES_MAX: usize = 64;

/// A job that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) key: Key,
    /// The flow's clock when it began to wait, in microseconds.
    pub(super) since: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    sequence: u64,
    since: u64,
    /// `None` for a gap.
    key: Option<Key>,
}

impl Slot {
    fn offer(&self) -> Option<Offer> {
        Some(Offer { sequence: self.sequence, key: self.key? })
    }
}

/// Jobs by sequence.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    slots: VecDeque<Slot>,
    gaps: usize,
}

impl Fifo {
    /// Lets a job in, wherever its sequence belongs.
    pub(super) fn insert(&mut self, sequence: u64, job: Waiting) {
        let slot = Slot { sequence, since: job.since, key: Some(job.key) };
        if self.slots.back().is_none_or(|last| last.sequence < sequence) {
            self.slots.push_back(slot);
            return;
        }
        let place = self.place(sequence);
        let there = &mut self.slots[place];
        if there.sequence != sequence {
            self.slots.insert(place, slot);
            return;
        }
        assert!(there.key.is_none(), "sequence {sequence} waits twice");
        *there = slot;
        self.gaps -= 1;
    }

    /// Takes a job out.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<Waiting> {
        let place = self.place(sequence);
        let slot = self.slots.get_mut(place).filter(|slot| slot.sequence == sequence)?;
        let job = Waiting { key: slot.key.take()?, since: slot.since };
        if place.min(self.slots.len() - place) <= MOVES_MAX {
            self.slots.remove(place);
        } else {
            self.gaps += 1;
        }
        self.close_gaps();
        Some(job)
    }

    pub(super) fn get(&self, sequence: u64) -> Option<Waiting> {
        let slot = self.slots.get(self.place(sequence)).filter(|slot| slot.sequence == sequence)?;
        Some(Waiting { key: slot.key?, since: slot.since })
    }

    pub(super) fn first(&self) -> Option<Offer> {
        self.slots.front().and_then(Slot::offer)
    }

    /// The first job after that sequence.
    pub(super) fn after(&self, sequence: u64) -> Option<Offer> {
        self.iter_after(Some(sequence)).next()
    }

    /// All jobs after that sequence.
    pub(super) fn iter_after(&self, sequence: Option<u64>) -> impl Iterator<Item = Offer> {
        let is_before = |slot: &Slot| sequence.is_some_and(|sequence| slot.sequence <= sequence);
        let begin = self.slots.partition_point(is_before);
        self.slots.range(begin..).filter_map(Slot::offer)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.gaps
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Offer> {
        self.slots.iter().filter_map(Slot::offer)
    }

    /// The first slot of this sequence or a larger one; nearly always the very first.
    fn place(&self, sequence: u64) -> usize {
        match self.slots.front() {
            Some(first) if first.sequence >= sequence => 0,
            _ => self.slots.partition_point(|slot| slot.sequence < sequence),
        }
    }

    fn close_gaps(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.key.is_none()) {
            self.slots.pop_front();
            self.gaps -= 1;
        }
        while self.slots.back().is_some_and(|slot| slot.key.is_none()) {
            self.slots.pop_back();
            self.gaps -= 1;
        }
        if self.gaps > self.slots.len() / 8 {
            self.slots.retain(|slot| slot.key.is_some());
            self.gaps = 0;
        }
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// What it relies on, said where it doesn't hold.
    pub(super) fn faults(&self) -> Vec<String> {
        let gaps = self.slots.iter().filter(|slot| slot.key.is_none()).count();
        let ends = [self.slots.front(), self.slots.back()];
        let mut faults = Vec::new();
        if gaps != self.gaps || ends.into_iter().flatten().any(|slot| slot.key.is_none()) {
            faults.push(format!("a queue counts {} gaps of {gaps}, or ends in one", self.gaps));
        }
        if !self.slots.iter().is_sorted_by(|before, after| before.sequence < after.sequence) {
            faults.push("a queue is out of sequence".to_owned());
        }
        faults
    }
}
