//! JSON chunks merged to what a whole answer has beside its text.
//!
//! Of the same name, texts are joined, lists appended, objects merged, and of anything else the last counts. `tool_calls`
//! are merged by their `index`. What names something (an id, a type, a role) is said once however often it came.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Members, object, says_nothing, string_inside};

/// Objects within one another that are merged; deeper ones replace each other.
const DEPTH_MAX: usize = 16;

/// What was merged so far.
#[derive(Debug, Default)]
pub struct Merged {
    /// What deltas said, by name; `content` isn't among it.
    message: BTreeMap<String, Value>,
    /// What choices said beside their delta or text, by name.
    choice: BTreeMap<String, Value>,
    tool_calls: BTreeMap<u64, BTreeMap<String, Value>>,
}

/// A value that may grow.
#[derive(Debug)]
enum Value {
    /// Null, a number or a truth value, as it was written.
    Plain(String),
    /// The inside of a string, escaped.
    Text(String),
    /// Elements with commas between them, as they were written.
    List(String),
    Object(BTreeMap<String, Value>),
}

impl Merged {
    /// Adds a JSON chunk. Its text, escaped as in a JSON string, is given to `content`.
    pub fn add(&mut self, json: &str, content: &mut Vec<u8>) {
        let Ok(members) = serde_json::from_str::<Members<'_>>(json) else { return };
        for (name, value) in members {
            match name.as_str() {
                "index" | "finish_reason" => {}
                "text" => content.extend_from_slice(string_inside(value).unwrap_or_default().as_bytes()),
                "delta" => self.add_delta(object(value).unwrap_or_default(), content),
                // A choice's own texts name something (why it stopped, say); only its lists go on.
                _ if string_inside(value).is_some() => {
                    self.choice.insert(name, Value::of(value, DEPTH_MAX));
                }
                _ => grow(&mut self.choice, name, value, DEPTH_MAX),
            }
        }
    }

    fn add_delta(&mut self, delta: Members<'_>, content: &mut Vec<u8>) {
        for (name, value) in delta {
            match name.as_str() {
                "content" => content.extend_from_slice(string_inside(value).unwrap_or_default().as_bytes()),
                "role" => {}
                "tool_calls" => self.add_tool_calls(value),
                _ => grow(&mut self.message, name, value, DEPTH_MAX),
            }
        }
    }

    fn add_tool_calls(&mut self, calls: &RawValue) {
        let calls: Vec<&RawValue> = serde_json::from_str(calls.get()).unwrap_or_default();
        for members in calls.into_iter().filter_map(object) {
            // One without an index goes on with the last.
            let index = members.get("index").and_then(|index| index.get().parse().ok());
            let last = self.tool_calls.last_key_value().map(|(last, _)| *last);
            let call = self.tool_calls.entry(index.or(last).unwrap_or(0)).or_default();
            let others = members.into_iter().filter(|(name, _)| name != "index");
            others.for_each(|(name, value)| grow(call, name, value, DEPTH_MAX));
        }
    }

    /// Whether the message calls tools.
    pub fn calls_tools(&self) -> bool {
        !self.tool_calls.is_empty() || self.message.contains_key("function_call")
    }

    /// Writes a member of the message and takes it out, or says that there is none.
    pub fn write_message_member(&mut self, name: &str, out: &mut Vec<u8>) -> bool {
        take_member(&mut self.message, name, out)
    }

    /// The same of the choice.
    pub fn write_choice_member(&mut self, name: &str, out: &mut Vec<u8>) -> bool {
        take_member(&mut self.choice, name, out)
    }

    /// Writes all that is left of the message, each member behind a comma.
    pub fn write_message_rest(&self, out: &mut Vec<u8>) {
        if !self.tool_calls.is_empty() {
            out.extend_from_slice(b",\"tool_calls\":[");
            for (index, call) in self.tool_calls.values().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_object(call, out);
            }
            out.push(b']');
        }
        write_members(&self.message, out);
    }

    /// The same of the choice.
    pub fn write_choice_rest(&self, out: &mut Vec<u8>) {
        write_members(&self.choice, out);
    }
}

impl Value {
    fn of(json: &RawValue, depth: usize) -> Self {
        if let Some(inside) = string_inside(json) {
            return Self::Text(inside.to_owned());
        }
        if let Some(inside) = list_inside(json) {
            return Self::List(inside.to_owned());
        }
        match object(json).filter(|_| depth > 0) {
            Some(members) => {
                let mut merged = BTreeMap::new();
                members.into_iter().for_each(|(name, value)| grow(&mut merged, name, value, depth - 1));
                Self::Object(merged)
            }
            None => Self::Plain(json.get().to_owned()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (open, inside, close) = match self {
            Self::Plain(plain) => (&b""[..], plain, &b""[..]),
            Self::Text(text) => (&b"\""[..], text, &b"\""[..]),
            Self::List(list) => (&b"["[..], list, &b"]"[..]),
            Self::Object(members) => return write_object(members, out),
        };
        out.extend_from_slice(open);
        out.extend_from_slice(inside.as_bytes());
        out.extend_from_slice(close);
    }
}

/// What is between the brackets of a list; `None` if it is something else.
fn list_inside(json: &RawValue) -> Option<&str> {
    Some(json.get().strip_prefix('[')?.strip_suffix(']')?.trim())
}

/// Whether a text of that name names something, and isn't made piece by piece.
fn is_name(name: &str) -> bool {
    matches!(name, "id" | "type" | "role" | "name")
}

fn grow(members: &mut BTreeMap<String, Value>, name: String, value: &RawValue, depth: usize) {
    let Some(known) = members.get_mut(&name) else {
        members.insert(name, Value::of(value, depth));
        return;
    };
    match known {
        // Nothing is not the end of something.
        _ if says_nothing(value) => {}
        Value::Text(text) => match string_inside(value) {
            // A server may say it again with every piece.
            Some(more) if is_name(&name) && text == more => {}
            Some(more) => text.push_str(more),
            None => *known = Value::of(value, depth),
        },
        Value::List(list) => match list_inside(value) {
            Some(more) if list.is_empty() => list.push_str(more),
            Some(more) => {
                list.push(',');
                list.push_str(more);
            }
            None => *known = Value::of(value, depth),
        },
        Value::Object(merged) => match object(value) {
            Some(more) => {
                let depth = depth.saturating_sub(1);
                more.into_iter().for_each(|(name, value)| grow(merged, name, value, depth));
            }
            None => *known = Value::of(value, depth),
        },
        Value::Plain(_) => *known = Value::of(value, depth),
    }
}

fn take_member(members: &mut BTreeMap<String, Value>, name: &str, out: &mut Vec<u8>) -> bool {
    match members.remove(name) {
        Some(value) => {
            value.write(out);
            true
        }
        None => false,
    }
}

fn write_members(members: &BTreeMap<String, Value>, out: &mut Vec<u8>) {
    for (name, value) in members {
        out.push(b',');
        write_member(name, value, out);
    }
}

fn write_object(members: &BTreeMap<String, Value>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_member(name, value, out);
    }
    out.push(b'}');
}

fn write_member(name: &str, value: &Value, out: &mut Vec<u8>) {
    // A string is always JSON.
    out.extend_from_slice(serde_json::to_string(name).unwrap_or_default().as_bytes());
    out.push(b':');
    value.write(out);
}
