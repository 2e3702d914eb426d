//! Attempts in this process's runtimes: started, and stopped by name. The box's own node takes them from its outbox, in
//! order, on the io thread; an agent starts what a box elsewhere sent it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Attempt, Catalog, Stop};
use crate::clock::Clock;
use crate::coordinator::effect::Assignment;
use crate::ids::ReservationId;
use crate::node::{NodeMail, Slot};
use crate::outbox::{Commits, Outbox};
use crate::output::Output;

/// Attempts known here before those that ended are swept out.
const SWEEP_ATTEMPTS_MIN: usize = 64;

/// Starts attempts, and remembers how to stop them.
pub struct Attempts {
    catalog: Arc<Catalog>,
    clock: Clock,
    /// The stop of every attempt that may still run; an attempt that ended has let go of its own.
    stops: HashMap<ReservationId, Arc<Stop>>,
    sweep_at: usize,
}

impl Attempts {
    /// None yet, on the models of `catalog`.
    pub fn new(catalog: Arc<Catalog>, clock: Clock) -> Self {
        Self { catalog, clock, stops: HashMap::new(), sweep_at: SWEEP_ATTEMPTS_MIN }
    }

    /// Starts one. Never waits; it may have ended when this returns.
    pub fn start(&mut self, assignment: Assignment, output: Arc<Output>, slot: Slot) {
        let Some(entry) = self.catalog.find(&assignment.model) else {
            slot.declined(format!("the model `{}` isn't here", assignment.model));
            return;
        };
        let stop = Arc::new(Stop::default());
        let reservation = assignment.reservation;
        let attempt = Attempt { assignment, output, slot, stop: Arc::clone(&stop), clock: self.clock };
        entry.runtime.start(attempt);
        if Arc::strong_count(&stop) > 1 {
            self.remember(reservation, stop);
        }
    }

    /// Tells one to stop, if it still runs: it answers through its slot.
    pub fn stop(&mut self, reservation: ReservationId) {
        if let Some(stop) = self.stops.remove(&reservation) {
            stop.tell();
        }
    }

    fn remember(&mut self, reservation: ReservationId, stop: Arc<Stop>) {
        if self.stops.len() >= self.sweep_at {
            self.stops.retain(|_, stop| Arc::strong_count(stop) > 1);
            self.sweep_at = (self.stops.len() * 2).max(SWEEP_ATTEMPTS_MIN);
        }
        self.stops.insert(reservation, stop);
    }
}

/// The local node's side of its session.
pub struct LocalNode {
    outbox: Arc<Outbox<NodeMail>>,
    commits: Arc<Commits>,
    attempts: Attempts,
}

impl LocalNode {
    /// A node that reads from `outbox`.
    pub fn new(
        outbox: Arc<Outbox<NodeMail>>,
        commits: Arc<Commits>,
        catalog: Arc<Catalog>,
        clock: Clock,
    ) -> Self {
        Self { outbox, commits, attempts: Attempts::new(catalog, clock) }
    }

    /// Serves for ever.
    pub async fn run(mut self) {
        loop {
            // An echo ends before this comes back for the next: others must get their turn in between.
            tokio::task::consume_budget().await;
            let mail = std::future::poll_fn(|cx| self.outbox.poll_next(cx, &self.commits)).await;
            match mail {
                NodeMail::Assign { assignment, output, slot } => {
                    self.attempts.start(assignment, output, slot)
                }
                NodeMail::Stop(reservation) => self.attempts.stop(reservation),
            }
        }
    }
}
