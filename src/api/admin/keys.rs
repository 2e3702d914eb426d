//! API keys: made, listed and revoked by operators. A key's secret is in the answer that makes it, and nowhere else ever.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::auth::{Grant, KeyRecord, Keys, Listed, Unchanged};
use super::super::error::ApiError;
use super::super::fields::{checked, name, parsed, world};
use super::views::seconds;
use super::{AdminContext, ask, now};
use crate::coordinator::effect::Answer;
use crate::coordinator::event::{Environment, Question};
use crate::coordinator::subcloud::Allowed;
use crate::ids::{Namespace, SubcloudName};

/// What begins a scope that is a subcloud.
const SUBCLOUD: &str = "subcloud:";

/// A key that is to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    namespace: String,
    environment: Option<String>,
    scope: Option<String>,
}

/// Makes a key.
pub(super) async fn create(context: &AdminContext, body: &[u8]) -> Result<Value, ApiError> {
    let keys = keys(context)?;
    let wanted: Wanted = parsed(body)?;
    let namespace = Namespace::named(name("namespace", &wanted.namespace)?);
    let environment = world(wanted.environment.as_deref())?;
    let scope = wanted.scope.as_deref().map(scope).transpose()?;
    if let Some(subcloud) = &scope {
        check_admitted(context, &namespace, environment, subcloud).await?;
    }
    let made = keys.create(Grant { namespace, environment, scope }, now()).await;
    let (key, record) = made.map_err(|unchanged| error(unchanged, ""))?;
    tracing::info!(key = key.id(), namespace = %record.grant.namespace, "an API key was made");
    let mut value = shown(&record, First::No);
    value["key"] = key.text().into();
    Ok(value)
}

/// Revokes the key of that id.
pub(super) async fn revoke(context: &AdminContext, id: &str) -> Result<Value, ApiError> {
    let revoked = keys(context)?.revoke(id).await;
    revoked.map_err(|unchanged| error(unchanged, id))?;
    tracing::info!(key = id, "an API key was revoked");
    Ok(json!({"done": true}))
}

/// All keys, without what opens.
pub(super) fn list(context: &AdminContext) -> Result<Value, ApiError> {
    let all = keys(context)?.list();
    let key = |listed: &Listed| shown(&listed.record, if listed.is_first { First::Yes } else { First::No });
    Ok(json!({"keys": all.iter().map(key).collect::<Vec<_>>()}))
}

/// A subcloud that isn't there, or doesn't admit the namespace, makes a key that can't do anything: that is a mistake.
async fn check_admitted(
    context: &AdminContext,
    namespace: &Namespace,
    environment: Environment,
    subcloud: &SubcloudName,
) -> Result<(), ApiError> {
    let question = Question::Subcloud(environment, subcloud.clone(), None);
    let Answer::Subcloud(view) = ask(context, question).await? else {
        return Err(ApiError::unexpected());
    };
    let admits = match &view.subcloud.allowed {
        Allowed::Everyone => true,
        Allowed::Only(all) => all.contains(namespace) || view.subcloud.owners.contains(namespace),
    };
    if admits {
        return Ok(());
    }
    let message = format!(
        "The subcloud {subcloud} doesn't admit the namespace {namespace}: let it in with `switchbox subclouds set`."
    );
    Err(ApiError::command_rejected(StatusCode::CONFLICT, "subcloud_forbidden", message))
}

fn scope(text: &str) -> Result<SubcloudName, ApiError> {
    let message = || format!("`scope` must be `{SUBCLOUD}NAME`; leave it out for a key without one.");
    let name = text.strip_prefix(SUBCLOUD);
    checked("scope", name.ok_or_else(|| ApiError::command_malformed("scope", message()))?)
}

fn keys(context: &AdminContext) -> Result<&Arc<Keys>, ApiError> {
    context.inference.access.keys().ok_or_else(|| {
        let message = "This box asks for no keys: start it without `--no-auth` first.";
        ApiError::command_rejected(StatusCode::CONFLICT, "no_keys", message)
    })
}

fn error(unchanged: Unchanged, id: &str) -> ApiError {
    match unchanged {
        Unchanged::Full => {
            let message = "The box has as many keys as it may have: revoke one that isn't used any more.";
            ApiError::command_rejected(StatusCode::CONFLICT, "keys_full", message)
        }
        Unchanged::Unknown => {
            let id: String = id.chars().take(20).collect();
            let message = format!("There is no key `{id}`: `switchbox keys list` shows the ids of all keys.");
            ApiError::command_rejected(StatusCode::NOT_FOUND, "key_not_found", message)
        }
        Unchanged::Failed(problem) => ApiError::internal(&format!("The keys could not be kept: {problem}.")),
    }
}

/// Whether it is the key that every box has from its first start on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Yes,
    No,
}

fn shown(record: &KeyRecord, first: First) -> Value {
    let KeyRecord { id, last, grant, created_at, digest: _ } = record;
    json!({
        "id": id,
        "last": last,
        "namespace": grant.namespace.to_string(),
        "environment": grant.environment.word(),
        "scope": grant.scope.as_ref().map(|subcloud| format!("{SUBCLOUD}{subcloud}")),
        "created_at": created_at.map(seconds),
        "first": first == First::Yes,
    })
}
