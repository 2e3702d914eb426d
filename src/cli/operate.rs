//! What an operator asks of a running box, over its admin API: jobs, nodes, pauses, credits, prices. One request a
//! command, and its answer shown; what makes sense is the box's to say.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::{Address, Client};
use super::terminal::printable;
use super::{CliError, DataDirArg, client_runtime};
use crate::datadir::Published;
use crate::ids::JobId;

mod invite;
mod show;

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

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node's name (node_...)
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with nodes.
#[derive(Debug, Subcommand)]
pub(super) enum NodesCommand {
    /// List the nodes with their standing and load
    List(BoxArgs),
    /// Give it no new work
    Pause(NodeArgs),
    /// Give it work again
    Resume(NodeArgs),
    /// Give it no new work; it leaves when it is through
    Drain(NodeArgs),
    /// Suspect it: take its work away and lock its earnings
    Freeze(NodeArgs),
    /// Clear it of suspicion
    Thaw(NodeArgs),
    /// Put it out
    Ban(NodeArgs),
    /// Let it in again, after a test job
    Unban(NodeArgs),
    /// End an exclusion; a test job decides
    Reinstate(NodeArgs),
    /// Print the one string with which a machine joins this box
    Invite(invite::InviteArgs),
    /// List invites that are open
    Invites(BoxArgs),
    /// Let an invite be good for nothing any more
    RevokeInvite(invite::RevokeArgs),
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

pub(super) fn nodes(command: &NodesCommand) -> Result<(), CliError> {
    let (verb, args) = match command {
        NodesCommand::List(which) => return run(which, Method::GET, "/admin/nodes", None, show::nodes),
        NodesCommand::Invite(args) => return invite::create(args),
        NodesCommand::Invites(which) => return invite::list(which),
        NodesCommand::RevokeInvite(args) => return invite::revoke(args),
        NodesCommand::Pause(args) => ("pause", args),
        NodesCommand::Resume(args) => ("resume", args),
        NodesCommand::Drain(args) => ("drain", args),
        NodesCommand::Freeze(args) => ("freeze", args),
        NodesCommand::Thaw(args) => ("thaw", args),
        NodesCommand::Ban(args) => ("ban", args),
        NodesCommand::Unban(args) => ("unban", args),
        NodesCommand::Reinstate(args) => ("reinstate", args),
    };
    // The name becomes a part of a path.
    if args.node.is_empty() || !args.node.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c)) {
        return Err(CliError::Usage(format!("`{}` isn't a node's name", args.node)));
    }
    run(&args.which, Method::POST, &format!("/admin/nodes/{}/{verb}", args.node), None, show::done)
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

/// Asks the box and prints what `show` makes of the answer.
fn run(
    which: &BoxArgs,
    method: Method,
    path: &str,
    body: Option<Value>,
    show: impl FnOnce(&Map<String, Value>) -> String,
) -> Result<(), CliError> {
    let published = Published::at(&which.data_dir.path()?)?;
    let address = Address::parse(&published.admin_addr()?)?;
    let client = Client::new(address, Some(published.admin_token()?.text()))?;
    let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
    let answer: Value = client_runtime()?.block_on(client.call(method, path, body))?;
    let text = match (which.json, answer) {
        (false, Value::Object(answer)) => show(&answer),
        (_, answer) => format!("{answer:#}\n"),
    };
    Ok(std::io::stdout().write_all(printable(&text).as_bytes())?)
}
