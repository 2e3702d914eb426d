//! The disk and the power: group commits, crashes, restarts, and the end of a run.
//!
//! What was acknowledged is never lost here; everything else may be.

use switchbox::coordinator::Coordinator;
use switchbox::coordinator::effect::When;
use switchbox::coordinator::event::{Event, Question, StoreRoom};
use switchbox::ids::ClientId;
use switchbox::time::Span;

use super::clients::ClientState;
use super::oracle::{Note, Step};
use super::world::{Happening, Power, World, boot};

/// How long work goes on after the last action, before everybody leaves.
const REST: Span = Span::from_secs(3);
/// How often the server asks, once the deadline has passed, whether it may stop, and how long it waits in between.
const ENDS_ASKED: u64 = 4;
const ENDS_APART: Span = Span::from_ms(20);
/// The longest that a client's job may wait.
const TTL_MAX: Span = Span::from_secs(16);

impl World<'_> {
    /// Starts a group commit of all that is written, unless one is under way: that one's end starts the next.
    pub(crate) fn sync(&mut self) {
        if self.store.syncing.is_some()
            || self.store.written <= self.store.durable
            || self.power == Power::Off
        {
            return;
        }
        self.store.syncing = Some(self.store.written);
        let takes = Span(self.rng.range(150, 2_500)).max(self.stalled_until.since(self.now));
        self.schedule(takes, Happening::Synced);
    }

    pub(super) fn synced(&mut self) {
        if self.power == Power::Off || self.store.syncing.is_none() {
            return;
        }
        self.store.synced();
        while let Some(entry) = self.mail.first_entry()
            && *entry.key() <= self.store.durable
        {
            let lsn = *entry.key();
            for (client, mail) in entry.remove() {
                self.client_hears(client, mail, When::Durable(lsn));
            }
        }
        for index in 0..self.nodes.len() {
            self.release(index);
        }
        if !self.mail.is_empty() || self.store.written > self.store.durable {
            self.sync();
        }
    }

    /// The box loses power: what isn't on the disk is gone, and every connection with it.
    pub(crate) fn crash(&mut self, keep: u64, down: Span) {
        if self.power == Power::Off {
            return;
        }
        self.power = Power::Off;
        self.store.crash(keep);
        self.mail.clear();
        self.outputs.clear();
        self.local.clear();
        // Whoever starts next tells a node anew, and gives it time anew.
        self.stops.clear();
        self.clients.values_mut().filter(|client| !client.left).for_each(ClientState::cut);
        for index in 0..self.nodes.len() {
            self.box_died(index);
        }
        self.oracle.coverage.count("world", "crashes");
        self.schedule(down, Happening::BoxUp);
    }

    /// The box is told to stop: nobody is let in, and those who wait may have their answers by the deadline.
    pub(crate) fn shut_down(&mut self, deadline: Span, down: Span) {
        if self.power == Power::Off || self.winding {
            return;
        }
        self.ask_to_stop(Question::WindDown);
        let epoch = self.epoch;
        self.schedule(Span(deadline.0 / 2), Happening::Stopping { epoch, question: Question::WindDown });
        for asked in 0..ENDS_ASKED {
            let at = Span(deadline.0 + ENDS_APART.0 * asked);
            self.schedule(at, Happening::Stopping { epoch, question: Question::EndService });
        }
        let last = Span(deadline.0 + ENDS_APART.0 * ENDS_ASKED);
        self.schedule(last, Happening::Exit { epoch, down });
    }

    pub(super) fn stopping(&mut self, epoch: u32, question: Question) {
        if epoch == self.epoch && self.power == Power::On {
            self.ask_to_stop(question);
        }
    }

    /// The process ends by itself: everything that it wrote is on the disk.
    pub(super) fn exit(&mut self, epoch: u32, down: Span) {
        if epoch == self.epoch && self.power == Power::On {
            self.oracle.coverage.count("world", "shutdowns");
            self.store.settle();
            self.crash(0, down);
        }
    }

    /// The disk takes long, and the box may be told that too much waits for it.
    pub(crate) fn store_stalls(&mut self, span: Span, room: StoreRoom) {
        self.stalled_until = self.now + span;
        if room == StoreRoom::Behind && self.power == Power::On {
            self.step(Event::StoreRoom(StoreRoom::Behind));
            self.schedule(span, Happening::StoreCatchesUp(self.epoch));
        }
    }

    pub(super) fn store_catches_up(&mut self, epoch: u32) {
        if epoch == self.epoch {
            self.step(Event::StoreRoom(StoreRoom::Open));
        }
    }

    pub(super) fn box_up(&mut self) {
        self.epoch += 1 + self.rng.below(3) as u32;
        self.power = Power::On;
        let lsn = self.store.written;
        self.oracle.crashed(self.store.rows(), lsn, self.epoch);
        let mut effects = Vec::new();
        self.core = Coordinator::recover(
            boot(self.scene, self.epoch, lsn, self.now),
            self.scene.limits.clone(),
            self.scene.durability,
            self.store.state(),
            &mut effects,
        );
        self.core.compare_placements();
        let note = Note { word: "Recover", ..Default::default() };
        let after = self.core.lsn();
        self.oracle.after(&Step {
            now: self.now,
            note: &note,
            lsn_before: lsn,
            lsn: after,
            effects: &effects,
        });
        self.publish(after, effects);
        while let Some(event) = self.local.pop_front() {
            self.step(event);
        }
        self.audit();
        for index in 0..self.nodes.len() {
            let delay = self.rng.ms(0, 300);
            self.schedule(delay, Happening::Dial(index));
        }
    }

    pub(super) fn wind_down(&mut self) {
        if self.power == Power::Off {
            return self.schedule(Span::from_ms(100), Happening::WindDown);
        }
        self.resume_all();
        self.schedule(REST, Happening::AllLeave);
    }

    pub(super) fn all_leave(&mut self) {
        self.winding = true;
        let here: Vec<ClientId> = self.clients.iter().filter(|(_, c)| !c.left).map(|(id, _)| *id).collect();
        here.into_iter().for_each(|client| self.leave(client));
        let patience = if self.scene.seed.is_multiple_of(3) { Span(0) } else { TTL_MAX };
        self.schedule(patience, Happening::EndAll);
        for index in 0..self.nodes.len() {
            self.leaves_for_good(index);
        }
    }
}
