//! The steps of a trace in words: above all, why a node was chosen and the others were not. What a step says beyond
//! what is known here stays as it is: it is shown after the words.

use serde_json::{Map, Value};

use super::super::terminal::one_line;
use super::offset;

type Step = Map<String, Value>;

/// A step in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// The first is the step itself, the others say more about it.
    pub(super) lines: Vec<String>,
    /// The members of the step that they tell.
    pub(super) told: &'static [&'static str],
}

impl Words {
    fn new(line: impl Into<String>, told: &'static [&'static str]) -> Self {
        Self { lines: vec![line.into()], told }
    }
}

/// The words of a step; `None` for one that isn't known here.
pub(super) fn of(step: &Step, start: u64) -> Option<Words> {
    let text = |key: &str| step.get(key).and_then(Value::as_str).map(one_line);
    let number = |key: &str| step.get(key).and_then(Value::as_u64);
    Some(match step.get("event")?.as_str()? {
        "submitted" => Words::new(submitted(number("ahead")?), &["ahead"]),
        "placed" => return placed(step),
        "not_runnable" => Words::new(format!("it can't run for now: {}", text("why")?), &["why"]),
        "fell_back" => Words::new(format!("from here on {} stands in", text("model")?), &["model"]),
        "accepted" => Words::new("the node began", &[]),
        "declined" => Words::new(format!("the node refused it: {}", text("reason")?), &["reason"]),
        "attempt_failed" => Words::new(failed(step.get("error")?)?, &["error"]),
        "timed_out" => Words::new(format!("the {} deadline passed", text("deadline")?), &["deadline"]),
        "taken_back" => Words::new("the assignment was taken back before the node saw it", &[]),
        "lost" => Words::new("the node lost it", &[]),
        "recovered" => Words::new("the box had started again, and the job waits again", &[]),
        "revoked" => {
            let (delivered, written) = (number("delivered")?, number("written")?);
            let line = format!("the output was closed: its client had taken {delivered} of {written} chunks");
            Words::new(line, &["delivered", "written"])
        }
        "requeued" => Words::new(requeued(step, start)?, &["not_before"]),
        "cancel_requested" => Words::new(cancelled(&text("cause")?), &["cause"]),
        "ended" => Words::new(text("state")?, &["state"]),
        _ => return None,
    })
}

fn submitted(ahead: u64) -> String {
    match ahead {
        0 => "no job of its model and tier waited before it".to_owned(),
        1 => "1 job of its model and tier waited before it".to_owned(),
        ahead => format!("{ahead} jobs of its model and tier waited before it"),
    }
}

/// Why this node, and what spoke against each of the others.
fn placed(step: &Step) -> Option<Words> {
    let score = Score::of(step.get("score_us")?)?;
    let node = one_line(step.get("node")?.as_str()?);
    let looked_at = step.get("candidates")?.as_u64()?;
    let how = match (step.get("by")?.as_str()?, looked_at) {
        ("job", 0 | 1) => "the only node that could run it and had room".to_owned(),
        ("job", looked_at) => format!("best of {looked_at} looked at"),
        ("node", _) => "it had room, and this job was next for it".to_owned(),
        _ => return None,
    };
    let sum = grouped(score.sum);
    let mut lines = vec![format!("on {node}: {sum} us expected ({}), {how}", score.terms_in_words())];
    let losers = step.get("losers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for loser in losers {
        lines.push(lost(loser, &score)?);
    }
    Some(Words { lines, told: &["node", "candidates", "by", "score_us", "losers"] })
}

fn lost(loser: &Value, winner: &Score) -> Option<String> {
    let node = one_line(loser.get("node")?.as_str()?);
    Some(match loser.get("why")?.as_str()? {
        "slower" => {
            let score = Score::of(loser.get("score_us")?)?;
            let against = score.against(winner);
            let against = if against.is_empty() { "the order of nodes decided".to_owned() } else { against };
            format!("{node} would have taken {} us ({against})", grouped(score.sum))
        }
        "failed_before" => format!("{node} had failed this job"),
        "no_room" => format!("{node} had no room"),
        other => format!("{node}: {}", one_line(other)),
    })
}

/// A score as it was sent: the sum, and the terms in their order.
struct Score {
    sum: i64,
    terms: Vec<(String, i64)>,
}

/// The terms in the order of telling; others follow them.
const TERMS: [&str; 6] = ["wait", "load", "prefill", "decode", "prefix", "reliability"];

impl Score {
    fn of(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let sum = object.get("sum_us")?.as_i64()?;
        let named = |(key, value): (&String, &Value)| {
            let name = key.strip_suffix("_us").filter(|name| *name != "sum")?;
            Some((one_line(name), value.as_i64()?))
        };
        let mut terms: Vec<(String, i64)> = object.iter().filter_map(named).collect();
        terms.sort_by_key(|(name, _)| TERMS.iter().position(|term| term == name).unwrap_or(TERMS.len()));
        Some(Self { sum, terms })
    }

    fn terms_in_words(&self) -> String {
        let term = |(name, us): &(String, i64)| format!("{name} {}", grouped(*us));
        self.terms.iter().map(term).collect::<Vec<_>>().join(", ")
    }

    /// Where this one is worse or better than the winner.
    fn against(&self, winner: &Score) -> String {
        let of_winner =
            |name: &str| winner.terms.iter().find(|(other, _)| other == name).map_or(0, |(_, us)| *us);
        let difference = |(name, us): &(String, i64)| match us.saturating_sub(of_winner(name)) {
            0 => None,
            more if more > 0 => Some(format!("{name} {} more", grouped(more))),
            less => Some(format!("{name} {} less", grouped(less.saturating_neg()))),
        };
        self.terms.iter().filter_map(difference).collect::<Vec<_>>().join(", ")
    }
}

