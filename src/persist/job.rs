//! A job's row: most of it in one value, what is long apart.
//!
//! A job that waits or is small is one row: the value holds its spec, its progress and its trace. Its body is always a
//! row of its own, because it is written once and the rest with every change; so are long constraints and metadata,
//! and a long trace, because values are short.

use serde::{Deserialize, Serialize};

use super::mirror::{Mirror, Unfit, Unusual, mirror_enum, mirror_struct};
use super::trace::TraceEntryV1;
use super::values::{
    CancelCauseV1, DeadlineV1, DeterminismV1, EndV1, EndpointV1, EnvironmentV1, FinishReasonV3, InputCountV1,
    JobErrorV1, JobStateV1, ModeV1, StoringV2, TierV1, TrustV1, UsageV1,
};
use crate::coordinator::effect::End;
use crate::coordinator::event::{Constraints, Fallbacks, FinishReason, JobSpec, Keyed, Origin};
use crate::coordinator::job::{AttemptOutcome, AttemptRow, JobRow, JobState, Progress, ReservationRow};
use crate::coordinator::limits::BYTES_PER_TOKEN_MAX;
use crate::coordinator::rare::Rare;
use crate::credits::{Credits, Price};
use crate::ids::{
    Digest, GpuClass, IdempotencyKey, JobId, ModelVersion, Namespace, NodeId, Region, ReservationId,
    SubcloudName,
};
use crate::time::{Span, Time};

mirror_struct! {
    KeyedV1 = Keyed { key: IdempotencyKey, body: Digest }
    ConstraintsV1 = Constraints {
        version: Option<ModelVersion>,
        gpu: Option<GpuClass>,
        memory_bytes_min: u64,
        region: Option<Region>,
        subcloud: Option<SubcloudName>,
        allow: Vec<NodeId>,
        deny: Vec<NodeId>,
        trust: Option<TrustV1>,
    }
    FallbacksV1 = Fallbacks { models: Vec<std::sync::Arc<str>>, after_failures: u32 }
    ReservationV1 = ReservationRow { id: ReservationId, node: NodeId, assigned_at: Time, attempt_due: Time }
    AttemptV1 = AttemptRow {
        reservation: ReservationId,
        node: NodeId,
        model: std::sync::Arc<str>,
        assigned_at: Time,
        ended_at: Time,
        outcome: AttemptOutcomeV1,
    }
    ProgressV1 = Progress {
        cancel_requested: Option<CancelCauseV1>,
        dispatched_at: Option<Time>,
        ended_at: Option<Time>,
        charged: Credits,
        attempts: u32,
        failed_attempts: u32,
        failed_on_model: u32,
        lost_attempts: u32,
        declines: u32,
        box_cuts: u32,
        reservation: Option<ReservationV1>,
        node: Option<NodeId>,
        error: Option<JobErrorV1>,
        end: Option<EndV1>,
        usage: UsageV1,
        history: Vec<AttemptV1>,
        trace_dropped: u32,
    }
}

mirror_enum! {
    OriginV1 = Origin {
        Client,
        Requeued { from: JobId },
        Test { node: NodeId },
        Blind { template: std::sync::Arc<str> },
        Validation { of: JobId },
    }
    AttemptOutcomeV1 = AttemptOutcome {
        Succeeded,
        Failed(error: JobErrorV1),
        TimedOut(deadline: DeadlineV1),
        Declined,
        Lost,
        TakenBack,
        Stopped,
        Cut,
    }
}

/// What a job's value holds itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobV1 {
    pub(super) spec: SpecV1,
    pub(super) origin: Unusual<OriginV1>,
    pub(super) model_index: u32,
    pub(super) state: JobStateV1,
    pub(super) submitted_at: Time,
    pub(super) expires_at: Time,
    pub(super) not_before: Time,
    pub(super) prices: Vec<Price>,
    pub(super) hold: Credits,
    pub(super) sequence: u64,
    pub(super) progress: Unusual<ProgressV1>,
    /// [`ExtrasV1`] and the trace's lines, or that they are rows of their own.
    pub(super) extras: Place,
    pub(super) trace: Place,
}

