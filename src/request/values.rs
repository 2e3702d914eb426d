//! What single fields may be: each function turns a value into its type or says what would be right.

use super::body::Field;
use super::scalar::{Scalar, Texts, quote};
use super::{RequestError, STOP_STRINGS_MAX};
use crate::coordinator::event::Tier;

pub(super) fn model(value: Scalar<'_>) -> Result<String, RequestError> {
    match value {
        Scalar::Text(text) if !text.is_empty() => Ok(text.into_owned()),
        Scalar::Text(_) => Err(RequestError::invalid("model", "the name of a model", "empty")),
        other => Err(RequestError::wrong_type("model", "a string", &other.found())),
    }
}

pub(super) fn boolean(name: &str, value: &Scalar<'_>) -> Result<bool, RequestError> {
    match value {
        Scalar::Bool(value) => Ok(*value),
        other => Err(RequestError::wrong_type(name, "a boolean", &other.found())),
    }
}

fn integer(name: &str, value: &Scalar<'_>) -> Result<i128, RequestError> {
    value.as_integer().ok_or_else(|| RequestError::wrong_type(name, "a whole number", &value.found()))
}

pub(super) fn token_count(name: &str, value: &Scalar<'_>) -> Result<u32, RequestError> {
    let count = integer(name, value)?;
    let in_range = u32::try_from(count).ok().filter(|count| *count > 0);
    in_range
        .ok_or_else(|| RequestError::invalid(name, "a whole number from 1 to 4294967295", &count.to_string()))
}

pub(super) fn number(
    name: &str,
    value: &Scalar<'_>,
    allowed: impl Fn(f64) -> bool,
    range: &str,
) -> Result<f32, RequestError> {
    let found = value
        .as_f64()
        .ok_or_else(|| RequestError::wrong_type(name, &format!("a number {range}"), &value.found()))?;
    // What rounds to 0 as the sampler's type would turn an allowed tiny `top_p` into a forbidden one.
    let narrow = found as f32;
    if !allowed(found) || !allowed(f64::from(narrow)) {
        return Err(RequestError::invalid(name, &format!("a number {range}"), &found.to_string()));
    }
    Ok(narrow)
}

pub(super) fn seed(value: &Scalar<'_>) -> Result<u64, RequestError> {
    let seed = integer("seed", value)?;
    match i64::try_from(seed) {
        Ok(seed) => Ok(seed.cast_unsigned()),
        Err(_) => Err(RequestError::invalid("seed", "a 64-bit signed whole number", &seed.to_string())),
    }
}

pub(super) fn tier(value: &Scalar<'_>) -> Result<Tier, RequestError> {
    const NAMES: &str = "one of auto, default, flex, scale, priority, fast";
    let Scalar::Text(name) = value else {
        return Err(RequestError::wrong_type("service_tier", NAMES, &value.found()));
    };
    match &**name {
        "auto" | "default" | "scale" => Ok(Tier::Standard),
        "priority" | "fast" => Ok(Tier::Realtime),
        "flex" => Ok(Tier::Batch),
        other => Err(RequestError::invalid("service_tier", NAMES, &quote(other))),
    }
}

/// Lets pass only those values of an unsupported parameter that ask for nothing.
pub(super) fn unsupported(field: Field, value: &Scalar<'_>) -> Result<(), RequestError> {
    let name = field.name();
    match field {
        Field::FrequencyPenalty | Field::PresencePenalty => {
            let penalty = number(name, value, |p| (-2.0..=2.0).contains(&p), "from -2 to 2")?;
            if penalty == 0.0 {
                Ok(())
            } else {
                Err(RequestError::unsupported_value(name, &value.found(), "0"))
            }
        }
        Field::N | Field::BestOf => match integer(name, value)? {
            1 => Ok(()),
            ..=0 => Err(RequestError::invalid(name, "a whole number from 1", &value.found())),
            _ => Err(RequestError::unsupported_value(name, &value.found(), "1")),
        },
        Field::TopLogprobs if value.as_integer() == Some(0) => Ok(()),
        Field::Logprobs | Field::Echo if *value == Scalar::Bool(false) => Ok(()),
        Field::Logprobs | Field::Echo => Err(RequestError::unsupported_value(name, &value.found(), "false")),
        Field::Suffix if is_text(value, "") => Ok(()),
        Field::ToolChoice | Field::FunctionCall if is_text(value, "none") => Ok(()),
        Field::Tools | Field::Functions | Field::LogitBias
            if matches!(value, Scalar::Array(0) | Scalar::Object(0)) =>
        {
            Ok(())
        }
        _ => Err(RequestError::unsupported_parameter(name)),
    }
}

pub(super) fn is_text(value: &Scalar<'_>, expected: &str) -> bool {
    matches!(value, Scalar::Text(text) if text == expected)
}

pub(super) fn prompt(texts: Texts<'_>) -> Result<String, RequestError> {
    let (mut first, len) = match texts {
        Texts::One(Scalar::Text(text)) => return Ok(text.into_owned()),
        Texts::One(other) => {
            return Err(RequestError::wrong_type(
                "prompt",
                "a string or an array of one string",
                &other.found(),
            ));
        }
        Texts::Many { first, len } => (first, len),
    };
    if first.iter().any(|element| element.as_f64().is_some() || matches!(element, Scalar::Array(_))) {
        return Err(RequestError::unsupported_value("prompt", "an array of tokens", "text"));
    }
    match (first.pop(), len) {
        (Some(Scalar::Text(text)), 1) => Ok(text.into_owned()),
        (Some(Scalar::Text(_)), _) => {
            let found = format!("an array of {len} prompts");
            Err(RequestError::unsupported_value("prompt", &found, "one prompt per request"))
        }
        (None, _) => {
            Err(RequestError::invalid("prompt", "a string or an array of one string", "an empty array"))
        }
        (Some(other), _) => {
            Err(RequestError::wrong_type(&format!("prompt[{}]", first.len()), "a string", &other.found()))
        }
    }
}

pub(super) fn stop(texts: Texts<'_>) -> Result<Vec<String>, RequestError> {
    let first = match texts {
        Texts::One(text @ Scalar::Text(_)) => vec![text],
        Texts::One(other) => {
            return Err(RequestError::wrong_type("stop", "a string or an array of strings", &other.found()));
        }
        Texts::Many { len, .. } if len > STOP_STRINGS_MAX => {
            let expected = format!("at most {STOP_STRINGS_MAX} strings");
            return Err(RequestError::invalid("stop", &expected, &format!("an array of {len}")));
        }
        Texts::Many { first, .. } => first,
    };
    let string = |(index, value): (usize, Scalar<'_>)| match value {
        Scalar::Text(text) if !text.is_empty() => Ok(text.into_owned()),
        Scalar::Text(_) => {
            Err(RequestError::invalid("stop", "strings that are not empty", "an empty string"))
        }
        other => Err(RequestError::wrong_type(&format!("stop[{index}]"), "a string", &other.found())),
    };
    first.into_iter().enumerate().map(string).collect()
}
