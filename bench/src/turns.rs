//! Subjects that take turns within each round, so that what else the machine does falls on all of them. Ratios are
//! between two slices of the same round.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::child::Server;
use crate::client::post;
use crate::load::{Background, Load, Statuses};
use crate::stats::{Times, median, median_ratios, median_times};

/// A small job's request is this long, and so is a floor's answer.
pub(crate) const BODY_BYTES: usize = 1 << 10;
/// A long prompt's request is this long.
pub(crate) const LONG_BODY_BYTES: usize = 4 << 20;
/// Connections that send long prompts.
pub(crate) const LONG_CLIENTS: usize = 2;
const PATH: &str = "/v1/chat/completions";

/// What else a subject does while small jobs are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    LongPrompts,
}

/// One load that every subject gets in every round.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) clients: usize,
    pub(crate) beside: Beside,
}

impl Case {
    /// So many clients, and nothing else.
    pub(crate) const fn of(name: &'static str, clients: usize) -> Self {
        Self { name, clients, beside: Beside::Nothing }
    }
}

/// What is measured.
pub(crate) struct Subject {
    name: &'static str,
    /// Which subject it is held against: its place in the list.
    yardstick: usize,
    /// The one that answers clients, and those that it needs for that.
    servers: Vec<Server>,
    cases: Vec<Measured>,
}

#[derive(Default)]
struct Measured {
    rounds: Vec<Times>,
    statuses: Statuses,
    long_statuses: Statuses,
    answer_bytes: usize,
}

impl Subject {
    /// The first of `servers` answers the clients.
    pub(crate) fn new(name: &'static str, yardstick: usize, servers: Vec<Server>) -> Self {
        Self { name, yardstick, servers, cases: Vec::new() }
    }

