//! A client's body as it is sent on: the same bytes, but for the model's name, and that it asks for a stream with the
//! usage at its end. What else the client wrote, in whatever order and spacing, known here or not, goes there as it is.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::request::{StreamOptions, even_null};

/// The members that are changed. Of a name that is there twice nobody could say which counts: the api has refused it.
#[derive(Deserialize)]
struct Members<'b> {
    #[serde(borrow)]
    model: &'b RawValue,
    #[serde(borrow, default, deserialize_with = "even_null")]
    stream: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    stream_options: Option<&'b RawValue>,
}

/// The body for a server that knows the model as `model_there`.
///
/// # Errors
/// In words for the client, when it isn't a request at all.
pub(super) fn rewritten(body: &[u8], model_there: &str) -> Result<Vec<u8>, String> {
    let text = str::from_utf8(body).map_err(|error| error.to_string())?;
    // An array would be read as the members in their order.
    if !text.trim_start().starts_with('{') {
        return Err("the body is not a JSON object".to_owned());
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut edits = Edits::default();
    edits.replace(text, members.model, serde_json::Value::from(model_there).to_string());
    match members.stream {
        Some(stream) => edits.replace(text, stream, "true".to_owned()),
        None => edits.add(text, "\"stream\":true"),
    }
    match members.stream_options {
        Some(options) if options.get().starts_with('{') => {
            let inner: StreamOptions<'_> =
                serde_json::from_str(options.get()).map_err(|error| error.to_string())?;
            match inner.include_usage {
                Some(usage) => edits.replace(text, usage, "true".to_owned()),
                None => {
                    let is_empty = options.get()[1..].trim_start().starts_with('}');
                    let member = if is_empty { "\"include_usage\":true" } else { "\"include_usage\":true," };
                    edits.insert(place(text, options.get()) + 1, member.to_owned());
                }
            }
        }
        Some(options) => edits.replace(text, options, "{\"include_usage\":true}".to_owned()),
        None => edits.add(text, "\"stream_options\":{\"include_usage\":true}"),
    }
    Ok(edits.apply(text))
}

/// Where a part of a text is in it.
fn place(text: &str, part: &str) -> usize {
    // Both are of one buffer: the difference of their addresses is the offset.
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// Changes to a text, each of other bytes than the others.
#[derive(Default)]
struct Edits(Vec<(std::ops::Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, text: &str, value: &RawValue, by: String) {
        let at = place(text, value.get());
        self.0.push((at..at + value.get().len(), by));
    }

    fn insert(&mut self, at: usize, what: String) {
        self.0.push((at..at, what));
    }

    /// Adds a member, as the first of those that are there: the model is, so there is another.
    fn add(&mut self, text: &str, member: &str) {
        let at = text.find('{').map_or(0, |brace| brace + 1);
        self.insert(at, format!("{member},"));
    }

    fn apply(mut self, text: &str) -> Vec<u8> {
        self.0.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = Vec::with_capacity(text.len() + 128);
        let mut from = 0;
        for (range, by) in self.0 {
            out.extend_from_slice(text.get(from..range.start).unwrap_or_default().as_bytes());
            out.extend_from_slice(by.as_bytes());
            from = range.end;
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default().as_bytes());
        out
    }
}
