//! Segments made ahead of need, by a thread of their own: making one takes much longer than a commit.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::disk;
use crate::error::{Error, Result};
use crate::journal::segment::{DirectoryId, Segment};

/// The spare segments, in order of their numbers. Two are kept: one in the channel, one in the thread's hand.
pub(crate) struct Spares {
    ready: Option<Receiver<Segment>>,
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
        let making = Making { dir: dir.to_owned(), id, segment_bytes };
        let spawned = std::thread::Builder::new()
            .name("journal-spares".into())
            .spawn(move || making.run(found, next, &send))
            .map_err(Error::io("start a thread for", dir))?;
        Ok(Self { ready: Some(ready), thread: Some(spawned) })
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
}

impl Making {
    fn run(&self, found: Vec<Segment>, next: u32, send: &SyncSender<Segment>) {
        let made = (next..).map(|number| {
            let segment = Segment::create(&self.dir, self.id, number, self.segment_bytes);
            disk::or_die("a segment can't be made", segment)
        });
        for segment in found.into_iter().chain(made) {
            if send.send(segment).is_err() {
                return;
            }
        }
    }
}
