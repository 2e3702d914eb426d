//! Templates of blind and test jobs: requests whose answers are known. A template's body goes through the same door as a
//! client's, so that what is made of it can't be told from a client's job.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::Context;
use super::super::error::ApiError;
use super::super::fields::{name, parsed};
use super::super::openai;
use super::{AdminContext, ask, operate};
use crate::coordinator::command::Command;
use crate::coordinator::effect::Answer;
use crate::coordinator::event::{Endpoint, Mode, Question};
use crate::coordinator::integrity::{Expect, OutputDigest, TEMPLATE_DIGESTS_MAX, Template};
use crate::wire::Hash;
use crate::wire::keys::Hex;

/// A template that is to be added.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added<'b> {
    name: String,
    endpoint: Option<String>,
    #[serde(borrow)]
    body: &'b RawValue,
    /// Answers, one of which must come to the byte.
    #[serde(default)]
    answers: Vec<String>,
    /// SHA-256 of such answers.
    #[serde(default)]
    digests: Vec<String>,
    /// How long the answer is, where it can't be foreseen.
    tokens: Option<Tokens>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    min: u32,
    max: u32,
}

/// A template that is to go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removed {
    model: String,
    name: String,
}

/// Adds a template.
pub(super) async fn add(context: &AdminContext, body: &[u8]) -> Result<Answer, ApiError> {
    operate(context, Command::PutTemplate(Box::new(template(&context.inference, body)?))).await
}

fn template(context: &Context, body: &[u8]) -> Result<Template, ApiError> {
    let added: Added<'_> = parsed(body)?;
    let called = name("name", &added.name)?;
    let path = added.endpoint.as_deref().unwrap_or(Endpoint::ChatCompletions.path());
    let known = [Endpoint::ChatCompletions, Endpoint::Completions];
    let endpoint = known.into_iter().find(|endpoint| endpoint.path() == path).ok_or_else(|| {
        let message = "`endpoint` must be `/v1/chat/completions` or `/v1/completions`.";
        ApiError::command_malformed("endpoint", message.to_owned())
    })?;
    let request = openai::looked_at(context, endpoint, added.body.get().as_bytes())?;
    let expect = expectation(&added)?;
    Ok(Template {
        name: called.into(),
        model: request.model,
        endpoint,
        body: added.body.get().as_bytes().into(),
        input_tokens: request.input_tokens,
        output_tokens_max: request.output_tokens_max,
        tier: request.tier,
        mode: request.mode,
        expect,
    })
}

fn expectation(added: &Added<'_>) -> Result<Expect, ApiError> {
    let said = added.answers.len() + added.digests.len();
    match &added.tokens {
        Some(Tokens { min, max }) if said == 0 => Ok(Expect::Tokens { min: *min, max: *max }),
        None if (1..=TEMPLATE_DIGESTS_MAX).contains(&said) => {
            let answers = added.answers.iter().map(|text| OutputDigest(Sha256::digest(text).into()));
            let digests = added.digests.iter().map(|text| digest(text));
            Ok(Expect::Digests(answers.map(Ok).chain(digests).collect::<Result<_, _>>()?))
        }
        _ => {
            let message = format!(
                "A template says what must come: 1 to {TEMPLATE_DIGESTS_MAX} `answers` and `digests`, or `tokens` \
                 with `min` and `max`."
            );
            Err(ApiError::command_malformed("answers", message))
        }
    }
}

fn digest(text: &str) -> Result<OutputDigest, ApiError> {
    let parsed = text.parse().map(|Hex(bytes): Hash| OutputDigest(bytes));
    parsed.map_err(|error| {
        let message = format!("`digests` must be SHA-256 of answers: {error} each.");
        ApiError::command_malformed("digests", message)
    })
}

/// Takes a template out.
pub(super) async fn remove(context: &AdminContext, body: &[u8]) -> Result<Answer, ApiError> {
    let Removed { model, name: called } = parsed(body)?;
    let (model, called) = (name("model", &model)?, name("name", &called)?);
    let is_there = match ask(context, Question::Templates).await? {
        Answer::Templates(all) => all.iter().any(|t| *t.model == *model && *t.name == *called),
        _ => return Err(ApiError::unexpected()),
    };
    if !is_there {
        let message =
            format!("There is no template {called} of {model}: `switchbox templates list` shows all.");
        return Err(ApiError::command_rejected(StatusCode::NOT_FOUND, "template_not_found", message));
    }
    operate(context, Command::DropTemplate(model.into(), called.into())).await
}

/// All templates, without their bodies: who reads over an operator's shoulder needn't know what is asked.
pub(super) fn list(templates: &[Template]) -> Value {
    json!({"templates": templates.iter().map(shown).collect::<Vec<_>>()})
}

fn shown(template: &Template) -> Value {
    let Template { name, model, endpoint, body, input_tokens, output_tokens_max, tier, mode, expect } =
        template;
    let (digests, tokens) = match expect {
        Expect::Digests(known) => (Some(known.len()), None),
        Expect::Tokens { min, max } => (None, Some(json!({"min": min, "max": max}))),
    };
    json!({
        "name": **name,
        "model": **model,
        "endpoint": endpoint.path(),
        "tier": tier.word(),
        "stream": *mode == Mode::Stream,
        "body_bytes": body.len(),
        "input_tokens": input_tokens,
        "output_tokens_max": output_tokens_max,
        "answers": digests,
        "tokens": tokens,
    })
}
