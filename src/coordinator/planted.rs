//! What planted bugs do that the real code has no words for.

use super::Coordinator;
use super::event::Completion;
use super::job::JobRow;
use super::ledger::{Account, Settlement, Split};
use crate::ids::{JobId, NodeId, ReservationId};

/// Settled jobs that `CapturedTwice` can settle again.
const SETTLED_KEPT_MAX: usize = 64;

impl Coordinator {
    /// Notes a settled job, for `capture_again`.
    pub(super) fn note_settled(&mut self, reservation: Option<ReservationId>, row: &JobRow) {
        let Some(reservation) = reservation else { return };
        self.settled.insert(reservation, row.clone());
        if self.settled.len() > SETTLED_KEPT_MAX {
            self.settled.pop_first();
        }
    }

    /// `CapturedTwice`: settles a job again.
    pub(super) fn capture_again(&mut self, completion: &Completion) {
        let Some(row) = self.settled.remove(&completion.reservation) else { return };
        let (environment, payer, cost) = (row.spec.environment, row.payer(), row.charged);
        let account = Account { environment, owner: payer.clone() };
        if self.ledger.hold(&account, cost).is_err() {
            return;
        }
        let split = Split { node: row.node.as_ref(), fee_ppm: self.limits.fee_ppm };
        let job: JobId = row.id;
        let settlement =
            Settlement { job, environment, payer: &payer, held: cost, cost, split, at: self.now };
        let posted = self.ledger.settle(settlement);
        self.keep_posted(posted);
    }

    /// `StaleReservationAccepted`: takes a message about a dead reservation for one about a live one.
    pub(super) fn mistaken_for(&self, node: &NodeId) -> Option<ReservationId> {
        let key = self.fleet.find(node)?;
        self.fleet.held_by(key).next().map(|reservation| reservation.id)
    }
}
