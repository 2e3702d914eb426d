//! What operators and readers ask.

use super::effect::{Answer, CancelCause, Effect, QueueView, Reply};
use super::event::{Ask, Question};
use super::fleet::Left;
use super::{Admission, Coordinator, Counts};
use crate::ids::{ClientId, JobId};

impl Coordinator {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        let answer = match ask.question {
            Question::Counts => return self.answer_now(ask.client, Answer::Counts(self.counts())),
            Question::Invariants => {
                let (recount, violations) = self.recount();
                return self.answer_now(ask.client, Answer::Invariants { recount, violations });
            }
            Question::Nodes => Answer::Nodes(self.fleet.views()),
            Question::Queue => Answer::Queue(self.queue_views()),
            Question::Trace(job) => return self.answer_trace(ask.client, job),
            Question::Drain => {
                self.admission = Admission::Draining;
                Answer::Draining { live: self.counts().live() }
            }
            Question::CancelAll => {
                self.admission = Admission::Draining;
                self.cancel_all();
                Answer::Draining { live: self.counts().live() }
            }
        };
        self.reply_durable(ask.client, Reply::Answer(Box::new(answer)));
    }

    /// An answer that needn't be durable: numbers for a dashboard.
    fn answer_now(&mut self, client: ClientId, answer: Answer) {
        self.reply_now(client, Reply::Answer(Box::new(answer)));
    }

    fn answer_trace(&mut self, client: ClientId, job: JobId) {
        match self.job_keys.get(&job) {
            Some(key) => {
                let row = self.jobs[*key].row.clone();
                self.reply_durable(client, Reply::Answer(Box::new(Answer::Trace(Box::new(row)))));
            }
            // What isn't live isn't here: the driver reads it from the store once everything is in it.
            None => {
                self.effects.push(Effect::Read { client, job, lsn: self.newest_lsn() });
                self.effects.push(Effect::Urgent);
            }
        }
    }

    fn cancel_all(&mut self) {
        let keys: Vec<_> = self.jobs.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.cancel(key, CancelCause::Shutdown, Left::Stays);
        }
    }

    fn queue_views(&self) -> Vec<QueueView> {
        let view = |(model, tier, jobs, oldest_submitted_at): (&crate::ids::ModelName, _, _, _)| QueueView {
            model: model.clone(),
            tier,
            jobs,
            oldest_submitted_at,
        };
        self.backlog.views().map(view).collect()
    }

    /// Every gauge and counter as kept.
    pub fn counts(&self) -> Counts {
        Counts {
            reservations: self.fleet.len(),
            slots_taken: self.fleet.slots_taken(),
            slots_total: self.fleet.slots_total(),
            nodes: self.fleet.nodes(),
            holds: self.ledger.holds(),
            held_credits: self.ledger.held().0.unsigned_abs(),
            clients: self.clients.len() as u64,
            timers: self.timers.len(),
            ..self.counts
        }
    }
}
