//! The one who writes frames. Any error ends the process: after a failed sync nobody knows what is on disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::disk::{self, BLOCK};
use crate::journal::frame::{self, LaidOut};
use crate::journal::rows::Rows;
use crate::journal::scan::Place;
use crate::journal::segment::{Segment, VERSION};
use crate::journal::{Journal, frame::Label};
use crate::mutant::{self, Mutant};
use crate::row::RowChange;

/// The end of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Durable {
    /// The last group.
    pub(crate) group: u64,
    /// The last step's number.
    pub(crate) lsn: u64,
    /// The boot that wrote it.
    pub(crate) epoch: u64,
    /// What the wall clock said then, in milliseconds since 1970. It may have gone back.
    pub(crate) written_at: u64,
    /// The caller's time of the last step. It never goes back.
    pub(crate) at: u64,
}

impl Durable {
    /// As of a frame.
    pub(crate) fn of(head: &frame::Head) -> Self {
        let (written_at, at) = (head.written_at, head.at);
        Self { group: head.group, lsn: head.last_lsn, epoch: head.epoch, written_at, at }
    }
}

/// The steps of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    pub(crate) count: u32,
    /// The caller's time of the last one.
    pub(crate) at: u64,
}

/// Appends frames.
pub(crate) struct Writer {
    journal: Arc<Journal>,
    segment: Segment,
    file: File,
    offset: u64,
    durable: Durable,
    /// The wall clock.
    wall_ms: fn() -> u64,
}

/// A group that was written.
pub(crate) struct Written {
    pub(crate) changes: Vec<RowChange>,
    /// The frame's memory, for the next one.
    pub(crate) memory: Vec<u8>,
}

impl Writer {
    /// Goes on at `offset` of `segment`.
    pub(crate) fn new(
        journal: Arc<Journal>,
        (segment, offset): (Segment, u64),
        (durable, wall_ms): (Durable, fn() -> u64),
    ) -> crate::Result<Self> {
        let file = segment.open(&journal.dir)?;
        Ok(Self { journal, segment, file, offset, durable, wall_ms })
    }

    pub(crate) fn durable(&self) -> Durable {
        self.durable
    }

    /// Where the next frame goes.
    pub(crate) fn end(&self) -> Place {
        Place { segment: self.segment.number, offset: self.offset }
    }

    /// The boot that writes from now on.
    pub(crate) fn begin_epoch(&mut self, epoch: u64) {
        self.durable.epoch = epoch;
    }

    /// Whether a frame of so many bytes fits the segment.
    pub(crate) fn has_room(&self, frame_bytes: usize) -> bool {
        self.segment.version == VERSION
            && self.offset + disk::blocks(frame_bytes) as u64 <= self.segment.bytes
    }

    /// Goes on in the next segment.
    pub(crate) fn roll(&mut self, segment: Segment) {
        self.file = disk::or_die("a spare segment can't be opened", segment.open(&self.journal.dir));
        self.segment = segment;
        self.offset = BLOCK as u64;
    }

    /// Writes a group, for which there is room; [`Writer::sync`] must follow. Without `steps` it belongs to the step
    /// before it.
    pub(crate) fn write(&mut self, steps: Option<Steps>, rows: Rows) -> Written {
        let lsn = self.durable.lsn;
        let steps = steps.unwrap_or(Steps { first_lsn: lsn, last_lsn: lsn, count: 0, at: 0 });
        let label = Label {
            group: self.durable.group + 1,
            epoch: self.durable.epoch,
            first_lsn: steps.first_lsn,
            last_lsn: steps.last_lsn,
            written_at: (self.wall_ms)(),
            steps: steps.count,
            at: steps.at.max(self.durable.at),
        };
        let offset = u32::try_from(self.offset).expect("a segment has less than 4 GiB");
        let LaidOut { head, bytes, changes } = frame::lay_out(&self.segment, offset, label, rows);
        disk::or_die("the journal can't be written", self.file.write_all_at(&bytes, self.offset));
        if self.segment.first_group.is_none() {
            self.segment.first_group = Some(head.group);
            self.journal.started(self.segment.clone());
        }
        self.offset += bytes.len() as u64;
        self.durable = Durable::of(&head);
        Written { changes, memory: bytes }
    }

    /// Syncs the group that was written; only then may its rows be applied, and anybody be told.
    pub(crate) fn sync(&mut self) {
        if mutant::planted(Mutant::NoJournalSync) {
            return;
        }
        let synced = self.file.sync_data();
        if !mutant::planted(Mutant::GoOnAfterFailedSync) {
            disk::or_die("the journal can't be synced", synced);
        }
    }
}
