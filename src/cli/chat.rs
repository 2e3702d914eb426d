//! `switchbox chat`: a conversation in the terminal. Answers go to stdout, everything else to stderr. The history
//! stays in this process. A key of the data directory is sent to this machine only.

mod answer;

use std::io::{IsTerminal, Read, Write};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::client::Client;
use super::door::DoorArgs;
use super::terminal::{one_line, printable};
use super::{CliError, DataDirArg, client_runtime};
use answer::{Ended, Talk};

/// Bytes of a question that is read from a file or a pipe.
const QUESTION_BYTES_MAX: u64 = 4 << 20;

const AFTER_HELP: &str = "\
Ctrl-C cancels an answer; at the prompt it quits, as do Ctrl-D and /exit. When stdin isn't a terminal, all of it is
one question, and only the answer goes to stdout. The key is looked for in --key-file, then $SWITCHBOX_API_KEY, then
DIR/api.key (for a box on this machine).

Examples:
  switchbox chat
  switchbox chat --url http://box.example:8080 --key-file ~/box.key --model tiny
  echo 'Why is the sky blue?' | switchbox chat --system 'Answer in one sentence.'";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ChatArgs {
    #[command(flatten)]
    door: DoorArgs,
    #[command(flatten)]
    data_dir: DataDirArg,
    /// Who answers [default: the box's first model]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// How it should behave
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

pub(super) fn run(args: ChatArgs) -> Result<(), CliError> {
    let client = args.door.open(&args.data_dir)?;
    let runtime = client_runtime()?;
    let result = runtime.block_on(async {
        let model = match args.model {
            Some(model) => model,
            None => first_model(&client).await?,
        };
        let interrupt = signal(SignalKind::interrupt())?;
        let talk = Talk::new(client, model, args.system);
        if std::io::stdin().is_terminal() {
            converse(talk, interrupt).await
        } else {
            ask_once(talk, interrupt).await
        }
    });
    // A thread may still wait for a line of the terminal, or for a name's address.
    runtime.shutdown_background();
    result
}

async fn first_model(client: &Client) -> Result<String, CliError> {
    #[derive(serde::Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        id: String,
    }
    let models: Models = client.fetch("/v1/models").await?;
    match models.data.into_iter().next() {
        Some(model) => Ok(model.id),
        None => Err(CliError::Failed("the box serves no model".into())),
    }
}

/// One question from a file or a pipe.
async fn ask_once(mut talk: Talk, mut interrupt: Signal) -> Result<(), CliError> {
    let mut question = String::new();
    std::io::stdin().take(QUESTION_BYTES_MAX + 1).read_to_string(&mut question)?;
    if question.len() as u64 > QUESTION_BYTES_MAX {
        return Err(CliError::Usage(format!(
            "the question on stdin is longer than {QUESTION_BYTES_MAX} bytes"
        )));
    }
    if question.trim().is_empty() {
        return Err(CliError::Usage(
            "there is no question on stdin; write one into it, or start in a terminal".into(),
        ));
    }
    let ended = talk.ask(question.trim(), &mut interrupt).await?;
    writeln!(std::io::stdout())?;
    match ended {
        Ended::Whole => Ok(()),
        Ended::Cut => {
            eprintln!("(cut off: the most tokens allowed were generated)");
            Ok(())
        }
        Ended::Cancelled => Err(CliError::Failed("cancelled".into())),
    }
}

/// Question and answer in turn, until the user leaves.
async fn converse(mut talk: Talk, mut interrupt: Signal) -> Result<(), CliError> {
    eprintln!("Talking to {}. Ctrl-C cancels an answer, /exit or Ctrl-D leaves.", printable(talk.model()));
    let mut lines = lines_of_stdin();
    loop {
        eprint!("\n> ");
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = interrupt.recv() => None,
        };
        let Some(line) = line else { break };
        let question = match line?.trim() {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            question => question.to_owned(),
        };
        match talk.ask(&question, &mut interrupt).await {
            Ok(ended) => {
                writeln!(std::io::stdout())?;
                match ended {
                    Ended::Whole => {}
                    Ended::Cut => eprintln!("(cut off: the most tokens allowed were generated)"),
                    Ended::Cancelled => eprintln!("(cancelled)"),
                }
            }
            Err(CliError::Client(error)) => eprintln!("\n{}", one_line(&error.to_string())),
            Err(error) => return Err(error),
        }
    }
    eprintln!();
    Ok(())
}

/// Lines as they are typed. The thread ends with the process: nothing can wake it from a terminal.
fn lines_of_stdin() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
