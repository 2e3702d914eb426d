//! Configuration snapshots: shown, and applied from a file. A snapshot is made here, digested and signed with the box's key;
//! whether it is put in force is the core's to say.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::fields::{parsed, world};
use super::super::response::{self, Body};
use super::{AdminContext, ask, operate};
use crate::config::snapshot::{SnapshotFile, written};
use crate::coordinator::command::Command;
use crate::coordinator::effect::Answer;
use crate::coordinator::event::{Environment, Question};
use crate::coordinator::snapshot::Snapshot;
use crate::ids::{Digest, SubcloudName};
use crate::snapshot_text::{Draft, digest_of_subcloud, fetched};

/// What errors call a file that has no name.
const NAMELESS: &str = "the file";

/// A file that is to be applied.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    environment: Option<String>,
    /// Its text: TOML.
    file: String,
    /// Its name, for errors.
    name: Option<String>,
}

/// The configuration in force, as nodes fetch it, and as a file that may be changed and applied.
pub(super) async fn show(context: &AdminContext, query: Option<&str>) -> Result<Response<Body>, ApiError> {
    let mut stated = query.into_iter().flat_map(|query| query.split('&'));
    let environment = world(stated.find_map(|pair| pair.strip_prefix("environment=")))?;
    let view = match in_force(context, environment).await? {
        Some(snapshot) => shown(context, &snapshot)?,
        None => {
            let head = format!(
                "No configuration is in force in {}: these are the defaults.\nChange them, and `switchbox snapshot \
                 apply FILE`.",
                environment.word()
            );
            let file = SnapshotFile::parse(Path::new(NAMELESS), String::new());
            let file = file.map_err(|error| ApiError::internal(&error.to_string()))?;
            let rules = (&file.participation, &file.penalties, &file.timeouts);
            json!({"environment": environment.word(), "version": null, "file": written(&head, &file.models, rules)})
        }
    };
    Ok(response::json(view.to_string()))
}

fn shown(context: &AdminContext, snapshot: &Snapshot) -> Result<Value, ApiError> {
    let environment = snapshot.environment.word();
    let text = fetched(snapshot).ok_or_else(|| {
        ApiError::internal(
            "The configuration in force isn't what was signed: apply it again, and please report it.",
        )
    })?;
    let head = format!("Configuration {} of {environment}, SHA-256 {}", snapshot.version, snapshot.digest);
    let rules = (&snapshot.participation, &snapshot.penalties, &snapshot.timeouts);
    Ok(json!({
        "environment": environment,
        "version": snapshot.version,
        "digest": snapshot.digest.to_string(),
        "signature": text.signature.to_string(),
        "box_key": context.inference.identity.public().to_string(),
        "subclouds": snapshot.subclouds.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "text": text.text,
        "file": written(&head, &snapshot.models, rules),
    }))
}

/// Makes a file the configuration in force, under the next number.
pub(super) async fn apply(context: &AdminContext, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let Applied { environment, file, name } = parsed(body)?;
    let environment = world(environment.as_deref())?;
    let name: String =
        name.as_deref().unwrap_or(NAMELESS).chars().filter(|c| !c.is_control()).take(200).collect();
    let file = SnapshotFile::parse(Path::new(&name), file);
    let file = file.map_err(|error| ApiError::command_malformed("file", format!("{error}.")))?;
    let _changing = context.inference.changing.lock().await;
    let before = in_force(context, environment).await?;
    let draft = Draft {
        environment,
        version: before.as_ref().map_or(0, |before| before.version).saturating_add(1),
        models: file.models.clone(),
        participation: file.participation,
        penalties: file.penalties,
        timeouts: file.timeouts,
        subclouds: subclouds(context, environment).await?,
    };
    if let Some(before) =
        before.filter(|before| Draft { version: draft.version, ..Draft::of(before) } == draft)
    {
        return told(&before, Changed::No);
    }
    let snapshot = draft.signed(&context.inference.identity);
    if let Err(flaws) = snapshot.validate() {
        let message = format!("{}.", file.explain(&flaws));
        return Err(ApiError::command_malformed("file", message));
    }
    let command = Command::Configure(Box::new(snapshot.clone()));
    match operate(context, command).await? {
        Answer::Done => told(&snapshot, Changed::Yes),
        _ => Err(ApiError::unexpected()),
    }
}

/// Whether applying a file changed something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
}

fn told(snapshot: &Snapshot, changed: Changed) -> Result<Response<Body>, ApiError> {
    let Snapshot { environment, version, digest, .. } = snapshot;
    let view = json!({"environment": environment.word(), "version": version, "digest": digest.to_string(),
        "changed": changed == Changed::Yes});
    Ok(response::whole(StatusCode::OK, "application/json", view.to_string()))
}

async fn in_force(context: &AdminContext, environment: Environment) -> Result<Option<Snapshot>, ApiError> {
    match ask(context, Question::Configuration(environment)).await? {
        Answer::Configuration(snapshot) => Ok(snapshot.map(|snapshot| (*snapshot).clone())),
        _ => Err(ApiError::unexpected()),
    }
}

/// The digests of an environment's subclouds.
async fn subclouds(
    context: &AdminContext,
    environment: Environment,
) -> Result<BTreeMap<SubcloudName, Digest>, ApiError> {
    let Answer::Subclouds(all) = ask(context, Question::Subclouds(None)).await? else {
        return Err(ApiError::unexpected());
    };
    let of_it = all.iter().filter(|subcloud| subcloud.environment == environment);
    Ok(of_it.map(|subcloud| (subcloud.name.clone(), digest_of_subcloud(subcloud))).collect())
}
