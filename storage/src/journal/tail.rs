//! The journal's end: who writes there, and the spare segments that it goes on in.
//!
//! A full disk has no spare to give for as long as it is full. Whoever waits for one therefore holds only the spares:
//! with the writer in hand it would keep backups and trimming waiting, and trimming is what makes room.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::{self, BLOCK};
use crate::journal::spares::Spares;
use crate::journal::writer::Writer;

/// How long work that can be put off waits for a segment.
const SOON: Duration = Duration::from_secs(1);

/// The writer, with its spares.
pub(crate) struct Tail {
    writer: Mutex<Writer>,
    /// Held by who goes on to the next segment: segments are used in the order of their numbers.
    spares: Mutex<Spares>,
}

/// How long to wait for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Endless,
    Short,
}

impl Tail {
    pub(crate) fn new(writer: Writer, spares: Spares) -> Self {
        Self { writer: Mutex::new(writer), spares: Mutex::new(spares) }
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic while a frame is written has ended the process.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer, with room for a frame of so many bytes. Waits while the disk is full.
    pub(crate) fn with_room(&self, frame_bytes: usize) -> MutexGuard<'_, Writer> {
        loop {
            let writer = self.writer();
            if writer.has_room(frame_bytes) {
                return writer;
            }
            drop(writer);
            self.make_room(&self.spares(), frame_bytes, Patience::Endless);
        }
    }

    /// As [`Tail::with_room`]; none if a segment is needed that isn't there soon, or that somebody else waits for.
    pub(crate) fn with_room_soon(&self, frame_bytes: usize) -> Option<MutexGuard<'_, Writer>> {
        if !self.writer().has_room(frame_bytes) {
            self.make_room(&*self.spares.try_lock().ok()?, frame_bytes, Patience::Short);
        }
        Some(self.writer()).filter(|writer| writer.has_room(frame_bytes))
    }

    fn make_room(&self, spares: &Spares, frame_bytes: usize, patience: Patience) {
        // Somebody may just have done so.
        if self.writer().has_room(frame_bytes) {
            return;
        }
        let bytes = (BLOCK + disk::blocks(frame_bytes)) as u64;
        let segment = match patience {
            Patience::Endless => Some(spares.take(bytes)),
            Patience::Short => spares.take_within(bytes, SOON),
        };
        if let Some(segment) = segment {
            self.writer().roll(segment);
        }
    }

    /// Whether somebody waits for a segment.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.spares.try_lock().is_err()
    }

    /// From now on spares come from elsewhere.
    #[cfg(test)]
    pub(crate) fn replace_spares(&self, spares: Spares) {
        *self.spares() = spares;
    }
}
