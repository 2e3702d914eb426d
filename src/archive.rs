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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use switchbox_storage::{Committer, Group, JournalOptions, StoreOptions, Urgency};

    use super::*;
    use crate::coordinator::event::{Endpoint, JobSpec, Mode, Origin};
    use crate::coordinator::job::JobState;
    use crate::credits::{Credits, Price};
    use crate::ids::Namespace;
    use crate::time::Time;

    const LONG: usize = 100_000;
    const FAILED: JobId = JobId { epoch: 1, counter: 1 };
    const ANSWERED: JobId = JobId { epoch: 1, counter: 2 };

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            // The archive's thread closes the store in its own time; one that finds its files gone aborts.
            let lock = std::fs::File::open(self.0.join("lock")).expect("a store's lock");
            lock.lock().expect("the store's end");
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn row(id: JobId, state: JobState, body: Option<Arc<[u8]>>) -> Row {
        let spec = JobSpec {
            mode: Mode::Polling,
            ..JobSpec::plain(Namespace::default_namespace(), Endpoint::ChatCompletions, "m".into())
        };
        Row::Job(Box::new(JobRow {
            id,
            spec: Arc::new(spec),
            origin: Origin::Client.into(),
            body,
            model_index: 0,
            state,
            submitted_at: Time(1),
            expires_at: Time(2),
            not_before: Time(0),
            prices: Arc::from([Price::uncached(0, 0)]),
            hold: Credits::ZERO,
            sequence: 1,
            trace: Default::default(),
            progress: Default::default(),
        }))
    }

    /// A store with a job that failed, body and all, and one that has a long answer.
    fn stored(dir: &Path) -> Store {
        let journal = JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() };
        let options = StoreOptions { journal, ..StoreOptions::default() };
        let (store, _) = Store::open(dir, options).expect("a new store");
        let committer =
            Committer::start_durable(store.clone(), persist::RowCodec, Default::default(), |_| {});
        let mut changes = Vec::new();
        crate::rows::changes_of(row(FAILED, JobState::Failed, Some(vec![b'B'; LONG].into())), &mut changes);
        crate::rows::changes_of(row(ANSWERED, JobState::Succeeded, None), &mut changes);
        let answer = [Chunk { text: "A".repeat(LONG).into(), tokens: 1 }];
        changes.push((RowKey::Answer(ANSWERED), Some(RowValue::Answer(answer.into()))));
        // Dropping it commits everything.
        committer.expect("a thread").append(Group { lsn: 1, at: 0, changes }, Urgency::Urgent);
        store
    }

    /// Damages the body where it lies in the journal.
    fn damage_body(dir: &Path) {
        let segments = std::fs::read_dir(dir.join("journal")).expect("a journal");
        let damaged = segments.map(|entry| entry.expect("an entry").path()).any(|path| {
            // One that is being made gets its name meanwhile.
            let Ok(bytes) = std::fs::read(&path) else { return false };
            let Some(at) = bytes.windows(64).position(|window| window == [b'B'; 64]) else { return false };
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
            file.write_all_at(b"X", at as u64).is_ok()
        });
        assert!(damaged, "the body is somewhere");
    }

    #[test]
    fn only_what_is_wanted_is_read_and_what_was_read_has_a_budget() {
        let dir = Dir(std::env::temp_dir().join(format!("switchbox-archive-{}", std::process::id())));
        let archive = Archive::durable(stored(&dir.0), LONG as u64 + 50_000).expect("a thread");
        let look = |job, wanted| archive.look_up(job, wanted).blocking_recv().expect("an answer");
        let Found::Job(failed) = look(FAILED, Wanted::Body) else { panic!("no job") };
        assert_eq!(failed.row.body.as_ref().map(|body| body.len()), Some(LONG));
        assert!(archive.held_bytes() >= LONG as u64);
        assert!(matches!(look(ANSWERED, Wanted::Answer), Found::NoRoom));
        let Found::Job(answered) = look(ANSWERED, Wanted::Row) else { panic!("a row is small") };
        assert_eq!(answered.answer, None);
        drop((failed, answered));
        assert_eq!(archive.held_bytes(), 0);
        let Found::Job(answered) = look(ANSWERED, Wanted::Answer) else { panic!("there is room") };
        assert_eq!(answered.answer.as_ref().map(|text| text.len()), Some(LONG));
        drop(answered);
        damage_body(&dir.0);
        for wanted in [Wanted::Row, Wanted::Answer] {
            let Found::Job(failed) = look(FAILED, wanted) else { panic!("its body isn't needed") };
            assert!(failed.row.body.is_none());
        }
        assert!(matches!(look(FAILED, Wanted::Body), Found::Unreadable));
        assert!(matches!(look(JobId { epoch: 9, counter: 9 }, Wanted::Row), Found::Nothing));
        assert_eq!(archive.held_bytes(), 0);
    }
}
