//! How soon a box notices agents that are dead, counted from each one's last sign of life, by its own admin API.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::Order;
use super::swarm::Swarm;
use crate::Result;
use crate::admin::{Admin, standings};
use crate::stats::{median, percentile};

/// How often the box is asked: so much later than it happened something may be seen.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a box may take beyond its own time-out.
const PATIENCE: Duration = Duration::from_secs(60);
/// The metric that counts connections closed for silence.
const SILENT: &str = "switchbox_node_closes_total{code=\"silent\"}";

/// How long after their last sign of life agents were seen to be away.
pub(super) struct Detected {
    millis: Vec<u64>,
}

impl Detected {
    pub(super) fn median_s(&self) -> f64 {
        median(self.millis.iter().map(|millis| *millis as f64 / 1e3))
    }

    pub(super) fn slowest_s(&self) -> f64 {
        percentile(&mut self.millis.clone(), 1.0) as f64 / 1e3
    }

    pub(super) fn quickest_s(&self) -> f64 {
        percentile(&mut self.millis.clone(), 0.0) as f64 / 1e3
    }

    pub(super) fn json(&self) -> Value {
        json!({ "agents": self.millis.len(), "quickest_s": self.quickest_s(), "median_s": self.median_s(),
            "slowest_s": self.slowest_s() })
    }
}

/// Gives those agents an order that ends them for the box, and waits until it says so of each.
pub(super) async fn detect(
    swarm: &Swarm,
    admin: &Admin,
    numbers: Range<usize>,
    order: Order,
    timeout: Duration,
) -> Result<Detected> {
    let mut dead: BTreeMap<&str, usize> =
        numbers.clone().map(|number| (swarm.name(number), number)).collect();
    swarm.tell(numbers, order);
    let begun = Instant::now();
    let mut millis = Vec::new();
    while !dead.is_empty() {
        if begun.elapsed() > timeout + PATIENCE {
            return Err(format!("{} dead agents aren't away for the box", dead.len()).into());
        }
        let nodes = admin.ask("/admin/nodes").await?;
        let now = Instant::now();
        for (name, standing) in standings(&nodes) {
            if standing == "away"
                && let Some(number) = dead.remove(name)
            {
                millis.push(now.saturating_duration_since(swarm.sign_of(number)).as_millis() as u64);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(Detected { millis })
}

/// Connections that the box closed for silence so far.
pub(super) async fn closed_for_silence(admin: &Admin) -> Result<u64> {
    Ok(admin.metrics().await?.value(SILENT).unwrap_or(0))
}

/// Waits until the box has closed so many connections for silence; how long after `since`.
pub(super) async fn wait_closed(
    admin: &Admin,
    count: u64,
    since: Instant,
    timeout: Duration,
) -> Result<Duration> {
    loop {
        if closed_for_silence(admin).await? >= count {
            return Ok(since.elapsed());
        }
        if since.elapsed() > timeout + PATIENCE {
            return Err("the box doesn't close the connections of silent agents".into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_all_that_were_detected() {
        let detected = Detected { millis: vec![15_200, 15_000, 15_100] };
        assert_eq!((detected.quickest_s(), detected.median_s(), detected.slowest_s()), (15.0, 15.1, 15.2));
    }
}
