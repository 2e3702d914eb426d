//! Why a command changed nothing, as who gave it reads it.

use hyper::StatusCode;

use super::error::ApiError;
use crate::coordinator::command::WEIGHT_MAX;
use crate::coordinator::effect::Rejection;
use crate::coordinator::subcloud::Refused;

/// The error of a rejected command.
pub(super) fn error(rejection: &Rejection) -> ApiError {
    use StatusCode as S;
    let (status, code, message) = match rejection {
        Rejection::JobUnknown => return ApiError::job_unknown(),
        Rejection::JobRefused(refusal) => return ApiError::refused(refusal, "that it asks for"),
        Rejection::NotAllowed => (S::FORBIDDEN, "not_allowed", "Only the operator may do that.".to_owned()),
        Rejection::NodeUnknown => (
            S::NOT_FOUND,
            "node_not_found",
            "There is no such node: `switchbox nodes list` names those that the box knows.".to_owned(),
        ),
        Rejection::NodeIsTheBox => (
            S::CONFLICT,
            "node_is_the_box",
            "The box's own node can't be told that: pause it, or drain the box.".to_owned(),
        ),
        Rejection::NodeHasNoOwner => (
            S::CONFLICT,
            "node_has_no_owner",
            "The node has no owner whom its earnings could go to: settle one with `switchbox nodes trust NODE LEVEL --owner \
             NAMESPACE`."
                .to_owned(),
        ),
        Rejection::NotADeadLetter(None) => (
            S::CONFLICT,
            "not_a_dead_letter",
            "The job didn't fail, or is too old to be requeued: /admin/dead-letters lists those that can be."
                .to_owned(),
        ),
        Rejection::NotADeadLetter(Some(job)) => {
            (S::CONFLICT, "requeued_already", format!("The job was requeued already, as {job}."))
        }
        Rejection::SettingsInvalid => (
            S::BAD_REQUEST,
            "invalid_value",
            format!("`weight` must be 1 to {WEIGHT_MAX}, and `credit` zero or more."),
        ),
        Rejection::NamesFull => {
            (S::CONFLICT, "names_full", "The box can't tell any more names apart.".to_owned())
        }
        Rejection::PricesFull => {
            (S::CONFLICT, "prices_full", "There are as many prices as may be kept.".to_owned())
        }
        Rejection::Ledger(refusal) => {
            (S::CONFLICT, "ledger_refused", format!("The ledger refuses: {refusal}."))
        }
        Rejection::Subcloud(refusal) => return of_subcloud(refusal),
        Rejection::Snapshot(refusal) => (S::CONFLICT, "configuration_refused", format!("{refusal}.")),
        Rejection::Template(refusal) => (S::CONFLICT, "template_refused", sentence(&refusal.to_string())),
        Rejection::InviteUnknown => (
            S::NOT_FOUND,
            "invite_not_found",
            "There is no such invite: it was used, revoked, or its time is over.".to_owned(),
        ),
        Rejection::InvitesFull => (
            S::CONFLICT,
            "invites_full",
            "There are as many open invites as there may be: revoke some.".to_owned(),
        ),
    };
    ApiError::command_rejected(status, code, message)
}

fn of_subcloud(refusal: &Refused) -> ApiError {
    let (status, code) = match refusal {
        Refused::Unknown => (StatusCode::NOT_FOUND, "subcloud_not_found"),
        Refused::NotOwner | Refused::OthersNode => (StatusCode::FORBIDDEN, "not_allowed"),
        Refused::TooMany { .. } | Refused::OtherEnvironment => (StatusCode::CONFLICT, "subcloud_refused"),
    };
    ApiError::command_rejected(status, code, sentence(&refusal.to_string()))
}

/// As the first words of a message.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
