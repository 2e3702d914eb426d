//! What isn't live any more: jobs and answers, looked up in the store.
//!
//! A durable store is read on a thread of its own, so that neither the drain nor the io thread waits for the disk. Who
//! asks waits first until what it asks about is durable: that is the door's part. Of a job that isn't the asker's only
//! the row is read. What was read has a budget, of which each namespace may have a part: it is memory of the box until
//! its client has taken it, and clients may be many and slow.

use std::sync::{Arc, mpsc};

use switchbox_storage::{Gauges, MemoryStore, Room, Store};
use tokio::sync::oneshot;

use crate::budget::{Commons, Full, Holder, Part};
use crate::coordinator::effect::Row;
use crate::coordinator::event::Tenant;
use crate::coordinator::job::JobRow;
use crate::ids::JobId;
use crate::persist::{self, LoadError};
pub use crate::persist::{Position, StoredAnswer};
use crate::rows::{RowKey, RowValue};

/// About the bytes that the smallest row has in memory.
const ROW_BYTES: u64 = 1 << 10;
/// About how many bytes a byte of a stored row has in memory: most of them are small numbers, written as such.
const ROW_GROWTH: u64 = 8;
/// Room for the row of the longest answer, beside the answer: what may be kept can be read.
const ROW_ROOM_BYTES: u64 = 1 << 20;
/// Bytes of what was looked up and is held in memory, unless it is said otherwise.
pub const STORED_BYTES_MAX: u64 = 64 << 20;

/// A job as the store has it.
#[derive(Debug)]
pub struct StoredJob {
    /// Its row; without its body, unless that was asked for.
    pub row: Box<JobRow>,
    /// Its answer, where one is kept and was asked for.
    pub answer: Option<StoredAnswer>,
    /// What proves its answer, where that is kept and was asked for.
    pub proof: Option<Arc<[u8]>>,
    /// The memory that it takes: to be kept as long as the answer, or what was made of it.
    pub room: Part,
}

/// What is wanted of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// How it stands.
    Row,
    /// That, and its answer.
    Answer,
    /// How it stands, and what proves its answer; or, where nothing does, the answer.
    Proof,
    /// How it stands, and what was asked: to ask it again.
    Body,
}

impl Wanted {
    /// Whether the answer is, given whether there is a proof of it.
    fn is_answer(self, is_proven: bool) -> bool {
        match self {
            Wanted::Answer => true,
            Wanted::Proof => !is_proven,
            Wanted::Row | Wanted::Body => false,
        }
    }
}

/// A piece of what is stored of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// What is known of it.
    Row,
    /// What was answered.
    Answer,
    /// What was asked.
    Body,
    /// What proves the answer.
    Proof,
}

impl Piece {
    /// The word for it, in the log and in answers.
    pub fn word(self) -> &'static str {
        match self {
            Piece::Row => "record",
            Piece::Answer => "answer",
            Piece::Body => "prompt",
            Piece::Proof => "proof",
        }
    }
}

/// What a look-up found.
#[derive(Debug)]
pub enum Found {
    /// The job.
    Job(StoredJob),
    /// No such job of the asker's, or none any more.
    Nothing,
    /// Something else than was written: the log says what and where.
    Unreadable(Piece),
    /// Too much of what was looked up before is still in memory.
    NoRoom(Full),
}

/// Where finished jobs are looked up.
pub struct Archive {
    budget: Arc<Commons>,
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
    asked: Asked,
    answer: oneshot::Sender<Found>,
}

/// What is looked up, and for whom.
struct Asked {
    job: JobId,
    wanted: Wanted,
    /// Whose it must be; `None` asks as the operator.
    tenant: Option<Tenant>,
}

