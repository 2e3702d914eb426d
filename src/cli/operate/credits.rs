//! `switchbox credits`: who has how much, deposits, earnings, and what jobs cost.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::nodes::name;
use super::show::{self, Answer, rows, table, text};
use super::{BoxArgs, CliError, object, run};

/// What makes a repeat of the command harmless.
#[derive(Debug, Args)]
struct Once {
    /// mainnet or testnet
    #[arg(long, default_value = "mainnet", value_parser = ["mainnet", "testnet"])]
    environment: String,
    /// Names this in hexadecimal digits, so that repeating the command does it once [default: a new name]
    #[arg(long, value_name = "HEX")]
    operation: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The integrity account pays for blind and validation jobs: without credit there nodes aren't checked, \
                        and new ones stay on probation.\n\nExamples:\n  switchbox credits deposit default 12.5\n  \
                        switchbox credits deposit --integrity 100"
)]
pub(in crate::cli) struct DepositArgs {
    /// The namespace (but with --integrity), and how much, with at most six digits behind the point
    #[arg(value_names = ["NAMESPACE", "CREDITS"], num_args = 1..=2, required = true)]
    what: Vec<String>,
    /// For the box's own checks, instead of a namespace
    #[arg(long)]
    integrity: bool,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Its owner is settled with `switchbox nodes trust NODE LEVEL --owner NAMESPACE`.\n\nExample:\n  \
                        switchbox credits transfer node_x 3.25"
)]
pub(in crate::cli) struct TransferArgs {
    /// The node whose earnings go to its owner's namespace
    #[arg(value_name = "NODE")]
    node: String,
    /// How much, with at most six digits behind the point
    credits: String,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  switchbox credits price --model tiny 0.5 1.5\n\nPrices are credits for a million tokens. \
                        A job keeps the price that was in force when it was accepted."
)]
pub(in crate::cli) struct PriceArgs {
    /// For tokens of the prompt
    input: String,
    /// For generated tokens
    output: String,
    /// For tokens of the prompt that were found in a cache [default: as INPUT]
    #[arg(long, value_name = "CREDITS")]
    cached_input: Option<String>,
    /// Only for this model
    #[arg(long)]
    model: Option<String>,
    /// Only in this tier
    #[arg(long)]
    tier: Option<String>,
    /// Only in this environment
    #[arg(long)]
    environment: Option<String>,
    /// From when on, in unix seconds [default: now]
    #[arg(long, value_name = "SECONDS")]
    from: Option<u64>,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with credits.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CreditsCommand {
    /// Show every account's balance
    Balances(BoxArgs),
    /// Give a namespace, or the integrity account, credits
    Deposit(DepositArgs),
    /// Give a node's earnings to its owner's namespace
    Transfer(TransferArgs),
    /// Set a price
    Price(PriceArgs),
}

pub(in crate::cli) fn credits(command: &CreditsCommand) -> Result<(), CliError> {
    match command {
        CreditsCommand::Balances(which) => run(which, Method::GET, "/admin/balances", None, balances),
        CreditsCommand::Deposit(args) => deposit(args),
        CreditsCommand::Transfer(args) => {
            let members = [("node", Some(json!(name(&args.node)?))), ("credits", Some(json!(args.credits)))];
            args.once.run("/admin/transfers", "transferred", members)
        }
        CreditsCommand::Price(args) => price(args),
    }
}

fn deposit(args: &DepositArgs) -> Result<(), CliError> {
    let (account, namespace, credits) = match (args.integrity, args.what.as_slice()) {
        (true, [credits]) => (Some(json!("integrity")), None, credits),
        (false, [namespace, credits]) => (None, Some(json!(namespace)), credits),
        (true, _) => {
            return Err(CliError::Usage("with --integrity give CREDITS alone, and no namespace".to_owned()));
        }
        (false, _) => {
            return Err(CliError::Usage("give NAMESPACE and CREDITS, or --integrity and CREDITS".to_owned()));
        }
    };
    let members = [("account", account), ("namespace", namespace), ("credits", Some(json!(credits)))];
    args.once.run("/admin/deposits", "deposited", members)
}

fn price(args: &PriceArgs) -> Result<(), CliError> {
    let body = json!({"input": args.input, "output": args.output, "cached_input": args.cached_input,
        "model": args.model, "tier": args.tier, "environment": args.environment, "from": args.from});
    run(&args.which, Method::POST, "/admin/prices", Some(body), show::done)
}

impl Once {
    /// Does it, and says under which name.
    fn run<const N: usize>(
        &self,
        path: &str,
        what: &str,
        members: [(&str, Option<Value>); N],
    ) -> Result<(), CliError> {
        let operation = match &self.operation {
            Some(operation) => operation.clone(),
            None => new_operation()?,
        };
        let mut body = object(members);
        body["operation"] = operation.as_str().into();
        body["environment"] = self.environment.as_str().into();
        let shown = |_: &Map<String, Value>| format!("{what}, as operation {operation}\n");
        run(&self.which, Method::POST, path, Some(body), shown)
    }
}

fn new_operation() -> Result<String, CliError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| CliError::Failed(format!("no random bytes: {error}")))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

/// Who has how much.
fn balances(answer: &Answer) -> String {
    let keys = ["environment", "account", "name", "balance", "held"];
    let line = |balance: &Value| keys.map(|key| text(&balance[key])).to_vec();
    table(&keys, &rows(answer, "balances").map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_are_a_table() {
        let answer = json!({"balances": [{"environment": "mainnet", "account": "fee", "name": null,
            "balance": "1.000000", "held": "0.000000"}]});
        let expected =
            "environment  account  name  balance   held\nmainnet      fee            1.000000  0.000000\n";
        assert_eq!(balances(answer.as_object().expect("an object")), expected);
        assert_eq!(balances(&Map::new()), "environment  account  name  balance  held\n");
    }
}
