//! What operators and readers ask.

use super::effect::{Answer, DeadLetterView, Effect, JobView, Lookup, QueueView, RefusalKind};
use super::effect::{Reply, Runnable};
use super::event::{Ask, Question, Tenant};
use super::job::JobState;
use super::slab::Key;
use super::{Coordinator, Counts};
use crate::ids::{ClientId, JobId};
use crate::time::{Span, Time};

impl Coordinator {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        let client = ask.client;
        let answer = match ask.question {
            Question::Counts => return self.answer_now(client, Answer::Counts(self.counts())),
            Question::Invariants => {
                let (recount, violations) = self.recount();
                return self.answer_now(client, Answer::Invariants { recount, violations });
            }
            Question::Nodes => Answer::Nodes(self.node_views()),
            Question::Queue => Answer::Queue(self.queue_views()),
            Question::Job(job, tenant) => return self.answer_job(client, job, tenant),
            Question::Trace(job) => return self.answer_trace(client, job),
            Question::DeadLetters(most) => {
                let newest = self.retention.dead_letters().rev().take(most as usize);
                let view = |(job, requeued_as)| DeadLetterView { job, requeued_as };
                Answer::DeadLetters(newest.map(view).collect())
            }
            Question::Balances => Answer::Balances(
                self.ledger.statements().map(|(account, s)| (account, s.balance, s.held)).collect(),
            ),
            Question::Node(node) => self.node_named_view(&node),
            Question::Namespaces(which) => Answer::Namespaces(self.namespace_views(which.as_ref())),
            Question::Subclouds(whose) => Answer::Subclouds(self.subclouds_of(whose.as_ref())),
            Question::Subcloud(environment, name, whose) => {
                self.subcloud_named(environment, &name, whose.as_ref())
            }
            Question::Templates => Answer::Templates(self.templates.iter().cloned().collect()),
            Question::Configuration(environment) => {
                Answer::Configuration(self.snapshots.of(environment).cloned())
            }
            Question::Invites => Answer::Invites(self.open_invites()),
            Question::Drain => self.drain(),
            Question::WindDown => self.wind_down(),
            Question::EndService => self.end_service(),
        };
        self.answer_durable(client, answer);
    }

    /// An answer that needn't be durable: numbers for a dashboard.
    fn answer_now(&mut self, client: ClientId, answer: Answer) {
        self.reply_now(client, Reply::Answer(Box::new(answer)));
    }

    /// An answer that shows state, and so rests on it.
    pub(super) fn answer_durable(&mut self, client: ClientId, answer: Answer) {
        self.reply_durable(client, Reply::Answer(Box::new(answer)));
    }

    fn answer_job(&mut self, client: ClientId, job: JobId, tenant: Option<Tenant>) {
        match (self.live_job(job, tenant.as_ref()), self.job_keys.find(job)) {
            (Some(key), _) => {
                let view = self.job_view(key);
                self.answer_durable(client, Answer::Job(Box::new(view)));
            }
            // Somebody else's job is none.
            (None, Some(_)) => {
                let question = Question::Job(job, tenant);
                self.answer_durable(client, Answer::Refused(RefusalKind::JobUnknown, question));
            }
            (None, None) => self.read(client, job),
        }
    }

    fn answer_trace(&mut self, client: ClientId, job: JobId) {
        match self.job_keys.find(job) {
            Some(key) => {
                let row = self.jobs[key].row.clone();
                self.answer_durable(client, Answer::Trace(Box::new(row)));
            }
            None => self.read(client, job),
        }
    }

    /// What isn't live isn't here: the driver reads it from the store once everything is in it.
    fn read(&mut self, client: ClientId, job: JobId) {
        self.effects.push(Effect::Read { client, what: Lookup::Job(job), lsn: self.newest_lsn() });
        self.effects.push(Effect::Urgent);
    }

    fn job_view(&self, key: Key) -> JobView {
        let job = &self.jobs[key];
        let row = &job.row;
        let waits = row.state == JobState::Queued;
        let (environment, tier) = (row.spec.environment, row.spec.tier);
        let home = super::backlog::Home { environment, model: job.need.model };
        let ahead = self.backlog.ahead(home, tier).max(1);
        let runnable = self.runnable(key);
        let starts_at = (waits && runnable == Runnable::Yes).then(|| self.starts_at(key, ahead));
        JobView {
            row: row.clone(),
            position: waits.then_some(ahead),
            starts_at,
            runnable,
            cancelling: row.cancel_requested.is_some(),
        }
    }

    /// When a job may start if those before it leave at the measured pace of their model.
    fn starts_at(&self, key: Key, ahead: u64) -> Time {
        let model = self.jobs[key].need.model;
        let slots = self.fleet.slots_of(model).max(1);
        let service = self.fleet.means(model).service();
        let wait = service.0.saturating_mul(ahead) / slots;
        self.now.max(self.jobs[key].row.not_before) + Span(wait)
    }

    fn queue_views(&self) -> Vec<QueueView> {
        let view = |view: super::backlog::View| {
            let oldest = self.backlog.oldest(view.home, view.tier)?;
            Some(QueueView {
                model: self.models[view.home.model].clone(),
                tier: view.tier,
                jobs: view.jobs,
                oldest_submitted_at: self.jobs[oldest].row.submitted_at,
            })
        };
        self.backlog.views().filter_map(view).collect()
    }

    /// Every gauge and counter as kept.
    pub fn counts(&self) -> Counts {
        let (slots_total, slots_taken, nodes) = self.fleet.totals();
        Counts {
            reservations: self.fleet.len(),
            slots_taken,
            slots_total,
            nodes,
            holds: self.ledger.holds(),
            held_credits: self.ledger.held_total().0.unsigned_abs(),
            clients: self.clients.len() as u64,
            timers: self.timers.len() as u64,
            keys: self.keys.len() as u64,
            dead_letters: self.retention.dead_letters_len() as u64,
            ..self.counts
        }
    }
}
