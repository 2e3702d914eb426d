//! `switchbox subclouds`: groups of nodes with a policy. The operator does it over the admin API; a namespace that owns one
//! with its API key.

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use super::show::{self, Answer, rows, table, text, words};
use super::{BoxArgs, CliError, call, nodes, object};
use crate::cli::door::DoorArgs;
use crate::ids::SubcloudName;

const AFTER_HELP: &str = "\
With --url or --key-file it is done with an API key of a namespace that owns the subcloud, in that key's environment;
otherwise as the operator of the box on the data directory.";

/// Which box, and who asks.
#[derive(Debug, Args)]
pub(in crate::cli) struct Who {
    #[command(flatten)]
    door: DoorArgs,
    /// Whose subclouds: mainnet or testnet [default: mainnet]
    #[arg(long, value_parser = ["mainnet", "testnet"])]
    environment: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct NamedArgs {
    /// The subcloud's name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct MemberArgs {
    /// The subcloud's name
    #[arg(value_name = "NAME")]
    name: String,
    /// The node's name (node_...)
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct PolicyArgs {
    /// The subcloud's name: a-z, 0-9, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    name: String,
    /// A model that it runs; once for each
    #[arg(long = "model", value_name = "MODEL", conflicts_with = "any_model")]
    models: Vec<String>,
    /// It runs every model
    #[arg(long)]
    any_model: bool,
    /// Where its nodes stand; once for each region
    #[arg(long = "region", value_name = "REGION", conflicts_with = "any_region")]
    regions: Vec<String>,
    /// Its nodes stand anywhere
    #[arg(long)]
    any_region: bool,
    /// How far its nodes are trusted, at least: own, approved or open
    #[arg(long, value_parser = ["own", "approved", "open"])]
    trust: Option<String>,
    /// Memory for models that its nodes have, at least
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u64>,
    /// The class of GPU that its nodes have
    #[arg(long, value_name = "CLASS", conflicts_with = "any_gpu")]
    gpu: Option<String>,
    /// Its nodes have any GPU, or none
    #[arg(long)]
    any_gpu: bool,
    /// Whether its nodes leave the global pool
    #[arg(long)]
    isolate: Option<YesNo>,
    /// A namespace that may change it, and use it; once for each
    #[arg(long = "owner", value_name = "NAMESPACE", conflicts_with = "no_owner")]
    owners: Vec<String>,
    /// Only the operator may change it
    #[arg(long)]
    no_owner: bool,
    /// A namespace that may use it; once for each
    #[arg(long = "allow", value_name = "NAMESPACE", conflicts_with = "allow_everyone")]
    allowed: Vec<String>,
    /// Every namespace may use it
    #[arg(long)]
    allow_everyone: bool,
    #[command(flatten)]
    who: Who,
}

/// What is done with subclouds.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SubcloudsCommand {
    /// Make one; what isn't said isn't restricted
    Create(PolicyArgs),
    /// List them
    #[command(after_help = AFTER_HELP)]
    List(Who),
    /// Show one: its policy, owners and nodes
    Show(NamedArgs),
    /// Change one; what isn't said stays
    Set(PolicyArgs),
    /// Add a node
    Add(MemberArgs),
    /// Take a node out
    Remove(MemberArgs),
    /// End one; its nodes go back to the global pool
    Drop(NamedArgs),
}

pub(in crate::cli) fn subclouds(command: &SubcloudsCommand) -> Result<(), CliError> {
    match command {
        SubcloudsCommand::Create(args) => {
            if args.who.door.is_stated() {
                let message = "only the operator makes subclouds: leave --url and --key-file out";
                return Err(CliError::Usage(message.to_owned()));
            }
            let mut body = args.change();
            body["name"] = args.name.clone().into();
            args.who.call(Method::POST, "", Some(body), show::done)
        }
        SubcloudsCommand::List(who) => who.call(Method::GET, "", None, list),
        SubcloudsCommand::Show(args) => {
            let query = args.who.environment.as_ref().map(|word| format!("?environment={word}"));
            let path = format!("/{}{}", name(&args.name)?, query.unwrap_or_default());
            args.who.call(Method::GET, &path, None, shown)
        }
        SubcloudsCommand::Set(args) => {
            let path = format!("/{}/set", name(&args.name)?);
            args.who.call(Method::POST, &path, Some(args.change()), show::done)
        }
        SubcloudsCommand::Add(args) => member(args, "add"),
        SubcloudsCommand::Remove(args) => member(args, "remove"),
        SubcloudsCommand::Drop(args) => {
            let path = format!("/{}/drop", name(&args.name)?);
            let body = object([("environment", args.who.environment.as_ref().map(|word| json!(word)))]);
            args.who.call(Method::POST, &path, Some(body), show::done)
        }
    }
}

fn member(args: &MemberArgs, verb: &str) -> Result<(), CliError> {
    let path = format!("/{}/{verb}", name(&args.name)?);
    let body = object([
        ("environment", args.who.environment.as_ref().map(|word| json!(word))),
        ("node", Some(json!(nodes::name(&args.node)?))),
    ]);
    args.who.call(Method::POST, &path, Some(body), show::done)
}

/// A name that becomes a part of a path.
fn name(text: &str) -> Result<SubcloudName, CliError> {
    text.parse().map_err(|error| CliError::Usage(format!("{error}")))
}

impl Who {
    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        show: impl FnOnce(&Answer) -> String,
    ) -> Result<(), CliError> {
        let BoxArgs { data_dir, json } = &self.which;
        let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
        if self.door.is_stated() {
            let client = self.door.open(data_dir)?;
            return call(&client, *json, (method, &format!("/v1/subclouds{path}"), body), show);
        }
        call(&self.which.admin()?, *json, (method, &format!("/admin/subclouds{path}"), body), show)
    }
}

