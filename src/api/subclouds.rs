//! Subclouds as JSON, for the operator and for namespaces that own one: what is shown, and what a change says.
//!
//! A change names what it changes; the rest stays. It is made of what the core shows, so changes are made one after
//! the other ([`super::Context::changing`]).

use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::ask::{ask, operate};
use super::auth::Principal;
use super::error::ApiError;
use super::fields::{checked, name, node, parsed, stated, trust, world};
use super::response::{self, Body};
use crate::coordinator::command::Command;
use crate::coordinator::effect::{Answer, SubcloudView};
use crate::coordinator::event::{Environment, Question, Tenant};
use crate::coordinator::subcloud::{Allowed, Isolation, Policy, Subcloud, Unmet};
use crate::ids::{Namespace, NodeId, SubcloudName};

/// What is done with the subcloud of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Set,
    Add,
    Remove,
    Drop,
}

impl Verb {
    /// By the last part of a path.
    pub(super) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "set" => Verb::Set,
            "add" => Verb::Add,
            "remove" => Verb::Remove,
            "drop" => Verb::Drop,
            _ => return None,
        })
    }
}

/// Who changes, and where: the operator says the environment with each change, a key has one.
pub(super) enum Actor {
    Operator,
    Owner(Tenant),
}

impl Actor {
    /// Who has that key, and may change something with it.
    ///
    /// # Errors
    /// When the key is for the jobs of a subcloud only.
    pub(super) fn of_key(principal: &Principal) -> Result<Self, ApiError> {
        match &principal.scope {
            None => Ok(Actor::Owner(principal.tenant())),
            Some(subcloud) => {
                let message = format!(
                    "This key is for jobs in the subcloud {subcloud} only: take a key of its owner's that has no scope."
                );
                Err(ApiError::command_rejected(hyper::StatusCode::FORBIDDEN, "key_scope", message))
            }
        }
    }

    fn namespace(&self) -> Option<Namespace> {
        match self {
            Actor::Operator => None,
            Actor::Owner(tenant) => Some(tenant.namespace.clone()),
        }
    }

    fn environment(&self, stated: Option<&str>) -> Result<Environment, ApiError> {
        match self {
            Actor::Operator => world(stated),
            Actor::Owner(tenant) => match stated {
                Some(word) if word != tenant.environment.word() => {
                    let message = format!("This key works in {} only.", tenant.environment.word());
                    Err(ApiError::command_malformed("environment", message))
                }
                _ => Ok(tenant.environment),
            },
        }
    }
}

/// What a change says of a subcloud.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    environment: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    models: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "stated")]
    regions: Option<Option<Vec<String>>>,
    trust_min: Option<String>,
    memory_min_bytes: Option<u64>,
    #[serde(default, deserialize_with = "stated")]
    gpu: Option<Option<String>>,
    isolate: Option<bool>,
    owners: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    allowed: Option<Option<Vec<String>>>,
}

/// A new subcloud. (serde can't flatten and be strict, so the rest is read by itself.)
#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Which node joins or leaves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    environment: Option<String>,
    node: String,
}

/// Nothing but where.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Where {
    environment: Option<String>,
}

/// All, or those that the actor owns.
pub(super) async fn list(context: &Context, actor: &Actor) -> Result<Response<Body>, ApiError> {
    let whose = match actor {
        Actor::Operator => None,
        Actor::Owner(tenant) => Some(tenant.clone()),
    };
    match ask(&context.door, Question::Subclouds(whose)).await? {
        Answer::Subclouds(all) => {
            let all: Vec<Value> = all.iter().map(shown).collect();
            Ok(response::json(json!({"subclouds": all}).to_string()))
        }
        _ => Err(ApiError::unexpected()),
    }
}

/// One, with what its policy says of its nodes.
pub(super) async fn show(
    context: &Context,
    actor: &Actor,
    name: &str,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let stated = query.into_iter().flat_map(|query| query.split('&'));
    let stated = stated.filter_map(|pair| pair.strip_prefix("environment=")).next();
    let view = look(context, actor, actor.environment(stated)?, &checked("name", name)?).await?;
    let SubcloudView { subcloud, members } = view;
    let mut value = shown(&subcloud);
    let member = |(node, unmet): &(NodeId, Option<Unmet>)| json!({"node": node.to_string(), "unmet": unmet.map(Unmet::word)});
    value["nodes"] = members.iter().map(member).collect();
    Ok(response::json(value.to_string()))
}

/// Makes one. What isn't said isn't restricted.
pub(super) async fn create(context: &Context, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let mut members: serde_json::Map<String, Value> = parsed(body)?;
    let Named { name } = parsed(body)?;
    members.remove("name");
    let change: Change = parsed(Value::Object(members).to_string().as_bytes())?;
    let actor = Actor::Operator;
    let environment = actor.environment(change.environment.as_deref())?;
    let name: SubcloudName = checked("name", &name)?;
    let _changing = context.changing.lock().await;
    match look(context, &actor, environment, &name).await {
        Err(error) if error.code == "subcloud_not_found" => {}
        Err(error) => return Err(error),
        Ok(_) => {
            let message = format!("There is a subcloud {name} in {} already.", environment.word());
            return Err(ApiError::command_rejected(hyper::StatusCode::CONFLICT, "subcloud_exists", message));
        }
    }
    let empty = Subcloud {
        name,
        environment,
        policy: Policy::default(),
        isolate: Isolation::Shared,
        owners: Default::default(),
        allowed: Allowed::Everyone,
        nodes: Default::default(),
    };
    let subcloud = change.of(empty)?;
    done(operate(&context.door, None, Command::PutSubcloud(Box::new(subcloud))).await?)
}

