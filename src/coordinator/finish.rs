//! How jobs end: the hold is settled, clients are told, and only a row is left.

use super::Coordinator;
use super::effect::{CancelCause, End, Finished, Reply, Usage};
use super::event::{Durability, FinishReason, Origin, Storing};
use super::fleet::Reservation;
use super::job::{AttemptOutcome, Job, JobState};
use super::ledger::{Settlement, Split};
use super::mutant::mutant;
use super::slab::Key;
use super::trace::TraceEvent;
use crate::credits::{Credits, Tokens};

/// What an ending job leaves.
pub(super) struct Ending {
    pub(super) state: JobState,
    pub(super) end: End,
    /// Chunks of the last attempt's output that are the answer.
    pub(super) chunks: u32,
    pub(super) usage: Usage,
    /// Output budget that the answer takes until its clients have left.
    pub(super) unread_bytes: u64,
}

impl Coordinator {
    /// A queued job waited longer than its TTL.
    pub(super) fn expire(&mut self, key: Key) {
        self.finish_unserved(key, JobState::Expired, End::Expired);
    }

    /// Ends a queued job.
    pub(super) fn finish_unserved(&mut self, key: Key, state: JobState, end: End) {
        self.unfile(key);
        let ending = Ending { state, end, chunks: 0, usage: Usage::default(), unread_bytes: 0 };
        self.finish(key, ending);
    }

    /// Ends a job that a node had. Its reservation goes on, or goes, without it.
    pub(super) fn finish_served(&mut self, key: Key, ending: Ending, outcome: AttemptOutcome) {
        self.record_attempt(key, outcome);
        self.leave_service(key);
        let used = i64::from(ending.usage.input_tokens) + i64::from(ending.usage.output_tokens);
        let expected = self.expected_tokens(key);
        self.carry(key, used - expected);
        self.finish(key, ending);
    }

    /// What a job's dispatch charged its namespace's virtual time with.
    pub(super) fn expected_tokens(&self, key: Key) -> i64 {
        i64::try_from(self.jobs[key].row.tokens_max()).unwrap_or(i64::MAX)
    }

    /// Corrects the virtual time that a job's last dispatch was charged.
    pub(super) fn carry(&mut self, key: Key, tokens: i64) {
        let job = &self.jobs[key];
        if !job.row.origin.is_test() {
            let tier = job.past.stamp.map_or(job.row.spec.tier, |stamp| stamp.tier);
            self.backlog.carry(job.need.environment, tier, job.namespace, tokens);
        }
    }

    /// Undoes the counts of a job that a node has.
    pub(super) fn leave_service(&mut self, key: Key) {
        let job = &mut self.jobs[key];
        job.past.reservation = None;
        match job.row.state {
            JobState::Reserved => self.counts.jobs_reserved -= 1,
            JobState::Running => self.counts.jobs_running -= 1,
            state => panic!("job {} left service in state {}", job.row.id, state.word()),
        }
        if job.row.cancel_requested.is_some() {
            self.counts.jobs_cancelling -= 1;
        }
    }

    pub(super) fn finish(&mut self, key: Key, ending: Ending) {
        let mut job = self.jobs.remove(key);
        self.job_keys.remove(job.row.id);
        job.transition(ending.state);
        job.note(self.now, TraceEvent::Ended { state: ending.state });
        self.counts.body_bytes_held -= job.row.body_bytes();
        self.settle(&mut job, &ending);
        let row = &mut job.row;
        let progress = &mut *row.progress;
        progress.ended_at = Some(self.now);
        progress.end = Some(ending.end.clone());
        progress.usage = ending.usage;
        self.count_end(ending.state);
        self.free_key(&job, ending.state);
        self.system_job_ended(&job, &ending.end);
        // Dead letters are kept whole, unless their client forbade it; the system's own jobs are none.
        let forbidden = job.row.spec.storing == Storing::Forbidden;
        if ending.state != JobState::Failed || job.row.origin.is_system() || forbidden {
            job.row.body = None;
        }
        self.tell_clients(&job, &ending);
        self.remember(job);
    }

    fn settle(&mut self, job: &mut Job, ending: &Ending) {
        let row = &mut job.row;
        let cost = row.price().cost_of(tokens_of(ending.usage)).min(row.hold);
        let held = std::mem::replace(&mut row.hold, Credits::ZERO);
        row.charged = cost;
        if mutant!(LeakHold) || mutant!(HoldKeptOnExpiry) && ending.state == JobState::Expired {
            return;
        }
        let split = Split { node: row.node.as_ref(), fee_ppm: self.limits.fee_ppm };
        let (environment, payer) = (row.spec.environment, row.payer());
        let settlement =
            Settlement { job: row.id, environment, payer: &payer, held, cost, split, at: self.now };
        let posted = self.ledger.settle(settlement);
        self.keep_posted(posted);
        #[cfg(any(test, feature = "mutants"))]
        {
            let last = job.row.history.last().map(|attempt| attempt.reservation);
            self.note_settled(last, &job.row);
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

    fn tell_clients(&mut self, job: &Job, ending: &Ending) {
        let mut unread_bytes = ending.unread_bytes;
        let row = &job.row;
        let finished = Finished {
            job: row.id,
            end: ending.end.clone(),
            attempt: row.attempts,
            chunks: ending.chunks,
            usage: ending.usage,
            queue: row.dispatched_at.unwrap_or(self.now).since(row.submitted_at),
            node: row.node.clone(),
            model: row.model().clone(),
            charged: row.charged,
        };
        for id in job.clients.iter() {
            if !self.clients.answer(*id, unread_bytes) {
                continue;
            }
            // Whoever leaves last of those that share the output frees it; one of them stands for all.
            unread_bytes = 0;
            let reply = Reply::Finished(Box::new(finished.clone()));
            if self.durability == Durability::Relaxed && row.spec.is_tied_to_client() {
                self.reply_now(*id, reply);
            } else {
                self.writes = super::Writes::Some;
                self.reply_durable(*id, reply);
            }
        }
        self.release_output(unread_bytes);
    }

    pub(super) fn release_output(&mut self, bytes: u64) {
        if bytes > 0 && !mutant!(LeakOutputBytes) {
            self.counts.output_bytes_held -= bytes;
            self.placing.budget_freed();
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

    /// Ends the job of a cancelled reservation with what it may be charged (SPEC section 6): the client's cancel
    /// of what a node had begun costs what the node states, at most what the box saw.
    pub(super) fn end_cancelled(&mut self, reservation: &Reservation, stated: Usage) {
        let Some(key) = reservation.job else { return };
        let row = &self.jobs[key].row;
        let cause = row.cancel_requested.expect("a cancel sets it");
        let charged = cause == CancelCause::Client && reservation.began == super::fleet::Began::Yes;
        let usage = if charged {
            let input_tokens = stated.input_tokens.min(row.spec.input_tokens);
            Usage {
                input_tokens,
                cached_tokens: stated.cached_tokens.min(input_tokens),
                output_tokens: stated
                    .output_tokens
                    .min(reservation.seen_tokens)
                    .min(row.spec.output_tokens_max),
            }
        } else {
            Usage::default()
        };
        self.finish_served(key, Self::cancelled(cause, usage), AttemptOutcome::Stopped);
    }
}

fn tokens_of(usage: Usage) -> Tokens {
    Tokens { input: usage.input_tokens, cached_input: usage.cached_tokens, output: usage.output_tokens }
}

impl Origin {
    /// Whether it was made for one node and never waited in a lane.
    pub(super) fn is_test(&self) -> bool {
        matches!(self, Origin::Test { .. })
    }
}