/// What a job's value held in version 2.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobV2 {
    pub(super) job: JobV1,
    pub(super) later: LaterV2,
}

/// What a job's value holds since version 3.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobV3 {
    pub(super) job: JobV1,
    pub(super) later: LaterV3,
}

/// What came with version 2.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaterV2 {
    pub(super) storing: StoringV2,
}

/// What came with version 3, and version 2 before it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaterV3 {
    pub(super) storing: StoringV2,
    pub(super) bytes_per_token: u32,
    /// Why generation ended, where version 1 has no word for it: there the end says `Stop`.
    pub(super) finish: Option<FinishReasonV3>,
}

impl LaterV3 {
    /// Of a row.
    pub(super) fn of(row: &JobRow) -> Self {
        let finish = match &row.progress.end {
            Some(End::Succeeded(reason)) => FinishReasonV3::of(*reason),
            _ => None,
        };
        Self { storing: Mirror::of(&row.spec.storing), bytes_per_token: row.spec.bytes_per_token, finish }
    }

    /// What a job of version 1 is taken for.
    pub(super) fn of_version_1() -> Self {
        Self::of_version_2(LaterV2 { storing: StoringV2::Allowed })
    }

    /// What a job of version 2 is taken for.
    pub(super) fn of_version_2(before: LaterV2) -> Self {
        Self { storing: before.storing, bytes_per_token: BYTES_PER_TOKEN_MAX, finish: None }
    }
}

/// Where a part of a job's row is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Place {
    /// Here, as it is kept.
    Here(Vec<u8>),
    /// In a row of its own.
    Apart,
}

/// What was asked for, as far as it is short.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SpecV1 {
    pub(super) namespace: Namespace,
    pub(super) environment: EnvironmentV1,
    pub(super) endpoint: EndpointV1,
    pub(super) model: std::sync::Arc<str>,
    pub(super) mode: ModeV1,
    pub(super) tier: TierV1,
    pub(super) ttl: Span,
    pub(super) not_before: Option<Time>,
    pub(super) input_tokens: u32,
    pub(super) input_count: InputCountV1,
    pub(super) output_tokens_max: u32,
    pub(super) messages: u32,
    pub(super) key: Option<KeyedV1>,
    pub(super) prefix: Option<u64>,
    pub(super) determinism: DeterminismV1,
}

/// What may be long in what was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExtrasV1 {
    pub(super) constraints: Unusual<ConstraintsV1>,
    pub(super) fallbacks: Unusual<FallbacksV1>,
    pub(super) metadata: Vec<(String, String)>,
}

impl SpecV1 {
    fn of(spec: &JobSpec) -> (Self, ExtrasV1) {
        // All by name, so that what the core gains is decided on here.
        let JobSpec {
            namespace,
            environment,
            endpoint,
            model,
            mode,
            tier,
            ttl,
            not_before,
            input_tokens,
            input_count,
            output_tokens_max,
            messages,
            constraints,
            fallbacks,
            key,
            metadata,
            prefix,
            determinism,
            // In what came later.
            storing: _,
            bytes_per_token: _,
        } = spec;
        let kept = Self {
            namespace: namespace.clone(),
            environment: Mirror::of(environment),
            endpoint: Mirror::of(endpoint),
            model: model.clone(),
            mode: Mirror::of(mode),
            tier: Mirror::of(tier),
            ttl: *ttl,
            not_before: **not_before,
            input_tokens: *input_tokens,
            input_count: Mirror::of(input_count),
            output_tokens_max: *output_tokens_max,
            messages: *messages,
            key: Mirror::of(&**key),
            prefix: **prefix,
            determinism: Mirror::of(determinism),
        };
        let extras = ExtrasV1 {
            constraints: Mirror::of(constraints),
            fallbacks: Mirror::of(fallbacks),
            metadata: (**metadata).clone(),
        };
        (kept, extras)
    }

