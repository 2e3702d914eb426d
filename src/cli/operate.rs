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

mod credits;
mod invite;
mod keys;
mod namespaces;
mod nodes;
mod show;
mod snapshot;
mod subclouds;
mod templates;

pub(super) use credits::{CreditsCommand, credits};
pub(super) use keys::{KeysCommand, keys};
pub(super) use namespaces::{NamespacesCommand, namespaces};
pub(super) use nodes::{NodesCommand, nodes};
pub(super) use snapshot::{SnapshotCommand, snapshot};
pub(super) use subclouds::{SubcloudsCommand, subclouds};
pub(super) use templates::{TemplatesCommand, templates};

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

pub(super) fn pause(args: &ScopeArgs) -> Result<(), CliError> {
    run(&args.which, Method::POST, "/admin/pause", Some(scope(args)), show::paused)
}

pub(super) fn resume(args: &ScopeArgs) -> Result<(), CliError> {
    run(&args.which, Method::POST, "/admin/resume", Some(scope(args)), show::done)
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
    let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
    call(&which.admin()?, which.json, (method, path, body), show)
}

/// As [`run`], with JSON that is written already.
fn send(
    which: &BoxArgs,
    path: &str,
    body: Vec<u8>,
    show: impl FnOnce(&Map<String, Value>) -> String,
) -> Result<(), CliError> {
    call(&which.admin()?, which.json, (Method::POST, path, body), show)
}

/// Asks whomever, and prints what `show` makes of the answer, or the answer itself.
fn call(
    client: &Client,
    as_json: bool,
    (method, path, body): (Method, &str, Vec<u8>),
    show: impl FnOnce(&Map<String, Value>) -> String,
) -> Result<(), CliError> {
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
