//! `switchbox model inspect`: what a GGUF file holds, and whether this program can serve it. Opens it exactly as
//! `serve` does, so what is refused there is refused here, with the same words.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::terminal::one_line;
use crate::executor::{ChatMessage, Model, ModelFacts, PromptError};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  switchbox model inspect models/tiny.gguf")]
pub(super) struct InspectArgs {
    /// The model's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let model = Model::open(&args.file)?;
    let text = render(model.facts(), &template(&model));
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Whether there is a chat template, and whether it can render the simplest chat.
fn template(model: &Model) -> String {
    match model.encode_chat(&[ChatMessage { role: "user", content: "hello" }]) {
        Ok(tokens) => format!("yes (\"hello\" becomes {} tokens)", tokens.len()),
        Err(PromptError::NoTemplate { .. }) => "none: /v1/chat/completions can't use this model".to_owned(),
        Err(error) => format!("yes, but it fails: {error}"),
    }
}

fn render(facts: &ModelFacts, template: &str) -> String {
    let rows = [
        ("file", facts.path.display().to_string()),
        ("size", bytes(facts.file_bytes)),
        ("name", facts.name.clone()),
        ("architecture", facts.architecture.clone()),
        ("parameters", parameters(facts.parameters)),
        ("layers", facts.layers.to_string()),
        ("context", format!("{} tokens", facts.context_length)),
        ("vocabulary", format!("{} tokens", facts.vocab)),
        ("tensors", facts.quantisation.clone()),
        ("chat template", template.to_owned()),
    ];
    rows.iter().map(|(name, value)| format!("{name:<14} {}\n", one_line(value))).collect()
}

fn bytes(number: u64) -> String {
    format!("{} MiB ({number} bytes)", tenths(number, 1 << 20))
}

fn parameters(number: u64) -> String {
    match number {
        1_000_000_000.. => format!("{} billion ({number})", tenths(number, 1_000_000_000)),
        1_000_000.. => format!("{} million ({number})", tenths(number, 1_000_000)),
        _ => number.to_string(),
    }
}

/// With one decimal, rounded down.
fn tenths(number: u64, unit: u64) -> String {
    format!("{}.{}", number / unit, number % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_well_and_names_cannot_escape() {
        let facts = ModelFacts {
            name: "tiny\x1b[2J\nmodel".into(),
            architecture: "llama".into(),
            context_length: 8_192,
            vocab: 49_152,
            layers: 30,
            parameters: 134_515_008,
            file_bytes: 91_750_400,
            quantisation: "Q4_1 x210, F32 x61".into(),
            path: "/models/tiny.gguf".into(),
        };
        let text = render(&facts, "none");
        for line in [
            "file           /models/tiny.gguf\n",
            "size           87.5 MiB (91750400 bytes)\n",
            "name           tiny\u{fffd}[2J model\n",
            "parameters     134.5 million (134515008)\n",
            "tensors        Q4_1 x210, F32 x61\n",
            "chat template  none\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert_eq!(parameters(1_710_000_000), "1.7 billion (1710000000)");
        assert_eq!(parameters(999), "999");
    }
}
