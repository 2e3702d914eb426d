//! `switchbox jobs trace`: asks the admin API of a running box for a job's decisions and shows them in time. Fields
//! that it doesn't know are shown as they are, so that a newer box can tell more.

use std::io::Write;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{Address, Client};
use super::terminal::printable;
use super::{CliError, DataDirArg, client_runtime};
use crate::datadir::Published;
use crate::ids::JobId;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  switchbox jobs trace job_69250c5a000000002a\n\nA job's id is in the header \
                        `x-switchbox-job-id` of its answer."
)]
pub(super) struct TraceArgs {
    /// The job's id (job_...)
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    data_dir: DataDirArg,
    /// Print the answer of the admin API as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TraceArgs) -> Result<(), CliError> {
    let job: JobId = args.job.parse().map_err(|error| CliError::Usage(format!("{error}")))?;
    let published = Published::at(&args.data_dir.path()?)?;
    let address = Address::parse(&published.admin_addr()?)?;
    let client = Client::new(address, Some(published.admin_token()?.text()))?;
    let path = format!("/admin/jobs/{job}/trace");
    let trace: Value = client_runtime()?.block_on(client.fetch(&path))?;
    let text = if args.json {
        format!("{trace:#}\n")
    } else {
        let trace = Trace::deserialize(trace).map_err(|error| client.unreadable(&error.to_string()))?;
        render(&trace)
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

#[derive(Debug, Deserialize)]
struct Trace {
    id: String,
    state: String,
    #[serde(default)]
    submitted_at_us: Option<u64>,
    #[serde(default)]
    ended_at_us: Option<u64>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    charged_microcredits: Option<u64>,
    #[serde(default)]
    trace: Vec<Step>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
}

#[derive(Debug, Deserialize)]
struct Step {
    at_us: u64,
    event: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

fn render(trace: &Trace) -> String {
    let start = trace.submitted_at_us.or(trace.trace.first().map(|step| step.at_us)).unwrap_or(0);
    let mut lines = vec![format!("{}  {}", trace.id, trace.state)];
    if !trace.others.is_empty() {
        lines.push(format!("  {}", fields(&trace.others)));
    }
    let width = trace.trace.iter().map(|step| step.event.len()).max().unwrap_or(0);
    for step in &trace.trace {
        let line =
            format!("  {:>14}  {:width$}  {}", offset(start, step.at_us), step.event, fields(&step.fields));
        lines.push(line.trim_end().to_owned());
    }
    match trace.ended_at_us {
        Some(ended) => {
            lines.push(format!("  ended {} after it came", offset(start, ended).trim_start_matches('+')))
        }
        None => lines.push("  still live".to_owned()),
    }
    if let Some(usage) = &trace.usage {
        lines.push(format!("  usage: {} input + {} output tokens", usage.input_tokens, usage.output_tokens));
    }
    if let Some(charged) = trace.charged_microcredits {
        lines.push(format!("  charge: {charged} micro-credits"));
    }
    lines.iter().map(|line| format!("{}\n", printable(line))).collect()
}

/// Milliseconds with three digits, from the start; a clock may have stepped back.
fn offset(start: u64, at: u64) -> String {
    let (sign, us) = if at >= start { ('+', at - start) } else { ('-', start - at) };
    format!("{sign}{}.{:03} ms", us / 1_000, us % 1_000)
}

fn fields(fields: &Map<String, Value>) -> String {
    let shown = fields.iter().filter(|(_, value)| !value.is_null());
    shown.map(|(key, value)| format!("{key}={}", field(value))).collect::<Vec<_>>().join(" ")
}

/// A value on one line: texts bare where they are one word, a list of (name, value) as an object.
fn field(value: &Value) -> String {
    let pair = |item: &Value| match item.as_array().map(Vec::as_slice) {
        Some([Value::String(name), term]) => Some(format!("{name}={}", field(term))),
        _ => None,
    };
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.clone(),
        Value::Object(object) => format!("({})", fields(object)),
        Value::Array(items) => {
            let pairs: Option<Vec<String>> = items.iter().map(pair).collect();
            match pairs.filter(|pairs| !pairs.is_empty()) {
                Some(pairs) => format!("({})", pairs.join(" ")),
                None => format!("[{}]", items.iter().map(field).collect::<Vec<_>>().join(" ")),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_reads_as_a_timeline_and_keeps_what_it_does_not_know() {
        let json = r#"{"id":"job_1","state":"succeeded","model":"tiny","tier":"standard","namespace":"default",
            "submitted_at_us":1000000,"ended_at_us":1812345,"attempts":1,
            "usage":{"input_tokens":12,"output_tokens":40},"charged_microcredits":52,
            "trace":[{"at_us":1000000,"event":"submitted","ahead":0},
              {"at_us":1000100,"event":"placed","node":"node_local","score":[["load",10],["wait",5]],"new":{"a":"b c"}},
              {"at_us":1812345,"event":"ended","state":"succeeded","cause":null}]}"#;
        let trace: Trace = serde_json::from_str(json).expect("a trace");
        let text = render(&trace);
        for line in [
            "job_1  succeeded\n",
            "attempts=1",
            "model=tiny",
            "      +0.000 ms  submitted  ahead=0\n",
            "      +0.100 ms  placed     ",
            "score=(load=10 wait=5)",
            "new=(a=\"b c\")",
            "    +812.345 ms  ended      state=succeeded\n",
            "  ended 812.345 ms after it came\n",
            "  usage: 12 input + 40 output tokens\n",
            "  charge: 52 micro-credits\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn a_live_job_and_one_without_anything() {
        let trace: Trace = serde_json::from_str(r#"{"id":"job_1","state":"queued"}"#).expect("a trace");
        assert_eq!(render(&trace), "job_1  queued\n  still live\n");
        assert_eq!(offset(5_000, 3_999), "-1.001 ms");
    }
}
