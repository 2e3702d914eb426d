//! Mirrors of small values that many rows have.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mirror::{Mirror, Unfit, mirror_enum, mirror_shared, mirror_struct};
use crate::coordinator::effect::{CancelCause, End, Usage, Why};
use crate::coordinator::event::{
    Determinism, Endpoint, Environment, ErrorClass, FinishReason, InputCount, JobError, Mode, Storing, Tier,
};
use crate::coordinator::job::JobState;
use crate::coordinator::standing::{Environments, Trust};

mirror_enum! {
    EnvironmentV1 = Environment { Mainnet, Testnet }
    EndpointV1 = Endpoint { ChatCompletions, Completions }
    ModeV1 = Mode { Sync, Stream, Polling, Batch }
    TierV1 = Tier { Realtime, Standard, Batch, Background }
    InputCountV1 = InputCount { Exact, AtMost }
    DeterminismV1 = Determinism { Exact, Sampled }
    StoringV2 = Storing { Allowed, Forbidden }
    TrustV1 = Trust { Open, Approved, Own }
    JobStateV1 = JobState { Queued, Reserved, Running, Succeeded, Failed, Cancelled, Expired }
    CancelCauseV1 = CancelCause { Client, Operator, Shutdown, Interrupted }
    ErrorClassV1 = ErrorClass { Terminal, Node, Transient }
    EndV1 = End { Succeeded(reason: FinishReasonV1), Failed(error: JobErrorV1), Cancelled(cause: CancelCauseV1), Expired }
    WhyV1 = Why {
        NoNodeServesModel, NoNodeInEnvironment, NoNodeWithVersion, NoNodeTrustedEnough, NoNodeInRegion,
        NoNodeWithGpu, NoNodeWithMemory, NoNodeInSubcloud, NoNodeAllowed, TooLargeForEveryNode, NoNodeReady,
        Paused, TooEarly,
    }
}

mirror_struct! {
    JobErrorV1 = JobError { class: ErrorClassV1, message: String }
    UsageV1 = Usage { input_tokens: u32, cached_tokens: u32, output_tokens: u32 }
}

mirror_shared!(JobErrorV1 = JobError);

/// Why generation ended, as version 1 could say it. What it has no word for is `Stop`, and said beside it since
/// version 3 of jobs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FinishReasonV1 {
    Stop,
    Length,
}

impl Mirror<FinishReason> for FinishReasonV1 {
    fn of(core: &FinishReason) -> Self {
        match core {
            FinishReason::Length => Self::Length,
            FinishReason::Stop
            | FinishReason::ToolCalls
            | FinishReason::FunctionCall
            | FinishReason::ContentFilter => Self::Stop,
        }
    }
    fn back(self) -> Result<FinishReason, Unfit> {
        Ok(match self {
            Self::Stop => FinishReason::Stop,
            Self::Length => FinishReason::Length,
        })
    }
}

/// The reasons that version 1 has no word for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum FinishReasonV3 {
    ToolCalls,
    FunctionCall,
    ContentFilter,
}

impl FinishReasonV3 {
    /// Of a reason; `None` for those that version 1 can say.
    pub(super) fn of(reason: FinishReason) -> Option<Self> {
        match reason {
            FinishReason::Stop | FinishReason::Length => None,
            FinishReason::ToolCalls => Some(Self::ToolCalls),
            FinishReason::FunctionCall => Some(Self::FunctionCall),
            FinishReason::ContentFilter => Some(Self::ContentFilter),
        }
    }

    /// The reason again.
    pub(super) fn back(self) -> FinishReason {
        match self {
            Self::ToolCalls => FinishReason::ToolCalls,
            Self::FunctionCall => FinishReason::FunctionCall,
            Self::ContentFilter => FinishReason::ContentFilter,
        }
    }
}

/// A missed deadline by its word; the core's words are static.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeadlineV1(pub(super) Arc<str>);

/// The words of deadlines that were ever written.
pub(super) const DEADLINES: [&str; 5] = ["accept", "first_output", "progress", "attempt", "stop"];

impl Mirror<&'static str> for DeadlineV1 {
    fn of(core: &&'static str) -> Self {
        Self((*core).into())
    }
    fn back(self) -> Result<&'static str, Unfit> {
        let known = DEADLINES.into_iter().find(|word| **word == *self.0);
        known.ok_or_else(|| Unfit(format!("`{}` is no deadline", self.0)))
    }
}

/// A set of environments as a list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EnvironmentsV1(pub(super) Vec<EnvironmentV1>);

impl Mirror<Environments> for EnvironmentsV1 {
    fn of(core: &Environments) -> Self {
        let present = Environment::ALL.into_iter().filter(|environment| core.contains(*environment));
        Self(present.map(|environment| EnvironmentV1::of(&environment)).collect())
    }
    fn back(self) -> Result<Environments, Unfit> {
        self.0.into_iter().try_fold(Environments::NONE, |set, one| Ok(set.with(one.back()?)))
    }
}
