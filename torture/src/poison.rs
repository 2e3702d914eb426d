//! Poison: a prompt that ends the process that runs it. After at most three starts the box serves everybody else, and
//! the job is a dead letter.

use std::time::Duration;

use crate::choices::Choices;
use crate::client::Client;
use crate::finding::{Finding, Kind};
use crate::http::Connection;
use crate::kills::silent;
use crate::load::{self, JOBS, Until, body_for};
use crate::online;
use crate::process::{Running, Setup};
use crate::recording::Counters;
use crate::report::{Report, Voice};
use crate::scratch::{On, Scratch};
use crate::tools::Tools;

const POISON: &str = "nobody survives this";
/// Starts after which everybody else must be served.
const STARTS_MAX: u64 = 3;
/// How long a box may take to run into it.
const DEATH_PATIENCE: Duration = Duration::from_secs(3);

/// Runs it.
pub fn run(tools: &Tools, seed: u64) -> Report {
    let (mut report, begun) = Report::begin("poison", Voice::Loud);
    if let Err(wrong) = poisoned(tools, seed, &mut report) {
        report.find("poison", &[wrong]);
    }
    report.end(begun)
}

/// Submits it. The box may be dead before it can say that it took it.
fn submit(running: &Running) {
    let body = body_for(JOBS, "echo", POISON);
    if let Ok(mut connection) = Connection::open(running.address) {
        let _ = connection.send("POST", JOBS, &body);
    }
}

fn poisoned(tools: &Tools, seed: u64, report: &mut Report) -> Result<(), Finding> {
    let (scratch, client, mut choices) = (Scratch::new(On::Memory), Client::default(), Choices::new(seed));
    let setup = Setup::new(&tools.rack, &scratch.join("data")).with("SWITCHBOX_POISON", POISON);
    let mut running = setup.start().map_err(|not_up| not_up.finding())?;
    if let Err(error) = load::set_prices(&running) {
        return Err(silent(running, &error));
    }
    let ended = load::run(&running, &client, &Counters::none(), 8, Until::Acknowledged(200), &mut choices);
    if let Some(broken) = ended.finding() {
        return Err(running.kill().err().unwrap_or(broken));
    }
    submit(&running);
    report.count("starts", 1);
    while running.wait_for(DEATH_PATIENCE).is_some() {
        if report.counted("starts") >= STARTS_MAX {
            return Err(
                Kind::Died.says(format!("the box is dead after {STARTS_MAX} starts: {}", running.said()))
            );
        }
        report.count("starts", 1);
        running = match setup.start() {
            Ok(running) => running,
            Err(_) if report.counted("starts") < STARTS_MAX => {
                report.count("starts", 1);
                setup.start().map_err(|not_up| not_up.finding())?
            }
            Err(not_up) => return Err(not_up.finding()),
        };
    }
    if report.counted("starts") < 2 {
        return Err(Kind::Rig.says("the poison killed nobody"));
    }
    let mut wrong = match served(&running, &client, &mut choices) {
        Ok(wrong) => wrong,
        Err(error) => return Err(silent(running, &error)),
    };
    wrong.extend(running.kill().err());
    report.find("everybody else", &wrong);
    report.mix = client.entries().mix;
    Ok(())
}

/// Everybody else is served, and it is a dead letter.
fn served(running: &Running, client: &Client, choices: &mut Choices) -> std::io::Result<Vec<Finding>> {
    let mut wrong = online::settle(running, client, &Counters::none())?;
    let ended = load::run(running, client, &Counters::none(), 8, Until::Acknowledged(200), choices);
    wrong.extend(ended.finding());
    let jobs: Vec<_> = client.entries().jobs.clone().into_iter().collect();
    wrong.extend(online::judge_jobs(running, &jobs)?);
    wrong.extend(online::judge_box(running)?);
    // Not by its key, which a job that failed gives free.
    let letters = running.operator()?.send("GET", "/admin/dead-letters", "")?.value();
    let listed = letters["dead_letters"].as_array().map_or(&[][..], Vec::as_slice);
    let [letter] = listed else {
        wrong.push(Kind::Wrong.says(format!("there should be one dead letter: {letters}")));
        return Ok(wrong);
    };
    let id = letter["job"].as_str().unwrap_or_default();
    let shown = Connection::open(running.address)?.send("GET", &format!("{JOBS}/{id}"), "")?;
    if shown.value()["state"] != "failed" {
        wrong.push(Kind::Wrong.says(format!("the dead letter is {} {}", shown.status, shown.text())));
    }
    Ok(wrong)
}
