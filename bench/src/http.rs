//! HTTP-to-HTTP time of small sync jobs: `switchbox serve` with the echo runtime against a bare hyper echo.
//!
//! Servers take turns within each round, so that what else the machine does falls on all of them; ratios
//! are between two slices of the same round.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::child::Server;
use crate::client::post;
use crate::load::{Background, Load, Statuses};
use crate::stats::{Times, median_ratios, median_times};
use crate::{CommonArgs, Result, report};

/// A small job's request is this long, and so is the floor's answer.
const BODY_BYTES: usize = 1 << 10;
/// A long prompt's request is this long.
const LONG_BODY_BYTES: usize = 4 << 20;
/// Connections that send long prompts.
const LONG_CLIENTS: usize = 2;
const PATH: &str = "/v1/chat/completions";

/// What the HTTP measurement takes.
#[derive(Args)]
pub(crate) struct HttpArgs {
    /// Seconds to measure for, all together.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    #[command(flatten)]
    common: CommonArgs,
}

/// What else a server does while small jobs are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    LongPrompts,
}

struct Case {
    name: &'static str,
    clients: usize,
    beside: Beside,
}

const CASES: [Case; 4] = [
    Case { name: "1 client", clients: 1, beside: Beside::Nothing },
    Case { name: "64 clients", clients: 64, beside: Beside::Nothing },
    Case { name: "8 clients", clients: 8, beside: Beside::Nothing },
    Case { name: "8 clients beside 4 MiB prompts", clients: 8, beside: Beside::LongPrompts },
];
const IDLE: usize = 2;
const LOADED: usize = 3;

/// A server and what was measured of it.
struct Subject {
    name: &'static str,
    server: Server,
    cases: [Measured; CASES.len()],
}

#[derive(Default)]
struct Measured {
    rounds: Vec<Times>,
    statuses: Statuses,
    long_statuses: Statuses,
    answer_bytes: usize,
}