fn failed(error: &Value) -> Option<String> {
    let what = match error.get("class")?.as_str()? {
        "terminal" => "the request is at fault, so it isn't tried again",
        "node" => "the node is at fault",
        "transient" => "it may go better later",
        _ => return None,
    };
    Some(format!("the attempt failed, and {what}: {}", one_line(error.get("message")?.as_str()?)))
}

fn requeued(step: &Step, start: u64) -> Option<String> {
    let (at, not_before) = (super::time_us(step, "at")?, super::time_us(step, "not_before")?);
    Some(if not_before > at {
        format!("it waits again, not before {}", offset(start, not_before))
    } else {
        "it waits again".to_owned()
    })
}

fn cancelled(cause: &str) -> String {
    match cause {
        "client" => "its client left, or cancelled it".to_owned(),
        "operator" => "the operator cancelled it".to_owned(),
        "shutdown" => "the server stops".to_owned(),
        "interrupted" => "the box restarted under it".to_owned(),
        other => other.to_owned(),
    }
}

/// With a comma between thousands.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(step: Value) -> Vec<String> {
        of(step.as_object().expect("an object"), 1_000_000).map(|words| words.lines).unwrap_or_default()
    }

    fn score(prefill: i64, decode: i64) -> Value {
        json!({"wait_us": 0, "load_us": 0, "prefill_us": prefill, "decode_us": decode, "prefix_us": -60,
            "reliability_us": 0, "sum_us": prefill + decode - 60})
    }

    #[test]
    fn why_this_node_and_not_the_others() {
        let losers = json!([{"node": "node_y", "why": "slower", "score_us": score(1_140, 960)},
            {"node": "node_v", "why": "slower", "score_us": score(240, 1_060)},
            {"node": "node_z", "why": "failed_before"}, {"node": "node_w", "why": "no_room"}]);
        let placed = |by: &str, candidates: u64, losers: &Value| {
            told(
                json!({"event": "placed", "reservation": "res_1", "node": "node_x", "candidates": candidates,
                "by": by, "score_us": score(240, 1_060), "losers": losers}),
            )
        };
        let chosen = "on node_x: 1,240 us expected (wait 0, load 0, prefill 240, decode 1,060, prefix -60, reliability 0)";
        for (by, candidates, losers, expected) in [
            (
                "job",
                3,
                &losers,
                vec![
                    format!("{chosen}, best of 3 looked at"),
                    "node_y would have taken 2,040 us (prefill 900 more, decode 100 less)".into(),
                    "node_v would have taken 1,240 us (the order of nodes decided)".into(),
                    "node_z had failed this job".into(),
                    "node_w had no room".into(),
                ],
            ),
            ("job", 1, &json!([]), vec![format!("{chosen}, the only node that could run it and had room")]),
            ("node", 1, &json!([]), vec![format!("{chosen}, it had room, and this job was next for it")]),
        ] {
            assert_eq!(placed(by, candidates, losers), expected);
        }
        assert!(placed("a newer way", 1, &json!([])).is_empty(), "what isn't known is shown as it is");
    }

    #[test]
    fn every_other_step_in_words() {
        for (step, line) in [
            (json!({"event": "submitted", "ahead": 0}), "no job of its model and tier waited before it"),
            (json!({"event": "submitted", "ahead": 7}), "7 jobs of its model and tier waited before it"),
            (
                json!({"event": "not_runnable", "why": "no node has this version of the model"}),
                "it can't run for now: no node has this version of the model",
            ),
            (json!({"event": "fell_back", "model": "small"}), "from here on small stands in"),
            (json!({"event": "accepted"}), "the node began"),
            (
                json!({"event": "declined", "reason": "no\nroom \u{1b}[2J"}),
                "the node refused it: no room \u{fffd}[2J",
            ),
            (
                json!({"event": "attempt_failed", "error": {"class": "node", "message": "CUDA"}}),
                "the attempt failed, and the node is at fault: CUDA",
            ),
            (
                json!({"event": "attempt_failed", "error": {"class": "terminal", "message": "no"}}),
                "the attempt failed, and the request is at fault, so it isn't tried again: no",
            ),
            (
                json!({"event": "attempt_failed", "error": {"class": "transient", "message": "busy"}}),
                "the attempt failed, and it may go better later: busy",
            ),
            (json!({"event": "timed_out", "deadline": "progress"}), "the progress deadline passed"),
            (json!({"event": "taken_back"}), "the assignment was taken back before the node saw it"),
            (json!({"event": "lost"}), "the node lost it"),
            (json!({"event": "recovered"}), "the box had started again, and the job waits again"),
            (
                json!({"event": "revoked", "delivered": 2, "written": 5}),
                "the output was closed: its client had taken 2 of 5 chunks",
            ),
            (json!({"event": "requeued", "at": 2.0, "not_before": 2.0}), "it waits again"),
            (
                json!({"event": "requeued", "at": 2.0, "not_before": 2.5}),
                "it waits again, not before +1500.000 ms",
            ),
            (json!({"event": "cancel_requested", "cause": "operator"}), "the operator cancelled it"),
            (json!({"event": "cancel_requested", "cause": "shutdown"}), "the server stops"),
            (json!({"event": "ended", "state": "failed"}), "failed"),
        ] {
            assert_eq!(told(step.clone()), [line], "{step}");
        }
        for unknown in [json!({"event": "new"}), json!({"event": "submitted"}), json!({})] {
            assert!(told(unknown.clone()).is_empty(), "{unknown}");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "-1,234,567"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
