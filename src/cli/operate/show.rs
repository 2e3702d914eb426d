//! Answers of the admin API for people. What is missing in an answer is shown as nothing; nothing here fails.

use serde_json::{Map, Value};

use super::super::terminal::one_line;

pub(super) type Answer = Map<String, Value>;

/// Text as it is on one line, numbers as they are, nothing for what isn't there.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

/// The entries of a list.
pub(super) fn rows<'a>(answer: &'a Answer, list: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

/// The entries of a list on one line.
pub(super) fn words(value: &Value) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text).collect::<Vec<_>>().join("+")
}

/// Lines with their columns one below the other.
pub(super) fn table(head: &[&str], body: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<&Vec<String>> = [&head].into_iter().chain(body).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let shown = |line: &&Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(shown).collect()
}

/// Invites that are open.
pub(super) fn invites(answer: &Answer) -> String {
    let line = |invite: &Value| {
        let cell = |key: &str| text(&invite[key]);
        let left = invite["expires_at"].as_f64().zip(invite["made_at"].as_f64());
        let life = left.map_or(String::new(), |(until, made)| format!("{:.0} s", until - made));
        vec![
            cell("invite"),
            cell("trust"),
            words(&invite["environments"]),
            cell("account"),
            cell("region"),
            life,
        ]
    };
    let body: Vec<Vec<String>> = rows(answer, "invites").map(line).collect();
    table(&["invite", "trust", "environments", "account", "region", "good for"], &body)
}

/// Where a job stands.
pub(super) fn job(job: &Answer) -> String {
    let shown = |key: &str| job.get(key).map(text).unwrap_or_default();
    let mut lines = vec![
        format!("{}  {}", shown("job"), shown("state")),
        format!(
            "  {} of namespace {} for {}, tier {}, {}",
            shown("mode"),
            shown("namespace"),
            shown("model"),
            shown("tier"),
            shown("environment")
        ),
    ];
    if let Some(position) = job.get("position").and_then(Value::as_u64) {
        lines.push(format!("  waits, at most number {position} of its model and tier"));
    }
    if let (Some(at), Some(from)) =
        (job.get("starts_at").and_then(Value::as_f64), job.get("submitted_at").and_then(Value::as_f64))
    {
        lines.push(format!("  may start {:.1} s after it came", at - from));
    }
    if let Some(why) = job.get("not_runnable_why").and_then(Value::as_str) {
        lines.push(format!("  can't run for now: {}", one_line(why)));
    }
    for (at, attempt) in rows(job, "history").enumerate() {
        let outcome = match &attempt["outcome"] {
            Value::Object(outcome) => outcome.iter().map(|(what, why)| failure(what, why)).collect(),
            other => text(other),
        };
        lines.push(format!("  attempt {} on {}: {outcome}", at + 1, text(&attempt["node"])));
    }
    lines.push(format!("  held {} and charged {} credits", shown("held"), shown("charged")));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn failure(what: &str, why: &Value) -> String {
    let why = why.get("message").unwrap_or(why);
    format!("{} ({})", one_line(&what.replace('_', " ")), text(why))
}

/// What became of a cancel.
pub(super) fn cancelled(answer: &Answer) -> String {
    match answer.get("state").and_then(Value::as_str) {
        Some("cancelling") => "its node was told; it ends when that has stopped\n".to_owned(),
        _ => "cancelled\n".to_owned(),
    }
}

/// The job that a dead letter became.
pub(super) fn requeued(answer: &Answer) -> String {
    format!("requeued as {}\n", answer.get("job").map(text).unwrap_or_default())
}

/// Jobs that failed.
pub(super) fn dead_letters(answer: &Answer) -> String {
    let line = |letter: &Value| vec![text(&letter["job"]), text(&letter["requeued_as"])];
    table(&["job", "requeued as"], &rows(answer, "dead_letters").map(line).collect::<Vec<_>>())
}

/// What a pause holds back.
pub(super) fn paused(answer: &Answer) -> String {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (waiting, expiring) = (number("waiting"), number("expiring_within_the_hour"));
    format!("paused: {waiting} jobs wait behind it, and {expiring} of them would expire within the hour\n")
}

/// A command that has nothing else to say.
pub(super) fn done(_: &Answer) -> String {
    "done\n".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(show: fn(&Answer) -> String, answer: Value) -> String {
        show(answer.as_object().expect("an object"))
    }

    #[test]
    fn a_job_tells_where_it_stands() {
        let waiting = json!({"job": "job_1", "state": "queued", "mode": "polling", "namespace": "a", "model": "tiny",
            "tier": "batch", "environment": "mainnet", "position": 3, "submitted_at": 10.0, "starts_at": 12.5,
            "not_runnable_why": "its model, namespace or tier is paused", "held": "0.1", "charged": "0",
            "history": [{"node": "node_x", "outcome": "lost"},
                {"node": "node_y", "outcome": {"failed": {"class": "node", "message": "CUDA\\n\u{1b}"}}},
                {"node": "node_z", "outcome": {"timed_out": "progress"}}]});
        let text = shown(job, waiting);
        for line in [
            "job_1  queued\n  polling of namespace a for tiny, tier batch, mainnet\n",
            "  waits, at most number 3 of its model and tier\n  may start 2.5 s after it came\n",
            "  can't run for now: its model, namespace or tier is paused\n",
            "  attempt 1 on node_x: lost\n",
            "  attempt 2 on node_y: failed (CUDA",
            "  attempt 3 on node_z: timed out (progress)\n",
            "  held 0.1 and charged 0 credits\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn lists_are_tables() {
        let list = json!({"dead_letters": [{"job": "job_2", "requeued_as": "job_3"}, {"job": "job_1", "requeued_as": null}]});
        assert_eq!(shown(dead_letters, list), "job    requeued as\njob_2  job_3\njob_1\n");
    }

    #[test]
    fn commands_say_what_they_did() {
        for (show, answer, text) in [
            (
                paused as fn(&Answer) -> String,
                json!({"waiting": 3, "expiring_within_the_hour": 1}),
                "paused: 3 jobs wait behind it, and 1 of them would expire within the hour\n",
            ),
            (requeued, json!({"job": "job_2"}), "requeued as job_2\n"),
            (cancelled, json!({"state": "cancelled"}), "cancelled\n"),
            (cancelled, json!({"state": "cancelling"}), "its node was told; it ends when that has stopped\n"),
            (done, json!({"done": true}), "done\n"),
        ] {
            assert_eq!(shown(show, answer), text);
        }
    }
}