/// Runs the measurement and reports it.
pub(crate) fn run(args: &HttpArgs) -> Result<()> {
    let binary = args.common.switchbox()?;
    let data = &args.common.data_parent;
    let product = |durability: &str| {
        Server::switchbox(&binary, data, &["--model", "echo=echo:", "--durability", durability])
    };
    let mut subjects = [
        Subject::new("floor", Server::floor(data)?),
        Subject::new("relaxed", product("relaxed")?),
        Subject::new("strict", product("strict")?),
    ];
    let rounds = args.common.rounds;
    let slices = rounds as usize * CASES.len() * subjects.len();
    let slice = Duration::from_secs(args.seconds.into()).div_f64(slices as f64);
    for round in 0..rounds as usize {
        for case in 0..CASES.len() {
            for turn in 0..subjects.len() {
                let subject = (round + turn) % subjects.len();
                subjects[subject].measure(case, slice)?;
            }
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    print(&subjects)?;
    let settings = json!({
        "seconds": args.seconds, "rounds": rounds, "slice_s": slice.as_secs_f64(), "body_bytes": BODY_BYTES,
        "long_body_bytes": LONG_BODY_BYTES, "long_clients": LONG_CLIENTS, "data_parent": data,
    });
    report::write_json(args.common.out.as_deref(), settings, results(&subjects)?)?;
    check(&subjects)
}

impl Subject {
    fn new(name: &'static str, server: Server) -> Self {
        Self { name, server, cases: Default::default() }
    }

    fn measure(&mut self, case: usize, duration: Duration) -> Result<()> {
        let Case { clients, beside, .. } = CASES[case];
        let address = self.server.address();
        let request = |bytes, tokens_max| Arc::from(post(address, PATH, chat(bytes, tokens_max).as_bytes()));
        let load = Load { address, request: request(BODY_BYTES, 1_000), clients, duration };
        let long = (beside == Beside::LongPrompts).then(|| {
            let request = request(LONG_BODY_BYTES, 16);
            Background::start(Load { request, clients: LONG_CLIENTS, ..load.clone() })
        });
        let slice = load.run().map_err(|error| format!("{}, {}: {error}", self.name, CASES[case].name))?;
        let measured = &mut self.cases[case];
        measured.rounds.push(slice.times);
        measured.answer_bytes = slice.body_bytes;
        add(&mut measured.statuses, slice.statuses);
        if let Some(long) = long {
            add(&mut measured.long_statuses, long.stop()?);
        }
        Ok(())
    }
}

fn add(to: &mut Statuses, statuses: Statuses) {
    statuses.into_iter().for_each(|(status, count)| *to.entry(status).or_default() += count);
}

/// A chat request of exactly so many bytes, whose message is ordinary short words.
fn chat(bytes: usize, tokens_max: u32) -> String {
    let head = format!(
        r#"{{"model":"echo","max_tokens":{tokens_max},"temperature":0,"messages":[{{"role":"user","content":""#
    );
    let tail = r#""}]}"#;
    let words = ["box", "queue", "inference", "of", "small", "models", "in", "one", "process", "token"];
    let mut body = head;
    for word in words.iter().cycle() {
        if body.len() + word.len() + 1 + tail.len() > bytes {
            break;
        }
        body += word;
        body.push(' ');
    }
    body.extend(std::iter::repeat_n('x', bytes.saturating_sub(body.len() + tail.len())));
    body + tail
}

fn print(subjects: &[Subject; 3]) -> Result<()> {
    let floor = &subjects[0];
    let heading = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut rows =
        vec![heading(&["", "p50 us", "p99 us", "jobs/s", "p50 / floor", "p99 / floor", "jobs/s / floor"])];
    for (index, case) in CASES.iter().enumerate() {
        for subject in subjects {
            let times = median_times(&subject.cases[index].rounds);
            let ratios = median_ratios(&subject.cases[index].rounds, &floor.cases[index].rounds);
            rows.push(vec![
                format!("{}, {}", case.name, subject.name),
                format!("{:.0}", times.p50_us),
                format!("{:.0}", times.p99_us),
                format!("{:.0}", times.rate),
                format!("{:.2}", ratios.p50_us),
                format!("{:.2}", ratios.p99_us),
                format!("{:.2}", ratios.rate),
            ]);
        }
    }
    report::print_table("small sync jobs, HTTP to HTTP: medians over rounds", &rows)?;
    let mut rows =
        vec![heading(&["", "p50 / idle", "p99 / idle", "jobs/s / idle", "long answers by status"])];
    for subject in subjects {
        let ratios = median_ratios(&subject.cases[LOADED].rounds, &subject.cases[IDLE].rounds);
        rows.push(vec![
            subject.name.to_owned(),
            format!("{:.2}", ratios.p50_us),
            format!("{:.2}", ratios.p99_us),
            format!("{:.2}", ratios.rate),
            format!("{:?}", subject.cases[LOADED].long_statuses),
        ]);
    }
    report::print_table("8 clients while 4 MiB prompts arrive on 2 connections, against idle", &rows)
}

fn results(subjects: &[Subject; 3]) -> Result<Value> {
    let times = |times: Times| json!({ "p50_us": times.p50_us, "p99_us": times.p99_us, "rate": times.rate });
    let ratios = |ratios: Times| json!({ "p50": ratios.p50_us, "p99": ratios.p99_us, "rate": ratios.rate });
    let mut all = serde_json::Map::new();
    for subject in subjects {
        let mut cases = serde_json::Map::new();
        for (index, case) in CASES.iter().enumerate() {
            let measured = &subject.cases[index];
            let floor = &subjects[0].cases[index];
            cases.insert(
                case.name.to_owned(),
                json!({
                    "median": times(median_times(&measured.rounds)),
                    "over_floor": ratios(median_ratios(&measured.rounds, &floor.rounds)),
                    "rounds": measured.rounds.iter().copied().map(times).collect::<Vec<_>>(),
                    "statuses": measured.statuses, "long_statuses": measured.long_statuses,
                    "answer_bytes": measured.answer_bytes,
                }),
            );
        }
        let loaded = median_ratios(&subject.cases[LOADED].rounds, &subject.cases[IDLE].rounds);
        cases.insert("8 clients, loaded over idle".to_owned(), ratios(loaded));
        cases.insert("memory_peak_bytes".to_owned(), json!(subject.server.memory_peak_bytes()?));
        all.insert(subject.name.to_owned(), Value::Object(cases));
    }
    Ok(Value::Object(all))
}

/// Numbers of a run in which small jobs failed are worth nothing.
fn check(subjects: &[Subject; 3]) -> Result<()> {
    for subject in subjects {
        for (case, measured) in CASES.iter().zip(&subject.cases) {
            if measured.statuses.keys().any(|status| *status != 200) || measured.statuses.is_empty() {
                let (name, statuses) = (subject.name, &measured.statuses);
                return Err(format!("{name}, {}: answers by status {statuses:?}", case.name).into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_json_of_just_the_length() {
        for bytes in [200, BODY_BYTES, LONG_BODY_BYTES] {
            let body = chat(bytes, 16);
            assert_eq!(body.len(), bytes);
            serde_json::from_str::<Value>(&body).expect("it is JSON");
        }
    }
}
