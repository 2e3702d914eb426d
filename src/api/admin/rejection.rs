//! Why a command changed nothing, as an operator reads it.

use hyper::StatusCode;

use super::super::error::ApiError;
use crate::coordinator::effect::Rejection;

/// The error of a rejected command.
pub(super) fn error(rejection: &Rejection) -> ApiError {
    use StatusCode as S;
    let (status, code, message) = match rejection {
        Rejection::JobUnknown => return ApiError::job_unknown(),
        Rejection::JobRefused(refusal) => return ApiError::refused(refusal, "that it asks for"),
        Rejection::NotAllowed => (S::FORBIDDEN, "not_allowed", "Only the operator may do that.".to_owned()),
        Rejection::NodeUnknown => (S::NOT_FOUND, "node_not_found", "There is no such node.".to_owned()),
        Rejection::NodeIsTheBox => (
            S::CONFLICT,
            "node_is_the_box",
            "The box's own node can't be told that: pause it, or drain the box.".to_owned(),
        ),
        Rejection::NodeHasNoOwner => (
            S::CONFLICT,
            "node_has_no_owner",
            "The node has no owner whom its earnings could go to.".to_owned(),
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
        Rejection::SettingsInvalid => {
            (S::BAD_REQUEST, "invalid_value", "The settings are beyond what they may be.".to_owned())
        }
        Rejection::NamesFull => {
            (S::CONFLICT, "names_full", "The box can't tell any more names apart.".to_owned())
        }
        Rejection::PricesFull => {
            (S::CONFLICT, "prices_full", "There are as many prices as may be kept.".to_owned())
        }
        Rejection::Ledger(refusal) => {
            (S::CONFLICT, "ledger_refused", format!("The ledger refuses: {refusal}."))
        }
        Rejection::Subcloud(refusal) => (S::CONFLICT, "subcloud_refused", refusal.to_string()),
        Rejection::Snapshot(refusal) => (S::CONFLICT, "configuration_refused", refusal.to_string()),
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
        Rejection::Template(refusal) => (S::CONFLICT, "template_refused", refusal.to_string()),
    };
    ApiError::command_rejected(status, code, message)
}
