//! How an attempt went: with an answer, and why that ended; or without, and what may be done about it.

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The answer is whole.
    Succeeded(FinishReason),
    /// There is none.
    Failed(JobError),
}

/// Why generation ended, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended, or a stop string came.
    Stop,
    /// The most tokens allowed were generated.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The model calls a function, by the older name of the same.
    FunctionCall,
    /// A filter of the server's left something out.
    ContentFilter,
}

impl FinishReason {
    /// The word that the API uses.
    pub fn word(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::FunctionCall => "function_call",
            FinishReason::ContentFilter => "content_filter",
        }
    }
}

/// Why an attempt or a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// For the client: what was wrong.
    pub message: String,
}

/// What a failure says about trying again (SPEC section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The request is wrong: never retried.
    Terminal,
    /// The node is at fault: retried elsewhere.
    Node,
    /// It may go better later: retried with backoff.
    Transient,
}
