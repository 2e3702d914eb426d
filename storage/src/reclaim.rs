//! Moves the payloads that are still referred to out of a segment that is mostly dead, so that it can go.
//!
//! They are appended again in ordinary groups, with their rows, by whoever holds the writer; a row that changed
//! meanwhile is left alone. The old segment goes when the rows' new places are in the state store.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use crate::error::Result;
use crate::journal::rows::Rows;
use crate::journal::scan;
use crate::journal::segment::Segment;
use crate::row::{Key, PayloadRef, Stored};
use crate::store::Shared;

/// Bytes of payloads that one group moves: commits wait for it.
const MOVE_BYTES: usize = 1 << 20;

/// A payload that a row refers to.
struct Survivor {
    key: Key,
    at: PayloadRef,
}

impl Shared {
    /// Moves the survivors of one segment, if one is less than half live.
    pub(crate) fn move_survivors(&self) -> Result<()> {
        let live = self.rows.applied().live;
        let mostly_dead = |segment: &Segment| {
            live.get(&segment.number).is_some_and(|live| live.saturating_mul(2) < segment.bytes)
        };
        let old = self.journal.up_to(self.trim_group()?);
        let wanted = |segment: &Segment| mostly_dead(segment) && !self.emptied().contains(&segment.number);
        match old.into_iter().find(wanted) {
            Some(segment) => {
                // Once is enough: no new row can refer to it.
                self.emptied().insert(segment.number);
                self.empty(&segment)
            }
            None => Ok(()),
        }
    }

    fn emptied(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.counters.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self, segment: &Segment) -> Result<()> {
        let mut batch: Vec<(Survivor, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for survivor in self.survivors(segment)? {
            let payload = self.journal.payload(survivor.at)?;
            bytes += payload.len();
            batch.push((survivor, payload));
            if bytes >= MOVE_BYTES {
                self.move_batch(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        self.move_batch(batch)
    }

    /// What rows refer to in a segment.
    fn survivors(&self, segment: &Segment) -> Result<Vec<Survivor>> {
        let mut survivors = Vec::new();
        scan::read_segment(&self.journal.dir, segment, &mut |frame| {
            for (key, stored) in frame.changes()? {
                if let Some(Stored::Payload(at)) = stored
                    && self.rows.read(&key)? == Some(Stored::Payload(at))
                {
                    survivors.push(Survivor { key, at });
                }
            }
            Ok(())
        })?;
        Ok(survivors)
    }

    fn move_batch(&self, batch: Vec<(Survivor, Vec<u8>)>) -> Result<()> {
        let mut writer = self.writer();
        let mut rows = Rows::default();
        for (Survivor { key, at }, payload) in &batch {
            // Nobody else appends while the writer is held, so what is read now is what is replaced.
            if self.rows.read(key)? == Some(Stored::Payload(*at)) {
                rows.put_payload(key, payload);
            }
        }
        if !rows.is_empty() {
            self.counters.moved_bytes.fetch_add(rows.payloads.len() as u64, Ordering::Relaxed);
            self.append(&mut writer, None, rows);
        }
        Ok(())
    }
}
