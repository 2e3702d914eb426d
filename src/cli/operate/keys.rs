//! `switchbox keys`: who may use the box.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::show::{self, Answer, rows, table, text};
use super::{BoxArgs, CliError, object, run};
use crate::cli::date::utc;

#[derive(Debug, Args)]
#[command(
    after_help = "The key is printed alone on standard output, this once: only its digest is kept.\n\nExamples:\n  \
                        switchbox keys create --namespace team > team.key\n  switchbox keys create --namespace team \
                        --scope subcloud:lab\n\nA key with a scope runs jobs on that subcloud's nodes only: realtime, \
                        standard or batch, as their `service_tier` says."
)]
pub(in crate::cli) struct CreateArgs {
    /// Whose key it is: who pays, and whose jobs it sees
    #[arg(long)]
    namespace: String,
    /// In which world it works: mainnet or testnet [default: mainnet]
    #[arg(long, value_parser = ["mainnet", "testnet"])]
    environment: Option<String>,
    /// Where its jobs run: subcloud:NAME [default: anywhere]
    #[arg(long)]
    scope: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The key's id, as in the list: the 8 characters behind `sk-`
    // An id may begin with a hyphen.
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    id: String,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with keys.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// Make one
    Create(CreateArgs),
    /// List them, without their secrets
    List(BoxArgs),
    /// Let one in no longer
    Revoke(RevokeArgs),
}

pub(in crate::cli) fn keys(command: &KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::Create(args) => {
            let body = object([
                ("namespace", Some(json!(args.namespace))),
                ("environment", args.environment.as_ref().map(|word| json!(word))),
                ("scope", args.scope.as_ref().map(|scope| json!(scope))),
            ]);
            run(&args.which, Method::POST, "/admin/keys", Some(body), created)
        }
        KeysCommand::List(which) => run(which, Method::GET, "/admin/keys", None, list),
        KeysCommand::Revoke(args) => {
            // It becomes a part of a path.
            let is_id = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
            if args.id.is_empty() || !args.id.bytes().all(is_id) {
                return Err(CliError::Usage(format!("`{}` isn't a key's id", args.id)));
            }
            let path = format!("/admin/keys/{}/revoke", args.id);
            run(&args.which, Method::POST, &path, None, show::done)
        }
    }
}

fn created(answer: &Answer) -> String {
    format!("{}\n", answer.get("key").map(text).unwrap_or_default())
}

fn list(answer: &Answer) -> String {
    let line = |key: &Value| {
        let [id, last, namespace, environment, scope] =
            ["id", "last", "namespace", "environment", "scope"].map(|member| text(&key[member]));
        let made = match (key["first"].as_bool(), key["created_at"].as_f64()) {
            (Some(true), _) => "first start".to_owned(),
            (_, at) => at.map(utc).unwrap_or_default(),
        };
        vec![id, format!("...{last}"), namespace, environment, scope, made]
    };
    let head = ["id", "ends in", "namespace", "environment", "scope", "made"];
    table(&head, &rows(answer, "keys").map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let answer = json!({"keys": [
            {"id": "abcdefgh", "last": "wxyz", "namespace": "default", "environment": "mainnet", "scope": null,
             "created_at": null, "first": true},
            {"id": "-bcdefgh", "last": "1234", "namespace": "team", "environment": "testnet", "scope": "subcloud:lab",
             "created_at": 86_400.0, "first": false}]});
        let expected = "id        ends in  namespace  environment  scope         made\n\
                        abcdefgh  ...wxyz  default    mainnet                    first start\n\
                        -bcdefgh  ...1234  team       testnet      subcloud:lab  1970-01-02 00:00:00Z\n";
        assert_eq!(list(answer.as_object().expect("an object")), expected);
    }
}
