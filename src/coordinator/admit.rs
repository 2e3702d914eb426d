//! Whether a job is let in, and how it begins: bounds, price, hold, key.

use std::sync::Arc;

use super::backlog::Home;
use super::command::Unrunnable;
use super::effect::{Refusal, RefusalKind, Runnable};
use super::eligibility::Need;
use super::event::{JobSpec, Origin, Submission, Tier};
use super::job::{Job, JobRow, JobState, RowState, Waits};
use super::ledger::{Account, CreditLine, Owner};
use super::limits::BYTES_PER_TOKEN_MAX;
use super::names::{ModelKey, NamespaceKey};
use super::rare::Rare;
use super::slab::Key;
use super::spec::{
    CONSTRAINT_NODES_MAX, Constraints, Environment, FALLBACKS_MAX, METADATA_BYTES_MAX, METADATA_PAIRS_MAX,
};
use super::trace::TraceEvent;
use super::{Admission, Coordinator};
use crate::credits::{Credits, Price};
use crate::ids::{ClientId, Lsn, ModelName, Namespace};
use crate::time::Span;

/// How soon a client may look for the server's successor.
const DRAINING_RETRY_AFTER: Span = Span::from_secs(5);

/// A submission that passed every bound, with its names' numbers.
pub(super) struct Admitted {
    pub(super) namespace: NamespaceKey,
    pub(super) model: ModelKey,
    pub(super) prices: Arc<[Price]>,
    pub(super) hold: Credits,
}

impl Coordinator {
    /// Checks a submission against every bound. Nothing is changed but names that are seen for the first time.
    pub(super) fn admit(
        &mut self,
        submission: &Submission,
        origin: &Origin,
    ) -> Result<Admitted, RefusalKind> {
        let spec = &submission.spec;
        if self.admission != Admission::Open {
            return Err(RefusalKind::Draining);
        }
        self.check_form(submission, origin)?;
        let namespace = self.namespace_key(&spec.namespace).ok_or(RefusalKind::NamesFull)?;
        let model = self.known_model(spec.environment, &spec.model)?;
        self.check_subcloud(spec, origin)?;
        // A test job never waits; and it may be what makes a full queue move.
        if !origin.is_test() {
            self.check_room(submission, namespace)?;
        }
        let prices = self.prices_of(spec);
        let worst =
            prices.iter().map(|price| price.worst_cost(spec.input_tokens, spec.output_tokens_max)).max();
        Ok(Admitted { namespace, model, prices, hold: worst.unwrap_or_default() })
    }

    /// A namespace's number; one that is seen for the first time gets what the box gives to those without settings.
    pub(super) fn namespace_key(&mut self, namespace: &Namespace) -> Option<NamespaceKey> {
        if let Some(known) = self.namespaces.find(namespace) {
            return Some(known);
        }
        let line = self.limits.credit.map_or(CreditLine::Unlimited, CreditLine::Limit);
        for environment in Environment::ALL {
            let owner = Owner::Namespace(namespace.clone());
            self.ledger.set_line(&Account { environment, owner }, line).ok()?;
        }
        self.namespaces.intern(namespace, &self.limits)
    }

    fn check_form(&self, submission: &Submission, origin: &Origin) -> Result<(), RefusalKind> {
        let (spec, limits) = (&submission.spec, &self.limits);
        if spec.tier == Tier::Background && !origin.is_system() {
            return Err(RefusalKind::TierForbidden);
        }
        let body = submission.body.len() as u64;
        if spec.output_tokens_max == 0 || body > limits.body_bytes_max {
            return Err(RefusalKind::SizeInvalid);
        }
        // As text. What else may come with it may be cut short, but is no reason to refuse.
        let output = u64::from(spec.output_tokens_max) * u64::from(BYTES_PER_TOKEN_MAX);
        if output > limits.output_bytes_max.min(limits.output_budget_bytes) {
            return Err(RefusalKind::OutputTooLarge);
        }
        let expires_at = self.now + spec.ttl;
        if spec.ttl == Span::default() || spec.not_before.is_some_and(|at| at >= expires_at) {
            return Err(RefusalKind::TtlInvalid);
        }
        let listed = spec.constraints.allow.len() + spec.constraints.deny.len();
        let metadata: usize = spec.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let too_many = listed > CONSTRAINT_NODES_MAX
            || spec.fallbacks.models.len() > FALLBACKS_MAX
            || spec.metadata.len() > METADATA_PAIRS_MAX
            || metadata > METADATA_BYTES_MAX;
        if too_many { Err(RefusalKind::TooManyConstraints) } else { Ok(()) }
    }

    /// The number of a job's model, if anybody knows it: a configuration, or a node. One that is away counts with what
    /// it listed last; what a node lists no more, and nobody else does, is unknown again. What a configuration that names
    /// models doesn't name, there isn't.
    fn known_model(&mut self, environment: Environment, name: &ModelName) -> Result<ModelKey, RefusalKind> {
        if !self.snapshots.has(environment, name) {
            return Err(RefusalKind::ModelUnknown);
        }
        let is_known = |model: &ModelKey| {
            self.proven_models.contains(model) || self.fleet.serving(*model).next().is_some()
        };
        if let Some(model) = self.models.key(name).filter(is_known) {
            return Ok(model);
        }
        if self.snapshots.model(environment, name).is_none() {
            return Err(RefusalKind::ModelUnknown);
        }
        self.models.intern(name).ok_or(RefusalKind::NamesFull)
    }

