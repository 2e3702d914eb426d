//! How jobs wait, wait again, and end. Ending settles the hold, tells the client and leaves only a row.

use super::backlog::Place;
use super::effect::{CancelCause, Effect, End, Finished, Reply, Row, Usage};
use super::event::{Durability, FinishReason, Mode};
use super::job::{Job, JobState, TraceEvent};
use super::ledger::Settlement;
use super::slab::Key;
use super::timers::Timer;
use super::{Coordinator, backlog};
use crate::credits::Credits;
use crate::time::Time;

/// What an ending job leaves.
pub(super) struct Ending {
    pub(super) state: JobState,
    pub(super) end: End,
    /// Chunks of the last attempt's output that are the answer.
    pub(super) chunks: u32,
    pub(super) usage: Usage,
    /// Output budget that the answer takes until its client has left.
    pub(super) unread_bytes: u64,
}

impl Coordinator {
    /// Lets a queued job wait for a node, from now on.
    pub(super) fn enqueue(&mut self, key: Key) {
        let job = &mut self.jobs[key];
        assert!(
            job.row.state == JobState::Queued,
            "job {} waits in state {}",
            job.row.id,
            job.row.state.word()
        );
        job.backoff_until = None;
        let place = Place { sequence: job.sequence, virtual_start: job.virtual_start };
        self.backlog.insert(&job.row, place, key);
        self.placeable.insert(job.row.model.clone());
        self.count_waiting(key);
    }

    /// Lets a queued job wait until `until` before it waits for a node.
    pub(super) fn back_off(&mut self, key: Key, until: Time) {
        let job = &mut self.jobs[key];
        job.backoff_until = Some(until);
        self.timers.set(until, Timer::Backoff(job.row.id));
        self.count_waiting(key);
    }

    fn count_waiting(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        self.timers.set(row.expires_at, Timer::Ttl(row.id));
        *self.waiting_by_namespace.entry(row.namespace.clone()).or_default() += 1;
        self.counts.jobs_queued += 1;
    }

    /// Undoes `enqueue` or `back_off`, but for the backlog itself.
    pub(super) fn leave_queue(&mut self, key: Key) {
        let job = &mut self.jobs[key];
        let row = &job.row;
        self.timers.clear(row.expires_at, Timer::Ttl(row.id));
        if let Some(until) = job.backoff_until.take() {
            self.timers.clear(until, Timer::Backoff(row.id));
        }
        let waiting = self.waiting_by_namespace.get_mut(&row.namespace).expect("a waiting job is counted");
        *waiting -= 1;
        if *waiting == 0 {
            self.waiting_by_namespace.remove(&row.namespace);
        }
        self.counts.jobs_queued -= 1;
    }

    /// Ends a queued job.
    pub(super) fn finish_unserved(&mut self, key: Key, state: JobState, end: End) {
        let job = &self.jobs[key];
        if job.backoff_until.is_none() {
            self.backlog.remove(&job.row, job.sequence);
        }
        self.leave_queue(key);
        // It may have been the one that the others waited behind.
        self.placeable.insert(self.jobs[key].row.model.clone());
        let ending = Ending { state, end, chunks: 0, usage: Usage::default(), unread_bytes: 0 };
        self.finish(key, ending);
    }

    /// Ends a job that a node had. Its reservation goes on, or goes, without it.
    pub(super) fn finish_served(&mut self, key: Key, ending: Ending) {
        self.leave_service(key);
        let row = &self.jobs[key].row;
        let used = i64::from(ending.usage.input_tokens) + i64::from(ending.usage.output_tokens);
        self.backlog.carry(row, used - backlog::expected_cost(row));
        self.finish(key, ending);
    }

    /// Undoes the counts of a job that a node has.
    pub(super) fn leave_service(&mut self, key: Key) {
        let job = &mut self.jobs[key];
        job.reservation = None;
        match job.row.state {
            JobState::Reserved => self.counts.jobs_reserved -= 1,
            JobState::Running => self.counts.jobs_running -= 1,
            state => panic!("job {} left service in state {}", job.row.id, state.word()),
        }
        if job.row.cancel_requested.is_some() {
            self.counts.jobs_cancelling -= 1;
        }
    }

