//! What an event of a server's stream says, as chunks, a reason to finish, and usage.
//!
//! A delta that has only text is text. Everything else that says something goes on as a JSON chunk, in the server's own
//! bytes (`choice` says what that is). Ids, times and the model's name are the box's own, and left out here.

use hyper::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fault::Fault;
use crate::choice::{Members, object, says_nothing};
use crate::coordinator::event::{ErrorClass, FinishReason};
use crate::output::Chunk;

/// What an event said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) chunk: Option<Chunk>,
    pub(super) finish: Option<FinishReason>,
    pub(super) usage: Option<Stated>,
}

/// Token counts as a server states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) input_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) output_tokens: u32,
}

/// Reads an event's data.
///
/// # Errors
/// When the server says that it failed, or what nobody could make an answer of.
pub(super) fn read(data: &str) -> Result<Said, Fault> {
    let Ok(members) = serde_json::from_str::<Members<'_>>(data) else {
        return Err(Fault::broken("the server behind this model sent an event that isn't JSON"));
    };
    if members.contains_key("error") || !members.contains_key("choices") {
        let answer: Value = serde_json::from_str(data).unwrap_or_default();
        if let Some(fault) = Fault::of_answer(&answer) {
            return Err(fault);
        }
    }
    let mut said = Said { usage: members.get("usage").and_then(|usage| stated(usage)), ..Said::default() };
    // Usage comes behind the last choice, with none beside it; what else comes without choices isn't the answer.
    let choices = members.get("choices").and_then(|choices| serde_json::from_str(choices.get()).ok());
    let choices: Vec<&RawValue> = choices.unwrap_or_default();
    for choice in choices {
        let Some(choice) = object(choice) else { continue };
        let index = choice.get("index").map_or("0", |index| index.get());
        if index != "0" && index != "null" {
            let message =
                "the server behind this model gave several choices where one was asked for".to_owned();
            return Err(Fault { class: ErrorClass::Node, ..Fault::broken(message) });
        }
        said.finish = finish(&choice)?.or(said.finish);
        if said.chunk.is_none() {
            said.chunk = chunk(choice);
        }
    }
    Ok(said)
}

/// An answer that came whole, from a server that doesn't stream it: its message is the only delta.
pub(super) fn read_whole(data: &str) -> Result<Said, Fault> {
    let Ok(mut answer) = serde_json::from_str::<Value>(data) else {
        return Err(Fault::broken("the server behind this model answered with what isn't JSON"));
    };
    if let Some(choices) = answer.get_mut("choices").and_then(Value::as_array_mut) {
        for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
            let Some(mut message) = choice.remove("message") else { continue };
            let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
            for (index, call) in calls.into_iter().flatten().filter_map(Value::as_object_mut).enumerate() {
                call.entry("index").or_insert_with(|| index.into());
            }
            choice.insert("delta".to_owned(), message);
        }
    } else if Fault::of_answer(&answer).is_none() {
        let status = StatusCode::from_u16(200).unwrap_or_default();
        return Err(Fault::of_status(status, data.as_bytes()));
    }
    read(&answer.to_string())
}

fn finish(choice: &Members<'_>) -> Result<Option<FinishReason>, Fault> {
    let Some(reason) = choice.get("finish_reason") else { return Ok(None) };
    Ok(Some(match reason.get().trim_matches('"') {
        "null" | "" => return Ok(None),
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "tool_calls" => FinishReason::ToolCalls,
        "function_call" => FinishReason::FunctionCall,
        "content_filter" => FinishReason::ContentFilter,
        // vLLM's, when it gave the request up.
        "abort" | "error" => return Err(Fault::broken("the server behind this model gave the request up")),
        _ => FinishReason::Stop,
    }))
}

/// The chunk of a choice; `None` if it says nothing.
fn chunk(mut choice: Members<'_>) -> Option<Chunk> {
    choice.remove("index");
    choice.remove("finish_reason");
    choice.retain(|_, value| value.get() != "null");
    let delta = choice.get("delta").and_then(|delta| object(delta));
    let (text, has_more) = match &delta {
        Some(delta) => {
            (delta.get("content").copied(), delta.iter().any(|(name, value)| is_more(name, value)))
        }
        None => (choice.get("text").copied(), false),
    };
    let beside =
        choice.iter().any(|(name, value)| !matches!(&**name, "delta" | "text") && !says_nothing(value));
    if has_more || beside {
        return Some(Chunk::json(rebuilt(&choice), 1));
    }
    let text: String = serde_json::from_str(text?.get()).ok()?;
    (!text.is_empty()).then(|| Chunk::text(text, 1))
}

/// Whether a member of a delta says what text can't.
fn is_more(name: &str, value: &RawValue) -> bool {
    match name {
        "content" => !value.get().starts_with('"') && !says_nothing(value),
        "role" => value.get() != "\"assistant\"" && !says_nothing(value),
        _ => !says_nothing(value),
    }
}

/// An object of these members, each as it was written.
fn rebuilt(members: &Members<'_>) -> String {
    let mut json = String::from("{");
    for (name, value) in members {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&Value::from(name.as_str()).to_string());
        json.push(':');
        // Between values white space is as good as any other, and a line's end would end the event.
        json.extend(value.get().chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    }
    json.push('}');
    json
}

fn stated(usage: &RawValue) -> Option<Stated> {
    let usage: Value = serde_json::from_str(usage.get()).ok()?;
    let count = |place: &str| {
        let number = usage.pointer(place)?.as_f64().filter(|number| *number >= 0.0)?;
        Some(number.min(f64::from(u32::MAX)) as u32)
    };
    Some(Stated {
        input_tokens: count("/prompt_tokens")?,
        cached_tokens: count("/prompt_tokens_details/cached_tokens").unwrap_or(0),
        output_tokens: count("/completion_tokens")?,
    })
}