impl Asked {
    /// Who holds what is found.
    fn holder(&self) -> Holder {
        self.tenant.as_ref().map(|tenant| tenant.namespace.clone())
    }
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
        Self { budget: Arc::new(Commons::new(STORED_BYTES_MAX)), source: Source::Memory(store) }
    }

    /// One that reads a durable store, and holds at most about `stored_bytes_max` of it in memory; starts its thread,
    /// which ends when this is dropped.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn durable(store: Store, stored_bytes_max: u64) -> std::io::Result<Self> {
        Self::durable_within(store, Commons::new(stored_bytes_max + ROW_ROOM_BYTES))
    }

    fn durable_within(store: Store, budget: Commons) -> std::io::Result<Self> {
        let budget = Arc::new(budget);
        let (requests, incoming) = mpsc::channel::<Request>();
        let (read_from, part_of) = (store.clone(), Arc::clone(&budget));
        let serve = move || {
            for Request { asked, answer } in incoming {
                // Who asked may have left.
                if !answer.is_closed() {
                    let _ = answer.send(read(&read_from, &part_of, &asked));
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

    /// What is wrong with making snapshots, if something is. Cheap enough for whoever polls.
    pub fn trouble(&self) -> Option<String> {
        match &self.source {
            Source::Memory(_) => None,
            Source::Durable(store, _) => store.trouble(),
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

    /// Looks a job up, of `tenant` or as the operator; never waits.
    pub fn look_up(&self, job: JobId, wanted: Wanted, tenant: Option<Tenant>) -> oneshot::Receiver<Found> {
        let (answer, found) = oneshot::channel();
        let asked = Asked { job, wanted, tenant };
        match &self.source {
            Source::Memory(store) => drop(answer.send(recall(store, &self.budget, &asked))),
            // The thread lives as long as this.
            Source::Durable(_, requests) => drop(requests.send(Request { asked, answer })),
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

fn recall(store: &MemoryStore<RowKey, RowValue>, budget: &Arc<Commons>, asked: &Asked) -> Found {
    let job = asked.job;
    let Some(RowValue::Row(Row::Job(mut row))) = store.read(&RowKey::Job(job)) else { return Found::Nothing };
    if !row.is_of(asked.tenant.as_ref()) {
        return Found::Nothing;
    }
    if asked.wanted != Wanted::Body {
        row.body = None;
    }
    let proof = match store.read(&RowKey::Proof(job)) {
        Some(RowValue::Row(Row::Proof(_, proof))) if asked.wanted == Wanted::Proof => Some(proof),
        _ => None,
    };
    let wants_answer = asked.wanted.is_answer(proof.is_some());
    let answer = match store.read(&RowKey::Answer(job)) {
        Some(RowValue::Answer(chunks)) if wants_answer => Some(StoredAnswer::of(&chunks)),
        _ => None,
    };
    let bytes = answer.as_ref().map_or(0, |answer| answer.bytes() as u64);
    match budget.take(&asked.holder(), ROW_BYTES + bytes) {
        Ok(room) => Found::Job(StoredJob { row, answer, proof, room }),
        Err(full) => Found::NoRoom(full),
    }
}

fn read(store: &Store, budget: &Arc<Commons>, asked: &Asked) -> Found {
    read_pieces(store, budget, asked).unwrap_or_else(|(piece, error)| {
        tracing::error!(job = %asked.job, %error, "the {} of a job can't be read", piece.word());
        Found::Unreadable(piece)
    })
}

/// Reads what is wanted; the error says of which piece it is.
fn read_pieces(store: &Store, budget: &Arc<Commons>, asked: &Asked) -> Result<Found, (Piece, LoadError)> {
    let job = asked.job;
    let of = |piece| move |error| (piece, error);
    // A row is short, and only this one is read before its room is taken.
    let row = persist::read_job_without_body(store, job).map_err(of(Piece::Row))?;
    let Some(row) = row.filter(|row| row.is_of(asked.tenant.as_ref())) else { return Ok(Found::Nothing) };
    let row_bytes = persist::row_len(store, job).map_err(of(Piece::Row))?;
    // Short, too.
    let proof = match asked.wanted {
        Wanted::Proof => persist::read_proof(store, job).map_err(of(Piece::Proof))?,
        Wanted::Row | Wanted::Answer | Wanted::Body => None,
    };
    let wants_answer = asked.wanted.is_answer(proof.is_some());
    let long = match asked.wanted {
        _ if wants_answer => persist::answer_len(store, job).map_err(of(Piece::Answer))?,
        Wanted::Body => persist::body_len(store, job).map_err(of(Piece::Body))?,
        Wanted::Row | Wanted::Answer | Wanted::Proof => 0,
    };
    // Before anything long is read.
    let room = match budget.take(&asked.holder(), ROW_BYTES + ROW_GROWTH * row_bytes + long) {
        Ok(room) => room,
        Err(full) => return Ok(Found::NoRoom(full)),
    };
    let (row, answer) = match asked.wanted {
        _ if wants_answer => (Some(row), persist::read_answer(store, job).map_err(of(Piece::Answer))?),
        Wanted::Body => (persist::read_job(store, job).map_err(of(Piece::Body))?, None),
        Wanted::Row | Wanted::Answer | Wanted::Proof => (Some(row), None),
    };
    // It may have been forgotten meanwhile.
    let Some(row) = row else { return Ok(Found::Nothing) };
    Ok(Found::Job(StoredJob { row: Box::new(row), answer, proof, room }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use switchbox_storage::{Committer, Group, JournalOptions, StoreOptions, Urgency};

    use super::*;
    use crate::coordinator::event::{Endpoint, Environment, JobSpec, Mode, Origin};
    use crate::coordinator::job::JobState;
    use crate::credits::{Credits, Price};
    use crate::ids::Namespace;
    use crate::output::Chunk;
    use crate::time::Time;

    const LONG: usize = 100_000;
    const FAILED: JobId = JobId { epoch: 1, counter: 1 };
    const ANSWERED: JobId = JobId { epoch: 1, counter: 2 };

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("switchbox-archive-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            // The archive's thread closes the store in its own time; one that finds its files gone aborts.
            let lock = std::fs::File::open(self.0.join("lock")).expect("a store's lock");
            lock.lock().expect("the store's end");
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn row(id: JobId, state: JobState, body: Option<Arc<[u8]>>) -> Row {
        row_of(id, state, body, Namespace::default_namespace())
    }

    fn row_of(id: JobId, state: JobState, body: Option<Arc<[u8]>>, namespace: Namespace) -> Row {
        let plain = JobSpec::plain(namespace, Endpoint::ChatCompletions, "m".into());
        let spec = JobSpec { mode: Mode::Polling, ..plain };
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
        let answer = [Chunk::text("A".repeat(LONG), 1)];
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

    fn tenant(name: &str) -> Option<Tenant> {
        Some(Tenant { namespace: Namespace::named(name), environment: Environment::Mainnet })
    }

    #[test]
    fn only_what_is_wanted_is_read_and_what_was_read_has_a_budget() {
        let dir = Dir::new("budget");
        let budget = Commons::new(LONG as u64 + 50_000);
        let archive = Archive::durable_within(stored(&dir.0), budget).expect("a thread");
        let look = |job, wanted| archive.look_up(job, wanted, None).blocking_recv().expect("an answer");
        let Found::Job(failed) = look(FAILED, Wanted::Body) else { panic!("no job") };
        assert_eq!(failed.row.body.as_ref().map(|body| body.len()), Some(LONG));
        assert!(archive.held_bytes() >= LONG as u64);
        assert!(matches!(look(ANSWERED, Wanted::Answer), Found::NoRoom(Full::Holder)));
        assert!(matches!(look(ANSWERED, Wanted::Row), Found::NoRoom(Full::Holder)));
        drop(failed);
        assert_eq!(archive.held_bytes(), 0);
        let Found::Job(answered) = look(ANSWERED, Wanted::Row) else { panic!("there is room") };
        assert_eq!(answered.answer, None);
        let row_bytes = archive.held_bytes();
        assert!(row_bytes > ROW_BYTES, "{row_bytes}");
        drop(answered);
        let Found::Job(answered) = look(ANSWERED, Wanted::Answer) else { panic!("there is room") };
        assert_eq!(answered.answer.as_ref().map(StoredAnswer::bytes), Some(LONG));
        assert_eq!(archive.held_bytes(), row_bytes + LONG as u64 + 1, "and its version's byte");
        drop(answered);
        damage_body(&dir.0);
        for wanted in [Wanted::Row, Wanted::Answer] {
            let Found::Job(failed) = look(FAILED, wanted) else { panic!("its body isn't needed") };
            assert!(failed.row.body.is_none());
        }
        assert!(matches!(look(FAILED, Wanted::Body), Found::Unreadable(Piece::Body)));
        assert!(matches!(look(JobId { epoch: 9, counter: 9 }, Wanted::Row), Found::Nothing));
        assert_eq!(archive.held_bytes(), 0);
    }

    #[test]
    fn a_strangers_question_costs_a_row_and_takes_nobodys_room() {
        let dir = Dir::new("stranger");
        let archive = Archive::durable(stored(&dir.0), STORED_BYTES_MAX).expect("a thread");
        let look =
            |job, wanted, tenant| archive.look_up(job, wanted, tenant).blocking_recv().expect("an answer");
        damage_body(&dir.0);
        // Neither its length nor what is wrong with it shows.
        let default =
            Some(Tenant { namespace: Namespace::default_namespace(), environment: Environment::Mainnet });
        assert!(matches!(look(FAILED, Wanted::Body, tenant("stranger")), Found::Nothing));
        assert!(matches!(look(FAILED, Wanted::Body, default.clone()), Found::Unreadable(Piece::Body)));
        let elsewhere = default.clone().map(|tenant| Tenant { environment: Environment::Testnet, ..tenant });
        assert!(matches!(look(ANSWERED, Wanted::Answer, elsewhere), Found::Nothing));
        assert_eq!(archive.held_bytes(), 0);
        assert!(matches!(look(ANSWERED, Wanted::Answer, default), Found::Job(_)));
    }

    #[test]
    fn one_namespace_leaves_half_of_the_room_to_the_others() {
        let budget = Arc::new(Commons::new(4 * LONG as u64));
        let store = MemoryStore::default();
        let archive = Archive { budget, source: Source::Memory(store.clone()) };
        let mut changes = Vec::new();
        for (counter, name) in [(1, "one"), (2, "other")] {
            let id = JobId { epoch: 1, counter };
            crate::rows::changes_of(
                row_of(id, JobState::Succeeded, None, Namespace::named(name)),
                &mut changes,
            );
            let answer = [Chunk::text("A".repeat(LONG), 1)];
            changes.push((RowKey::Answer(id), Some(RowValue::Answer(answer.into()))));
        }
        let committer = Committer::start(store, Default::default(), |_| {}).expect("a thread");
        committer.append(Group { lsn: 1, at: 0, changes }, Urgency::Urgent);
        drop(committer);
        let look = |counter, name| {
            let job = JobId { epoch: 1, counter };
            archive.look_up(job, Wanted::Answer, tenant(name)).blocking_recv().expect("an answer")
        };
        let Found::Job(_held) = look(1, "one") else { panic!("there is room") };
        assert!(matches!(look(1, "one"), Found::NoRoom(Full::Holder)));
        assert!(matches!(look(2, "other"), Found::Job(_)));
    }
}
