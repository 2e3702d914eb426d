//! What an operator asks of a running box, over its admin API: jobs, nodes, pauses, credits, prices. One request a
//! command, and its answer shown; what makes sense is the box's to say.

use std::io::Write;

use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::{Address, Client};
use super::terminal::printable;
use super::{CliError, DataDirArg, client_runtime};
use crate::datadir::Published;
use crate::ids::JobId;

mod keys;
mod namespaces;
mod nodes;
mod show;
mod subclouds;

pub(super) use keys::{KeysCommand, keys};
pub(super) use namespaces::{NamespacesCommand, namespaces};
pub(super) use nodes::{NodesCommand, nodes};
pub(super) use subclouds::{SubcloudsCommand, subclouds};

/// Which box, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct BoxArgs {
    #[command(flatten)]
    data_dir: DataDirArg,
    /// Print the answer of the admin API as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// The job's id (job_...)
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Model,
    Namespace,
    Tier,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchbox pause model tiny\n  switchbox resume tier batch")]
pub(super) struct ScopeArgs {
    /// Of what the jobs wait
    kind: Kind,
    /// Its name
    name: String,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  switchbox deposit default 12.5")]
pub(super) struct DepositArgs {
    /// Whose account
    namespace: String,
    /// How much, with at most six digits behind the point
    credits: String,
    /// mainnet or testnet
    #[arg(long, default_value = "mainnet")]
    environment: String,
    /// Names this deposit in hexadecimal digits, so that repeating the command deposits once [default: a new name]
    #[arg(long, value_name = "HEX")]
    operation: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  switchbox price --model tiny 0.5 1.5\n\nPrices are credits for a million tokens. \
                        A job keeps the price that was in force when it was accepted."
)]
pub(super) struct PriceArgs {
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

pub(super) fn job(args: &JobArgs) -> Result<(), CliError> {
    run(&args.which, Method::GET, &format!("/admin/jobs/{}", id(args)?), None, show::job)
}

pub(super) fn cancel(args: &JobArgs) -> Result<(), CliError> {
    run(&args.which, Method::POST, &format!("/admin/jobs/{}/cancel", id(args)?), None, show::cancelled)
}

pub(super) fn requeue(args: &JobArgs) -> Result<(), CliError> {
    run(&args.which, Method::POST, &format!("/admin/jobs/{}/requeue", id(args)?), None, show::requeued)
}

pub(super) fn dead_letters(which: &BoxArgs) -> Result<(), CliError> {
    run(which, Method::GET, "/admin/dead-letters", None, show::dead_letters)
}

pub(super) fn balances(which: &BoxArgs) -> Result<(), CliError> {
    run(which, Method::GET, "/admin/balances", None, show::balances)
}

pub(super) fn pause(args: &ScopeArgs) -> Result<(), CliError> {
    run(&args.which, Method::POST, "/admin/pause", Some(scope(args)), show::paused)
}

pub(super) fn resume(args: &ScopeArgs) -> Result<(), CliError> {
    run(&args.which, Method::POST, "/admin/resume", Some(scope(args)), show::done)
}

pub(super) fn deposit(args: &DepositArgs) -> Result<(), CliError> {
    let operation = match &args.operation {
        Some(operation) => operation.clone(),
        None => new_operation()?,
    };
    let body = json!({"operation": operation, "environment": args.environment, "namespace": args.namespace,
        "credits": args.credits});
    let shown = |_: &Map<String, Value>| format!("deposited, as operation {operation}\n");
    run(&args.which, Method::POST, "/admin/deposits", Some(body), shown)
}

pub(super) fn price(args: &PriceArgs) -> Result<(), CliError> {
    let body = json!({"input": args.input, "output": args.output, "cached_input": args.cached_input,
        "model": args.model, "tier": args.tier, "environment": args.environment, "from": args.from});
    run(&args.which, Method::POST, "/admin/prices", Some(body), show::done)
}

fn scope(args: &ScopeArgs) -> Value {
    match args.kind {
        Kind::Model => json!({"model": args.name}),
        Kind::Namespace => json!({"namespace": args.name}),
        Kind::Tier => json!({"tier": args.name}),
    }
}

fn id(args: &JobArgs) -> Result<JobId, CliError> {
    args.job.parse().map_err(|error| CliError::Usage(format!("{error}")))
}

fn new_operation() -> Result<String, CliError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| CliError::Failed(format!("no random bytes: {error}")))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

impl BoxArgs {
    /// A client of the box's admin listener.
    fn admin(&self) -> Result<Client, CliError> {
        let published = Published::at(&self.data_dir.path()?)?;
        let address = Address::parse(&published.admin_addr()?)?;
        Ok(Client::new(address, Some(published.admin_token()?.text()))?)
    }
}

/// Asks the box and prints what `show` makes of the answer.
fn run(
    which: &BoxArgs,
    method: Method,
    path: &str,
    body: Option<Value>,
    show: impl FnOnce(&Map<String, Value>) -> String,
) -> Result<(), CliError> {
    call(&which.admin()?, which.json, (method, path, body), show)
}

/// Asks whomever, and prints what `show` makes of the answer, or the answer itself.
fn call(
    client: &Client,
    as_json: bool,
    (method, path, body): (Method, &str, Option<Value>),
    show: impl FnOnce(&Map<String, Value>) -> String,
) -> Result<(), CliError> {
    let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
    let answer: Value = client_runtime()?.block_on(client.call(method, path, body))?;
    let text = match (as_json, answer) {
        (false, Value::Object(answer)) => show(&answer),
        (_, answer) => format!("{answer:#}\n"),
    };
    Ok(std::io::stdout().write_all(printable(&text).as_bytes())?)
}

/// A JSON object of those members that are there.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let stated = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(stated.collect())
}
