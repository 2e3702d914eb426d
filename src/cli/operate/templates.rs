//! `switchbox templates`: requests whose answers are known, which blind and test jobs are made of.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::show::{self, Answer, rows, table, text};
use super::{BoxArgs, CliError, object, run, send};

/// Bytes of a file with a request or an answer.
const FILE_BYTES_MAX: u64 = 256 << 10;

const AFTER_HELP: &str = "\
FILE holds the body of a request as a client would send it, JSON with a model and messages (or a prompt). An answer is
compared to the byte, so give the request `\"temperature\": 0` and every answer that your models give; or, where it can't
be foreseen, say how many tokens it has. Checks are paid from the integrity account (`switchbox credits deposit
--integrity CREDITS`).

Examples:
  switchbox templates add capital --request capital.json --answer paris.txt
  switchbox templates add story --request story.json --tokens 200-400";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct AddArgs {
    /// What to call it
    #[arg(value_name = "NAME")]
    name: String,
    /// The request's body
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// What it is asked on
    #[arg(long, value_parser = ["/v1/chat/completions", "/v1/completions"])]
    endpoint: Option<String>,
    /// An answer that may come, byte for byte; once for each
    #[arg(long = "answer", value_name = "FILE")]
    answers: Vec<PathBuf>,
    /// The SHA-256 of an answer that may come; once for each
    #[arg(long = "digest", value_name = "HEX")]
    digests: Vec<String>,
    /// How many tokens the answer has
    #[arg(long, value_name = "MIN-MAX", conflicts_with_all = ["answers", "digests"])]
    tokens: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArgs {
    /// The model that it asks
    #[arg(value_name = "MODEL")]
    model: String,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with templates.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TemplatesCommand {
    /// Add one
    Add(AddArgs),
    /// List them, without what they ask
    List(BoxArgs),
    /// Take one out
    Remove(RemoveArgs),
}

pub(in crate::cli) fn templates(command: &TemplatesCommand) -> Result<(), CliError> {
    match command {
        TemplatesCommand::Add(args) => send(&args.which, "/admin/templates", args.body()?, show::done),
        TemplatesCommand::List(which) => run(which, Method::GET, "/admin/templates", None, list),
        TemplatesCommand::Remove(args) => {
            let body = json!({"model": args.model, "name": args.name});
            run(&args.which, Method::POST, "/admin/templates/remove", Some(body), show::done)
        }
    }
}

impl AddArgs {
    /// As the API takes it, with the request's very bytes.
    fn body(&self) -> Result<Vec<u8>, CliError> {
        let request = read(&self.request)?;
        let request: &RawValue = serde_json::from_str(request.trim()).map_err(|error| {
            CliError::Usage(format!(
                "`{}` isn't JSON: {error}; give the body of a request",
                self.request.display()
            ))
        })?;
        let answers = self.answers.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let rest = object([
            ("name", Some(json!(self.name))),
            ("endpoint", self.endpoint.as_ref().map(|path| json!(path))),
            ("answers", Some(json!(answers))),
            ("digests", Some(json!(self.digests))),
            ("tokens", self.tokens.as_deref().map(range).transpose()?),
        ])
        .to_string();
        let open = rest.strip_suffix('}').unwrap_or(&rest);
        Ok(format!("{open},\"body\":{request}}}").into_bytes())
    }
}

/// `200-400` as the API takes it.
fn range(text: &str) -> Result<Value, CliError> {
    let bounds = text.split_once('-').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    let (min, max): (u32, u32) =
        bounds.ok_or_else(|| CliError::Usage(format!("`--tokens {text}` isn't MIN-MAX, as in 200-400")))?;
    Ok(json!({"min": min, "max": max}))
}

fn read(path: &Path) -> Result<String, CliError> {
    let failed = |problem: String| {
        CliError::Usage(format!("can't read `{}`: {problem}; name a file of text", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn list(answer: &Answer) -> String {
    let line = |template: &Value| {
        let [model, name, tier, input, output] =
            ["model", "name", "tier", "input_tokens", "output_tokens_max"].map(|key| text(&template[key]));
        let expects = match template["answers"].as_u64() {
            Some(count) => format!("one of {count} answers"),
            None => {
                let tokens = &template["tokens"];
                format!("{} to {} tokens", text(&tokens["min"]), text(&tokens["max"]))
            }
        };
        let way = if template["stream"].as_bool() == Some(true) { "stream" } else { "sync" };
        vec![model, name, format!("{tier}, {way}"), format!("{input}+{output}"), expects]
    };
    let head = ["model", "name", "asked as", "tokens (in+most out)", "expects"];
    table(&head, &rows(answer, "templates").map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let answer = json!({"templates": [
            {"model": "tiny", "name": "capital", "tier": "standard", "stream": true, "input_tokens": 12,
             "output_tokens_max": 20, "answers": 2, "tokens": null},
            {"model": "tiny", "name": "story", "tier": "batch", "stream": false, "input_tokens": 9,
             "output_tokens_max": 400, "answers": null, "tokens": {"min": 200, "max": 400}}]});
        let expected = "model  name     asked as          tokens (in+most out)  expects\n\
                        tiny   capital  standard, stream  12+20                 one of 2 answers\n\
                        tiny   story    batch, sync       9+400                 200 to 400 tokens\n";
        assert_eq!(list(answer.as_object().expect("an object")), expected);
        assert_eq!(range("2-3").expect("a range"), json!({"min": 2, "max": 3}));
        assert!(range("2").is_err() && range("2-x").is_err() && range("-1-2").is_err());
    }
}
