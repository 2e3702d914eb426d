//! `switchbox verify`: whether a receipt is what a node and a box signed. Needs the file and the box's key; asks nobody.
//!
//! Its exit code says it to scripts: 0 it is, 1 it isn't, 2 nobody said which key to trust (or the file can't be read).

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::complain;
use super::terminal::{one_line, printable};
use crate::coordinator::event::Endpoint;
use crate::wire::hash::plain_hash;
use crate::wire::receipt::{RECEIPT_BYTES_MAX, Receipt};
use crate::wire::{Hash, PublicKey, request_hash};

const WRONG: u8 = 1;
const UNTRUSTED: u8 = 2;
/// Bytes of a request or an answer that is compared with a receipt.
const COMPARED_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it is what was signed, 1 it isn't, 2 no key was given to trust (UNTRUSTED KEY), or a file \
                  can't be read.\n\n\
                  Example:\n  switchbox verify receipt.json --box-key 03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
)]
pub(super) struct VerifyArgs {
    /// The receipt, as GET /v1/jobs/ID/receipt gave it
    #[arg(value_name = "RECEIPT")]
    receipt: PathBuf,
    /// The public key of the box whose word counts: 64 hexadecimal digits, from the box's operator
    #[arg(long, value_name = "KEY")]
    box_key: Option<String>,
    /// A file with the request's body, byte for byte as it was sent, to compare too
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// A file with the answer's text, to compare too
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
}

/// Why it isn't verified, with the exit code.
struct Refused(u8, String);

pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let verified = verify(args).and_then(|text| {
        let written = std::io::stdout().write_all(printable(&text).as_bytes());
        written.map_err(|error| Refused(UNTRUSTED, format!("can't write: {error}")))
    });
    match verified {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused(code, message)) => {
            complain(&message);
            ExitCode::from(code)
        }
    }
}

fn verify(args: &VerifyArgs) -> Result<String, Refused> {
    let trusted = match &args.box_key {
        None => None,
        Some(text) => {
            let key = text.trim().parse::<PublicKey>();
            Some(key.map_err(|error| Refused(UNTRUSTED, format!("`--box-key` {error}")))?)
        }
    };
    let text = String::from_utf8(read(&args.receipt, RECEIPT_BYTES_MAX as u64)?)
        .map_err(|_| Refused(WRONG, "this is no receipt: it isn't UTF-8".to_owned()))?;
    let wrong = |error: crate::wire::receipt::ReceiptError| Refused(WRONG, error.to_string());
    let receipt = Receipt::parse(&text).map_err(wrong)?;
    receipt.check(trusted).map_err(wrong)?;
    let compared = compare(args, &receipt)?;
    match trusted {
        Some(_) => Ok(shown(&receipt, &compared)),
        None => Err(Refused(
            UNTRUSTED,
            format!(
                "UNTRUSTED KEY: the receipt agrees with itself, and anybody can make one that does; give the key of the \
                 box that you trust (`--box-key KEY`). This one says that its box has {}",
                receipt.box_key
            ),
        )),
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Refused> {
    let unread = |problem: String| Refused(UNTRUSTED, format!("can't read `{}`: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| unread(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| unread(error.to_string()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(unread(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Compares what was asked and answered with what was signed of it; says what was the same.
fn compare(args: &VerifyArgs, receipt: &Receipt) -> Result<Vec<&'static str>, Refused> {
    let mut same = Vec::new();
    if let Some(path) = &args.request {
        let body = read(path, COMPARED_BYTES_MAX)?;
        let signed = stated(receipt.stated.request_hash, "request_hash")?;
        let endpoints = [Endpoint::ChatCompletions, Endpoint::Completions];
        if !endpoints.into_iter().any(|endpoint| request_hash(endpoint, &body) == signed) {
            return Err(differs("request_hash", path, "the body that was sent"));
        }
        same.push("the request");
    }
    if let Some(path) = &args.answer {
        let answer = read(path, COMPARED_BYTES_MAX)?;
        if plain_hash(&answer) != stated(receipt.stated.output_hash, "output_hash")? {
            let what = "the answer's text (an answer with tool calls or reasoning can't be compared as text)";
            return Err(differs("output_hash", path, what));
        }
        same.push("the answer");
    }
    Ok(same)
}

fn stated(hash: Option<Hash>, field: &str) -> Result<Hash, Refused> {
    hash.ok_or_else(|| {
        Refused(
            WRONG,
            format!("the receipt has no `{field}`: the box's own node states none that isn't kept"),
        )
    })
}

fn differs(field: &str, path: &Path, what: &str) -> Refused {
    Refused(WRONG, format!("`{field}` isn't that of `{}`, byte for byte: it isn't {what}", path.display()))
}

fn shown(receipt: &Receipt, compared: &[&str]) -> String {
    let (stated, billed) = (&receipt.stated, &receipt.billed);
    let by = match receipt.node_key {
        Some(key) => format!("{} ({key}), countersigned by the box", key.node()),
        None => "the box alone: its own node ran the job".to_owned(),
    };
    let fallback = if stated.model_index == 0 { "" } else { " (a fallback of the one that was asked for)" };
    let tokens = |input, cached, output| format!("{input} input ({cached} cached), {output} output");
    let rows = [
        ("job", format!("{} in {}", stated.job, stated.environment.word())),
        ("signed by", by),
        ("box", receipt.box_key.to_string()),
        ("model", format!("{}{fallback}", stated.model)),
        ("finished", stated.finish_reason.word().to_owned()),
        ("stated tokens", tokens(stated.input_tokens, stated.cached_tokens, stated.output_tokens)),
        ("billed tokens", tokens(billed.input_tokens, billed.cached_tokens, billed.output_tokens)),
        ("charged", format!("{} micro-credits", billed.microcredits)),
    ];
    let mut text = String::from("VERIFIED: the receipt is what was signed\n");
    for (name, value) in rows {
        // Text grows; there is nothing to fail.
        let _ = writeln!(text, "{name:<14} {}", one_line(&value));
    }
    for what in compared {
        let _ = writeln!(text, "{:<14} {what} is the one that was signed", "compared");
    }
    text
}
