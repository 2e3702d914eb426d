//! Single JSON values, kept only as far as an error message needs them. Never builds trees.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{RequestError, STOP_STRINGS_MAX};

/// How much of a client's string an error message repeats.
const QUOTE_CHARS_MAX: usize = 40;

/// Where a seed leaves the typed error that serde's own error type can't carry.
#[derive(Default)]
pub(super) struct Slot(RefCell<Option<RequestError>>);

impl Slot {
    /// Keeps the first error and makes serde stop.
    pub(super) fn refuse<E: Error>(&self, error: RequestError) -> E {
        self.0.borrow_mut().get_or_insert(error);
        E::custom("refused")
    }

    /// The error that was kept.
    pub(super) fn into_error(self) -> Option<RequestError> {
        self.0.into_inner()
    }
}

/// One value of any type; arrays and objects were checked as JSON and dropped.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array of so many elements.
    Array(usize),
    /// An object of so many fields.
    Object(usize),
}

impl Scalar<'_> {
    /// The value in words, for an error message.
    pub(super) fn found(&self) -> String {
        match self {
            Scalar::Null => "null".into(),
            Scalar::Bool(value) => format!("the boolean {value}"),
            Scalar::Integer(value) => format!("the number {value}"),
            Scalar::Float(value) => format!("the number {value}"),
            Scalar::Text(text) => format!("the string {}", quote(text)),
            Scalar::Array(0) => "an empty array".into(),
            Scalar::Array(len) => format!("an array of {len}"),
            Scalar::Object(0) => "an empty object".into(),
            Scalar::Object(_) => "an object".into(),
        }
    }

    /// The value as a number, if it is one.
    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Scalar::Integer(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as a whole number, if it is one (`16.0` is).
    pub(super) fn as_integer(&self) -> Option<i128> {
        match self {
            Scalar::Integer(value) => Some(*value),
            Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Some(*value as i128),
            _ => None,
        }
    }
}

/// A client's string in quotes, cut where it is long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}...", &text[..at]),
    }
}

/// Reads a [`Scalar`].
pub(super) struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(value))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(value.into())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Scalar<'de>, A::Error> {
        let mut len = 0;
        while elements.next_element_seed(Skip)?.is_some() {
            len += 1;
        }
        Ok(Scalar::Array(len))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Scalar<'de>, A::Error> {
        let mut len = 0;
        while fields.next_key::<IgnoredAny>()?.is_some() {
            fields.next_value_seed(Skip)?;
            len += 1;
        }
        Ok(Scalar::Object(len))
    }
}

/// Reads past a value. Unlike serde's `IgnoredAny` it keeps serde_json's depth limit.
pub(super) struct Skip;

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        ScalarSeed.deserialize(deserializer).map(|_| ())
    }
}

/// Turns an object's key into what it means without copying it.
pub(super) struct Key<F>(pub(super) F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Key<F> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Key<F> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, name: &str) -> Result<T, E> {
        Ok((self.0)(name))
    }
}

/// What a value of any JSON type becomes. Arrays and objects that it doesn't look into are scalars to it.
pub(super) trait Read<'de>: Sized {
    type Value;
    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<Self::Value, E>;
    fn array<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        let array = ScalarSeed.visit_seq(elements)?;
        self.scalar(array)
    }
    fn object<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        let object = ScalarSeed.visit_map(fields)?;
        self.scalar(object)
    }
}

/// Makes a seed of a [`Read`].
pub(super) struct Shape<R>(pub(super) R);

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Shape<R> {
    type Value = R::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for Shape<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Integer(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Integer(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Float(value))
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<R::Value, E> {
        self.0.scalar(Scalar::Text(Cow::Owned(value.into())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<R::Value, A::Error> {
        self.0.array(elements)
    }
    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<R::Value, A::Error> {
        self.0.object(fields)
    }
}

/// A value that may be one or several; of several only the first few are kept.
pub(super) enum Texts<'a> {
    One(Scalar<'a>),
    Many { first: Vec<Scalar<'a>>, len: usize },
}

/// Reads [`Texts`].
pub(super) struct TextsShape;

impl<'de> Read<'de> for TextsShape {
    type Value = Texts<'de>;
    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<Texts<'de>, E> {
        Ok(Texts::One(value))
    }
    fn array<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Texts<'de>, A::Error> {
        let (mut first, mut len) = (Vec::new(), 0);
        while len < STOP_STRINGS_MAX {
            match elements.next_element_seed(ScalarSeed)? {
                Some(element) => first.push(element),
                None => return Ok(Texts::Many { first, len }),
            }
            len += 1;
        }
        while elements.next_element_seed(Skip)?.is_some() {
            len += 1;
        }
        Ok(Texts::Many { first, len })
    }
}
