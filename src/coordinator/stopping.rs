//! How the server stops: nobody's durable work is lost by it, and nobody is left waiting on a connection.
//!
//! First no new work is let in; once no client waits on a connection, nothing more is started. At the deadline what is
//! tied to a connection ends, the box's own node gives its work back, and the rest stays as it is: the next start finds
//! it, as after a crash, but without an attempt counted.

use super::effect::{Answer, CancelCause};
use super::event::StoreRoom;
use super::fleet::Left;
use super::job::Job;
use super::slab::Key;
use super::{Admission, Coordinator};
use crate::ids::NodeId;

/// Jobs that one step ends: each writes rows and may free a node.
const ENDED_MAX: usize = 256;

impl Coordinator {
    /// Lets in no more work.
    pub(super) fn drain(&mut self) -> Answer {
        self.admission = self.admission.max(Admission::Draining);
        Answer::Draining { left: self.counts.live() }
    }

    /// Lets in no more work; once only work is left that outlives the process, starts none of it.
    pub(super) fn wind_down(&mut self) -> Answer {
        let awaited = self.waited_for(|job| job.row.spec.mode.is_attended());
        let admission = if awaited.is_empty() { Admission::Closed } else { Admission::Draining };
        self.admission = self.admission.max(admission);
        let waits = awaited.iter().filter(|key| self.jobs[**key].past.reservation.is_none()).count() as u64;
        Answer::Draining { left: waits + self.counts.jobs_reserved + self.counts.jobs_running }
    }

    /// Ends what can't outlive the process, and takes back what its own node runs.
    pub(super) fn end_service(&mut self) -> Answer {
        self.admission = Admission::Closed;
        for key in self.tied_jobs().into_iter().take(ENDED_MAX) {
            // Ending one may end another with it.
            if self.jobs.get(key).is_some() {
                self.cancel(key, CancelCause::Shutdown, Left::Stays);
            }
        }
        let local = self.fleet.find(&NodeId::local());
        local.into_iter().for_each(|local| self.withdraw(local));
        let counted = |job: Option<Key>| job.is_some_and(|key| self.jobs[key].row.spec.is_tied_to_client());
        let at_work = |local| self.fleet.held_by(local).filter(|held| !counted(held.job)).count();
        let left = self.tied_jobs().len() + local.map_or(0, at_work);
        Answer::Draining { left: left as u64 }
    }

    /// Live jobs that are nothing without the connection on which somebody waits for them.
    fn tied_jobs(&self) -> Vec<Key> {
        self.waited_for(|job| job.row.spec.is_tied_to_client())
    }

    /// Live jobs of a kind that somebody waits for, each once: those that a node has first, and last those that are
    /// already told to end.
    fn waited_for(&self, kind: impl Fn(&Job) -> bool) -> Vec<Key> {
        let mut keys: Vec<Key> = self.clients.waiting().map(|(_, key)| key).collect();
        keys.retain(|key| kind(&self.jobs[*key]));
        keys.sort_unstable_by_key(|key| {
            let Job { row, past, .. } = &self.jobs[*key];
            (row.cancel_requested.is_some(), past.reservation.is_none(), row.id)
        });
        keys.dedup();
        keys
    }

    /// Whether the service ends: what has begun to be read can't begin anew.
    pub(super) fn service_ends(&self) -> bool {
        self.admission == Admission::Closed
    }

    /// Whether jobs may be handed out: not while the service ends, nor while the disk is behind.
    pub(super) fn places(&self) -> bool {
        self.admission != Admission::Closed && self.store_room == StoreRoom::Open
    }
}
