//! What a restarted box shows its clients and its operator, compared with what they had been told.

use std::io;

use serde_json::Value;

use crate::client::{Cancel, Client, Job, Kept, Told, Unanswered};
use crate::finding::{Finding, Kind};
use crate::http::{Connection, Request};
use crate::load::{CHAT, JOBS, body_for, deposit_body};
use crate::process::{Operator, Running};
use crate::recording::Counters;

/// Attempts that a job may lose to kills before the box takes it for what kills it.
const CUTS_MAX: usize = 2;

/// Says again what has no answer yet: keys and operations make sure that it is done once. Returns what is wrong.
///
/// # Errors
/// When the box is gone.
pub fn settle(running: &Running, client: &Client, counters: &Counters) -> io::Result<Vec<Finding>> {
    let mut settling = Settling {
        connection: Connection::open(running.address)?,
        operator: running.operator()?,
        client,
        counters,
        wrong: Vec::new(),
    };
    let mut left = std::mem::take(&mut client.entries().unanswered);
    while let Some(what) = left.pop() {
        if let Err(error) = settling.say(&what) {
            // A box that died meanwhile leaves the rest for the next one.
            left.push(what);
            client.entries().unanswered.extend(left);
            return Err(error);
        }
    }
    Ok(settling.wrong)
}

struct Settling<'a> {
    connection: Connection,
    operator: Operator,
    client: &'a Client,
    counters: &'a Counters,
    wrong: Vec<Finding>,
}

impl Settling<'_> {
    fn say(&mut self, what: &Unanswered) -> io::Result<()> {
        match what {
            Unanswered::Unkeyed => Ok(()),
            Unanswered::Keyed { path, key, prompt, model } => self.submit(path, key, prompt, model),
            Unanswered::Cancel(id) => self.cancel(id),
            Unanswered::Deposit(operation) => self.deposit(*operation),
        }
    }

    fn submit(&mut self, path: &str, key: &str, prompt: &str, model: &str) -> io::Result<()> {
        let (headers, body) = ([("idempotency-key", key)], body_for(path, model, prompt));
        let request = Request { method: "POST", path, headers: &headers, body: &body };
        // It is another job if the first one ended without success.
        self.client.submits();
        let answer = self.connection.call(&request)?;
        let (id, told) = match (path, answer.status) {
            (CHAT, 200) => (answer.job.clone(), Told::Answered),
            (_, 202) => (answer.value()["id"].as_str().map(str::to_owned), Told::Accepted),
            (_, status) => {
                let text = format!("`{prompt}` again, by its key: {status} {}", answer.text());
                self.wrong.push(Kind::Wrong.says(text));
                return Ok(());
            }
        };
        self.client.told(&id.unwrap_or_default(), prompt, Kept::Yes, told, self.counters.records());
        Ok(())
    }

    fn cancel(&mut self, id: &str) -> io::Result<()> {
        let answer = self.connection.send("DELETE", &format!("{JOBS}/{id}"), "")?;
        let told = match answer.value()["state"].as_str() {
            Some("cancelled") => Told::Cancelled,
            Some("cancelling") => Told::Cancelling,
            Some("succeeded" | "failed") => return Ok(()),
            _ => {
                let text = format!("the cancel of {id} again: {} {}", answer.status, answer.text());
                self.wrong.push(Kind::Lost.says(text));
                return Ok(());
            }
        };
        self.client.told(id, "", Kept::Yes, told, self.counters.records());
        Ok(())
    }

    fn deposit(&mut self, operation: u128) -> io::Result<()> {
        let Some(deposit) = self.client.entries().deposits.get(&operation).cloned() else { return Ok(()) };
        let body = deposit_body(operation, &deposit.namespace, deposit.micro);
        let answer = self.operator.send("POST", "/admin/deposits", &body)?;
        match answer.status {
            200 => self.client.deposited(operation, self.counters.records()),
            status => {
                let text = format!("deposit {operation:x} again: {status} {}", answer.text());
                self.wrong.push(Kind::Wrong.says(text));
            }
        }
        Ok(())
    }
}