    fn measure(&mut self, at: usize, case: &Case, duration: Duration) -> Result<()> {
        let address = self.servers[0].address();
        let request = |bytes, tokens_max| Arc::from(post(address, PATH, chat(bytes, tokens_max).as_bytes()));
        let load = Load { address, request: request(BODY_BYTES, 1_000), clients: case.clients, duration };
        let long = (case.beside == Beside::LongPrompts).then(|| {
            let request = request(LONG_BODY_BYTES, 16);
            Background::start(Load { request, clients: LONG_CLIENTS, ..load.clone() })
        });
        let slice = load.run().map_err(|error| format!("{}, {}: {error}", self.name, case.name))?;
        let measured = &mut self.cases[at];
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
pub(crate) fn chat(bytes: usize, tokens_max: u32) -> String {
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

/// Subjects with the cases that they are measured in.
pub(crate) struct Turns {
    subjects: Vec<Subject>,
    cases: &'static [Case],
}

impl Turns {
    /// The first subject is the floor that every other is also held against.
    pub(crate) fn new(mut subjects: Vec<Subject>, cases: &'static [Case]) -> Self {
        for subject in &mut subjects {
            subject.cases = cases.iter().map(|_| Measured::default()).collect();
        }
        Self { subjects, cases }
    }

    /// Measures all, for so long together. Says how long a slice was.
    pub(crate) fn run(&mut self, seconds: u32, rounds: u32) -> Result<Duration> {
        let slices = rounds as usize * self.cases.len() * self.subjects.len();
        let slice = Duration::from_secs(seconds.into()).div_f64(slices as f64);
        for round in 0..rounds as usize {
            for (at, case) in self.cases.iter().enumerate() {
                for turn in 0..self.subjects.len() {
                    let subject = (round + turn) % self.subjects.len();
                    self.subjects[subject].measure(at, case, slice)?;
                }
            }
            eprintln!("round {} of {rounds} done", round + 1);
        }
        Ok(slice)
    }

    /// Each subject's name and times in one case, as [`Turns::ratios`] to its yardstick.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.subjects.iter().map(|subject| subject.name)
    }

    /// The name of what a subject is held against.
    pub(crate) fn yardstick(&self, subject: usize) -> &'static str {
        self.subjects[self.subjects[subject].yardstick].name
    }

    /// Medians over rounds.
    pub(crate) fn times(&self, subject: usize, case: usize) -> Times {
        median_times(&self.subjects[subject].cases[case].rounds)
    }

    /// Medians of the ratios of two subjects within each round.
    pub(crate) fn ratios(&self, subject: usize, over: usize, case: usize) -> Times {
        let rounds = |subject: usize| &self.subjects[subject].cases[case].rounds;
        median_ratios(rounds(subject), rounds(over))
    }

    /// The same, over what the subject is held against.
    pub(crate) fn over_yardstick(&self, subject: usize, case: usize) -> Times {
        self.ratios(subject, self.subjects[subject].yardstick, case)
    }

    /// Medians of the ratios of two cases of a subject within each round.
    pub(crate) fn between_cases(&self, subject: usize, case: usize, over: usize) -> Times {
        let cases = &self.subjects[subject].cases;
        median_ratios(&cases[case].rounds, &cases[over].rounds)
    }

    /// Jobs a second at most, over those cases: the median over rounds, and its ratio to the yardstick's.
    pub(crate) fn best_rate(&self, subject: usize, cases: &[usize]) -> (f64, f64) {
        let best = |subject: usize| -> Vec<f64> {
            let measured = &self.subjects[subject].cases;
            let rounds = measured.first().map_or(0, |measured| measured.rounds.len());
            let rate = |round: usize| cases.iter().map(move |case| measured[*case].rounds[round].rate);
            (0..rounds).map(|round| rate(round).fold(0.0, f64::max)).collect()
        };
        let (own, yardstick) = (best(subject), best(self.subjects[subject].yardstick));
        let ratio = median(own.iter().zip(&yardstick).map(|(own, other)| own / other));
        (median(own), ratio)
    }

    /// Answers to long prompts by status.
    pub(crate) fn long_statuses(&self, subject: usize, case: usize) -> &Statuses {
        &self.subjects[subject].cases[case].long_statuses
    }

    /// What was measured, by subject and case.
    pub(crate) fn results(&self) -> Result<Map<String, Value>> {
        let mut all = Map::new();
        for (index, subject) in self.subjects.iter().enumerate() {
            let mut cases = Map::new();
            for (at, case) in self.cases.iter().enumerate() {
                cases.insert(case.name.to_owned(), self.case_json(index, at));
            }
            let peaks: Result<Vec<u64>> =
                subject.servers.iter().map(|server| server.process().memory_peak_bytes()).collect();
            let peaks = peaks?;
            cases.insert("memory_peak_bytes".to_owned(), json!(peaks[0]));
            if peaks.len() > 1 {
                cases.insert("agents_memory_peak_bytes".to_owned(), json!(peaks[1..]));
            }
            all.insert(subject.name.to_owned(), Value::Object(cases));
        }
        Ok(all)
    }

    fn case_json(&self, subject: usize, case: usize) -> Value {
        let measured = &self.subjects[subject].cases[case];
        let mut value = json!({
            "median": times_json(self.times(subject, case)),
            "over_floor": ratios_json(self.ratios(subject, 0, case)),
            "rounds": measured.rounds.iter().copied().map(times_json).collect::<Vec<_>>(),
            "statuses": measured.statuses, "long_statuses": measured.long_statuses,
            "answer_bytes": measured.answer_bytes,
        });
        if self.subjects[subject].yardstick != 0 {
            let over = format!("over {}", self.yardstick(subject));
            value[over] = ratios_json(self.over_yardstick(subject, case));
        }
        value
    }

    /// Numbers of a run in which small jobs failed are worth nothing.
    pub(crate) fn check(&self) -> Result<()> {
        for subject in &self.subjects {
            for (case, measured) in self.cases.iter().zip(&subject.cases) {
                if measured.statuses.keys().any(|status| *status != 200) || measured.statuses.is_empty() {
                    let (name, statuses) = (subject.name, &measured.statuses);
                    return Err(format!("{name}, {}: answers by status {statuses:?}", case.name).into());
                }
            }
        }
        Ok(())
    }
}

/// Times as JSON.
pub(crate) fn times_json(times: Times) -> Value {
    let Times { p50_us, p99_us, p999_us, rate } = times;
    json!({ "p50_us": p50_us, "p99_us": p99_us, "p999_us": p999_us, "rate": rate })
}

/// Ratios of times as JSON.
pub(crate) fn ratios_json(ratios: Times) -> Value {
    let Times { p50_us, p99_us, p999_us, rate } = ratios;
    json!({ "p50": p50_us, "p99": p99_us, "p999": p999_us, "rate": rate })
}

/// The settings that all such measurements have.
pub(crate) fn settings(seconds: u32, rounds: u32, slice: Duration, data_parent: &PathBuf) -> Value {
    json!({
        "seconds": seconds, "rounds": rounds, "slice_s": slice.as_secs_f64(), "body_bytes": BODY_BYTES,
        "data_parent": data_parent,
    })
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

    const TWO: [Case; 2] = [Case::of("few", 1), Case::of("many", 2)];

    fn measured(name: &'static str, yardstick: usize, rates: [[f64; 2]; 2]) -> Subject {
        let rounds =
            |case: usize| rates.iter().map(move |round| Times { rate: round[case], ..Times::default() });
        let cases = (0..2).map(|case| Measured { rounds: rounds(case).collect(), ..Measured::default() });
        Subject { cases: cases.collect(), ..Subject::new(name, yardstick, Vec::new()) }
    }

    #[test]
    fn the_best_rate_is_taken_within_each_round() {
        let floor = measured("floor", 0, [[10.0, 20.0], [40.0, 30.0]]);
        let product = measured("product", 0, [[10.0, 8.0], [5.0, 10.0]]);
        let turns = Turns { subjects: vec![floor, product], cases: &TWO };
        assert_eq!(turns.best_rate(0, &[0, 1]), (30.0, 1.0));
        assert_eq!(turns.best_rate(1, &[0, 1]), (10.0, 0.375));
        assert_eq!(turns.best_rate(1, &[0]), (7.5, 0.5625));
    }
}
