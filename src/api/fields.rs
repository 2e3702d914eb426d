//! Values of operators' commands: JSON of a few members, each checked by itself. Strict: a member that isn't known is a
//! mistake, for here a misspelt one would move money. In a change, a member that isn't there says nothing, and one that is
//! null says that there is none.

use serde::{Deserialize, Deserializer};

use super::error::ApiError;
use crate::coordinator::event::{Environment, Tier};
use crate::coordinator::standing::Trust;
use crate::credits::Credits;
use crate::ids::{NameError, NodeId, OperationId};
use crate::time::Time;

/// Characters of a namespace's or model's name.
const NAME_CHARS_MAX: usize = 200;
/// Hexadecimal digits of an operation's id.
const OPERATION_DIGITS_MAX: usize = 32;
/// Micro-credits of a credit.
const MICRO: u64 = 1_000_000;

/// A member of a change: `None` if it isn't there, `Some(None)` if it is null. For `deserialize_with`, beside `default`.
pub(super) fn stated<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A command's JSON.
pub(super) fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text: String = error.to_string().chars().take(NAME_CHARS_MAX).collect();
        ApiError::command_malformed("body", format!("The body isn't this command's JSON: {text}."))
    })
}

/// A name of whatever it is: any text that fits.
pub(super) fn name<'t>(param: &'static str, text: &'t str) -> Result<&'t str, ApiError> {
    let fits = !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX && !text.contains(char::is_control);
    let message = || format!("`{param}` must be a name of 1 to {NAME_CHARS_MAX} characters.");
    fits.then_some(text).ok_or_else(|| ApiError::command_malformed(param, message()))
}

/// A tier by its word.
pub(super) fn tier(word: &str) -> Result<Tier, ApiError> {
    let message = || "`tier` must be realtime, standard, batch or background.".to_owned();
    let found = Tier::ALL.into_iter().find(|tier| tier.word() == word);
    found.ok_or_else(|| ApiError::command_malformed("tier", message()))
}

/// An environment by its word.
pub(super) fn environment(word: &str) -> Result<Environment, ApiError> {
    let message = || "`environment` must be mainnet or testnet.".to_owned();
    let found = Environment::ALL.into_iter().find(|environment| environment.word() == word);
    found.ok_or_else(|| ApiError::command_malformed("environment", message()))
}

/// The environment that is meant: the default, if none is named.
pub(super) fn world(word: Option<&str>) -> Result<Environment, ApiError> {
    word.map_or(Ok(Environment::default()), environment)
}

/// A point in time in unix seconds.
pub(super) fn point(param: &'static str, secs: u64) -> Result<Time, ApiError> {
    secs.checked_mul(MICRO).map(Time).ok_or_else(|| too_much(param))
}

/// What makes a repeat harmless.
pub(super) fn operation_id(text: &str) -> Result<OperationId, ApiError> {
    let is_hex =
        (1..=OPERATION_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit());
    let message = || format!("`operation` must be 1 to {OPERATION_DIGITS_MAX} hexadecimal digits.");
    let id = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    id.map(OperationId).ok_or_else(|| ApiError::command_malformed("operation", message()))
}

/// Decimal credits as micro-credits, exactly: at most six digits behind the point.
pub(super) fn micro(param: &'static str, text: &str) -> Result<u64, ApiError> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    if !are_digits(whole) || !are_digits(part) || part.len() > 6 {
        let message =
            format!("`{param}` must be credits such as \"1.25\": digits, and at most six behind the point.");
        return Err(ApiError::command_malformed(param, message));
    }
    let micros: u64 = format!("{part:0<6}").parse().map_err(|_| too_much(param))?;
    let whole: Option<u64> = whole.parse().ok().and_then(|whole: u64| whole.checked_mul(MICRO));
    whole.and_then(|whole| whole.checked_add(micros)).ok_or_else(|| too_much(param))
}

fn too_much(param: &'static str) -> ApiError {
    ApiError::command_malformed(param, format!("`{param}` is larger than can be kept."))
}

/// Credits that are there, as an amount.
pub(super) fn credits(param: &'static str, text: &str) -> Result<Credits, ApiError> {
    i64::try_from(micro(param, text)?).map(Credits).map_err(|_| too_much(param))
}

/// How far a node is trusted, by its word.
pub(super) fn trust(param: &'static str, word: &str) -> Result<Trust, ApiError> {
    let message = || format!("`{param}` must be own, approved or open.");
    let found = Trust::ALL.into_iter().find(|trust| trust.word() == word);
    found.ok_or_else(|| ApiError::command_malformed(param, message()))
}

/// A name that was checked when it was made.
pub(super) fn checked<T: std::str::FromStr<Err = NameError>>(
    param: &'static str,
    text: &str,
) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::command_malformed(param, format!("`{param}`: {error}.")))
}

/// A node's name.
pub(super) fn node(text: &str) -> Result<NodeId, ApiError> {
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"_-.".contains(&c);
    let fits = (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
    let message =
        || format!("`node` must be a node's name: 1 to {NAME_CHARS_MAX} letters, digits, `_`, `-` and `.`.");
    fits.then(|| NodeId::named(text)).ok_or_else(|| ApiError::command_malformed("node", message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_exact() {
        for (text, expected) in [
            ("1", Some(1_000_000)),
            ("0.000001", Some(1)),
            ("12.5", Some(12_500_000)),
            ("18446744073709.551615", Some(u64::MAX)),
            ("18446744073709.551616", None),
            ("99999999999999999999", None),
            ("0.0000001", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            (".5", None),
            ("1.", None),
            ("", None),
        ] {
            assert_eq!(micro("credits", text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn absent_and_null_are_told_apart() {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default, deserialize_with = "stated")]
            gpu: Option<Option<String>>,
        }
        for (text, expected) in [
            ("{}", None),
            (r#"{"gpu":null}"#, Some(None)),
            (r#"{"gpu":"h100"}"#, Some(Some("h100".to_owned()))),
        ] {
            assert_eq!(parsed::<Body>(text.as_bytes()).expect(text).gpu, expected);
        }
    }
}
