//! `switchbox nodes`: who serves jobs, why somebody doesn't, and what the operator decides about it.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::show::{self, Answer, rows, table, text, words};
use super::{BoxArgs, CliError, invite, object, run};
use crate::cli::date::utc;
use crate::cli::terminal::one_line;

#[derive(Debug, Args)]
pub(in crate::cli) struct NodeArgs {
    /// The node's name (node_...)
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  switchbox nodes trust node_x approved --owner team\n\nPrompts of a namespace go to nodes \
                  of at least the trust that it asks for; that is `own` unless it was settled otherwise (`switchbox \
                  namespaces set`)."
)]
pub(in crate::cli) struct TrustArgs {
    /// The node's name (node_...)
    #[arg(value_name = "NODE")]
    node: String,
    /// How far it is trusted with prompts: own (your machine), approved (of someone you know) or open (anyone's)
    #[arg(value_parser = ["own", "approved", "open"])]
    trust: String,
    /// Where it may work; once for each [default: as it is, or mainnet for a new one]
    #[arg(long = "environment", value_parser = ["mainnet", "testnet"])]
    environments: Vec<String>,
    /// The namespace that its earnings can go to
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "no_owner")]
    owner: Option<String>,
    /// Its earnings can go to nobody
    #[arg(long)]
    no_owner: bool,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with nodes.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NodesCommand {
    /// List the nodes with their standing and load
    List(BoxArgs),
    /// Show all that is known of one: standing and why, models, capacity, faults, exclusions, earnings
    Show(NodeArgs),
    /// Make one known before it comes, so that it is trusted from its first connection on
    Admit(TrustArgs),
    /// Say how far one is trusted, where it may work, and whose it is
    Trust(TrustArgs),
    /// Give it no new work
    Pause(NodeArgs),
    /// Give it work again
    Resume(NodeArgs),
    /// Give it no new work; it leaves when it is through
    Drain(NodeArgs),
    /// Suspect it: take its work away and lock its earnings
    Freeze(NodeArgs),
    /// Clear it of suspicion
    Unfreeze(NodeArgs),
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

pub(in crate::cli) fn nodes(command: &NodesCommand) -> Result<(), CliError> {
    let (verb, args) = match command {
        NodesCommand::List(which) => return run(which, Method::GET, "/admin/nodes", None, list),
        NodesCommand::Show(args) => {
            let path = format!("/admin/nodes/{}", name(&args.node)?);
            return run(&args.which, Method::GET, &path, None, shown);
        }
        NodesCommand::Admit(args) => {
            let mut body = args.settings();
            body["node"] = args.node.clone().into();
            return run(&args.which, Method::POST, "/admin/nodes", Some(body), show::done);
        }
        NodesCommand::Trust(args) => {
            let path = format!("/admin/nodes/{}/settings", name(&args.node)?);
            return run(&args.which, Method::POST, &path, Some(args.settings()), show::done);
        }
        NodesCommand::Invite(args) => return invite::create(args),
        NodesCommand::Invites(which) => return invite::list(which),
        NodesCommand::RevokeInvite(args) => return invite::revoke(args),
        NodesCommand::Pause(args) => ("pause", args),
        NodesCommand::Resume(args) => ("resume", args),
        NodesCommand::Drain(args) => ("drain", args),
        NodesCommand::Freeze(args) => ("freeze", args),
        NodesCommand::Unfreeze(args) => ("unfreeze", args),
        NodesCommand::Ban(args) => ("ban", args),
        NodesCommand::Unban(args) => ("unban", args),
        NodesCommand::Reinstate(args) => ("reinstate", args),
    };
    let path = format!("/admin/nodes/{}/{verb}", name(&args.node)?);
    run(&args.which, Method::POST, &path, None, show::done)
}

impl TrustArgs {
    fn settings(&self) -> Value {
        let owner = self.owner.as_ref().map(|owner| json!(owner));
        object([
            ("trust", Some(json!(self.trust))),
            ("environments", (!self.environments.is_empty()).then(|| json!(self.environments))),
            ("owner", owner.or(self.no_owner.then_some(Value::Null))),
        ])
    }
}

/// A name that becomes a part of a path.
pub(super) fn name(node: &str) -> Result<&str, CliError> {
    let is_name = !node.is_empty() && node.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c));
    is_name.then_some(node).ok_or_else(|| CliError::Usage(format!("`{node}` isn't a node's name")))
}

