//! Reads the text of `/metrics`.

use serde_json::Value;
use std::collections::BTreeMap;

/// One scrape: every sample by its full name, labels included.
pub struct Metrics(BTreeMap<String, f64>);

/// What a job or a client holds while it lives: all zero on a box that nobody uses.
const HELD: [&str; 8] = [
    "switchbox_jobs",
    "switchbox_reservations",
    "switchbox_holds",
    "switchbox_held_credits",
    "switchbox_output_bytes_held",
    "switchbox_body_bytes_held",
    "switchbox_clients",
    "switchbox_outputs",
];

impl Metrics {
    pub fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Metrics(samples.map(parse_sample).collect())
    }

    /// The sum over all samples of that name whose labels contain each of `labels` (as `key="value"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let samples = self.0.iter().filter(|(full, _)| full.split('{').next() == Some(name));
        samples
            .filter(|(full, _)| labels.iter().all(|l| full.contains(l)))
            .map(|(_, value)| *value as u64)
            .sum()
    }

    pub fn total(&self, name: &str) -> u64 {
        self.sum(name, &[])
    }

    pub fn jobs(&self, state: &str) -> u64 {
        self.sum("switchbox_jobs", &[&format!("state=\"{state}\"")])
    }

    pub fn finished(&self, end: &str) -> u64 {
        self.sum("switchbox_jobs_finished_total", &[&format!("end=\"{end}\"")])
    }

    pub fn disconnects(&self, phase: &str) -> u64 {
        self.sum("switchbox_disconnects_total", &[&format!("phase=\"{phase}\"")])
    }

    pub fn executor_cancelled(&self, phase: &str) -> u64 {
        self.sum("switchbox_executor_cancelled_total", &[&format!("phase=\"{phase}\"")])
    }

    /// The samples of what can be held that aren't zero; a metric that is missing altogether is named too.
    pub fn left_behind(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .0
            .iter()
            .filter(|(full, value)| HELD.iter().any(|h| full.split('{').next() == Some(h)) && **value != 0.0)
            .map(|(full, value)| format!("{full} {value}"))
            .collect();
        let missing = HELD.iter().filter(|h| !self.0.keys().any(|full| full.split('{').next() == Some(h)));
        left.extend(missing.map(|h| format!("{h} is not shown")));
        left
    }

    /// Where the recount's value isn't the metric of the same name; an object holds one number for each label value.
    pub fn mismatch(&self, name: &str, counted: &Value) -> Option<String> {
        let metric = format!("switchbox_{name}");
        let differs = |label: &str, shown: u64, number: &Value| {
            (Some(shown) != number.as_u64())
                .then(|| format!("{metric} {label}: shown {shown}, counted {number}"))
        };
        match counted {
            Value::Object(parts) => parts.iter().find_map(|(label, number)| {
                differs(label, self.sum(&metric, &[&format!("=\"{label}\"")]), number)
            }),
            number => differs("", self.total(&metric), number),
        }
    }
}

fn parse_sample(line: &str) -> (String, f64) {
    let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
    (name.to_owned(), value.parse().unwrap_or_else(|e| panic!("{line:?}: {e}")))
}
