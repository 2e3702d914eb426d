//! Mirrors of everything that isn't a job: the ledger, nodes, settings.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::former::{PenaltyRulesV1, QualityV1};
use super::mirror::{Mirror, Unfit, mirror_enum, mirror_struct};
use super::values::{EndpointV1, EnvironmentV1, EnvironmentsV1, ModeV1, TierV1, TrustV1};
use crate::coordinator::command::{NamespaceSettings, Scope, Unrunnable};
use crate::coordinator::integrity::{Expect, Feedback, Note, Opinion, OutputDigest, Plausibility, Template};
use crate::coordinator::invites::Invite;
use crate::coordinator::keys::{KeyEntry, KeyRow};
use crate::coordinator::ledger::{Account, Balance, Owner, Posting, PostingId, PriceRule, Step, Subject};
use crate::coordinator::snapshot::{ModelSpec, Participation, RuntimeKind, Snapshot, Timeouts};
use crate::coordinator::standing::{
    Conduct, Exclusion, Fault, NodeRow, Order, Party, PenaltyRules, Quality, Trial, Weights,
};
use crate::coordinator::subcloud::{Allowed, Isolation, Policy, Subcloud};
use crate::credits::{Credits, Price};
use crate::ids::{
    Digest, GpuClass, IdempotencyKey, JobId, ModelVersion, Namespace, NodeId, OperationId, Region,
    SubcloudName,
};
use crate::time::{Span, Time};

mirror_struct! {
    AccountV1 = Account { environment: EnvironmentV1, owner: OwnerV1 }
    BalanceV2 = Balance { account: AccountV1, balance: Credits, folded: Option<Credits> }
    PostingIdV1 = PostingId { subject: SubjectV1, step: StepV1 }
    PostingV1 = Posting {
        id: PostingIdV1,
        environment: EnvironmentV1,
        at: Time,
        legs: Vec<(OwnerV1, Credits)>,
        note: String,
    }
    PriceRuleV1 = PriceRule {
        environment: Option<EnvironmentV1>,
        model: Option<Arc<str>>,
        tier: Option<TierV1>,
        from: Time,
        price: Price,
    }
}

mirror_enum! {
    OwnerV1 = Owner { Namespace(namespace: Namespace), Node(node: NodeId), Fee, Integrity, Issuance }
    SubjectV1 = Subject { Job(job: JobId), Operation(operation: OperationId) }
    StepV1 = Step { Capture, Deposit, Adjust, Transfer }
}

mirror_struct! {
    OrderV1 = Order { since: Time, cause: Arc<str> }
    ExclusionV1 = Exclusion { order: OrderV1, until: Time }
    ConductV1 = Conduct {
        missing: u32,
        as_of: Time,
        faults_in_a_row: u32,
        faults: Vec<(FaultV1, u64)>,
        settled_jobs: u64,
        cooldowns_counted: u32,
        reinstated_at: Option<Time>,
    }
    QualityV2 = Quality { checks: u32, passed: u32, checks_ever: u64, failed_ever: u64, lies: u32 }
    NodeV1 = NodeRow {
        node: NodeId,
        trust: TrustV1,
        environments: EnvironmentsV1,
        owner: Option<Namespace>,
        region: Option<Region>,
        paused: Vec<(PartyV1, Time)>,
        draining: Vec<(PartyV1, Time)>,
        frozen: Option<OrderV1>,
        banned: Option<OrderV1>,
        exclusion: Option<ExclusionV1>,
        exclusions: Vec<ExclusionV1>,
        trials: Vec<(Arc<str>, TrialV1)>,
        conduct: ConductV1,
        quality: QualityV1,
    }
    NodeV2 = NodeRow {
        node: NodeId,
        trust: TrustV1,
        environments: EnvironmentsV1,
        owner: Option<Namespace>,
        region: Option<Region>,
        paused: Vec<(PartyV1, Time)>,
        draining: Vec<(PartyV1, Time)>,
        frozen: Option<OrderV1>,
        banned: Option<OrderV1>,
        exclusion: Option<ExclusionV1>,
        exclusions: Vec<ExclusionV1>,
        trials: Vec<(Arc<str>, TrialV1)>,
        conduct: ConductV1,
        quality: QualityV2,
    }
}

mirror_enum! {
    PartyV1 = Party { Owner, Operator }
    FaultV1 = Fault {
        AttemptFailed, TimedOut, Died, FailedCheck, FailedTest, BadSignature, ForeignReservation,
        UnissuedReservation,
    }
    TrialV1 = Trial {
        Passed { digest: Digest, at: Time },
        Failed { digest: Digest, times: u32, not_before: Time },
    }
}

