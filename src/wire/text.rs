//! How values stand in JSON: ids and keys as their text, choices as words, lists and texts within their bounds.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use crate::coordinator::event::{Endpoint, Environment, ErrorClass, FinishReason, Wish};
use crate::coordinator::standing::Standing;

/// Reads a text and makes something of it, without a copy of the text.
struct OfText<T, F>(F, PhantomData<T>);

impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for OfText<T, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

fn of_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(OfText(parse, PhantomData))
}

/// Something with one text form.
pub(super) mod shown {
    use super::*;

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        of_text(from, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }
}

/// One of a few things, each with a word.
pub(super) trait Word: Copy + 'static {
    /// What they are, for errors.
    const KIND: &'static str;
    /// All.
    const ALL: &'static [Self];

    /// Its word.
    fn word(self) -> &'static str;

    /// The one with that word.
    fn of(word: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|known| known.word() == word).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|known| known.word()).collect();
            format!("isn't {}: expected one of {}", Self::KIND, words.join(", "))
        })
    }
}

/// Gives each a word, once: one that lacks here doesn't compile, and one that is here is read.
macro_rules! words {
    ($($type:ident, $kind:literal: $($variant:ident = $word:literal),+;)+) => {$(
        impl Word for $type {
            const KIND: &'static str = $kind;
            const ALL: &'static [Self] = &[$($type::$variant),+];
            fn word(self) -> &'static str {
                match self {
                    $($type::$variant => $word,)+
                }
            }
        }
    )+};
}

words! {
    Environment, "an environment": Mainnet = "mainnet", Testnet = "testnet";
    Endpoint, "an endpoint": ChatCompletions = "/v1/chat/completions", Completions = "/v1/completions";
    FinishReason, "a finish reason": Stop = "stop", Length = "length", ToolCalls = "tool_calls",
        FunctionCall = "function_call", ContentFilter = "content_filter";
    ErrorClass, "a class of error": Terminal = "terminal", Node = "node", Transient = "transient";
    Wish, "a wish": Pause = "pause", Resume = "resume", Drain = "drain";
    Standing, "a standing": Banned = "banned", Frozen = "frozen", Excluded = "excluded", Away = "away",
        Draining = "draining", Paused = "paused", Untested = "untested", Ready = "ready";
}

/// One word.
pub(super) mod word {
    use super::*;

    pub(crate) fn serialize<T: Word, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.word())
    }

    pub(crate) fn deserialize<'de, T: Word, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        of_text(from, T::of)
    }
}

struct OneWord<T>(T);

impl<'de, T: Word> Deserialize<'de> for OneWord<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        word::deserialize(from).map(Self)
    }
}

impl<T: Word> Serialize for OneWord<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        word::serialize(&self.0, to)
    }
}

/// Some words, each once.
pub(super) mod words {
    use super::*;

    pub(crate) fn serialize<T: Word, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(values.len()))?;
        values.iter().try_for_each(|value| list.serialize_element(&OneWord(*value)))?;
        list.end()
    }

    pub(crate) fn deserialize<'de, T: Word + PartialEq, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let words: Vec<OneWord<T>> = from.deserialize_seq(Bounded { max: T::ALL.len(), of: PhantomData })?;
        let words: Vec<T> = words.into_iter().map(|word| word.0).collect();
        let repeats = words.iter().enumerate().any(|(at, word)| words[..at].contains(word));
        if repeats { Err(de::Error::custom(format!("names {} twice", T::KIND))) } else { Ok(words) }
    }
}

struct Bounded<T> {
    max: usize,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {}", self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == self.max {
                return Err(de::Error::custom(format!("more than {} in a list", self.max)));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// A list of at most `MAX`: reading stops there.
pub(super) fn list<'de, T, D, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_seq(Bounded { max: MAX, of: PhantomData })
}

/// A text of at most `MAX` bytes.
pub(super) fn text<'de, T, D, const MAX: usize>(from: D) -> Result<T, D::Error>
where
    T: for<'a> From<&'a str>,
    D: Deserializer<'de>,
{
    of_text(from, |text| bounded::<MAX>(text).map(T::from))
}

/// Whether a character stands for itself where it is shown.
fn is_shown(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

/// A model's name: not empty, and nothing that a terminal or a list would show as something else.
pub(super) fn model<'de, D: Deserializer<'de>>(from: D) -> Result<std::sync::Arc<str>, D::Error> {
    of_text(from, |text| match text {
        "" => Err("is empty".to_owned()),
        text if !text.chars().all(is_shown) => {
            Err("holds control characters or marks of direction".to_owned())
        }
        text => bounded::<{ super::MODEL_NAME_BYTES_MAX }>(text).map(Into::into),
    })
}

fn bounded<const MAX: usize>(text: &str) -> Result<&str, String> {
    if text.len() > MAX { Err(format!("is longer than {MAX} bytes")) } else { Ok(text) }
}

/// A number that every JSON parser keeps exactly.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    let is_exact = number <= super::NUMBER_MAX;
    is_exact.then_some(number).ok_or_else(|| de::Error::custom("is larger than 2^53 - 1"))
}
