//! What an operator asks about what the box keeps: how the store is, and a backup of all of it.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde_json::json;

use super::super::error::ApiError;
use super::super::response::{self, Body};
use super::AdminContext;
use crate::coordinator::effect::RefusalKind;

/// How the store is.
pub(super) fn storage(context: &AdminContext) -> Result<Response<Body>, ApiError> {
    let door = &context.inference.door;
    let state = door.store_state().ok_or_else(keeps_nothing)?;
    let closed_by = door.closed().map(|refusal| match refusal.kind {
        RefusalKind::DiskReserve => "disk",
        _ => "backlog",
    });
    let gauges = &state.gauges;
    let view = json!({
        "admission_closed_by": closed_by,
        "snapshots_failing": state.trouble,
        "disk_free_bytes": gauges.disk_free_bytes,
        "disk_reserve_bytes": gauges.disk_reserve_bytes,
        "journal_bytes": gauges.journal_bytes,
        "state_bytes": gauges.state_bytes,
        "payload_bytes": gauges.payload_bytes,
        "dirty_bytes": gauges.dirty_bytes,
        "group": gauges.group,
        "applied_group": gauges.applied_group,
        "checkpoints": gauges.checkpoints,
        "snapshots": gauges.snapshots,
    });
    Ok(response::json(view.to_string()))
}

/// Makes a backup. Goes on to its end even if who asked leaves.
pub(super) async fn backup(context: &AdminContext, target: PathBuf) -> Result<Response<Body>, ApiError> {
    let backups = Arc::clone(context.backups.as_ref().ok_or_else(keeps_nothing)?);
    let made = tokio::task::spawn_blocking(move || {
        let made = backups.make(&target);
        match &made {
            Ok(made) => tracing::info!(target = %made.target.display(), bytes = made.bytes, "backed up"),
            Err(error) => tracing::warn!(%error, "a backup failed"),
        }
        made
    });
    let made = made.await.map_err(|_| ApiError::internal("The backup panicked: please report it."))?;
    let made = made.map_err(|error| {
        let status = if error.is_about_the_request() {
            StatusCode::CONFLICT
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        ApiError::command_rejected(status, "backup_failed", error.to_string())
    })?;
    let target = made.target.to_string_lossy();
    Ok(response::json(json!({"target": target, "bytes": made.bytes, "lsn": made.lsn}).to_string()))
}

fn keeps_nothing() -> ApiError {
    ApiError::command_rejected(StatusCode::CONFLICT, "nothing_kept", "This box keeps nothing on disk.")
}
