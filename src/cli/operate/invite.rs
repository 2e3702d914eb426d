//! `switchbox nodes invite`: the one string with which a machine joins.

use clap::Args;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::super::CliError;
use super::{BoxArgs, run, show};

#[derive(Debug, Args)]
#[command(
    after_help = "The string is a secret until it was used: it lets one machine register, once. On that machine:\n  \
                  switchbox agent --join STRING --model NAME=SPEC\n\nExamples:\n  switchbox nodes invite\n  \
                  switchbox nodes invite --trust open --account alice --ttl 1h"
)]
pub(in crate::cli) struct InviteArgs {
    /// How far to trust the node with prompts: own, approved or open
    #[arg(long, default_value = "own")]
    trust: String,
    /// Where it may work: mainnet, testnet, or both with a comma in between
    #[arg(long, value_delimiter = ',', default_value = "mainnet")]
    environments: Vec<String>,
    /// Whose account its earnings can go to
    #[arg(long, value_name = "NAMESPACE")]
    account: Option<String>,
    /// Where it stands, whatever it says itself
    #[arg(long)]
    region: Option<String>,
    /// How long the string is good for: 30m, 24h, 7d
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    ttl: String,
    /// Where the machine finds this box, if not where the box listens
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The invite's name, as `switchbox nodes invites` lists it
    #[arg(value_name = "INVITE")]
    invite: String,
    #[command(flatten)]
    which: BoxArgs,
}

pub(super) fn create(args: &InviteArgs) -> Result<(), CliError> {
    let ttl_s = seconds(&args.ttl).ok_or_else(|| {
        CliError::Usage(format!(
            "`--ttl {}` isn't a span of time: write it as in `--ttl 24h` (s, m, h or d)",
            args.ttl
        ))
    })?;
    let body = json!({"trust": args.trust, "environments": args.environments, "account": args.account,
        "region": args.region, "ttl_s": ttl_s, "url": args.url});
    run(&args.which, Method::POST, "/admin/invites/new", Some(body), joined)
}

pub(super) fn list(which: &BoxArgs) -> Result<(), CliError> {
    run(which, Method::GET, "/admin/invites", None, show::invites)
}

pub(super) fn revoke(args: &RevokeArgs) -> Result<(), CliError> {
    // It becomes a part of a path.
    if args.invite.is_empty() || !args.invite.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(CliError::Usage(format!("`{}` isn't an invite's name", args.invite)));
    }
    run(&args.which, Method::POST, &format!("/admin/invites/{}/revoke", args.invite), None, show::done)
}

/// The string alone, so that it can be piped.
fn joined(answer: &Map<String, Value>) -> String {
    format!("{}\n", answer.get("join").and_then(Value::as_str).unwrap_or_default())
}

fn seconds(text: &str) -> Option<u64> {
    let (number, unit) =
        text.split_at(text.len() - text.bytes().rev().take_while(u8::is_ascii_alphabetic).count());
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 24 * 3_600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, expected) in [
            ("30m", Some(1_800)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("5", None),
            ("h", None),
            ("", None),
            ("1 h", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
