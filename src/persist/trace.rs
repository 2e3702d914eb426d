//! Mirrors of a job's trace.

use std::sync::Arc;

use super::mirror::{mirror_enum, mirror_shared, mirror_struct};
use super::values::{CancelCauseV1, DeadlineV1, JobErrorV1, JobStateV1, WhyV1};
use crate::coordinator::score::Score;
use crate::coordinator::trace::{Loss, PlacedBy, Placement, TraceEntry, TraceEvent};
use crate::ids::{NodeId, ReservationId};
use crate::time::Time;

mirror_struct! {
    TraceEntryV1 = TraceEntry { at: Time, what: TraceEventV1 }
    PlacementV1 = Placement {
        reservation: ReservationId,
        node: NodeId,
        candidates: u32,
        by: PlacedByV1,
        score: ScoreV1,
        losers: Vec<(NodeId, LossV1)>,
    }
    ScoreV1 = Score {
        wait_us: i64,
        load_us: i64,
        prefill_us: i64,
        decode_us: i64,
        prefix_us: i64,
        reliability_us: i64,
    }
}

mirror_shared!(PlacementV1 = Placement);

mirror_enum! {
    PlacedByV1 = PlacedBy { Job, Node }
    LossV1 = Loss { Slower(score: ScoreV1), FailedBefore, NoRoom }
    TraceEventV1 = TraceEvent {
        Submitted { ahead: u64 },
        Placed(placement: PlacementV1),
        NotRunnable { why: WhyV1 },
        FellBack { model: Arc<str> },
        Accepted,
        Declined { reason: Arc<str> },
        AttemptFailed { error: JobErrorV1 },
        TimedOut { deadline: DeadlineV1 },
        TakenBack,
        Lost,
        Recovered,
        Revoked { delivered: u32, written: u32 },
        Requeued { not_before: Time },
        CancelRequested { cause: CancelCauseV1 },
        Ended { state: JobStateV1 },
    }
}
