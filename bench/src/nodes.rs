//! What two hops cost: small sync jobs that `switchbox agent` runs for `switchbox serve`, against the same two hops
//! without any logic, and against those with one signature and one record on disk for each job.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::admin::Admin;
use crate::child::Server;
use crate::floor::{Care, sign};
use crate::load::runtime;
use crate::turns::{self, Case, Subject, Turns};
use crate::{CommonArgs, Result, report};

/// What the measurement of nodes takes.
#[derive(Args)]
pub(crate) struct NodesArgs {
    /// Seconds to measure for, all together.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    #[command(flatten)]
    common: CommonArgs,
}

const CASES: [Case; 4] = [
    Case::of("1 client", 1),
    Case::of("16 clients", 16),
    Case::of("64 clients", 64),
    Case::of("256 clients", 256),
];
/// The cases of which the better one is a subject's jobs a second at most.
const MANY: [usize; 2] = [2, 3];
/// Jobs that an agent runs at once: as many as there are clients.
const SLOTS: &str = "256";

const FLOOR: usize = 0;
const SIGNED: usize = 1;
const COMMITTED: usize = 2;
/// A subject, and the most that its p50 may be over its yardstick's (DESIGN.md, section 8).
const GOALS: [(usize, f64); 2] = [(3, 1.35), (4, 1.3)];

/// Runs the measurement and reports it.
pub(crate) fn run(args: &NodesArgs) -> Result<()> {
    let binary = args.common.switchbox()?;
    let data = &args.common.data_parent;
    let subjects = vec![
        floor("floor", FLOOR, Care::None, data)?,
        floor("signed floor", FLOOR, Care::Sign, data)?,
        floor("strict signed floor", FLOOR, Care::Commit, data)?,
        product("relaxed", SIGNED, &binary, data)?,
        product("strict", COMMITTED, &binary, data)?,
    ];
    let costs = sign::costs();
    let mut turns = Turns::new(subjects, &CASES);
    let slice = turns.run(args.seconds, args.common.rounds)?;
    print(&turns, costs)?;
    let settings = turns::settings(args.seconds, args.common.rounds, slice, data);
    let mut results = turns.results()?;
    for (subject, name) in turns.names().enumerate() {
        let (rate, ratio) = turns.best_rate(subject, &MANY);
        results[name]["jobs_per_s_max"] =
            json!({ "median": rate, "over": turns.yardstick(subject), "ratio": ratio });
    }
    results.insert("sign_us".to_owned(), json!(micros(costs.0)));
    results.insert("verify_us".to_owned(), json!(micros(costs.1)));
    report::write_json(args.common.out.as_deref(), settings, results.into())?;
    turns.check()
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

fn floor(name: &'static str, yardstick: usize, care: Care, data: &Path) -> Result<Subject> {
    let care = ["--care", care.word()];
    let hub = Server::floor(data, &[&["floor", "box"][..], &care].concat())?;
    let to = hub.address_after("ws://").ok_or("the floor doesn't say where its agent connects")?.to_string();
    let agent = Server::floor(data, &[&["floor", "agent", "--to", &to][..], &care].concat())?;
    Ok(Subject::new(name, yardstick, vec![hub, agent]))
}

/// A box that serves nothing itself, with an agent that the operator trusts with everybody's jobs.
fn product(durability: &'static str, yardstick: usize, binary: &Path, data: &Path) -> Result<Subject> {
    let hub = Server::switchbox(binary, data, &["--nodes-only", "--durability", durability])?;
    let agent = runtime()?.block_on(async {
        let admin = Admin::of(&hub)?;
        let join = admin.invite().await?.text();
        let agent = Server::agent(binary, data, &join, &["--model", "echo=echo:", "--slots", SLOTS])?;
        // Once its test job has passed.
        admin.wait_ready(1).await?;
        Result::Ok(agent)
    })?;
    Ok(Subject::new(durability, yardstick, vec![hub, agent]))
}

fn print(turns: &Turns, costs: (Duration, Duration)) -> Result<()> {
    let mut rows = vec![report::cells([
        "",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "jobs/s",
        "p50 / floor",
        "held against",
        "p50 / it",
        "p99 / it",
        "p99.9 / it",
        "jobs/s / it",
    ])];
    for (at, case) in CASES.iter().enumerate() {
        for (subject, name) in turns.names().enumerate() {
            let (times, over) = (turns.times(subject, at), turns.over_yardstick(subject, at));
            rows.push(vec![
                format!("{}, {name}", case.name),
                format!("{:.0}", times.p50_us),
                format!("{:.0}", times.p99_us),
                format!("{:.0}", times.p999_us),
                format!("{:.0}", times.rate),
                format!("{:.2}", turns.ratios(subject, FLOOR, at).p50_us),
                turns.yardstick(subject).to_owned(),
                format!("{:.2}", over.p50_us),
                format!("{:.2}", over.p99_us),
                format!("{:.2}", over.p999_us),
                format!("{:.2}", over.rate),
            ]);
        }
    }
    report::print_table("small sync jobs over two hops: medians over rounds", &rows)?;
    let mut rows = vec![report::cells(["", "jobs/s at most", "held against", "jobs/s / it"])];
    for (subject, name) in turns.names().enumerate() {
        let (rate, ratio) = turns.best_rate(subject, &MANY);
        let yardstick = turns.yardstick(subject).to_owned();
        rows.push(vec![name.to_owned(), format!("{rate:.0}"), yardstick, format!("{ratio:.2}")]);
    }
    report::print_table("jobs a second at most, with 64 or 256 clients", &rows)?;
    let names: Vec<&str> = turns.names().collect();
    let mut rows = vec![report::cells(["p50", "goal", "1 client", "16 clients", "64 clients"])];
    for (subject, goal) in GOALS {
        let mut row =
            vec![format!("{} / {}", names[subject], turns.yardstick(subject)), format!("<= {goal}")];
        row.extend((0..3).map(|at| format!("{:.2}", turns.over_yardstick(subject, at).p50_us)));
        rows.push(row);
    }
    let (sign, verify) = (micros(costs.0), micros(costs.1));
    let heading = format!("goals (one signature: {sign:.1} us to make, {verify:.1} us to check)");
    report::print_table(&heading, &rows)
}
