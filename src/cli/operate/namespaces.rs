//! `switchbox namespaces`: what is settled about each, and what it has.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::show::{self, Answer, rows, table, text};
use super::{BoxArgs, CliError, object, run};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchbox namespaces set team --weight 3 --trust approved\n  switchbox namespaces set \
                        team --credit 0            no job without a deposit\n\nWhat isn't said stays."
)]
pub(in crate::cli) struct SetArgs {
    /// The namespace; it may be new
    #[arg(value_name = "NAMESPACE")]
    namespace: String,
    /// Its share of the work against the others', 1 to 1000
    #[arg(long)]
    weight: Option<u32>,
    /// The least trust of nodes that get its prompts: own, approved or open
    #[arg(long, value_parser = ["own", "approved", "open"])]
    trust: Option<String>,
    /// How far below zero its balance may go
    #[arg(long, value_name = "CREDITS", conflicts_with = "unlimited_credit")]
    credit: Option<String>,
    /// Its balance may go as far below zero as it likes
    #[arg(long)]
    unlimited_credit: bool,
    /// Where the credit counts: mainnet or testnet [default: mainnet]
    #[arg(long, value_parser = ["mainnet", "testnet"])]
    environment: Option<String>,
    /// What becomes of jobs that no node could run: accept (they wait) or refuse
    #[arg(long, value_parser = ["accept", "refuse"])]
    unrunnable: Option<String>,
    /// Jobs of it that may wait; the box's own bound counts too
    #[arg(long, value_name = "JOBS")]
    queue_max: Option<u64>,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with namespaces.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NamespacesCommand {
    /// List them with what is settled, what they have, and how many of their jobs wait
    List(BoxArgs),
    /// Settle something about one
    Set(Box<SetArgs>),
}

pub(in crate::cli) fn namespaces(command: &NamespacesCommand) -> Result<(), CliError> {
    match command {
        NamespacesCommand::List(which) => run(which, Method::GET, "/admin/namespaces", None, list),
        NamespacesCommand::Set(args) => {
            run(&args.which, Method::POST, "/admin/namespaces", Some(args.change()), show::done)
        }
    }
}

impl SetArgs {
    fn change(&self) -> Value {
        let credit = self.credit.as_ref().map(|amount| json!(amount));
        object([
            ("namespace", Some(json!(self.namespace))),
            ("weight", self.weight.map(|weight| json!(weight))),
            ("trust", self.trust.as_ref().map(|word| json!(word))),
            ("credit", credit.or(self.unlimited_credit.then_some(Value::Null))),
            ("environment", self.environment.as_ref().map(|word| json!(word))),
            ("unrunnable", self.unrunnable.as_ref().map(|word| json!(word))),
            ("queue_jobs_max", self.queue_max.map(|jobs| json!(jobs))),
        ])
    }
}

fn list(answer: &Answer) -> String {
    let line = |namespace: &Value| {
        let [name, weight, trust, unrunnable, most, waiting] =
            ["namespace", "weight", "trust", "unrunnable", "queue_jobs_max", "waiting"]
                .map(|key| text(&namespace[key]));
        let [credit, balance] = ["credit", "balance"].map(|key| {
            let amount = |environment: &str| match &namespace[key][environment] {
                Value::Null => "unlimited".to_owned(),
                amount => text(amount),
            };
            format!("{} / {}", amount("mainnet"), amount("testnet"))
        });
        vec![name, weight, trust, unrunnable, format!("{waiting}/{most}"), credit, balance]
    };
    let head = [
        "namespace",
        "weight",
        "trust",
        "unrunnable",
        "waiting/most",
        "credit (mainnet / testnet)",
        "balance (mainnet / testnet)",
    ];
    table(&head, &rows(answer, "namespaces").map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let answer = json!({"namespaces": [{"namespace": "team", "weight": 3, "trust": "own", "unrunnable": "accept",
            "queue_jobs_max": 50, "waiting": 2, "credit": {"mainnet": "0.000000", "testnet": null},
            "balance": {"mainnet": "1.000000", "testnet": "-2.000000"}}]});
        let expected = "namespace  weight  trust  unrunnable  waiting/most  credit (mainnet / testnet)  balance (mainnet / testnet)\n\
             team       3       own    accept      2/50          0.000000 / unlimited        1.000000 / -2.000000\n";
        assert_eq!(list(answer.as_object().expect("an object")), expected);
    }
}
