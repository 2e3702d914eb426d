//! What isn't live any more: jobs and answers, looked up in the store.
//!
//! A durable store is read on a thread of its own, so that neither the drain nor the io thread waits for the disk. Who
//! asks waits first until what it asks about is durable: that is the door's part.

use std::sync::{Arc, mpsc};

use switchbox_storage::{MemoryStore, Room, Store};
use tokio::sync::oneshot;

use crate::coordinator::effect::Row;
use crate::coordinator::job::JobRow;
use crate::ids::JobId;
use crate::output::Chunk;
use crate::persist::{self, LoadError};
use crate::rows::{RowKey, RowValue};

/// A job as the store has it.
#[derive(Debug)]
pub struct StoredJob {
    /// Its row.
    pub row: Box<JobRow>,
    /// The text of its answer, where one is kept.
    pub answer: Option<Arc<str>>,
}

/// What a look-up found.
#[derive(Debug)]
pub enum Found {
    /// The job.
    Job(StoredJob),
    /// No such job, or none any more.
    Nothing,
    /// Something else than was written: the log says what and where.
    Unreadable,
}

/// Where finished jobs are looked up.
pub enum Archive {
    /// In memory, lost with the process.
    Memory(MemoryStore<RowKey, RowValue>),
    /// On the disk, through the reading thread.
    Durable(Reads),
}

/// The way to the thread that reads. At most one request of each session is under way, so the sessions' bound is its
/// bound too.
pub struct Reads {
    store: Store,
    requests: mpsc::Sender<(JobId, oneshot::Sender<Found>)>,
}

impl Archive {
    /// One that reads a durable store; starts its thread, which ends when this is dropped.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn durable(store: Store) -> std::io::Result<Self> {
        let (requests, asked) = mpsc::channel::<(JobId, oneshot::Sender<Found>)>();
        let read_from = store.clone();
        let serve = move || {
            for (job, answer) in asked {
                // Who asked may have left.
                let _ = answer.send(read(&read_from, job));
            }
        };
        std::thread::Builder::new().name("reader".into()).spawn(|| abort_on_panic(serve))?;
        Ok(Self::Durable(Reads { store, requests }))
    }

    /// Whether the store has room for new work.
    pub fn room(&self) -> Room {
        match self {
            Archive::Memory(_) => Room::Open,
            Archive::Durable(reads) => reads.store.room(),
        }
    }

    /// Looks a job up; never waits.
    pub fn look_up(&self, job: JobId) -> oneshot::Receiver<Found> {
        let (answer, found) = oneshot::channel();
        match self {
            Archive::Memory(store) => drop(answer.send(recall(store, job))),
            // The thread lives as long as this.
            Archive::Durable(reads) => drop(reads.requests.send((job, answer))),
        }
        found
    }
}

/// The state store panics on some damage to its files. A box that can't read any more ends: a start puts the damaged
/// files aside and makes the state anew.
fn abort_on_panic(run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        tracing::error!("the reading thread panicked: aborting, a restart recovers");
        std::process::abort();
    }
}

fn recall(store: &MemoryStore<RowKey, RowValue>, job: JobId) -> Found {
    let Some(RowValue::Row(Row::Job(row))) = store.read(&RowKey::Job(job)) else { return Found::Nothing };
    let answer = match store.read(&RowKey::Answer(job)) {
        Some(RowValue::Answer(chunks)) => Some(text_of(&chunks)),
        _ => None,
    };
    Found::Job(StoredJob { row, answer })
}

fn text_of(chunks: &[Chunk]) -> Arc<str> {
    chunks.iter().map(|chunk| &*chunk.text).collect::<String>().into()
}

fn read(store: &Store, job: JobId) -> Found {
    let stored = || {
        let Some(row) = persist::read_job(store, job)? else { return Ok(Found::Nothing) };
        let answer = persist::read_answer(store, job)?;
        Ok::<_, LoadError>(Found::Job(StoredJob { row: Box::new(row), answer }))
    };
    stored().unwrap_or_else(|error| {
        tracing::error!(%job, %error, "what is stored of a job can't be read");
        Found::Unreadable
    })
}
