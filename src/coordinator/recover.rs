//! A core from rows: every live job is put back by the ordinary insert path.
//!
//! Whoever waited on a connection is gone with the process, so attended jobs end as interrupted; the others wait
//! again. The local node's reservations died with it.

use std::sync::Arc;

use super::effect::{CancelCause, Effect, End, Row};
use super::event::{Durability, Mode};
use super::job::{Job, JobRow, JobState, RowState};
use super::limits::Limits;
use super::{Boot, Coordinator};

impl Coordinator {
    /// Rebuilds the core from rows, each the newest of its kind, in any order. What recovery itself decides is
    /// appended to `effects` as a first step.
    pub fn recover(
        boot: Boot,
        limits: Limits,
        durability: Durability,
        rows: Vec<Row>,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let mut core = Self::new(boot, limits, durability);
        let mut jobs = Vec::new();
        for row in rows {
            match row {
                Row::Job(job) => jobs.push(*job),
                Row::Balance { account, balance } => core.ledger.restore(account, balance),
                Row::Posting(_) | Row::JobForgotten(_) => {}
            }
        }
        jobs.sort_by_key(|job| job.id);
        for job in jobs {
            core.restore(job);
        }
        core.emit_rows();
        effects.append(&mut core.effects);
        core
    }

    fn restore(&mut self, mut row: JobRow) {
        if !row.state.is_live() {
            let body_bytes = row.body.as_ref().map_or(0, |body| body.len() as u64);
            self.finished.push_back((row.id, body_bytes));
            self.finished_bytes += body_bytes;
            return;
        }
        self.now = self.now.max(row.dispatched_at.unwrap_or(row.submitted_at));
        row.state = JobState::Queued;
        let interrupted = row.cancel_requested.take().or(match row.mode {
            Mode::Sync | Mode::Stream => Some(CancelCause::Interrupted),
            Mode::Polling | Mode::Batch => None,
        });
        let body_bytes = row.body.as_ref().map_or(0, |body| body.len() as u64);
        row.body.get_or_insert_with(|| Arc::from([]));
        self.ledger.hold(row.hold);
        self.counts.body_bytes_held += body_bytes;
        self.jobs_made += 1;
        let id = row.id;
        let job = Job {
            row,
            client: None,
            reservation: None,
            sequence: self.jobs_made,
            backoff_until: None,
            submit_lsn: self.lsn,
            body_bytes,
            virtual_start: None,
            row_state: RowState::Kept,
        };
        let key = self.jobs.insert(job);
        self.job_keys.insert(id, key);
        self.enqueue(key);
        match interrupted {
            Some(cause) => self.finish_unserved(key, JobState::Cancelled, End::Cancelled(cause)),
            None => self.touch(key),
        }
    }
}