mirror_struct! {
    NamespaceV1 = NamespaceSettings {
        namespace: Namespace,
        weight: u32,
        trust: TrustV1,
        credit: (Option<Credits>, Option<Credits>),
        unrunnable: UnrunnableV1,
        queue_jobs_max: u64,
    }
    InviteV1 = Invite {
        token: Digest,
        trust: TrustV1,
        environments: EnvironmentsV1,
        owner: Option<Namespace>,
        region: Option<Region>,
        made_at: Time,
        expires_at: Time,
    }
    KeyV1 = KeyRow { key: IdempotencyKey, entry: KeyEntryV1 }
    KeyEntryV1 = KeyEntry { body: Digest, job: JobId, namespace: Namespace, expires_at: Time }
    TemplateV1 = Template {
        name: Arc<str>,
        model: Arc<str>,
        endpoint: EndpointV1,
        body: Arc<[u8]>,
        input_tokens: u32,
        output_tokens_max: u32,
        tier: TierV1,
        mode: ModeV1,
        expect: ExpectV1,
    }
    FeedbackV1 = Feedback { job: JobId, namespace: Namespace, opinion: OpinionV1, note: NoteV1, at: Time }
    SubcloudV1 = Subcloud {
        name: SubcloudName,
        environment: EnvironmentV1,
        policy: PolicyV1,
        isolate: IsolationV1,
        owners: Vec<Namespace>,
        allowed: AllowedV1,
        nodes: Vec<NodeId>,
    }
    PolicyV1 = Policy {
        models: Option<Vec<Arc<str>>>,
        regions: Option<Vec<Region>>,
        trust_min: TrustV1,
        memory_min_bytes: u64,
        gpu: Option<GpuClass>,
    }
}

mirror_enum! {
    UnrunnableV1 = Unrunnable { Accept, Refuse }
    ScopeV1 = Scope { Model(model: Arc<str>), Namespace(namespace: Namespace), Tier(tier: TierV1) }
    ExpectV1 = Expect { Digests(digests: Vec<OutputDigestV1>), Tokens { min: u32, max: u32 } }
    OpinionV1 = Opinion { Good, Bad, Flag }
    IsolationV1 = Isolation { Shared, Isolated }
    AllowedV1 = Allowed { Everyone, Only(namespaces: Vec<Namespace>) }
    RuntimeKindV1 = RuntimeKind { Executor, Upstream, Echo }
}

mirror_struct! {
    ModelSpecV1 = ModelSpec {
        version: ModelVersion,
        digest: Digest,
        runtime: RuntimeKindV1,
        memory_bytes: u64,
        default_output_tokens: u32,
        output_tokens_max: u32,
        fallbacks: Vec<Arc<str>>,
    }
    PlausibilityV1 = Plausibility {
        tokens_per_kilobyte_min: u32,
        tokens_per_kilobyte_max: u32,
        tokens_per_second_max: u32,
    }
    ParticipationV1 = Participation {
        probation_jobs: u64,
        probation_check_rate_ppm: u32,
        check_rate_ppm: u32,
        blind_rate_ppm: u32,
        validation_tokens_factor_max: u32,
        plausibility: PlausibilityV1,
    }
    WeightsV1 = Weights {
        attempt_failed: u32,
        timed_out: u32,
        died: u32,
        failed_check: u32,
        failed_test: u32,
        forged: u32,
    }
    PenaltyRulesV2 = PenaltyRules {
        weights: WeightsV1,
        success_repair: u32,
        half_life: Span,
        exclude_below: u32,
        failures_in_a_row_max: u32,
        cooldown: Span,
        cooldown_max: Span,
        forgive_after: Span,
        quality_min: u32,
        quality_checks_min: u32,
        lies_max: u32,
    }
    TimeoutsV1 = Timeouts {
        accept: Span,
        first_output: Span,
        cold_first_output: Span,
        progress: Span,
        attempt: Span,
        stop: Span,
        heartbeat_ttl: Span,
        reconnect_ttl: Span,
    }
    SnapshotV1 = Snapshot {
        environment: EnvironmentV1,
        version: u64,
        digest: Digest,
        signature: Arc<[u8]>,
        models: Vec<(Arc<str>, ModelSpecV1)>,
        participation: ParticipationV1,
        penalties: PenaltyRulesV1,
        timeouts: TimeoutsV1,
        subclouds: Vec<(SubcloudName, Digest)>,
    }
    SnapshotV2 = Snapshot {
        environment: EnvironmentV1,
        version: u64,
        digest: Digest,
        signature: Arc<[u8]>,
        models: Vec<(Arc<str>, ModelSpecV1)>,
        participation: ParticipationV1,
        penalties: PenaltyRulesV2,
        timeouts: TimeoutsV1,
        subclouds: Vec<(SubcloudName, Digest)>,
    }
}

/// A digest of an output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OutputDigestV1(pub(super) [u8; 32]);

impl Mirror<OutputDigest> for OutputDigestV1 {
    fn of(core: &OutputDigest) -> Self {
        Self(core.0)
    }
    fn back(self) -> Result<OutputDigest, Unfit> {
        Ok(OutputDigest(self.0))
    }
}

/// A client's note, which has a bound.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NoteV1(pub(super) Arc<str>);

impl Mirror<Note> for NoteV1 {
    fn of(core: &Note) -> Self {
        Self(core.as_str().into())
    }
    fn back(self) -> Result<Note, Unfit> {
        Note::new(&self.0).map_err(|error| Unfit(error.to_string()))
    }
}

/// A dead letter, with what it was requeued as.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeadLetterV1 {
    pub(super) job: JobId,
    pub(super) requeued_as: Option<JobId>,
}

/// What proves a job's result: opaque, with its length.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProofV1 {
    pub(super) job: JobId,
    pub(super) proof: Arc<[u8]>,
}
