//! The messages of a chat: roles and content, with a path to whatever is wrong.

use std::borrow::Cow;

use serde::de::{Error, MapAccess, SeqAccess};

use super::scalar::{Key, Read, Scalar, ScalarSeed, Shape, Skip, Slot, quote};
use super::{Message, RequestError, Role};

const ROLES: &str = "one of system, developer, user, assistant";

/// Reads `messages`; null is absent.
pub(super) struct Messages<'s> {
    pub(super) slot: &'s Slot,
}

impl<'de> Read<'de> for Messages<'_> {
    type Value = Option<Vec<Message>>;

    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<Self::Value, E> {
        match value {
            Scalar::Null => Ok(None),
            other => {
                let error = RequestError::wrong_type("messages", "an array of messages", &other.found());
                Err(self.slot.refuse(error))
            }
        }
    }

    fn array<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut messages = Vec::new();
        loop {
            let one = OneMessage { index: messages.len(), slot: self.slot };
            match elements.next_element_seed(Shape(one))? {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        if messages.is_empty() {
            let error = RequestError::invalid("messages", "at least one message", "an empty array");
            return Err(self.slot.refuse(error));
        }
        Ok(Some(messages))
    }
}

struct OneMessage<'s> {
    index: usize,
    slot: &'s Slot,
}

enum MessageField {
    Role,
    Content,
    /// Calls of tools, which no runtime here makes.
    Tool(&'static str),
    Other,
}

impl MessageField {
    fn named(name: &str) -> Self {
        match name {
            "role" => Self::Role,
            "content" => Self::Content,
            "tool_calls" => Self::Tool("tool_calls"),
            "function_call" => Self::Tool("function_call"),
            "audio" => Self::Tool("audio"),
            _ => Self::Other,
        }
    }
}

impl OneMessage<'_> {
    fn path(&self, field: &str) -> String {
        format!("messages[{}].{field}", self.index)
    }

    fn role(&self, value: &Scalar<'_>) -> Result<Role, RequestError> {
        let Scalar::Text(name) = value else {
            return Err(RequestError::wrong_type(&self.path("role"), ROLES, &value.found()));
        };
        match &**name {
            "system" | "developer" => Ok(Role::System),
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "tool" | "function" => {
                Err(RequestError::unsupported_value(&self.path("role"), &quote(name), ROLES))
            }
            other => Err(RequestError::invalid(&self.path("role"), ROLES, &quote(other))),
        }
    }
}

impl<'de> Read<'de> for OneMessage<'_> {
    type Value = Message;

    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<Message, E> {
        let param = format!("messages[{}]", self.index);
        Err(self.slot.refuse(RequestError::wrong_type(
            &param,
            "an object with role and content",
            &value.found(),
        )))
    }

    fn object<A: MapAccess<'de>>(self, mut fields: A) -> Result<Message, A::Error> {
        let (mut role, mut content) = (None, None);
        while let Some(field) = fields.next_key_seed(Key(MessageField::named))? {
            let error = match field {
                MessageField::Role if role.is_some() => twice(self.path("role")),
                MessageField::Content if content.is_some() => twice(self.path("content")),
                MessageField::Role => {
                    let value = fields.next_value_seed(ScalarSeed)?;
                    role = Some(self.role(&value).map_err(|error| self.slot.refuse(error))?);
                    continue;
                }
                MessageField::Content => {
                    content = fields.next_value_seed(Shape(Content { message: &self }))?;
                    continue;
                }
                MessageField::Tool(name) => match fields.next_value_seed(ScalarSeed)? {
                    Scalar::Null | Scalar::Array(0) => continue,
                    _ => RequestError::unsupported_parameter(&self.path(name)),
                },
                MessageField::Other => {
                    fields.next_value_seed(Skip)?;
                    continue;
                }
            };
            return Err(self.slot.refuse(error));
        }
        match (role, content) {
            (Some(role), Some(content)) => Ok(Message { role, content: content.into_owned() }),
            (None, _) => Err(self.slot.refuse(RequestError::missing(&self.path("role")))),
            (_, None) => Err(self.slot.refuse(RequestError::missing(&self.path("content")))),
        }
    }
}

fn twice(path: String) -> RequestError {
    let message = format!("`{path}` is given more than once.");
    RequestError::new("invalid_value", path, message)
}

/// Reads `content`: a string, or text parts that are joined; null is absent.
struct Content<'m, 's> {
    message: &'m OneMessage<'s>,
}

impl<'de> Read<'de> for Content<'_, '_> {
    type Value = Option<Cow<'de, str>>;

    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<Self::Value, E> {
        match value {
            Scalar::Null => Ok(None),
            Scalar::Text(text) => Ok(Some(text)),
            other => {
                let (param, expected) = (self.message.path("content"), "a string or an array of text parts");
                Err(self.message.slot.refuse(RequestError::wrong_type(&param, expected, &other.found())))
            }
        }
    }

    fn array<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut text: Option<Cow<'de, str>> = None;
        let mut index = 0;
        while let Some(part) = elements.next_element_seed(Shape(Part { message: self.message, index }))? {
            match &mut text {
                None => text = Some(part),
                Some(text) => text.to_mut().push_str(&part),
            }
            index += 1;
        }
        if text.is_none() {
            let error =
                RequestError::invalid(&self.message.path("content"), "at least one part", "an empty array");
            return Err(self.message.slot.refuse(error));
        }
        Ok(text)
    }
}

struct Part<'m, 's> {
    message: &'m OneMessage<'s>,
    index: usize,
}

impl Part<'_, '_> {
    fn path(&self, field: &str) -> String {
        format!("messages[{}].content[{}]{field}", self.message.index, self.index)
    }

    fn text<'de>(&self, kind: &Scalar<'_>, text: Scalar<'de>) -> Result<Cow<'de, str>, RequestError> {
        match kind {
            Scalar::Text(kind) if kind == "text" => {}
            Scalar::Text(kind) => {
                return Err(RequestError::unsupported_value(&self.path(".type"), &quote(kind), "\"text\""));
            }
            Scalar::Null => return Err(RequestError::missing(&self.path(".type"))),
            other => return Err(RequestError::wrong_type(&self.path(".type"), "a string", &other.found())),
        }
        match text {
            Scalar::Text(text) => Ok(text),
            Scalar::Null => Err(RequestError::missing(&self.path(".text"))),
            other => Err(RequestError::wrong_type(&self.path(".text"), "a string", &other.found())),
        }
    }
}

impl<'de> Read<'de> for Part<'_, '_> {
    type Value = Cow<'de, str>;

    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<Self::Value, E> {
        let error = RequestError::wrong_type(&self.path(""), "an object with type and text", &value.found());
        Err(self.message.slot.refuse(error))
    }

    fn object<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut kind, mut text) = (Scalar::Null, Scalar::Null);
        let field = |name: &str| match name {
            "type" => 0,
            "text" => 1,
            _ => 2,
        };
        while let Some(field) = fields.next_key_seed(Key(field))? {
            let value = fields.next_value_seed(ScalarSeed)?;
            match field {
                0 => kind = value,
                1 => text = value,
                _ => {}
            }
        }
        self.text(&kind, text).map_err(|error| self.message.slot.refuse(error))
    }
}
