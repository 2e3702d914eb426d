//! `switchbox jobs trace`: asks the admin API of a running box for a job's decisions and shows them in time. Fields
//! and steps that it doesn't know are shown as they are, so that a newer box can tell more.

mod words;

use std::io::Write;

use clap::Args;
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
    let text = match (args.json, trace) {
        (false, Value::Object(trace)) => render(&trace),
        (_, trace) => format!("{trace:#}\n"),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// What the head and the foot show in words; the rest is shown as it is.
const SHOWN_APART: [&str; 12] = [
    "id",
    "job",
    "state",
    "trace",
    "usage",
    "charged",
    "charged_microcredits",
    "submitted_at",
    "submitted_at_us",
    "ended_at",
    "ended_at_us",
    "trace_dropped",
];

fn render(job: &Map<String, Value>) -> String {
    let text = |key: &str| job.get(key).and_then(Value::as_str);
    let steps = job.get("trace").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let steps: Vec<&Map<String, Value>> = steps.iter().filter_map(Value::as_object).collect();
    let first = steps.first().and_then(|step| time_us(step, "at"));
    let start = time_us(job, "submitted_at").or(first).unwrap_or(0);
    let id = text("job").or(text("id")).unwrap_or("job");
    let mut lines = vec![format!("{id}  {}", text("state").unwrap_or("(state unknown)"))];
    lines.push(format!("  {}", fields(job, &SHOWN_APART, start)));
    lines.extend(timeline(&steps, start));
    match job.get("trace_dropped").and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(dropped) => lines.push(format!("  ({dropped} more steps were not kept)")),
    }
    lines.push(match time_us(job, "ended_at") {
        Some(ended) => format!("  ended {} after it came", offset(start, ended).trim_start_matches('+')),
        None => "  still live".to_owned(),
    });
    if let Some(usage) = job.get("usage").and_then(Value::as_object) {
        let tokens = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or(0);
        lines.push(format!(
            "  usage: {} input + {} output tokens",
            tokens("input_tokens"),
            tokens("output_tokens")
        ));
    }
    if let Some(charged) = job.get("charged") {
        lines.push(format!("  charge: {} credits", field(charged, start)));
    } else if let Some(charged) = job.get("charged_microcredits") {
        lines.push(format!("  charge: {charged} micro-credits"));
    }
    lines.iter().map(|line| format!("{}\n", printable(line.trim_end()))).collect()
}

/// A step's lines: when, what, in words, and whatever else it says.
fn timeline(steps: &[&Map<String, Value>], start: u64) -> Vec<String> {
    let event =
        |step: &Map<String, Value>| step.get("event").map_or("?".to_owned(), |event| field(event, start));
    let width = steps.iter().map(|step| event(step).len()).max().unwrap_or(0);
    let lines = |step: &&Map<String, Value>| {
        let at = time_us(step, "at").map(|at| offset(start, at)).unwrap_or_default();
        let (told, more) = match words::of(step, start) {
            Some(words) => (words.told, words.lines),
            None => (&[][..], vec![String::new()]),
        };
        let apart: Vec<&str> = ["event", "at", "at_us"].iter().chain(told).copied().collect();
        let rest = fields(step, &apart, start);
        let mut said = more.into_iter();
        let first = said.next().into_iter().chain([rest]).filter(|part| !part.is_empty());
        let first = first.collect::<Vec<_>>().join("  ");
        let head = format!("  {at:>14}  {:width$}  {first}", event(step));
        let indent = " ".repeat(2 + 14 + 2 + width + 2);
        let more: Vec<String> = said.map(|line| format!("{indent}{line}")).collect();
        [vec![head], more].concat()
    };
    steps.iter().flat_map(lines).collect()
}

/// The time `name` in microseconds: `<name>_us`, or `<name>` in seconds.
fn time_us(object: &Map<String, Value>, name: &str) -> Option<u64> {
    match object.get(&format!("{name}_us")) {
        Some(us) => us.as_u64(),
        None => object.get(name).and_then(seconds_as_us),
    }
}

fn seconds_as_us(value: &Value) -> Option<u64> {
    // Integers of microseconds are exact in an f64 until the year 2255; a negative time becomes 0.
    value.as_f64().map(|seconds| (seconds * 1e6).round() as u64)
}