    fn back(self, extras: ExtrasV1, storing: StoringV2, bytes_per_token: u32) -> Result<JobSpec, Unfit> {
        let key: Option<Keyed> = self.key.back()?;
        Ok(JobSpec {
            namespace: self.namespace,
            environment: self.environment.back()?,
            endpoint: self.endpoint.back()?,
            model: self.model,
            mode: self.mode.back()?,
            tier: self.tier.back()?,
            ttl: self.ttl,
            not_before: self.not_before.into(),
            input_tokens: self.input_tokens,
            input_count: self.input_count.back()?,
            output_tokens_max: self.output_tokens_max,
            messages: self.messages,
            bytes_per_token,
            constraints: extras.constraints.back()?,
            fallbacks: extras.fallbacks.back()?,
            key: key.into(),
            metadata: extras.metadata.into(),
            prefix: self.prefix.into(),
            determinism: self.determinism.back()?,
            storing: storing.back()?,
        })
    }
}

/// A job's row in its parts, without its body.
pub(super) struct Parts {
    pub(super) job: JobV1,
    pub(super) later: LaterV3,
    pub(super) extras: ExtrasV1,
    pub(super) trace: Vec<TraceEntryV1>,
}

impl Parts {
    /// The parts of a row. Where they are kept is left to be decided.
    pub(super) fn of(row: &JobRow) -> Self {
        let JobRow {
            id: _,
            spec,
            origin,
            body: _,
            model_index,
            state,
            submitted_at,
            expires_at,
            not_before,
            prices,
            hold,
            sequence,
            trace,
            progress,
        } = row;
        let (spec, extras) = SpecV1::of(spec);
        let job = JobV1 {
            spec,
            origin: Mirror::of(origin),
            model_index: *model_index,
            state: Mirror::of(state),
            submitted_at: *submitted_at,
            expires_at: *expires_at,
            not_before: *not_before,
            prices: Mirror::of(prices),
            hold: *hold,
            sequence: *sequence,
            progress: Mirror::of(progress),
            extras: Place::Apart,
            trace: Place::Apart,
        };
        let later = LaterV3::of(row);
        Self { job, later, extras, trace: trace.iter().map(Mirror::of).collect() }
    }

    /// The row again.
    pub(super) fn back(self, id: JobId, body: Option<std::sync::Arc<[u8]>>) -> Result<JobRow, Unfit> {
        let Self { job, later, extras, trace } = self;
        let trace: Vec<_> = trace.back()?;
        let mut progress: Rare<Progress> = job.progress.back()?;
        if let (Some(End::Succeeded(reason)), Some(later)) = (&progress.end, later.finish) {
            if *reason != FinishReason::Stop {
                return Err(Unfit(format!("it ended as `{}` and as `{later:?}`", reason.word())));
            }
            progress.end = Some(End::Succeeded(later.back()));
        }
        let row = JobRow {
            id,
            spec: std::sync::Arc::new(job.spec.back(extras, later.storing, later.bytes_per_token)?),
            origin: job.origin.back()?,
            body,
            model_index: job.model_index,
            state: job.state.back()?,
            submitted_at: job.submitted_at,
            expires_at: job.expires_at,
            not_before: job.not_before,
            prices: job.prices.back()?,
            hold: job.hold,
            sequence: job.sequence,
            trace: trace.into_iter().collect(),
            progress,
        };
        // What the core indexes by, so that no bytes make it panic.
        let models = (row.spec.fallbacks.models.len() + 1).min(row.prices.len());
        if row.model_index as usize >= models {
            return Err(Unfit(format!("it runs on model {} of {models}", row.model_index)));
        }
        Ok(row)
    }
}

/// Whether this is the row's first writing, or may be: nothing was decided on the job later than its acceptance.
/// What never changes is written then; writing it once more does no harm.
pub(super) fn may_be_new(row: &JobRow) -> bool {
    row.trace.last().is_none_or(|last| last.at <= row.submitted_at)
}

/// Whether a body is on disk while its job lives. That of an unkeyed sync or stream job isn't, for such a job doesn't
/// outlive the process; nor is that of the system's own, which the box has from a template or does without.
pub(super) fn body_is_kept_alive(row: &JobRow) -> bool {
    !row.spec.is_tied_to_client() && !row.origin.is_system()
}

/// Whether the body is to be written with this change.
pub(super) fn body_is_due(row: &JobRow) -> bool {
    match body_is_kept_alive(row) {
        true => may_be_new(row),
        false => row.state == JobState::Failed && !row.origin.is_system(),
    }
}