    fn finish(&mut self, key: Key, ending: Ending) {
        let mut job = self.jobs.remove(key);
        self.job_keys.remove(&job.row.id);
        job.transition(ending.state);
        job.note(self.now, TraceEvent::Ended { state: ending.state });
        self.counts.body_bytes_held -= job.body_bytes;
        self.settle(&mut job, &ending);
        let row = &mut job.row;
        row.ended_at = Some(self.now);
        row.end = Some(ending.end.clone());
        row.usage = ending.usage;
        if row.mode.is_attended() && ending.state != JobState::Failed {
            row.body = None;
        }
        self.count_end(ending.state);
        self.tell_client(&job, &ending);
        self.remember(job);
    }

    fn settle(&mut self, job: &mut Job, ending: &Ending) {
        let row = &mut job.row;
        let cost = row.price.cost(ending.usage.input_tokens, ending.usage.output_tokens).min(row.hold);
        let held = std::mem::replace(&mut row.hold, Credits::ZERO);
        row.charged = cost;
        #[cfg(test)]
        if self.planted == super::Planted::LeakHold {
            return;
        }
        let (namespace, node) = (&row.namespace, row.node.as_ref());
        let rows = self.ledger.settle(Settlement { job: row.id, held, cost, namespace, node });
        for row in rows {
            self.keep(row);
        }
    }

    fn count_end(&mut self, state: JobState) {
        let counts = &mut self.counts;
        match state {
            JobState::Succeeded => counts.succeeded += 1,
            JobState::Failed => counts.failed += 1,
            JobState::Cancelled => counts.cancelled += 1,
            JobState::Expired => counts.expired += 1,
            JobState::Queued | JobState::Reserved | JobState::Running => {}
        }
    }

    fn tell_client(&mut self, job: &Job, ending: &Ending) {
        let client = job.client.and_then(|id| Some((id, self.clients.get_mut(&id)?)));
        let Some((id, client)) = client else {
            self.release_output(ending.unread_bytes);
            return;
        };
        client.job = None;
        client.unread_bytes = ending.unread_bytes;
        let row = &job.row;
        let finished = Finished {
            job: row.id,
            end: ending.end.clone(),
            attempt: row.attempts,
            chunks: ending.chunks,
            usage: ending.usage,
            queue: row.dispatched_at.unwrap_or(self.now).since(row.submitted_at),
            node: row.node.clone(),
            charged: row.charged,
        };
        let reply = Reply::Finished(Box::new(finished));
        if self.durability == Durability::Relaxed && matches!(row.mode, Mode::Sync | Mode::Stream) {
            self.reply_now(id, reply);
        } else {
            self.writes = super::Writes::Some;
            self.reply_durable(id, reply);
        }
    }

    pub(super) fn release_output(&mut self, bytes: u64) {
        #[cfg(test)]
        if self.planted == super::Planted::LeakOutputBytes {
            return;
        }
        if bytes > 0 {
            self.counts.output_bytes_held -= bytes;
            self.output_budget_freed();
        }
    }

    /// Keeps a finished job's row, and forgets the oldest beyond the bounds: by count, and by the bytes of the
    /// bodies kept with them, which may be as many as those of live jobs.
    fn remember(&mut self, job: Job) {
        let body_bytes = job.row.body.as_ref().map_or(0, |body| body.len() as u64);
        self.finished.push_back((job.row.id, body_bytes));
        self.finished_bytes += body_bytes;
        self.keep(Row::Job(Box::new(job.row)));
        while self.finished.len() > self.limits.finished_jobs_max
            || self.finished_bytes > self.limits.queue_bytes_max
        {
            let Some((oldest, bytes)) = self.finished.pop_front() else { return };
            self.finished_bytes -= bytes;
            self.keep(Row::JobForgotten(oldest));
        }
    }

    /// The ending of a job that was cancelled: what it used may be charged.
    pub(super) fn cancelled(cause: CancelCause, usage: Usage) -> Ending {
        Ending { state: JobState::Cancelled, end: End::Cancelled(cause), chunks: 0, usage, unread_bytes: 0 }
    }

    /// The ending of a job with an answer.
    pub(super) fn succeeded(reason: FinishReason, chunks: u32, usage: Usage, unread_bytes: u64) -> Ending {
        Ending { state: JobState::Succeeded, end: End::Succeeded(reason), chunks, usage, unread_bytes }
    }

    /// Tells a node to stop an attempt, and waits for its word until the stop deadline.
    pub(super) fn stop(&mut self, id: crate::ids::ReservationId) {
        let at = self.now + self.limits.stop_timeout;
        self.set_due(id, at, super::fleet::Deadline::Stop);
        let node = self.fleet.reservation(id).expect("set_due found it").node.clone();
        self.effects.push(Effect::Stop { node, reservation: id });
    }
}
