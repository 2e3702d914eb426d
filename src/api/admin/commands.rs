//! What operators send about jobs and credits, made into one of the core's commands.

use std::path::PathBuf;

use serde::Deserialize;

use super::super::error::ApiError;
use super::super::fields::{
    credits, environment, micro, name, node, operation_id, parsed, point, tier, world,
};
use crate::coordinator::command::{Amount, Command, Scope};
use crate::coordinator::ledger::{Owner, PriceRule};
use crate::credits::Price;
use crate::ids::Namespace;
use crate::time::Time;

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
    /// For whom: this, or an account.
    namespace: Option<String>,
    account: Option<AccountWord>,
    /// Decimal, as everywhere that credits are shown.
    credits: String,
}

/// An account of the box's own that credits are deposited in.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AccountWord {
    Integrity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferBody {
    operation: String,
    environment: Option<String>,
    node: String,
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

/// A deposit for a namespace, or for what pays for the box's own checks.
pub(super) fn deposit(body: &[u8]) -> Result<Command, ApiError> {
    let DepositBody { operation, environment, namespace, account, credits: amount } = parsed(body)?;
    let amount = Amount {
        operation: operation_id(&operation)?,
        environment: world(environment.as_deref())?,
        credits: credits("credits", &amount)?,
    };
    match (namespace, account) {
        (Some(namespace), None) => {
            Ok(Command::Deposit(amount, Namespace::named(name("namespace", &namespace)?)))
        }
        (None, Some(AccountWord::Integrity)) => {
            Ok(Command::Adjust(amount, Owner::Integrity, "a deposit".into()))
        }
        _ => {
            let message = "Say whose account: a `namespace`, or `\"account\": \"integrity\"`.";
            Err(ApiError::command_malformed("namespace", message.to_owned()))
        }
    }
}

/// A node's earnings for its owner.
pub(super) fn transfer(body: &[u8]) -> Result<Command, ApiError> {
    let TransferBody { operation, environment, node: named, credits: amount } = parsed(body)?;
    let amount = Amount {
        operation: operation_id(&operation)?,
        environment: world(environment.as_deref())?,
        credits: credits("credits", &amount)?,
    };
    Ok(Command::Transfer(amount, node(&named)?))
}

/// A price with its date of effect.
pub(super) fn price(body: &[u8], now: Time) -> Result<Command, ApiError> {
    let body: PriceBody = parsed(body)?;
    let input = micro("input", &body.input)?;
    let from = body.from.map(|secs| point("from", secs)).transpose()?;
    Ok(Command::PutPrice(PriceRule {
        environment: body.environment.as_deref().map(environment).transpose()?,
        model: body.model.as_deref().map(|model| name("model", model).map(Into::into)).transpose()?,
        tier: body.tier.as_deref().map(tier).transpose()?,
        from: from.unwrap_or(now),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::event::{Environment, Tier};
    use crate::credits::Credits;
    use crate::ids::OperationId;

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
            (r#"{"operation":"1","credits":"1"}"#, "namespace"),
            (r#"{"operation":"1","credits":"1","namespace":"a","account":"integrity"}"#, "namespace"),
            (r#"{"operation":"1","credits":"1","account":"fee"}"#, "body"),
            (r#"{"operation":"1","namespace":"a","credits":"1","environment":"prod"}"#, "environment"),
        ] {
            let error = deposit(body.as_bytes()).expect_err(body);
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
