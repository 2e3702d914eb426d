//! All connections cut at once, and all agents dial again at once, while clients go on to be served by the box's own
//! node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::steady::Steady;
use super::swarm::Swarm;
use crate::Result;
use crate::admin::Admin;
use crate::stats::{Times, percentile};
use crate::turns::times_json;

/// How long clients are served before a storm, to compare with: the first part of it warms up.
const IDLE: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_secs(1);

/// What one storm came to.
pub(super) struct Storm {
    /// Until half of the agents were connected again, and until the last was.
    pub(super) median: Duration,
    pub(super) slowest: Duration,
    /// Until the box gave work to all of them.
    pub(super) ready: Duration,
    /// Connections that came to nothing, by why.
    pub(super) refusals: BTreeMap<String, u64>,
    pub(super) idle: Times,
    pub(super) meanwhile: Times,
    /// Clients' jobs that failed.
    pub(super) failed: usize,
}

/// Cuts all connections, and waits until all agents are ready again.
pub(super) async fn storm(swarm: &mut Swarm, admin: &Admin, address: SocketAddr) -> Result<Storm> {
    let steady = Steady::start(address);
    let before = swarm.refusals();
    tokio::time::sleep(IDLE).await;
    let cut = Instant::now();
    swarm.redial(0..swarm.count());
    swarm.wait_joined(swarm.count()).await?;
    let end = Instant::now();
    admin.wait_ready(swarm.count()).await?;
    let ready = cut.elapsed();
    let answers = steady.stop()?;
    let mut nanos: Vec<u64> = swarm.joined_after(cut).iter().map(|after| after.as_nanos() as u64).collect();
    Ok(Storm {
        median: Duration::from_nanos(percentile(&mut nanos, 0.5)),
        slowest: Duration::from_nanos(percentile(&mut nanos, 1.0)),
        ready,
        refusals: since(&before, swarm.refusals()),
        idle: answers.times(cut - IDLE + WARM_UP, cut),
        meanwhile: answers.times(cut, end),
        failed: answers.failed(),
    })
}

/// What came to the counts since they were `before`.
fn since(before: &BTreeMap<String, u64>, now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = now.into_iter().map(|(why, count)| {
        let more = count - before.get(&why).copied().unwrap_or(0);
        (why, more)
    });
    more.filter(|(_, more)| *more > 0).collect()
}

impl Storm {
    /// How much longer the slowest jobs took than on an idle box.
    pub(super) fn p99_over_idle(&self) -> f64 {
        self.meanwhile.p99_us / self.idle.p99_us
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "median_s": self.median.as_secs_f64(), "slowest_s": self.slowest.as_secs_f64(),
            "ready_s": self.ready.as_secs_f64(), "refusals": self.refusals,
            "jobs_idle": times_json(self.idle), "jobs_meanwhile": times_json(self.meanwhile),
            "jobs_failed": self.failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_counted() {
        let counts = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
            counts.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect()
        };
        let before = counts(&[("HTTP 503", 3), ("it broke", 1)]);
        let now = counts(&[("HTTP 503", 5), ("it broke", 1), ("full", 2)]);
        assert_eq!(since(&before, now), counts(&[("HTTP 503", 2), ("full", 2)]));
    }
}