/// Asks for jobs, waits until each has ended, and says what is wrong with them.
///
/// # Errors
/// When the box is gone.
pub fn judge_jobs(running: &Running, jobs: &[(String, Job)]) -> io::Result<Vec<Finding>> {
    let mut connection = Connection::open(running.address)?;
    let mut operator = running.operator()?;
    let mut wrong = Vec::new();
    for (id, job) in jobs {
        if job.answer == Kept::Yes {
            let shown = connection.send("GET", &format!("{JOBS}/{id}?wait=60s"), "")?;
            match shown.status {
                200 => wrong.extend(judge_shown(id, job, &shown.value())),
                status => {
                    let text = format!("job {id}, {:?}: {status} {}", job.told, shown.text());
                    wrong.push(Kind::Lost.says(text));
                }
            }
        }
        if job.answer == Kept::No || !job.told.iter().any(|(told, _)| *told == Told::Answered) {
            let seen = operator.send("GET", &format!("/admin/jobs/{id}"), "")?;
            match seen.status {
                200 => wrong.extend(judge_history(id, job, &seen.value())),
                status => {
                    let text = format!("job {id} to the operator: {status} {}", seen.text());
                    wrong.push(Kind::Lost.says(text));
                }
            }
        }
    }
    Ok(wrong)
}

/// What a client sees.
fn judge_shown(id: &str, job: &Job, shown: &Value) -> Vec<Finding> {
    let mut wrong = Vec::new();
    let state = shown["state"].as_str().unwrap_or("none");
    let told = |wanted: &[Told]| job.told.iter().any(|(told, _)| wanted.contains(told));
    let expected: &[&str] = if told(&[Told::Answered]) {
        &["succeeded"]
    } else if told(&[Told::Cancelled, Told::Cancelling]) {
        &["cancelled"]
    } else if job.cancel == Cancel::Asked {
        &["succeeded", "cancelled", "failed"]
    } else {
        // One that was cut too often: the operator's view says whether it was.
        &["succeeded", "failed"]
    };
    if !expected.contains(&state) {
        wrong.push(Kind::Lost.says(format!("job {id}, {:?}: it is {state}", job.told)));
    }
    let text = shown["result"]["choices"][0]["message"]["content"].as_str();
    if state == "succeeded" && !job.prompt.is_empty() && text != Some(&job.prompt) {
        wrong.push(Kind::Wrong.says(format!("job {id} of `{}` has the answer {text:?}", job.prompt)));
    }
    wrong
}

/// What the operator sees: attempts, of which at most one gave the answer.
fn judge_history(id: &str, job: &Job, seen: &Value) -> Vec<Finding> {
    let mut wrong = Vec::new();
    let state = seen["state"].as_str().unwrap_or("none");
    let attempts = seen["history"].as_array().map_or(&[][..], Vec::as_slice);
    let count = |outcome: &str| attempts.iter().filter(|attempt| attempt["outcome"] == outcome).count();
    let (succeeded, cut) = (count("succeeded"), count("cut_by_a_restart"));
    if succeeded > 1 || (state == "succeeded") != (succeeded == 1) {
        let kind = if succeeded > 1 { Kind::Twice } else { Kind::Wrong };
        wrong.push(kind.says(format!("job {id} is {state} with {succeeded} accepted results")));
    }
    if state == "failed" && cut < CUTS_MAX {
        let text = format!("job {id} failed though only {cut} restarts cut it: {seen}");
        wrong.push(Kind::Lost.says(text));
    }
    if job.told.iter().any(|(told, _)| *told == Told::Answered) && state != "succeeded" {
        wrong.push(Kind::Lost.says(format!("job {id} was answered, and is {state}")));
    }
    wrong
}

/// The box's own recount, and that all balances sum to zero. Returns what is wrong.
///
/// # Errors
/// When the box is gone.
pub fn judge_box(running: &Running) -> io::Result<Vec<Finding>> {
    let mut operator = running.operator()?;
    let mut wrong = Vec::new();
    let report = operator.send("GET", "/admin/invariants", "")?.value();
    if report["ok"] != true {
        wrong.push(Kind::Wrong.says(format!("invariants: {}", report["violations"])));
    }
    let balances = operator.send("GET", "/admin/balances", "")?.value();
    let lines = balances["balances"].as_array().map_or(&[][..], Vec::as_slice);
    let sum: i128 = lines.iter().filter_map(|line| micro(line["balance"].as_str()?)).sum();
    if sum != 0 {
        let text = format!("{} balances sum to {sum} micro-credits", lines.len());
        wrong.push(Kind::Wrong.says(text));
    }
    Ok(wrong)
}

/// Credits as they are shown, in millionths.
fn micro(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.')?;
    let (sign, whole) = whole.strip_prefix('-').map_or((1, whole), |whole| (-1, whole));
    Some(sign * (whole.parse::<i128>().ok()? * 1_000_000 + part.parse::<i128>().ok()?))
}