    /// The system's own jobs go wherever the jobs go that they are made for.
    fn check_subcloud(&self, spec: &JobSpec, origin: &Origin) -> Result<(), RefusalKind> {
        let Some(name) = &spec.constraints.subcloud else { return Ok(()) };
        if self.subclouds.named(spec.environment, name).is_none() {
            return Err(RefusalKind::SubcloudUnknown);
        }
        if origin.is_system() {
            return Ok(());
        }
        let models = std::iter::once(&spec.model).chain(&spec.fallbacks.models);
        let mut admitted =
            models.map(|model| self.subclouds.admits(spec.environment, name, &spec.namespace, model).is_ok());
        if admitted.all(|admitted| admitted) { Ok(()) } else { Err(RefusalKind::SubcloudForbidden) }
    }

    fn check_room(&self, submission: &Submission, namespace: NamespaceKey) -> Result<(), RefusalKind> {
        let limits = &self.limits;
        let bytes = self.counts.body_bytes_held.saturating_add(submission.body.len() as u64);
        let of_namespace =
            self.namespaces.settings(namespace).queue_jobs_max.min(limits.namespace_queue_jobs_max);
        if self.namespaces.waiting(namespace) >= of_namespace {
            return Err(RefusalKind::NamespaceQueueFull);
        }
        if self.counts.jobs_queued >= limits.queue_jobs_max {
            return Err(RefusalKind::QueueFull);
        }
        if bytes > limits.queue_bytes_max { Err(RefusalKind::QueueBytesFull) } else { Ok(()) }
    }

    /// Prices in force now, of a job's model and its fallbacks.
    fn prices_of(&mut self, spec: &JobSpec) -> Arc<[Price]> {
        let models = std::iter::once(&spec.model).chain(&spec.fallbacks.models);
        let price = |model| self.prices.price_at(spec.environment, model, spec.tier, self.now);
        let prices: Vec<Price> = models.map(price).collect();
        self.prices.shared(&prices)
    }

    pub(super) fn refuse(&mut self, client: ClientId, kind: RefusalKind, spec: &JobSpec) {
        let refusal = self.refusal(kind, spec);
        self.reply_now(client, super::effect::Reply::Refused(refusal));
    }

    /// A refusal with when trying again makes sense.
    pub(super) fn refusal(&mut self, kind: RefusalKind, spec: &JobSpec) -> Refusal {
        self.counts.refuse(kind);
        Refusal { kind, retry_after: self.retry_after(kind, spec) }
    }

    /// Once a tenth of what waits for this model is gone, at its measured pace.
    fn retry_after(&self, kind: RefusalKind, spec: &JobSpec) -> Option<Span> {
        match kind {
            RefusalKind::NamespaceQueueFull | RefusalKind::QueueFull | RefusalKind::QueueBytesFull => {}
            RefusalKind::Draining => return Some(DRAINING_RETRY_AFTER),
            // The next key expires within a day; asking every minute does no harm.
            RefusalKind::KeysFull => return Some(Span::from_secs(60)),
            _ => return None,
        }
        let model = self.models.key(&spec.model)?;
        let waiting = self.backlog.ahead(Home { environment: spec.environment, model }, Tier::Background);
        let one_leaves = self.fleet.means(model).service().0 / self.fleet.slots_of(model).max(1);
        let micros = one_leaves.saturating_mul((waiting / 10).max(1));
        Some(Span(micros.clamp(Span::from_secs(1).0, Span::from_secs(60).0)))
    }

    /// Lets a job in, held and waiting. Says whether some node could run it.
    pub(super) fn begin_job(
        &mut self,
        submission: Submission,
        origin: Origin,
        admitted: Admitted,
        client: Option<ClientId>,
    ) -> Key {
        let now = self.now;
        let id = self.next_job_id();
        let Submission { mut spec, body, closed: _ } = submission;
        // Names are kept once, not once for each request that spells them.
        spec.namespace = self.namespaces.name(admitted.namespace).clone();
        spec.model = self.models[admitted.model].clone();
        let settings = self.namespaces.settings(admitted.namespace);
        spec.constraints = Constraints::trusting(spec.constraints, settings.trust);
        let row = JobRow::accepted(id, spec, origin, body, &admitted, now);
        self.counts.body_bytes_held += row.body_bytes();
        self.counts.accepted += 1;
        let home = Home { environment: row.spec.environment, model: admitted.model };
        let ahead = self.backlog.ahead(home, row.spec.tier);
        let mut job = Job {
            need: Need::of(&row.spec, admitted.model, 0),
            row,
            clients: client.into(),
            waits: Waits::Not,
            ttl_timer: None,
            submit_lsn: Lsn(self.lsn.0 + 1),
            namespace: admitted.namespace,
            past: Rare::default(),
            row_state: RowState::Kept,
        };
        job.note(now, TraceEvent::Submitted { ahead });
        let key = self.jobs.insert(job);
        self.job_keys.insert(id, key);
        self.touch(key);
        key
    }

    /// Whether some node could run a waiting job, and whether it is held back otherwise.
    pub(super) fn runnable(&self, key: Key) -> Runnable {
        let job = &self.jobs[key];
        if job.row.state != JobState::Queued {
            return Runnable::Yes;
        }
        if job.row.not_before > self.now {
            return Runnable::No(super::effect::Why::TooEarly);
        }
        if self.backlog.explain_paused(job.need.model, job.namespace, job.row.spec.tier).is_some() {
            return Runnable::No(super::effect::Why::Paused);
        }
        match self.reason_against(key, job.row.model_index) {
            None => Runnable::Yes,
            Some(why) => Runnable::No(why),
        }
    }

    /// Whether a namespace wants jobs that no node could run refused.
    pub(super) fn refuses_unrunnable(&self, namespace: NamespaceKey) -> bool {
        self.namespaces.settings(namespace).unrunnable == Unrunnable::Refuse
    }
}
