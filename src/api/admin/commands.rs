//! What operators send: JSON of a few members, made into one of the core's commands. Strict: a member that isn't known
//! is a mistake, for here a misspelt one would move money.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::error::ApiError;
use crate::coordinator::command::{Amount, Command, Scope};
use crate::coordinator::event::{Environment, Tier};
use crate::coordinator::ledger::PriceRule;
use crate::coordinator::standing::Trust;
use crate::credits::{Credits, Price};
use crate::ids::{Namespace, OperationId};
use crate::time::Time;

/// Characters of a namespace's or model's name.
const NAME_CHARS_MAX: usize = 200;
/// Hexadecimal digits of an operation's id.
const OPERATION_DIGITS_MAX: usize = 32;
const MICRO: u64 = 1_000_000;

/// What is paused or resumed: exactly one of them.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScopeBody {
    Model(String),
    Namespace(String),
    Tier(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DepositBody {
    /// Hexadecimal digits, chosen by the caller: repeating it deposits once.
    operation: String,
    environment: Option<String>,
    namespace: String,
    /// Decimal, as everywhere that credits are shown.
    credits: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceBody {
    environment: Option<String>,
    model: Option<String>,
    tier: Option<String>,
    /// Unix seconds; now, if it isn't said.
    from: Option<u64>,
    /// Credits for a million tokens, decimal.
    input: String,
    cached_input: Option<String>,
    output: String,
}

/// What to pause or resume.
pub(super) fn scope(body: &[u8]) -> Result<Scope, ApiError> {
    Ok(match parsed(body)? {
        ScopeBody::Model(model) => Scope::Model(name("model", &model)?.into()),
        ScopeBody::Namespace(namespace) => Scope::Namespace(Namespace::named(name("namespace", &namespace)?)),
        ScopeBody::Tier(word) => Scope::Tier(tier(&word)?),
    })
}

/// A deposit for a namespace.
pub(super) fn deposit(body: &[u8]) -> Result<Command, ApiError> {
    let DepositBody { operation, environment: world, namespace, credits } = parsed(body)?;
    let amount = Amount {
        operation: operation_id(&operation)?,
        environment: world.as_deref().map_or(Ok(Environment::default()), environment)?,
        credits: Credits(i64::try_from(micro("credits", &credits)?).map_err(|_| too_much("credits"))?),
    };
    Ok(Command::Deposit(amount, Namespace::named(name("namespace", &namespace)?)))
}

/// A price with its date of effect.
pub(super) fn price(body: &[u8], now: Time) -> Result<Command, ApiError> {
    let body: PriceBody = parsed(body)?;
    let input = micro("input", &body.input)?;
    let from = body.from.map(|secs| secs.checked_mul(MICRO).map(Time).ok_or_else(|| too_much("from")));
    Ok(Command::PutPrice(PriceRule {
        environment: body.environment.as_deref().map(environment).transpose()?,
        model: body.model.as_deref().map(|model| name("model", model).map(Into::into)).transpose()?,
        tier: body.tier.as_deref().map(tier).transpose()?,
        from: from.transpose()?.unwrap_or(now),
        price: Price {
            input,
            cached_input: body.cached_input.map_or(Ok(input), |text| micro("cached_input", &text))?,
            output: micro("output", &body.output)?,
        },
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupBody {
    /// An absolute path on the box's machine.
    target: PathBuf,
}

/// Where to back up to.
pub(super) fn backup(body: &[u8]) -> Result<PathBuf, ApiError> {
    parsed(body).map(|BackupBody { target }| target)
}

pub(super) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text: String = error.to_string().chars().take(NAME_CHARS_MAX).collect();
        ApiError::command_malformed("body", format!("The body isn't this command's JSON: {text}."))
    })
}

pub(super) fn name<'t>(param: &'static str, text: &'t str) -> Result<&'t str, ApiError> {
    let fits = !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX && !text.contains(char::is_control);
    let message = || format!("`{param}` must be a name of 1 to {NAME_CHARS_MAX} characters.");
    fits.then_some(text).ok_or_else(|| ApiError::command_malformed(param, message()))
}

fn tier(word: &str) -> Result<Tier, ApiError> {
    let message = || "`tier` must be realtime, standard, batch or background.".to_owned();
    let found = Tier::ALL.into_iter().find(|tier| tier.word() == word);
    found.ok_or_else(|| ApiError::command_malformed("tier", message()))
}

pub(super) fn environment(word: &str) -> Result<Environment, ApiError> {
    let message = || "`environment` must be mainnet or testnet.".to_owned();
    let found = Environment::ALL.into_iter().find(|environment| environment.word() == word);
    found.ok_or_else(|| ApiError::command_malformed("environment", message()))
}

pub(super) fn trust(word: &str) -> Result<Trust, ApiError> {
    let message = || "`trust` must be own, approved or open.".to_owned();
    let found =
        [Trust::Own, Trust::Approved, Trust::Open].into_iter().find(|t| super::views::trust(*t) == word);
    found.ok_or_else(|| ApiError::command_malformed("trust", message()))
}

fn operation_id(text: &str) -> Result<OperationId, ApiError> {
    let is_hex =
        (1..=OPERATION_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit());
    let message = || format!("`operation` must be 1 to {OPERATION_DIGITS_MAX} hexadecimal digits.");
    let id = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    id.map(OperationId).ok_or_else(|| ApiError::command_malformed("operation", message()))
}

/// Decimal credits as micro-credits, exactly: at most six digits behind the point.
fn micro(param: &'static str, text: &str) -> Result<u64, ApiError> {
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
    fn scopes() {
        for (body, expected) in [
            (r#"{"model":"tiny"}"#, Ok(Scope::Model("tiny".into()))),
            (r#"{"namespace":"a"}"#, Ok(Scope::Namespace(Namespace::named("a")))),
            (r#"{"tier":"batch"}"#, Ok(Scope::Tier(Tier::Batch))),
            (r#"{"tier":"fast"}"#, Err("tier")),
            (r#"{"model":""}"#, Err("model")),
            (r#"{"model":"a\u0000"}"#, Err("model")),
            (r#"{"model":"a","tier":"batch"}"#, Err("body")),
            (r#"{"modle":"a"}"#, Err("body")),
            ("", Err("body")),
        ] {
            let found = scope(body.as_bytes()).map_err(|error| error.param.unwrap_or_default());
            assert_eq!(found, expected.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn deposits_and_prices() {
        let body = r#"{"operation":"fF","namespace":"a","credits":"2.5"}"#;
        let Ok(Command::Deposit(amount, namespace)) = deposit(body.as_bytes()) else { panic!("{body}") };
        assert_eq!((amount.operation, amount.credits), (OperationId(255), Credits(2_500_000)));
        assert_eq!((amount.environment, namespace), (Environment::Mainnet, Namespace::named("a")));
        let body = r#"{"model":"tiny","from":2,"input":"1","output":"3","environment":"testnet"}"#;
        let Ok(Command::PutPrice(rule)) = price(body.as_bytes(), Time(7)) else { panic!("{body}") };
        assert_eq!((rule.from, rule.price), (Time(2_000_000), Price::uncached(1_000_000, 3_000_000)));
        assert_eq!((rule.environment, rule.tier), (Some(Environment::Testnet), None));
        let Ok(Command::PutPrice(rule)) = price(br#"{"input":"1","output":"1"}"#, Time(7)) else {
            panic!("now")
        };
        assert_eq!(rule.from, Time(7));
        for (body, param) in [
            (r#"{"operation":"x","namespace":"a","credits":"1"}"#, "operation"),
            (r#"{"operation":"1","namespace":"a","credits":"9999999999999.999999"}"#, "credits"),
            (r#"{"operation":"1","namespace":"a","credits":"1","to":"b"}"#, "body"),
            (r#"{"operation":"1","namespace":"a","credits":"1","environment":"prod"}"#, "environment"),
        ] {
            let error = deposit(body.as_bytes()).expect_err(body);
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