impl PolicyArgs {
    /// What is said, as the API takes it.
    fn change(&self) -> Value {
        let list = |all: &[String], none: bool| match (all.is_empty(), none) {
            (true, true) => Some(Value::Null),
            (true, false) => None,
            (false, _) => Some(json!(all)),
        };
        let gpu = self.gpu.as_ref().map(|gpu| json!(gpu));
        object([
            ("environment", self.who.environment.as_ref().map(|word| json!(word))),
            ("models", list(&self.models, self.any_model)),
            ("regions", list(&self.regions, self.any_region)),
            ("trust_min", self.trust.as_ref().map(|word| json!(word))),
            ("memory_min_bytes", self.memory_mib.map(|mib| json!(mib.saturating_mul(1 << 20)))),
            ("gpu", gpu.or(self.any_gpu.then_some(Value::Null))),
            ("isolate", self.isolate.map(|word| json!(word == YesNo::Yes))),
            ("owners", list(&self.owners, false).or(self.no_owner.then(|| json!([])))),
            ("allowed", list(&self.allowed, self.allow_everyone)),
        ])
    }
}

fn list(answer: &Answer) -> String {
    let line = |subcloud: &Value| {
        let [name, environment] = ["name", "environment"].map(|key| text(&subcloud[key]));
        let nodes = subcloud["nodes"].as_array().map_or(0, Vec::len);
        let pool = if subcloud["isolate"].as_bool() == Some(true) { "isolated" } else { "shared" };
        vec![
            name,
            environment,
            nodes.to_string(),
            pool.to_owned(),
            policy(subcloud),
            words(&subcloud["owners"]),
        ]
    };
    let head = ["name", "environment", "nodes", "pool", "policy", "owners"];
    table(&head, &rows(answer, "subclouds").map(line).collect::<Vec<_>>())
}

/// What a policy restricts.
fn policy(subcloud: &Value) -> String {
    let mut parts = vec![format!("trust {}", text(&subcloud["trust_min"]))];
    for (word, key) in [("models", "models"), ("regions", "regions")] {
        if subcloud[key].as_array().is_some_and(|list| !list.is_empty()) {
            parts.push(format!("{word} {}", words(&subcloud[key])));
        }
    }
    if let Some(bytes) = subcloud["memory_min_bytes"].as_u64().filter(|bytes| *bytes > 0) {
        parts.push(format!("memory {} MiB", bytes >> 20));
    }
    if subcloud["gpu"].is_string() {
        parts.push(format!("GPU {}", text(&subcloud["gpu"])));
    }
    parts.join(", ")
}

fn shown(subcloud: &Answer) -> String {
    let value = Value::Object(subcloud.clone());
    let isolated = value["isolate"].as_bool() == Some(true);
    let allowed = match value["allowed"].as_array().map(Vec::len) {
        Some(0) => "its owners only".to_owned(),
        Some(_) => format!("owners and {}", words(&value["allowed"])),
        None => "everyone".to_owned(),
    };
    let mut lines = vec![
        format!("{}  {}", text(&value["name"]), text(&value["environment"])),
        format!("  its nodes are at least: {}", policy(&value)),
        if isolated {
            "  its nodes serve only jobs that name one of their subclouds".to_owned()
        } else {
            "  its nodes serve the global pool too".to_owned()
        },
        format!("  owned by {}", words(&value["owners"])),
        format!("  may be used by {allowed}"),
    ];
    for node in rows(subcloud, "nodes") {
        let unmet = node["unmet"].as_str().map(|what| format!(": doesn't meet the policy's {what}"));
        lines.push(format!("  node {}{}", text(&node["node"]), unmet.unwrap_or_default()));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subcloud_is_told_in_words() {
        let answer = json!({"name": "lab", "environment": "mainnet", "models": ["tiny", "big"], "regions": null,
            "trust_min": "approved", "memory_min_bytes": 2_147_483_648_u64, "gpu": "h100", "isolate": true,
            "owners": ["team"], "allowed": ["a", "b"], "nodes": [{"node": "n", "unmet": "region"}, {"node": "m", "unmet": null}]});
        let expected = "lab  mainnet\n  its nodes are at least: trust approved, models tiny+big, memory 2048 MiB, GPU h100\n  \
                        its nodes serve only jobs that name one of their subclouds\n  owned by team\n  \
                        may be used by owners and a+b\n  node n: doesn't meet the policy's region\n  node m\n";
        assert_eq!(shown(answer.as_object().expect("an object")), expected);
        let answer = json!({"subclouds": [{"name": "lab", "environment": "testnet", "trust_min": "open",
            "isolate": false, "owners": [], "nodes": ["n", "m"], "memory_min_bytes": 0}]});
        let expected = "name  environment  nodes  pool    policy      owners\n\
                        lab   testnet      2      shared  trust open\n";
        assert_eq!(list(answer.as_object().expect("an object")), expected);
    }
}
