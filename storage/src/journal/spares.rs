//! Segments made ahead of need, by a thread of their own: making one takes much longer than a commit.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::disk;
use crate::error::{Error, Result};
use crate::journal::segment::{DirectoryId, Segment};

/// How long to wait for room on a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The spare segments, in order of their numbers. Two are kept: one in the channel, one in the thread's hand.
pub(crate) struct Spares {
    ready: Option<Receiver<Segment>>,
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
        segment_bytes: u64,
    ) -> Result<Self> {
        let (send, ready) = sync_channel(1);
        let (stop, stopped) = channel();
        let making = Making { dir: dir.to_owned(), id, segment_bytes, stopped };
        let spawned = std::thread::Builder::new()
            .name("journal-spares".into())
            .spawn(move || making.run(found, next, &send))
            .map_err(Error::io("start a thread for", dir))?;
        Ok(Self { ready: Some(ready), stop: Some(stop), thread: Some(spawned) })
    }

    /// The next spare; waits if none is ready.
    pub(crate) fn take(&self) -> Segment {
        let ready = self.ready.as_ref().expect("taken away only on drop");
        ready.recv().unwrap_or_else(|_| disk::fatal("the thread that makes segments is gone"))
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
        loop {
            match Segment::create(&self.dir, self.id, number, self.segment_bytes) {
                Err(error) if error.is_full() => {
                    // What was written of it takes the room that others need.
                    disk::or_die(
                        "an unfinished segment can't be removed",
                        disk::remove_unfinished(&self.dir),
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
