//! The box's own node: takes assignments and stops from its outbox, in order, on the io thread.

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

/// The local node's side of its session.
pub struct LocalNode {
    outbox: Arc<Outbox<NodeMail>>,
    commits: Arc<Commits>,
    catalog: Arc<Catalog>,
    clock: Clock,
    /// The stop of every attempt that may still run; an attempt that ended has let go of its own.
    stops: HashMap<ReservationId, Arc<Stop>>,
    sweep_at: usize,
}

impl LocalNode {
    /// A node that reads from `outbox`.
    pub fn new(
        outbox: Arc<Outbox<NodeMail>>,
        commits: Arc<Commits>,
        catalog: Arc<Catalog>,
        clock: Clock,
    ) -> Self {
        Self { outbox, commits, catalog, clock, stops: HashMap::new(), sweep_at: SWEEP_ATTEMPTS_MIN }
    }

    /// Serves for ever.
    pub async fn run(mut self) {
        loop {
            // An echo ends before this comes back for the next: others must get their turn in between.
            tokio::task::consume_budget().await;
            let mail = std::future::poll_fn(|cx| self.outbox.poll_next(cx, &self.commits)).await;
            match mail {
                NodeMail::Assign { assignment, output, slot } => self.start(assignment, output, slot),
                NodeMail::Stop(reservation) => {
                    if let Some(stop) = self.stops.remove(&reservation) {
                        stop.tell();
                    }
                }
            }
        }
    }

    fn start(&mut self, assignment: Assignment, output: Arc<Output>, slot: Slot) {
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

    fn remember(&mut self, reservation: ReservationId, stop: Arc<Stop>) {
        if self.stops.len() >= self.sweep_at {
            self.stops.retain(|_, stop| Arc::strong_count(stop) > 1);
            self.sweep_at = (self.stops.len() * 2).max(SWEEP_ATTEMPTS_MIN);
        }
        self.stops.insert(reservation, stop);
    }
}