/// Milliseconds with three digits, from the start; a clock may have stepped back.
fn offset(start: u64, at: u64) -> String {
    let (sign, us) = if at >= start { ('+', at - start) } else { ('-', start - at) };
    format!("{sign}{}.{:03} ms", us / 1_000, us % 1_000)
}

/// `key=value` of all but `apart`. Times are shown from the start of the job.
fn fields(object: &Map<String, Value>, apart: &[&str], start: u64) -> String {
    let shown = object.iter().filter(|(key, value)| !value.is_null() && !apart.contains(&key.as_str()));
    let shown = shown.map(|(key, value)| match seconds_as_us(value) {
        Some(at) if key.ends_with("_at") || key == "not_before" => {
            format!("{key}={}", offset(start, at).replace(' ', ""))
        }
        _ => format!("{key}={}", field(value, start)),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A value on one line: texts bare where they are one word, a list of (name, value) as an object.
fn field(value: &Value, start: u64) -> String {
    let pair = |item: &Value| match item.as_array().map(Vec::as_slice) {
        Some([Value::String(name), term]) => Some(format!("{name}={}", field(term, start))),
        _ => None,
    };
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.clone(),
        Value::Object(object) => format!("({})", fields(object, &[], start)),
        Value::Array(items) => {
            let pairs: Option<Vec<String>> = items.iter().map(pair).collect();
            match pairs.filter(|pairs| !pairs.is_empty()) {
                Some(pairs) => format!("({})", pairs.join(" ")),
                None => {
                    let items: Vec<String> = items.iter().map(|item| field(item, start)).collect();
                    format!("[{}]", items.join(" "))
                }
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(json: &str) -> String {
        render(&serde_json::from_str(json).expect("an object"))
    }

    #[test]
    fn a_trace_reads_as_a_timeline_and_keeps_what_it_does_not_know() {
        let text = rendered(
            r#"{"job":"job_1","state":"succeeded","model":"tiny","attempts":1,"error":null,
            "submitted_at":1760000000.25,"dispatched_at":1760000000.2501,"ended_at":1760000001.062345,
            "usage":{"input_tokens":12,"output_tokens":40},"charged":"0.000052","trace_dropped":0,
            "trace":[{"at":1760000000.25,"event":"submitted","ahead":0},
              {"at":1760000000.2501,"event":"placed","node":"node_local","score_us":{"load":10,"wait":5},"new":["b c",1]},
              {"at":1760000000.5,"event":"requeued","not_before":1760000000.75},
              {"at":1760000001.062345,"event":"ended","state":"succeeded"}]}"#,
        );
        for line in [
            "job_1  succeeded\n",
            "attempts=1",
            "dispatched_at=+0.100ms",
            "model=tiny",
            "      +0.000 ms  submitted  no job of its model and tier waited before it\n",
            "      +0.100 ms  placed     ",
            "score_us=(load=10 wait=5)",
            "new=[\"b c\" 1]",
            "    +250.000 ms  requeued   it waits again, not before +500.000 ms\n",
            "    +812.345 ms  ended      succeeded\n",
            "  ended 812.345 ms after it came\n",
            "  usage: 12 input + 40 output tokens\n",
            "  charge: 0.000052 credits\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn integer_microseconds_lists_of_terms_and_a_live_job() {
        let text = rendered(
            r#"{"id":"job_1","state":"running","submitted_at_us":5000,"trace_dropped":3,
            "trace":[{"at_us":3999,"event":"placed","score":[["load",10],["wait",5]]}, 7]}"#,
        );
        for line in
            ["job_1  running\n", "-1.001 ms  placed  score=(load=10 wait=5)\n", "(3 more", "still live\n"]
        {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(rendered("{}").contains("state unknown"));
    }

    #[test]
    fn a_placement_says_why_below_its_line() {
        let text = rendered(
            r#"{"job":"job_1","submitted_at":1,"trace":[{"at":1,"event":"placed","reservation":"res_1",
            "node":"node_x","candidates":2,"by":"job","score_us":{"wait_us":5,"sum_us":5},
            "losers":[{"node":"node_y","why":"no_room"}]}]}"#,
        );
        let lines = "      +0.000 ms  placed  on node_x: 5 us expected (wait 5), best of 2 looked at  reservation=res_1\n\
                     \x20                         node_y had no room\n";
        assert!(text.contains(lines), "{lines:?} in\n{text}");
    }
}
