//! Nodes, as operators see them, and what they decide about them.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error::ApiError;
use super::super::fields::{environment, name, node, parsed, stated, trust};
use super::views::seconds;
use super::{AdminContext, ask, operate};
use crate::coordinator::command::{Command, NodeSettings};
use crate::coordinator::effect::{Answer, NodeCapacity, NodeView, ServedModel};
use crate::coordinator::event::{Environment, Question, Warmth};
use crate::coordinator::standing::{Exclusion, NodeRow, Standing, Trial, Trust};
use crate::ids::{Digest, Namespace, NodeId};

/// What the operator decides about a node; what isn't said stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    trust: Option<String>,
    environments: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    owner: Option<Option<String>>,
}

/// A node that is to come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admitted {
    node: String,
    trust: String,
    environments: Option<Vec<String>>,
    owner: Option<String>,
}

/// Whether a key can have that name: another would be one that nobody ever has, and is kept for ever.
fn is_name_of_a_key(name: &str) -> bool {
    let digits = name.strip_prefix("node_").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Makes a node known before it comes.
pub(super) async fn admit(context: &AdminContext, body: &[u8]) -> Result<Answer, ApiError> {
    let Admitted { node: named, trust: word, environments, owner } = parsed(body)?;
    if !is_name_of_a_key(&named) {
        let message = "`node` must be the name that the agent says: `node_` and 32 digits of 0-9 and a-f.";
        return Err(ApiError::command_malformed("node", message.to_owned()));
    }
    let node = node(&named)?;
    let settings = Settings { trust: Some(word), environments, owner: Some(owner) };
    let new = NodeSettings {
        node: node.clone(),
        trust: Trust::Open,
        environments: vec![Environment::default()],
        owner: None,
    };
    let settings = settings.of(new)?;
    let _changing = context.inference.changing.lock().await;
    match ask(context, Question::Node(node.clone())).await {
        Err(error) if error.code == "node_not_found" => {}
        Err(error) => return Err(error),
        Ok(_) => {
            let message = format!("The box knows {node} already: change what is decided about it.");
            return Err(ApiError::command_rejected(StatusCode::CONFLICT, "node_exists", message));
        }
    }
    operate(context, Command::AdmitNode(settings)).await
}

/// Changes what is decided about a node that is known.
pub(super) async fn settle(context: &AdminContext, named: &str, body: &[u8]) -> Result<Answer, ApiError> {
    let change: Settings = parsed(body)?;
    let _changing = context.inference.changing.lock().await;
    let Answer::Node(view) = ask(context, Question::Node(NodeId::named(named))).await? else {
        return Err(ApiError::unexpected());
    };
    let NodeRow { node, trust, environments, owner, .. } = view.row;
    let before = NodeSettings { node, trust, environments: environments.iter().collect(), owner };
    operate(context, Command::AdmitNode(change.of(before)?)).await
}

impl Settings {
    fn of(self, before: NodeSettings) -> Result<NodeSettings, ApiError> {
        let NodeSettings { node, trust: mut level, mut environments, mut owner } = before;
        if let Some(word) = self.trust {
            level = trust("trust", &word)?;
        }
        if let Some(words) = self.environments {
            if words.is_empty() {
                let message =
                    "`environments` names none: name mainnet, testnet or both, or pause or ban the node.";
                return Err(ApiError::command_malformed("environments", message.to_owned()));
            }
            environments = words.iter().map(|word| environment(word)).collect::<Result<_, _>>()?;
        }
        if let Some(stated) = self.owner {
            owner = stated.map(|text| name("owner", &text).map(Namespace::named)).transpose()?;
        }
        Ok(NodeSettings { node, trust: level, environments, owner })
    }
}

/// All nodes.
pub(super) fn list(nodes: &[NodeView]) -> Value {
    json!({"nodes": nodes.iter().map(shown).collect::<Vec<_>>()})
}

/// Everything that is known of a node.
pub(super) fn shown(view: &NodeView) -> Value {
    let row = &view.row;
    let words = |all: &mut dyn Iterator<Item = Environment>| all.map(Environment::word).collect::<Vec<_>>();
    let NodeCapacity { slots, taken, kv_tokens, kv_taken, memory_bytes, gpu, region } = &view.capacity;
    let earned = Environment::ALL.into_iter().zip(view.earnings);
    let earned =
        earned.map(|(environment, amount)| (environment.word().to_owned(), amount.to_string().into()));
    json!({
        "node": row.node.to_string(),
        "standing": view.standing.word(),
        "because": causes(view),
        "connected_at": view.connected_at.map(seconds),
        "trust": row.trust.word(),
        "environments": words(&mut row.environments.iter()),
        "wants_environments": words(&mut view.wants.iter().copied()),
        "owner": row.owner.as_ref().map(ToString::to_string),
        "region": region.as_ref().or(row.region.as_ref()).map(ToString::to_string),
        "gpu": gpu.as_ref().map(ToString::to_string),
        // The box's own node isn't bounded, which is no number that means anything.
        "memory_bytes": Some(*memory_bytes).filter(|bytes| *bytes != u64::MAX),
        "slots": slots,
        "slots_taken": taken,
        "kv_tokens": kv_tokens,
        "kv_tokens_taken": kv_taken,
        "models": view.models.iter().map(|served| model(served, row)).collect::<Vec<_>>(),
        "reliability": view.reliability,
        "quality": row.quality.score(),
        "quality_checks": row.quality.checks_ever,
        "quality_checks_failed": row.quality.failed_ever,
        "lies_proven": row.quality.lies,
        "settled_jobs": row.conduct.settled_jobs,
        "faults": row.conduct.faults.iter().map(|(fault, count)| (fault.to_string(), Value::from(*count)))
            .collect::<Map<_, _>>(),
        "exclusions_over": row.exclusions.iter().map(exclusion).collect::<Vec<_>>(),
        "earnings": earned.collect::<Map<_, _>>(),
        "earnings_locked": row.frozen.is_some(),
    })
}

fn exclusion(exclusion: &Exclusion) -> Value {
    let Exclusion { order, until } = exclusion;
    json!({"since": seconds(order.since), "cause": *order.cause, "until": seconds(*until)})
}

/// Everything that keeps work from it, with who said so: the strongest first, as the standing goes by.
fn causes(view: &NodeView) -> Vec<Value> {
    let row = &view.row;
    let mut causes = Vec::new();
    for (standing, order) in [(Standing::Banned, &row.banned), (Standing::Frozen, &row.frozen)] {
        if let Some(order) = order {
            let since = seconds(order.since);
            causes.push(
                json!({"standing": standing.word(), "by": "operator", "since": since, "cause": *order.cause}),
            );
        }
    }
    if let Some(exclusion) = &row.exclusion {
        let Exclusion { order, until } = exclusion;
        causes
            .push(json!({"standing": Standing::Excluded.word(), "by": "box", "since": seconds(order.since),
            "until": seconds(*until), "cause": *order.cause, "then": "a test job"}));
    }
    if let Some(since) = view.away_since {
        causes.push(json!({"standing": Standing::Away.word(), "by": "node", "since": seconds(since),
            "cause": "it isn't connected, or its heartbeat is missed"}));
    }
    for (standing, parties) in [(Standing::Draining, &row.draining), (Standing::Paused, &row.paused)] {
        for (party, since) in parties {
            let since = seconds(*since);
            causes.push(json!({"standing": standing.word(), "by": party.word(), "since": since}));
        }
    }
    if view.standing == Standing::Untested {
        causes.push(json!({"standing": Standing::Untested.word(), "by": "box",
            "cause": "no test job has passed yet"}));
    }
    causes
}

fn model(served: &ServedModel, row: &NodeRow) -> Value {
    let ServedModel { model, version, digest, slots, taken, warmth, standing } = served;
    let trial = match row.trials.get(model) {
        None => json!(null),
        Some(Trial::Passed { at, .. }) => json!({"passed_at": seconds(*at)}),
        Some(Trial::Failed { times, not_before, .. }) => {
            json!({"failed_times": times, "again_at": seconds(*not_before)})
        }
    };
    json!({
        "model": **model,
        "version": version.as_ref().map(ToString::to_string),
        "digest": Some(digest).filter(|digest| **digest != Digest::default()).map(ToString::to_string),
        "slots": slots,
        "slots_taken": taken,
        "in_memory": *warmth == Warmth::Warm,
        "standing": standing.word(),
        "test": trial,
    })
}