/// Nodes with their standing, and what speaks against each.
fn list(answer: &Answer) -> String {
    let model = |model: &Value| {
        format!("{} {}/{}", text(&model["model"]), text(&model["slots_taken"]), text(&model["slots"]))
    };
    let line = |node: &Value| {
        let models = node["models"].as_array().map(Vec::as_slice).unwrap_or_default();
        let models: Vec<String> = models.iter().map(model).collect();
        let [name, standing, trust] = ["node", "standing", "trust"].map(|key| text(&node[key]));
        let cause = node["because"].get(0).map(because).unwrap_or_default();
        vec![name, standing, trust, words(&node["environments"]), models.join(", "), cause]
    };
    let head = ["node", "standing", "trust", "environments", "models (taken/slots)", "because"];
    table(&head, &rows(answer, "nodes").map(line).collect::<Vec<_>>())
}

/// A cause in a few words.
fn because(cause: &Value) -> String {
    match (cause["cause"].as_str(), cause["by"].as_str()) {
        (Some(words), _) => one_line(words),
        (None, Some(by)) => format!("the {} says so", one_line(by)),
        (None, None) => String::new(),
    }
}

/// All that is known of one.
fn shown(node: &Answer) -> String {
    let value = |key: &str| node.get(key).map(text).unwrap_or_default();
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let mut lines = vec![format!("{}  {}", value("node"), value("standing"))];
    for cause in rows(node, "because") {
        let until = cause["until"].as_f64().map(|at| format!(", until {}", utc(at)));
        let since = cause["since"].as_f64().map(|at| format!(" since {}", utc(at)));
        lines.push(format!(
            "  {} by the {}{}{}: {}",
            text(&cause["standing"]),
            text(&cause["by"]),
            since.unwrap_or_default(),
            until.unwrap_or_default(),
            because(cause)
        ));
    }
    let list = |key: &str| node.get(key).map(words).unwrap_or_default();
    lines.push(format!("  trust {}, owner {}", value("trust"), or_none(value("owner"))));
    lines.push(format!(
        "  registered for {}, wants {}",
        or_none(list("environments")),
        or_none(list("wants_environments"))
    ));
    lines.push(format!("  region {}, GPU {}", or_none(value("region")), or_none(value("gpu"))));
    let memory = node.get("memory_bytes").and_then(Value::as_u64);
    lines.push(format!(
        "  {} of {} slots taken, {} of {} cache tokens, {}",
        value("slots_taken"),
        value("slots"),
        value("kv_tokens_taken"),
        value("kv_tokens"),
        memory.map_or("memory not bounded".to_owned(), |bytes| format!("{} MiB for models", bytes >> 20))
    ));
    for model in rows(node, "models") {
        lines.push(format!("  model {}", served(model)));
    }
    lines.push(format!(
        "  reliability {} and quality {} of 1000, {} jobs settled, {} of {} checks failed",
        value("reliability"),
        value("quality"),
        value("settled_jobs"),
        value("quality_checks_failed"),
        value("quality_checks")
    ));
    for (fault, count) in node.get("faults").and_then(Value::as_object).into_iter().flatten() {
        lines.push(format!("  fault: {} ({} times)", one_line(fault), text(count)));
    }
    for over in rows(node, "exclusions_over") {
        let at = |key: &str| over[key].as_f64().map(utc).unwrap_or_default();
        lines.push(format!("  was excluded from {} to {}: {}", at("since"), at("until"), because(over)));
    }
    let locked = node.get("earnings_locked").and_then(Value::as_bool) == Some(true);
    for (environment, amount) in node.get("earnings").and_then(Value::as_object).into_iter().flatten() {
        let locked = if locked { " (locked)" } else { "" };
        lines.push(format!("  has earned {} credits in {}{locked}", text(amount), one_line(environment)));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn served(model: &Value) -> String {
    let version = model["version"].as_str().map(|version| format!(" {}", one_line(version)));
    let memory = if model["in_memory"].as_bool() == Some(true) { "in memory" } else { "to be loaded" };
    let test = match (model["test"]["passed_at"].as_f64(), model["test"]["failed_times"].as_u64()) {
        (Some(_), _) => ", test passed",
        (None, Some(_)) => ", test failed",
        (None, None) => "",
    };
    let [name, taken, slots, standing] =
        ["model", "slots_taken", "slots", "standing"].map(|key| text(&model[key]));
    format!(
        "{name}{}: {taken} of {slots} slots taken, {memory}, {standing}{test}",
        version.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(show: fn(&Answer) -> String, answer: Value) -> String {
        show(answer.as_object().expect("an object"))
    }

    #[test]
    fn a_list_is_a_table_with_causes() {
        let answer = json!({"nodes": [{"node": "node_local", "standing": "ready", "trust": "own",
            "environments": ["mainnet", "testnet"], "because": [],
            "models": [{"model": "tiny", "slots": 4, "slots_taken": 1}]},
            {"node": "n", "standing": "banned", "trust": "open", "environments": [], "models": [],
             "because": [{"cause": "the operator refuses it"}]},
            {"node": "p", "standing": "paused", "trust": "open", "environments": [], "models": [],
             "because": [{"standing": "paused", "by": "owner"}]}]});
        let expected = "node        standing  trust  environments     models (taken/slots)  because\n\
                        node_local  ready     own    mainnet+testnet  tiny 1/4\n\
                        n           banned    open                                          the operator refuses it\n\
                        p           paused    open                                          the owner says so\n";
        assert_eq!(of(list, answer), expected);
    }

    #[test]
    fn one_node_tells_all() {
        let answer = json!({"node": "node_x", "standing": "excluded", "trust": "open", "owner": null,
            "because": [{"standing": "excluded", "by": "box", "since": 10.5, "until": 70.5,
                "cause": "5 faults in a row\u{1b}"}, {"standing": "paused", "by": "owner", "since": 3.0}],
            "environments": ["testnet"], "wants_environments": [], "region": "eu", "gpu": "h100",
            "memory_bytes": 1_073_741_824_u64, "slots": 4, "slots_taken": 1, "kv_tokens": 10, "kv_tokens_taken": 0,
            "models": [{"model": "tiny", "version": "v1", "slots": 4, "slots_taken": 1, "in_memory": true,
                "standing": "excluded", "test": {"passed_at": 1.0}}],
            "reliability": 400, "quality": 900, "settled_jobs": 7, "quality_checks": 10,
            "quality_checks_failed": 1, "faults": {"a test job failed": 2},
            "exclusions_over": [{"since": 1.0, "until": 2.0, "cause": "before"}],
            "earnings": {"mainnet": "1.500000"}, "earnings_locked": true});
        let text = of(shown, answer);
        for line in [
            "node_x  excluded\n",
            "  excluded by the box since 1970-01-01 00:00:10Z, until 1970-01-01 00:01:10Z: 5 faults in a row",
            "  paused by the owner since 1970-01-01 00:00:03Z: the owner says so\n",
            "  trust open, owner none\n  registered for testnet, wants none\n  region eu, GPU h100\n",
            "  1 of 4 slots taken, 0 of 10 cache tokens, 1024 MiB for models\n",
            "  model tiny v1: 1 of 4 slots taken, in memory, excluded, test passed\n",
            "  reliability 400 and quality 900 of 1000, 7 jobs settled, 1 of 10 checks failed\n",
            "  fault: a test job failed (2 times)\n  was excluded from 1970-01-01 00:00:01Z to 1970-01-01 00:00:02Z: before\n",
            "  has earned 1.500000 credits in mainnet (locked)\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
