//! Segments made ahead of need, by a thread of their own: making one takes much longer than a commit.
//!
//! A group that is longer than a spare gets a segment *made to measure*: one step can be of any size, it must be in
//! one frame to be there whole or not at all, and a frame never spans segments. The spares that were ready before are
//! passed over and removed, because segments are numbered in the order of their groups. Crash points:
//!
//! - While it is made it has no name of its own; a start removes it. The group wasn't acknowledged.
//! - Named, and the group not or not wholly in it: a spare of an unusual size with a torn tail. A start zeroes the
//!   tail and removes the spare.
//! - Spares passed over and not removed: they hold nothing but zeros and lie before the segment that was used. The
//!   first trim after a start removes them, as it does any segment whose groups nobody needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::{self, BLOCK};
use crate::error::{Error, Result};
use crate::journal::retired::Retired;
use crate::journal::segment::{self, DirectoryId, Segment};

/// How long to wait for room on a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The spare segments, in order of their numbers. Two are kept: one in the channel, one in the thread's hand.
pub(crate) struct Spares {
    ready: Option<Receiver<Segment>>,
    dir: PathBuf,
    /// Bytes that the next segment to be made must have at least; 0 for the usual.
    wanted: Arc<AtomicU64>,
    /// Dropped to end a wait for room.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spares {
    /// Starts the thread. `found` were made before; new ones are numbered from `next`.
    pub(crate) fn start(
        dir: &Path,
        id: DirectoryId,
        (found, next): (Vec<Segment>, u32),
        (segment_bytes, retired): (u64, Arc<Retired>),
    ) -> Result<Self> {
        let (send, ready) = sync_channel(1);
        let (stop, stopped) = channel();
        let wanted = Arc::new(AtomicU64::new(0));
        let (making_dir, making_wanted) = (dir.to_owned(), Arc::clone(&wanted));
        let making = Making { dir: making_dir, id, segment_bytes, wanted: making_wanted, retired, stopped };
        let spawned = std::thread::Builder::new()
            .name("journal-spares".into())
            .spawn(move || making.run(found, next, &send))
            .map_err(Error::io("start a thread for", dir))?;
        Ok(Self { ready: Some(ready), dir: dir.to_owned(), wanted, stop: Some(stop), thread: Some(spawned) })
    }

    /// The next spare of at least so many bytes; waits if none is ready.
    pub(crate) fn take(&self, bytes: u64) -> Segment {
        self.take_by(bytes, None).expect("it waits for one")
    }

    /// As [`Spares::take`]; none if it takes longer than this.
    pub(crate) fn take_within(&self, bytes: u64, patience: Duration) -> Option<Segment> {
        self.take_by(bytes, Some(Instant::now() + patience))
    }

    fn take_by(&self, bytes: u64, until: Option<Instant>) -> Option<Segment> {
        let mut segment = self.next(until)?;
        if segment.bytes < bytes {
            // Once: exactly one is made to measure, and all that come before it are passed over.
            self.wanted.store(bytes.next_multiple_of(BLOCK as u64), Ordering::Release);
        }
        while segment.bytes < bytes {
            let path = segment::path_of(&self.dir, segment.number);
            disk::or_die("a spare that is too small can't be removed", std::fs::remove_file(path));
            segment = self.next(until)?;
        }
        Some(segment)
    }

    fn next(&self, until: Option<Instant>) -> Option<Segment> {
        let ready = self.ready.as_ref().expect("taken away only on drop");
        let made = match until {
            None => ready.recv().map_err(RecvTimeoutError::from),
            Some(until) => ready.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match made {
            Ok(segment) => Some(segment),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => disk::fatal("the thread that makes segments is gone"),
        }
    }

    /// Spares that the test makes.
    #[cfg(test)]
    pub(crate) fn of_test(dir: &Path, ready: Receiver<Segment>) -> Self {
        Self { ready: Some(ready), dir: dir.to_owned(), wanted: Arc::default(), stop: None, thread: None }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.ready = None;
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            disk::fatal("the thread that makes segments panicked");
        }
    }
}

struct Making {
    dir: PathBuf,
    id: DirectoryId,
    segment_bytes: u64,
    wanted: Arc<AtomicU64>,
    retired: Arc<Retired>,
    stopped: Receiver<()>,
}

impl Making {
    fn run(&self, found: Vec<Segment>, next: u32, send: &SyncSender<Segment>) {
        let made = (next..).map_while(|number| self.make(number));
        for segment in found.into_iter().chain(made) {
            if send.send(segment).is_err() {
                return;
            }
        }
    }

    /// The next segment. On a full disk it waits for room, and so does a writer that needs it: the box doesn't die
    /// of somebody else's files. None if it was stopped meanwhile.
    fn make(&self, number: u32) -> Option<Segment> {
        let bytes = self.segment_bytes.max(self.wanted.swap(0, Ordering::AcqRel));
        if bytes == self.segment_bytes
            && let Some(retired) = self.retired.give()
        {
            let made = Segment::create_again(&self.dir, self.id, (number, bytes), retired);
            return Some(disk::or_die("a segment can't be used again", made));
        }
        loop {
            match Segment::create(&self.dir, self.id, number, bytes) {
                Err(error) if error.is_full() => {
                    disk::or_die("an old segment can't be removed", self.retired.clear());
                    // What was written of it takes the room that others need.
                    let unfinished = disk::unfinished_name(&segment::path_of(&self.dir, number));
                    disk::or_die(
                        "an unfinished segment can't be removed",
                        disk::remove_if_there(&unfinished),
                    );
                    if self.stopped.recv_timeout(RETRY_AFTER) == Err(RecvTimeoutError::Disconnected) {
                        return None;
                    }
                }
                made => return Some(disk::or_die("a segment can't be made", made)),
            }
        }
    }
}
