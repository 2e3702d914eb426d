//! One thing said to the core, and what it answers: what operators' requests, and those of subclouds' owners, are made
//! of.

use std::time::Duration;

use super::error::ApiError;
use super::rejection;
use crate::archive::Wanted;
use crate::coordinator::command::Command;
use crate::coordinator::effect::{Answer, Refusal};
use crate::coordinator::event::Question;
use crate::door::{ClientMessage, ClientSession, Door};
use crate::ids::Namespace;

/// How long the core may take to answer before who asked is told that it doesn't.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to a question; of a job that has ended, its row.
pub(super) async fn ask(door: &Door, question: Question) -> Result<Answer, ApiError> {
    let ask = |session: &mut ClientSession| {
        session.want(Wanted::Row);
        session.ask(question)
    };
    converse(door, ask).await
}

/// The answer to a command of the operator, or of a namespace.
pub(super) async fn operate(
    door: &Door,
    by: Option<Namespace>,
    command: Command,
) -> Result<Answer, ApiError> {
    converse(door, |session| session.operate(by, command)).await
}

/// Says one thing to the core and waits for what it answers.
pub(super) async fn converse(
    door: &Door,
    say: impl FnOnce(&mut ClientSession) -> Result<(), Refusal>,
) -> Result<Answer, ApiError> {
    let refused = |refusal| ApiError::refused(&refusal, "");
    let mut session = door.open().map_err(refused)?;
    say(&mut session).map_err(refused)?;
    let answered = async {
        loop {
            match session.next().await {
                ClientMessage::Answer(answer) => return Ok(*answer),
                ClientMessage::Refused(refusal) => return Err(refused(refusal)),
                ClientMessage::Unreadable(job, piece) => return Err(ApiError::unreadable(job, piece)),
                ClientMessage::ShareFull => return Err(ApiError::share_full()),
                ClientMessage::Stored(stored) => return Ok(Answer::Trace(stored.row)),
                ClientMessage::Accepted { .. } | ClientMessage::Opened(_) | ClientMessage::Finished(_) => {}
            }
        }
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
    session.served();
    match answer.unwrap_or_else(|_| Err(ApiError::internal("The core did not answer in time.")))? {
        Answer::Refused(kind, _) => Err(refused(Refusal { kind, retry_after: None })),
        Answer::Rejected(rejection) => Err(rejection::error(&rejection)),
        answer => Ok(answer),
    }
}
