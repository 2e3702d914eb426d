//! Namespaces: what is settled about each, and how operators change it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error::ApiError;
use super::super::fields::{credits, name, parsed, stated, trust, world};
use super::{AdminContext, ask, operate};
use crate::coordinator::command::{Command, NamespaceSettings, Unrunnable};
use crate::coordinator::effect::{Answer, NamespaceView};
use crate::coordinator::event::{Environment, Question};
use crate::ids::Namespace;

/// What is settled about a namespace; what isn't said stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    namespace: String,
    weight: Option<u32>,
    trust: Option<String>,
    /// Where `credit` counts.
    environment: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    credit: Option<Option<String>>,
    unrunnable: Option<String>,
    queue_jobs_max: Option<u64>,
}

/// Changes what is settled about a namespace, which may be new.
pub(super) async fn settle(context: &AdminContext, body: &[u8]) -> Result<Answer, ApiError> {
    let change: Settings = parsed(body)?;
    let namespace = Namespace::named(name("namespace", &change.namespace)?);
    let _changing = context.inference.changing.lock().await;
    let Answer::Namespaces(views) = ask(context, Question::Namespaces(Some(namespace))).await? else {
        return Err(ApiError::unexpected());
    };
    let view = views.into_iter().next().ok_or_else(ApiError::unexpected)?;
    operate(context, Command::PutNamespace(change.of(view.settings)?)).await
}

impl Settings {
    fn of(self, mut settings: NamespaceSettings) -> Result<NamespaceSettings, ApiError> {
        if let Some(weight) = self.weight {
            settings.weight = weight;
        }
        if let Some(word) = self.trust {
            settings.trust = trust("trust", &word)?;
        }
        match (self.credit, &self.environment) {
            (Some(line), stated) => {
                let environment = world(stated.as_deref())?;
                let line = line.map(|text| credits("credit", &text)).transpose()?;
                settings.credit[environment as usize] = line;
            }
            (None, Some(_)) => {
                let message =
                    "`environment` says where `credit` counts, which isn't there: the rest counts in both.";
                return Err(ApiError::command_malformed("environment", message.to_owned()));
            }
            (None, None) => {}
        }
        if let Some(word) = self.unrunnable {
            settings.unrunnable = match word.as_str() {
                "accept" => Unrunnable::Accept,
                "refuse" => Unrunnable::Refuse,
                _ => {
                    let message = "`unrunnable` must be accept (such jobs wait) or refuse.";
                    return Err(ApiError::command_malformed("unrunnable", message.to_owned()));
                }
            };
        }
        if let Some(jobs) = self.queue_jobs_max {
            settings.queue_jobs_max = jobs;
        }
        Ok(settings)
    }
}

/// What is settled about each, with what it has.
pub(super) fn list(namespaces: &[NamespaceView]) -> Value {
    json!({"namespaces": namespaces.iter().map(shown).collect::<Vec<_>>()})
}

fn shown(view: &NamespaceView) -> Value {
    let NamespaceSettings { namespace, weight, trust, credit, unrunnable, queue_jobs_max } = &view.settings;
    let by_environment = |value: &dyn Fn(usize) -> Value| {
        let all = Environment::ALL.into_iter();
        all.map(|environment| (environment.word().to_owned(), value(environment as usize)))
            .collect::<Map<_, _>>()
    };
    json!({
        "namespace": namespace.to_string(),
        "weight": weight,
        "trust": trust.word(),
        "credit": by_environment(&|at| credit[at].map(|line| line.to_string()).into()),
        "unrunnable": match unrunnable {
            Unrunnable::Accept => "accept",
            Unrunnable::Refuse => "refuse",
        },
        "queue_jobs_max": queue_jobs_max,
        "waiting": view.waiting,
        "balance": by_environment(&|at| view.accounts[at].0.to_string().into()),
        "held": by_environment(&|at| view.accounts[at].1.to_string().into()),
    })
}
