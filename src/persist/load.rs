//! Everything that the core is rebuilt from, taken from the store as it opens.
//!
//! Rows come once, in key order, and payloads can be read only afterwards. So jobs become rows at once, wait for their
//! bodies, and what has further parts of its own is read last.

use std::sync::Arc;

use switchbox_storage::{Load, PayloadRef, Store, Stored};

use super::keys::{self, Table};
use super::read::{DecodeError, LoadError, body_of, decode, read_job_without_body};
use crate::coordinator::effect::Row;
use crate::coordinator::job::JobRow;
use crate::ids::JobId;

/// Rows between two reports of progress.
const ROWS_PER_REPORT: u64 = 65_536;

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Rows read, of a rebuilt state those put into it included.
    pub rows: u64,
    /// Jobs that haven't ended.
    pub live_jobs: u64,
    /// Live jobs whose body is damaged: they can only fail.
    pub bodies_lost: u64,
}

/// Takes in rows. `report` hears from time to time how far it is, and at the end.
pub struct Loader<F> {
    report: F,
    loaded: Loaded,
    taken: Taken,
    /// The first row that couldn't be read.
    failed: Option<DecodeError>,
}

#[derive(Default)]
struct Taken {
    /// Everything but jobs.
    records: Vec<Row>,
    /// Jobs in order of their ids, those of live ones still without their bodies.
    #[expect(clippy::vec_box, reason = "they come boxed, and go on boxed into the rows")]
    jobs: Vec<Box<JobRow>>,
    /// Where bodies of live jobs are: the job's place in `jobs`, and the payload.
    bodies: Vec<(usize, PayloadRef)>,
    /// How many of `jobs` have an id below the last body's.
    below: usize,
    /// Rows that are payloads themselves, and jobs with parts of their own.
    unread: Vec<Box<[u8]>>,
}

/// Why a row isn't decoded yet.
enum Undone {
    Apart,
    Wrong(DecodeError),
}

impl From<DecodeError> for Undone {
    fn from(error: DecodeError) -> Self {
        Undone::Wrong(error)
    }
}

impl<F: FnMut(Loaded)> Loader<F> {
    /// One that has taken nothing yet.
    pub fn new(report: F) -> Self {
        Self { report, loaded: Loaded::default(), taken: Taken::default(), failed: None }
    }

    /// Takes in what the store gives while it opens.
    pub fn take(&mut self, load: Load) {
        match load {
            Load::Again => self.taken = Taken::default(),
            Load::Rebuilt(rows) => self.count(rows),
            Load::Row(key, stored) => {
                self.count(1);
                if self.failed.is_none()
                    && let Err(error) = self.taken.take(key, stored)
                {
                    self.failed = Some(error);
                }
            }
        }
    }

    fn count(&mut self, rows: u64) {
        let before = self.loaded.rows;
        self.loaded.rows += rows;
        if before / ROWS_PER_REPORT != self.loaded.rows / ROWS_PER_REPORT {
            (self.report)(self.loaded);
        }
    }

    /// Reads what is left to be read, and gives all rows.
    ///
    /// # Errors
    /// When a row can't be read: it was acknowledged, so nothing goes on without it. Only a live job's body may be
    /// damaged: then the job fails.
    pub fn finish(mut self, store: &Store) -> Result<Vec<Row>, LoadError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let Taken { mut records, mut jobs, bodies, unread, .. } = self.taken;
        for (place, payload) in bodies {
            jobs[place].body = body_or_none(store, jobs[place].id, payload, &mut self.loaded);
        }
        records.extend(jobs.into_iter().map(Row::Job));
        for key in unread {
            records.extend(read_late(store, &key, &mut self.loaded)?);
        }
        let live = |row: &&Row| matches!(row, Row::Job(job) if job.state.is_live());
        self.loaded.live_jobs = records.iter().filter(live).count() as u64;
        (self.report)(self.loaded);
        Ok(records)
    }
}

impl Taken {
    fn take(&mut self, key: Box<[u8]>, stored: Stored) -> Result<(), DecodeError> {
        let table = Table::of(&key).ok_or_else(|| DecodeError::new(&key, "there is no such table"))?;
        match (table, stored) {
            (Table::Bodies, stored) => return self.take_body(&key, &stored),
            // Parts of jobs, and what is only looked up.
            (Table::Extras | Table::Traces | Table::Answers | Table::Feedback | Table::Proofs, _) => {}
            (_, Stored::Payload(_)) => self.unread.push(key),
            (_, Stored::Value(value)) => {
                let parts =
                    &mut |table, _| if table == Table::Bodies { Ok(None) } else { Err(Undone::Apart) };
                match decode::<Undone>(&key, &value, parts) {
                    Ok(Row::Job(job)) => self.jobs.push(job),
                    Ok(row) => self.records.push(row),
                    Err(Undone::Apart) => self.unread.push(key),
                    Err(Undone::Wrong(error)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// A body belongs to the job of its id, if that has been taken in: bodies come after all jobs, in the same order.
    fn take_body(&mut self, key: &[u8], stored: &Stored) -> Result<(), DecodeError> {
        let id = keys::job_of(key).ok_or_else(|| DecodeError::new(key, "it is no job's key"))?;
        let Stored::Payload(payload) = stored else {
            return Err(DecodeError::new(key, "it isn't a payload"));
        };
        while self.jobs.get(self.below).is_some_and(|job| job.id < id) {
            self.below += 1;
        }
        match self.jobs.get_mut(self.below).filter(|job| job.id == id) {
            Some(job) if job.state.is_live() => self.bodies.push((self.below, *payload)),
            Some(job) => job.body = Some(of_length(*payload)),
            None => {}
        }
        Ok(())
    }
}

/// A job's body. It may have been moved since its row was read.
fn body(store: &Store, job: JobId, payload: PayloadRef) -> Result<Option<Arc<[u8]>>, LoadError> {
    let key = keys::of_job(Table::Bodies, job);
    let bytes = match store.payload(payload) {
        Ok(bytes) => Some(bytes),
        Err(_) => store.value(&key)?,
    };
    Ok(bytes.map(|bytes| body_of(&key, &bytes).map(Arc::from)).transpose()?)
}

/// A row that was a payload, or had parts.
fn read_late(store: &Store, key: &[u8], loaded: &mut Loaded) -> Result<Option<Row>, LoadError> {
    let (Some(Table::Jobs), Some(id)) = (Table::of(key), keys::job_of(key)) else {
        let Some(value) = store.value(key)? else { return Ok(None) };
        return decode::<LoadError>(key, &value, &mut |_, _| Ok(None)).map(Some);
    };
    let Some(mut job) = read_job_without_body(store, id)? else { return Ok(None) };
    if let Some(Stored::Payload(payload)) = store.read(&keys::of_job(Table::Bodies, id))? {
        if job.state.is_live() {
            job.body = body_or_none(store, id, payload, loaded);
        } else {
            job.body = Some(of_length(payload));
        }
    }
    Ok(Some(Row::Job(Box::new(job))))
}

/// A live job's body; `None`, and said, if it is damaged.
fn body_or_none(store: &Store, job: JobId, payload: PayloadRef, loaded: &mut Loaded) -> Option<Arc<[u8]>> {
    body(store, job, payload).unwrap_or_else(|error| {
        loaded.bodies_lost += 1;
        tracing::error!(%job, %error, "a job's body is damaged: it will fail");
        None
    })
}

/// The body of a job that has ended: all that counts of it is how long it is.
fn of_length(payload: PayloadRef) -> Arc<[u8]> {
    vec![0; payload.len.saturating_sub(1) as usize].into()
}
