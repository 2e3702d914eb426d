//! HTTP-to-HTTP time of small sync jobs: `switchbox serve` with the echo runtime against a bare hyper echo.

use clap::Args;
use serde_json::{Value, json};

use crate::child::Server;
use crate::turns::{self, Beside, Case, LONG_BODY_BYTES, LONG_CLIENTS, Subject, Turns, ratios_json};
use crate::{CommonArgs, Result, report};

/// What the HTTP measurement takes.
#[derive(Args)]
pub(crate) struct HttpArgs {
    /// Seconds to measure for, all together.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    #[command(flatten)]
    common: CommonArgs,
}

const CASES: [Case; 4] = [
    Case::of("1 client", 1),
    Case::of("64 clients", 64),
    Case::of("8 clients", 8),
    Case { name: "8 clients beside 4 MiB prompts", clients: 8, beside: Beside::LongPrompts },
];
const IDLE: usize = 2;
const LOADED: usize = 3;

/// Runs the measurement and reports it.
pub(crate) fn run(args: &HttpArgs) -> Result<()> {
    let binary = args.common.switchbox()?;
    let data = &args.common.data_parent;
    let product = |durability: &str| {
        Server::switchbox(&binary, data, &["--model", "echo=echo:", "--durability", durability])
    };
    let subjects = vec![
        Subject::new("floor", 0, vec![Server::floor(data, &["floor", "echo"])?]),
        Subject::new("relaxed", 0, vec![product("relaxed")?]),
        Subject::new("strict", 0, vec![product("strict")?]),
    ];
    let mut turns = Turns::new(subjects, &CASES);
    let slice = turns.run(args.seconds, args.common.rounds)?;
    print(&turns)?;
    let mut settings = turns::settings(args.seconds, args.common.rounds, slice, data);
    settings["long_body_bytes"] = json!(LONG_BODY_BYTES);
    settings["long_clients"] = json!(LONG_CLIENTS);
    report::write_json(args.common.out.as_deref(), settings, results(&turns)?)?;
    turns.check()
}

fn print(turns: &Turns) -> Result<()> {
    let mut rows = vec![report::cells([
        "",
        "p50 us",
        "p99 us",
        "jobs/s",
        "p50 / floor",
        "p99 / floor",
        "jobs/s / floor",
    ])];
    for (at, case) in CASES.iter().enumerate() {
        for (subject, name) in turns.names().enumerate() {
            let (times, ratios) = (turns.times(subject, at), turns.ratios(subject, 0, at));
            rows.push(vec![
                format!("{}, {name}", case.name),
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
        vec![report::cells(["", "p50 / idle", "p99 / idle", "jobs/s / idle", "long answers by status"])];
    for (subject, name) in turns.names().enumerate() {
        let ratios = turns.between_cases(subject, LOADED, IDLE);
        rows.push(vec![
            name.to_owned(),
            format!("{:.2}", ratios.p50_us),
            format!("{:.2}", ratios.p99_us),
            format!("{:.2}", ratios.rate),
            format!("{:?}", turns.long_statuses(subject, LOADED)),
        ]);
    }
    report::print_table("8 clients while 4 MiB prompts arrive on 2 connections, against idle", &rows)
}

fn results(turns: &Turns) -> Result<Value> {
    let mut all = turns.results()?;
    for (subject, name) in turns.names().enumerate() {
        let loaded = turns.between_cases(subject, LOADED, IDLE);
        all[name]["8 clients, loaded over idle"] = ratios_json(loaded);
    }
    Ok(Value::Object(all))
}
