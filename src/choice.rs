//! What a choice of an answer says beside its text: the JSON chunks of outputs, and what becomes of them in an answer
//! that is given whole.
//!
//! A *JSON chunk* is an object with the members of one choice of a streamed answer as the server wrote them, without
//! `index` and `finish_reason`: `{"delta":{"reasoning_content":"Hm"}}`, `{"delta":{"content":"a"},"logprobs":{...}}`, or
//! for plain completions `{"text":"a","logprobs":{...}}`. It is sent on as it is where the answer is streamed, and
//! merged with the others where it is given whole. Values keep the bytes that the server wrote: nothing here changes a
//! number's digits or how a character is escaped.

mod merge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::value::RawValue;

pub use merge::Merged;

/// Members of an object, by name. Of a name that is there twice the last counts.
pub(crate) type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Why a text is no JSON chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAChunk {
    /// It isn't an object at all.
    #[error("a JSON chunk must be one JSON object: {0}")]
    Syntax(String),
    /// A line's end would end the event that it is sent in.
    #[error("a JSON chunk must be on one line")]
    Lines,
    /// It has a member that isn't its own to say.
    #[error("a JSON chunk has no `{0}`: that belongs to the answer as a whole")]
    Foreign(&'static str),
    /// It has neither of the members that one of them must have.
    #[error("a JSON chunk has a `delta` that is an object, or a `text`")]
    Empty,
}

/// Whether a text from outside may be a JSON chunk.
///
/// # Errors
/// Says why not.
pub fn check(json: &str) -> Result<(), NotAChunk> {
    if json.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        return Err(NotAChunk::Lines);
    }
    let members: Members<'_> =
        serde_json::from_str(json).map_err(|error| NotAChunk::Syntax(error.to_string()))?;
    for foreign in ["index", "finish_reason"] {
        if members.contains_key(foreign) {
            return Err(NotAChunk::Foreign(foreign));
        }
    }
    let has_delta = members.get("delta").is_some_and(|delta| delta.get().starts_with('{'));
    if has_delta || members.contains_key("text") { Ok(()) } else { Err(NotAChunk::Empty) }
}

/// What is between the braces of a JSON chunk; empty if nothing is.
pub fn members_of(json: &str) -> &str {
    let inner = json.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inner.unwrap_or_default().trim()
}

/// The members of an object; none if it is something else.
pub(crate) fn object(json: &RawValue) -> Option<Members<'_>> {
    json.get().starts_with('{').then(|| serde_json::from_str(json.get()).ok()).flatten()
}

/// The inside of a JSON string, escaped as it is; `None` if it is something else.
pub(crate) fn string_inside(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

/// Whether a value says nothing: null, or an empty text, list or object.
pub(crate) fn says_nothing(json: &RawValue) -> bool {
    let text = json.get();
    let is_blank = |open: char, close: char| {
        text.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .is_some_and(|rest| rest.trim().is_empty())
    };
    text == "null" || text == "\"\"" || is_blank('[', ']') || is_blank('{', '}')
}
