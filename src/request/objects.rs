//! The fields of a body that are small objects: `stream_options`, `metadata`, `response_format`.

use serde::de::{Error, MapAccess};

use super::body::{Body, Field, StreamOptions};
use super::scalar::{Key, Read, Scalar, ScalarSeed, Slot};
use super::values::{boolean, is_text};
use super::{METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX, RequestError};

/// Reads one of these objects into the body.
pub(super) struct Object<'b, 's> {
    pub(super) field: Field,
    pub(super) body: &'b mut Body,
    pub(super) slot: &'s Slot,
}

impl<'de> Read<'de> for Object<'_, '_> {
    type Value = ();

    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<(), E> {
        match value {
            Scalar::Null => Ok(()),
            other => {
                let error = RequestError::wrong_type(self.field.name(), "an object", &other.found());
                Err(self.slot.refuse(error))
            }
        }
    }

    fn object<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        match self.field {
            Field::StreamOptions => {
                self.body.stream_options = Some(stream_options(fields, self.slot)?);
                Ok(())
            }
            Field::Metadata => metadata(fields, self.slot),
            _ => response_format(fields, self.slot),
        }
    }
}

fn stream_options<'de, A: MapAccess<'de>>(mut fields: A, slot: &Slot) -> Result<StreamOptions, A::Error> {
    let mut options = StreamOptions::default();
    while let Some(is_usage) = fields.next_key_seed(Key(|name: &str| name == "include_usage"))? {
        let value = fields.next_value_seed(ScalarSeed)?;
        if is_usage && value != Scalar::Null {
            let name = "stream_options.include_usage";
            options.include_usage = Some(boolean(name, &value).map_err(|error| slot.refuse(error))?);
        }
    }
    Ok(options)
}

/// Only checked: the raw body, which holds it, is what is kept.
fn metadata<'de, A: MapAccess<'de>>(mut fields: A, slot: &Slot) -> Result<(), A::Error> {
    let mut pairs = 0;
    let is_long = |text: &str, chars_max: usize| text.len() > chars_max && text.chars().count() > chars_max;
    while let Some(long_key) =
        fields.next_key_seed(Key(|name: &str| is_long(name, METADATA_KEY_CHARS_MAX)))?
    {
        let value = fields.next_value_seed(ScalarSeed)?;
        pairs += 1;
        let error = match &value {
            _ if pairs > METADATA_PAIRS_MAX => format!("at most {METADATA_PAIRS_MAX} pairs"),
            _ if long_key => format!("pairs with keys of at most {METADATA_KEY_CHARS_MAX} characters"),
            Scalar::Text(text) if is_long(text, METADATA_VALUE_CHARS_MAX) => {
                format!("pairs with values of at most {METADATA_VALUE_CHARS_MAX} characters")
            }
            Scalar::Text(_) => continue,
            other => {
                let error = RequestError::wrong_type("metadata", "an object of strings", &other.found());
                return Err(slot.refuse(error));
            }
        };
        return Err(slot.refuse(RequestError::invalid("metadata", &error, "larger")));
    }
    Ok(())
}

fn response_format<'de, A: MapAccess<'de>>(mut fields: A, slot: &Slot) -> Result<(), A::Error> {
    let mut kind = Scalar::Null;
    while let Some(is_type) = fields.next_key_seed(Key(|name: &str| name == "type"))? {
        let value = fields.next_value_seed(ScalarSeed)?;
        if is_type {
            kind = value;
        }
    }
    if is_text(&kind, "text") {
        return Ok(());
    }
    let error = match &kind {
        Scalar::Text(_) => {
            RequestError::unsupported_value("response_format", &kind.found(), "{\"type\":\"text\"}")
        }
        other => RequestError::wrong_type("response_format.type", "a string", &other.found()),
    };
    Err(slot.refuse(error))
}
