//! Errors about jobs that outlive their connection: what is stored of them, and who waits for them.

use hyper::StatusCode;

use super::{
    ApiError, RATE, RETRY_AFTER_MIN_S, RETRY_AFTER_UNKNOWN_S, Retry, SERVER, UNAVAILABLE, retry_after_secs,
};
use crate::archive::Piece;
use crate::budget::Full;
use crate::ids::JobId;

impl ApiError {
    /// A piece of a job isn't there as it was written. Where it lies is for the operator, in the log.
    pub(in crate::api) fn unreadable(job: JobId, piece: Piece) -> Self {
        let message = format!(
            "The {} of {job} is damaged on the server's disk: its operator finds in the log where. Other jobs are as \
             they were.",
            piece.word()
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "stored_data_damaged", message)
            .retry(Retry::Never)
    }

    /// What a key stood for went while it was looked at.
    pub(in crate::api) fn just_forgotten() -> Self {
        Self::internal("The job of this idempotency key was forgotten this moment: send the request again.")
    }

    /// Only an answer has a receipt.
    pub(in crate::api) fn no_receipt(status: StatusCode, code: &'static str, message: String) -> Self {
        Self::new(status, super::INVALID, code, message).retry(Retry::Never)
    }

    /// As many requests wait for a job's end as may.
    pub(in crate::api) fn waiters_full(full: Full) -> Self {
        match full {
            Full::Holder => Self::over_share(
                "As many of your requests wait for the end of a job as your share of the places holds: ask without \
                 `wait`, or try again shortly.",
            ),
            Full::Whole => Self::overloaded(
                "As many requests wait for the end of a job as may: ask without `wait`, or try again shortly.",
            )
            .retry(retry_after_secs(RETRY_AFTER_MIN_S)),
        }
    }

    /// A namespace's stored answers are on their way to it, as many as may be.
    pub(in crate::api) fn share_full() -> Self {
        Self::over_share(
            "As much of what is stored for you is on its way to you as your share of the memory holds: read the \
             answers that you asked for, then try again.",
        )
    }

    fn over_share(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, RATE, "rate_limit_exceeded", message)
            .retry(retry_after_secs(RETRY_AFTER_MIN_S))
    }

    /// The server leaves before a job is done that outlives it; one that isn't on disk yet can't be named.
    pub(in crate::api) fn goes_on(job: Option<JobId>) -> Self {
        let message = match job {
            Some(job) => format!(
                "The server stops before the job is done; the job goes on when it runs again. Send the same request \
                 with the same `Idempotency-Key` then, or ask with GET /v1/jobs/{job}."
            ),
            None => "The server stops. When it runs again, send the same request with the same `Idempotency-Key`: \
                     if it made a job already, it gets that one's answer."
                .to_owned(),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "job_goes_on", message)
            .retry(retry_after_secs(RETRY_AFTER_UNKNOWN_S))
    }
}