/// Changes one, or its nodes, or ends it.
pub(super) async fn change(
    context: &Context,
    actor: &Actor,
    (name, verb): (&str, Verb),
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let name: SubcloudName = checked("name", name)?;
    let body = if body.is_empty() { b"{}" } else { body };
    let _changing = context.changing.lock().await;
    let command = match verb {
        Verb::Set => {
            let change: Change = parsed(body)?;
            let environment = actor.environment(change.environment.as_deref())?;
            let SubcloudView { subcloud, .. } = look(context, actor, environment, &name).await?;
            Command::PutSubcloud(Box::new(change.of(subcloud)?))
        }
        Verb::Add | Verb::Remove => {
            let member: Member = parsed(body)?;
            let environment = actor.environment(member.environment.as_deref())?;
            let node = node(&member.node)?;
            match verb {
                Verb::Add => Command::JoinSubcloud(environment, name, node),
                _ => Command::LeaveSubcloud(environment, name, node),
            }
        }
        Verb::Drop => {
            let Where { environment } = parsed(body)?;
            Command::DropSubcloud(actor.environment(environment.as_deref())?, name)
        }
    };
    done(operate(&context.door, actor.namespace(), command).await?)
}

async fn look(
    context: &Context,
    actor: &Actor,
    environment: Environment,
    name: &SubcloudName,
) -> Result<SubcloudView, ApiError> {
    let question = Question::Subcloud(environment, name.clone(), actor.namespace());
    match ask(&context.door, question).await? {
        Answer::Subcloud(view) => Ok(*view),
        _ => Err(ApiError::unexpected()),
    }
}

fn done(answer: Answer) -> Result<Response<Body>, ApiError> {
    match answer {
        Answer::Done => Ok(response::json(json!({"done": true}).to_string())),
        _ => Err(ApiError::unexpected()),
    }
}

impl Change {
    /// The subcloud that it makes of this one.
    fn of(self, before: Subcloud) -> Result<Subcloud, ApiError> {
        let Subcloud { mut policy, mut isolate, mut owners, mut allowed, .. } = before.clone();
        if let Some(models) = self.models {
            let model = |text: String| name("models", &text).map(Into::into);
            policy.models = models.map(|all| all.into_iter().map(model).collect()).transpose()?;
        }
        if let Some(regions) = self.regions {
            let region = |text: String| checked("regions", &text);
            policy.regions = regions.map(|all| all.into_iter().map(region).collect()).transpose()?;
        }
        if let Some(word) = self.trust_min {
            policy.trust_min = trust("trust_min", &word)?;
        }
        if let Some(bytes) = self.memory_min_bytes {
            policy.memory_min_bytes = bytes;
        }
        if let Some(gpu) = self.gpu {
            policy.gpu = gpu.map(|text| checked("gpu", &text)).transpose()?;
        }
        if let Some(isolated) = self.isolate {
            isolate = if isolated { Isolation::Isolated } else { Isolation::Shared };
        }
        let namespaces = |param, all: Vec<String>| -> Result<_, ApiError> {
            all.iter().map(|text| name(param, text).map(Namespace::named)).collect()
        };
        if let Some(all) = self.owners {
            owners = namespaces("owners", all)?;
        }
        if let Some(all) = self.allowed {
            allowed = match all {
                Some(all) => Allowed::Only(namespaces("allowed", all)?),
                None => Allowed::Everyone,
            };
        }
        Ok(Subcloud { policy, isolate, owners, allowed, ..before })
    }
}

fn shown(subcloud: &Subcloud) -> Value {
    let Policy { models, regions, trust_min, memory_min_bytes, gpu } = &subcloud.policy;
    let strings = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>();
    let allowed = match &subcloud.allowed {
        Allowed::Everyone => None,
        Allowed::Only(all) => Some(strings(&mut all.iter().map(ToString::to_string))),
    };
    json!({
        "name": subcloud.name.as_str(),
        "environment": subcloud.environment.word(),
        "models": models.as_ref().map(|all| strings(&mut all.iter().map(ToString::to_string))),
        "regions": regions.as_ref().map(|all| strings(&mut all.iter().map(ToString::to_string))),
        "trust_min": trust_min.word(),
        "memory_min_bytes": memory_min_bytes,
        "gpu": gpu.as_ref().map(ToString::to_string),
        "isolate": subcloud.isolate == Isolation::Isolated,
        "owners": strings(&mut subcloud.owners.iter().map(ToString::to_string)),
        "allowed": allowed,
        "nodes": strings(&mut subcloud.nodes.iter().map(ToString::to_string)),
    })
}
