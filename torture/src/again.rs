//! Requests with a key that were acknowledged before a restart, sent again after it: the same request is the same job,
//! another one under its key is refused, and neither is charged for again.

use std::io;

use crate::client::{Client, Kept, Keyed, Told};
use crate::finding::{Finding, Kind};
use crate::http::{Answer, Connection, Request};
use crate::load::{CHAT, JOBS, body_for};
use crate::process::Running;
use crate::recording::Counters;

/// What the box says of another request under a key that is taken.
const CONFLICT: u16 = 409;

/// Sends these again. What they are charged is judged with everything else: no submission is counted for them, so a job
/// too many is noticed, and so is a prompt that two jobs have answered.
///
/// # Errors
/// When the box is gone.
pub fn say_again(
    running: &Running,
    client: &Client,
    counters: &Counters,
    keyed: &[Keyed],
) -> io::Result<Vec<Finding>> {
    let mut connection = Connection::open(running.address)?;
    let mut wrong = Vec::new();
    for keyed in keyed {
        let answer = send(&mut connection, keyed, &keyed.prompt)?;
        let id = id_of(keyed, &answer);
        if id.as_ref() != Some(&keyed.id) {
            match (id, ended_without_success(&mut connection, &keyed.id)?) {
                // Its key was free again.
                (Some(id), true) => {
                    client.submits();
                    let told = if keyed.path == CHAT { Told::Answered } else { Told::Accepted };
                    client.told(&id, &keyed.prompt, Kept::Yes, told, counters.records());
                }
                (id, _) => wrong.push(other_job(keyed, id.as_deref(), &answer)),
            }
            continue;
        }
        let other = send(&mut connection, keyed, &format!("{} and more", keyed.prompt))?;
        if other.status != CONFLICT {
            let text = format!("another request under key {} of job {}", keyed.key, keyed.id);
            wrong.push(Kind::Wrong.says(format!("{text}: {} {}", other.status, other.text())));
        }
    }
    Ok(wrong)
}

fn send(connection: &mut Connection, keyed: &Keyed, prompt: &str) -> io::Result<Answer> {
    let body = body_for(keyed.path, keyed.model, prompt);
    let headers = [("idempotency-key", keyed.key.as_str())];
    connection.call(&Request { method: "POST", path: keyed.path, headers: &headers, body: &body })
}

/// The job that an answer is of; none if it is a refusal.
fn id_of(keyed: &Keyed, answer: &Answer) -> Option<String> {
    match answer.status {
        200 if keyed.path == CHAT => answer.job.clone(),
        200 | 202 => answer.value()["id"].as_str().map(str::to_owned),
        _ => None,
    }
}

/// Whether a job is at an end that frees its key.
fn ended_without_success(connection: &mut Connection, id: &str) -> io::Result<bool> {
    let shown = connection.send("GET", &format!("{JOBS}/{id}"), "")?;
    Ok(shown.status == 200
        && matches!(shown.value()["state"].as_str(), Some("failed" | "cancelled" | "expired")))
}

fn other_job(keyed: &Keyed, id: Option<&str>, answer: &Answer) -> Finding {
    let Keyed { key, prompt, id: first, .. } = keyed;
    match id {
        Some(id) => Kind::Twice.says(format!("`{prompt}` again under key {key} of job {first}: job {id}")),
        None => {
            let text = format!("`{prompt}` again under key {key} of job {first}");
            Kind::Lost.says(format!("{text}: {} {}", answer.status, answer.text()))
        }
    }
}
