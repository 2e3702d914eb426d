//! What isn't live any more: jobs and answers, looked up in the store.
//!
//! A durable store is read on a thread of its own, so that neither the drain nor the io thread waits for the disk. Who
//! asks waits first until what it asks about is durable: that is the door's part. What was read has a budget: it is
//! memory of the box until its client has taken it, and clients may be many and slow.

use std::sync::{Arc, mpsc};

use switchbox_storage::{Gauges, MemoryStore, Room, Store};
use tokio::sync::oneshot;

use crate::budget::{Budget, Share};
use crate::coordinator::effect::Row;
use crate::coordinator::job::JobRow;
use crate::ids::JobId;
use crate::output::Chunk;
use crate::persist::{self, LoadError};
use crate::rows::{RowKey, RowValue};

/// About the bytes of a job's row without its body and answer.
const ROW_BYTES: u64 = 4 << 10;
/// Bytes of what was looked up and is held in memory, unless it is said otherwise.
pub const STORED_BYTES_MAX: u64 = 64 << 20;

/// A job as the store has it.
#[derive(Debug)]
pub struct StoredJob {
    /// Its row; without its body, unless that was asked for.
    pub row: Box<JobRow>,
    /// The text of its answer, where one is kept and was asked for.
    pub answer: Option<Arc<str>>,
    /// The memory that it takes: to be kept as long as the text, or what was made of it.
    pub room: Share,
}

/// What is wanted of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// How it stands.
    Row,
    /// That, and its answer.
    Answer,
    /// How it stands, and what was asked: to ask it again.
    Body,
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
    /// Too much of what was looked up before is still in memory.
    NoRoom,
}

/// Where finished jobs are looked up.
pub struct Archive {
    budget: Arc<Budget>,
    source: Source,
}

enum Source {
    /// In memory, lost with the process.
    Memory(MemoryStore<RowKey, RowValue>),
    /// On the disk, through the reading thread. At most one request of each session is under way, so the sessions'
    /// bound is its bound too.
    Durable(Store, mpsc::Sender<Request>),
}

/// One look-up for the reading thread.
struct Request {
    job: JobId,
    wanted: Wanted,
    answer: oneshot::Sender<Found>,
}

/// How the store is.
#[derive(Debug, Clone)]
pub struct StoreState {
    /// What is wrong with making snapshots, if something is.
    pub trouble: Option<String>,
    /// In numbers.
    pub gauges: Gauges,
}

impl Archive {
    /// One that looks into memory.
    pub fn memory(store: MemoryStore<RowKey, RowValue>) -> Self {
        Self { budget: Arc::new(Budget::new(STORED_BYTES_MAX)), source: Source::Memory(store) }
    }

    /// One that reads a durable store, and holds at most about `stored_bytes_max` of it in memory; starts its thread,
    /// which ends when this is dropped.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn durable(store: Store, stored_bytes_max: u64) -> std::io::Result<Self> {
        let budget = Arc::new(Budget::new(stored_bytes_max + ROW_BYTES));
        let (requests, asked) = mpsc::channel::<Request>();
        let (read_from, share_of) = (store.clone(), Arc::clone(&budget));
        let serve = move || {
            for Request { job, wanted, answer } in asked {
                // Who asked may have left.
                if !answer.is_closed() {
                    let _ = answer.send(read(&read_from, &share_of, job, wanted));
                }
            }
        };
        std::thread::Builder::new().name("reader".into()).spawn(|| abort_on_panic(serve))?;
        Ok(Self { budget, source: Source::Durable(store, requests) })
    }

    /// Whether the store has room for new work.
    pub fn room(&self) -> Room {
        match &self.source {
            Source::Memory(_) => Room::Open,
            Source::Durable(store, _) => store.room(),
        }
    }

    /// How the store is; `None` for one in memory.
    pub fn state(&self) -> Option<StoreState> {
        match &self.source {
            Source::Memory(_) => None,
            Source::Durable(store, _) => {
                Some(StoreState { trouble: store.trouble(), gauges: store.gauges() })
            }
        }
    }

    /// Bytes of what was looked up and is still held.
    pub fn held_bytes(&self) -> u64 {
        self.budget.held()
    }

    /// Looks a job up; never waits.
    pub fn look_up(&self, job: JobId, wanted: Wanted) -> oneshot::Receiver<Found> {
        let (answer, found) = oneshot::channel();
        match &self.source {
            Source::Memory(store) => drop(answer.send(recall(store, &self.budget, job, wanted))),
            // The thread lives as long as this.
            Source::Durable(_, requests) => drop(requests.send(Request { job, wanted, answer })),
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

fn recall(store: &MemoryStore<RowKey, RowValue>, budget: &Arc<Budget>, job: JobId, wanted: Wanted) -> Found {
    let Some(RowValue::Row(Row::Job(mut row))) = store.read(&RowKey::Job(job)) else { return Found::Nothing };
    if wanted != Wanted::Body {
        row.body = None;
    }
    let answer = match store.read(&RowKey::Answer(job)) {
        Some(RowValue::Answer(chunks)) if wanted == Wanted::Answer => Some(text_of(&chunks)),
        _ => None,
    };
    let bytes = answer.as_ref().map_or(0, |answer| answer.len() as u64);
    let Some(room) = budget.take(ROW_BYTES + bytes) else { return Found::NoRoom };
    Found::Job(StoredJob { row, answer, room })
}

fn text_of(chunks: &[Chunk]) -> Arc<str> {
    chunks.iter().map(|chunk| &*chunk.text).collect::<String>().into()
}

fn read(store: &Store, budget: &Arc<Budget>, job: JobId, wanted: Wanted) -> Found {
    let stored = || {
        let long = match wanted {
            Wanted::Row => 0,
            Wanted::Answer => persist::answer_len(store, job)?,
            Wanted::Body => persist::body_len(store, job)?,
        };
        // Before anything long is read.
        let Some(room) = budget.take(ROW_BYTES + long) else { return Ok(Found::NoRoom) };
        let row = match wanted {
            Wanted::Body => persist::read_job(store, job)?,
            Wanted::Row | Wanted::Answer => persist::read_job_without_body(store, job)?,
        };
        let Some(row) = row else { return Ok(Found::Nothing) };
        let answer = match wanted {
            Wanted::Answer => persist::read_answer(store, job)?,
            Wanted::Row | Wanted::Body => None,
        };
        Ok::<_, LoadError>(Found::Job(StoredJob { row: Box::new(row), answer, room }))
    };
    stored().unwrap_or_else(|error| {
        tracing::error!(%job, %error, "what is stored of a job can't be read");
        Found::Unreadable
    })
}
