//! Connections of nodes: who joins with what it holds, who is gone, and what is lost by that (CORE section 3).
//!
//! What a node lists is handled in the same step as its connection, before anything new is assigned: first its
//! results, then what it still runs; and only what it doesn't list is lost.

use super::effect::{Effect, NodeMessage, Usage};
use super::event::{
    Completion, Environment, Heartbeat, Held, ModelOffer, NodeGone, NodeHello, NodeWish, Offers, Verified,
    Wish,
};
use super::fleet::{Began, Capacity, Deadline, Ending, Reservation, ReservationState, Serving};
use super::ledger::{Account, Owner};
use super::mutant::mutant;
use super::names::{ModelKey, NodeKey};
use super::standing::{Environments, Fault, MODELS_PER_NODE_MAX, NodeRow, Party, Standing, Trust};
use super::{Coordinator, index};
use crate::ids::{NodeId, ReservationId, Session};

/// Reservations and results that a node may list; what is beyond counts as not listed.
pub(super) const HOLDS_MAX: usize = 1_024;

impl Coordinator {
    pub(super) fn on_node_connected(&mut self, hello: NodeHello) {
        let Some(key) = self.known_node(&hello) else { return };
        let node = self.fleet.node(key);
        if node.record.row().banned.is_some() {
            return self.tell_node(hello.node, NodeMessage::Banned);
        }
        if hello.session <= node.session {
            return;
        }
        let models = self.servings(&hello.models);
        self.leave_lanes(key);
        // Jobs that waited for it, with the models that it had, may have to do without.
        self.wake_picky(key);
        let now = self.now;
        self.fleet.arrive(key, &hello, models, now);
        if mutant!(CooldownForgotten) {
            self.fleet.node_mut(key).record.reinstate(now);
        }
        let NodeHello { session, running, results, configurations, .. } = hello;
        self.take_results(results);
        self.take_running(key, session, running);
        self.lose_unlisted(key, session);
        // A new connection hasn't heard where it stands, though that may be where it stood.
        self.fleet.node_mut(key).stood = Standing::Away;
        self.restand(key);
        self.offer_configurations(key, &configurations);
        self.room_on(key);
        self.arm_node(key);
    }

    /// The node's key; a node that was never seen is made known, trusted as little as possible.
    fn known_node(&mut self, hello: &NodeHello) -> Option<NodeKey> {
        if let Some(key) = self.fleet.find(&hello.node) {
            return Some(key);
        }
        let trust = if hello.node == NodeId::local() { hello.trust } else { Trust::Open };
        let wanted = hello.environments.iter();
        let environments = wanted.fold(Environments::NONE, |set, environment| set.with(*environment));
        let row = NodeRow::new(hello.node.clone(), trust, environments);
        let key = self.fleet.admit(row, self.now)?;
        self.keep_node(key);
        Some(key)
    }

    fn servings(&mut self, offers: &[ModelOffer]) -> Vec<Serving> {
        let mut servings: Vec<Serving> = Vec::with_capacity(offers.len().min(MODELS_PER_NODE_MAX));
        for offer in offers.iter().take(MODELS_PER_NODE_MAX) {
            let Some(model) = self.models.intern(&offer.model) else { continue };
            if servings.iter().any(|serving| serving.model == model) {
                continue;
            }
            servings.push(Serving {
                model,
                version: offer.version.clone(),
                digest: offer.digest.unwrap_or_default(),
                permitted: self.snapshots.permit(&offer.model, offer.digest),
                runtime: offer.runtime.clone(),
                slots: offer.slots,
                taken: 0,
                warmth: offer.warmth,
                load: offer.load,
                pace: Default::default(),
            });
        }
        servings
    }

    fn take_results(&mut self, results: Vec<Verified<Completion>>) {
        if mutant!(ListedResultLost) {
            return;
        }
        for result in results.into_iter().take(HOLDS_MAX) {
            self.on_completed(result.into_inner());
        }
    }

    /// What a node still runs goes on under its new connection; what isn't live any more is to stop.
    fn take_running(&mut self, key: NodeKey, session: Session, running: Vec<Held>) {
        for held in running.into_iter().take(HOLDS_MAX) {
            let id = held.reservation;
            match self.fleet.reservation_mut(id) {
                Some(reservation) if reservation.node == key => {
                    reservation.session = session;
                    // Who runs it has begun, whatever became of its word.
                    reservation.began = Began::Yes;
                    match reservation.state {
                        ReservationState::Assigned => self.run(id),
                        ReservationState::Running => {}
                        ReservationState::Stopping(_) => {
                            let node = self.fleet.node(key).id().clone();
                            self.effects.push(Effect::Stop { node, reservation: id });
                        }
                    }
                }
                Some(reservation)
                    if matches!(reservation.state, ReservationState::Stopping(Ending::Nobody)) =>
                {
                    self.counts.late_messages += 1;
                }
                Some(_) => {
                    self.counts.foreign_messages += 1;
                    self.fault(key, Fault::ForeignReservation);
                }
                None => {
                    self.counts.late_messages += 1;
                    // What was never issued takes nothing: it may be issued yet, and then be somebody else's.
                    if self.was_never_issued(id) {
                        self.fault(key, Fault::UnissuedReservation);
                    } else if index::is_countable(id) {
                        self.readmit(key, session, &held);
                    }
                }
            }
        }
    }

    /// A reservation that isn't live any more but still takes capacity there, until the node says it stopped.
    fn readmit(&mut self, key: NodeKey, session: Session, held: &Held) {
        let (now, id) = (self.now, held.reservation);
        let due = (now + self.limits.stop_timeout, Deadline::Stop);
        self.fleet.reserve(Reservation {
            id,
            job: None,
            node: key,
            model: self.models.key(&held.model),
            state: ReservationState::Stopping(Ending::Nobody),
            capacity: Capacity::Taken,
            kv_tokens: held.kv_tokens.min(self.fleet.node(key).kv_tokens),
            began: Began::Yes,
            session,
            due,
            timer: None,
            assigned_at: now,
            began_at: now,
            attempt_due: due.0,
            first_output_due: due.0,
            output_bytes: 0,
            seen_tokens: 0,
        });
        self.set_due(id, due.0, due.1);
        let node = self.fleet.node(key).id().clone();
        self.effects.push(Effect::Stop { node, reservation: id });
    }

    /// What was assigned on an earlier connection and isn't listed on the new one is lost.
    fn lose_unlisted(&mut self, key: NodeKey, session: Session) {
        let unlisted = self.fleet.held_by(key).filter(|reservation| reservation.session < session);
        let lost: Vec<ReservationId> = unlisted.map(|reservation| reservation.id).collect();
        self.lose(key, &lost);
    }

    /// A node doesn't have these any more. However many, they count against it once.
    pub(super) fn lose(&mut self, key: NodeKey, lost: &[ReservationId]) {
        let mut died = false;
        for id in lost {
            let Some(reservation) = self.fleet.reservation(*id) else { continue };
            match reservation.state {
                ReservationState::Assigned | ReservationState::Running => {
                    died = true;
                    self.abandon(*id, Ending::Lost);
                }
                // It won't say so any more, but it has stopped.
                ReservationState::Stopping(_) => self.stopped(*id, Usage::default()),
            }
        }
        if died {
            self.fault(key, Fault::Died);
        }
        let node = self.fleet.node(key);
        if !node.is_here() && node.holds.is_empty() && !node.record.row().draining.is_empty() {
            let now = self.now;
            self.fleet.node_mut(key).record.on_left(now);
            self.keep_node(key);
        }
    }

    pub(super) fn on_node_gone(&mut self, gone: NodeGone) {
        let Some(key) = self.fleet.find(&gone.node) else { return };
        if self.fleet.node(key).session != gone.session {
            return;
        }
        for id in gone.undelivered {
            if self.fleet.reservation(id).is_some_and(|reservation| reservation.node == key) {
                self.on_undeliverable(id);
            }
        }
        self.node_away(key);
    }

    /// A node isn't here any more; what it has is kept for a while.
    pub(super) fn node_away(&mut self, key: NodeKey) {
        let now = self.now;
        self.fleet.depart(key, now);
        let node = self.fleet.node_mut(key);
        if !node.record.row().draining.is_empty() && node.holds.is_empty() {
            node.record.on_left(now);
            self.keep_node(key);
        }
        self.restand(key);
        self.arm_node(key);
    }

    pub(super) fn on_heartbeat(&mut self, beat: &Heartbeat) {
        let Some(key) = self.fleet.find(&beat.node) else { return };
        if self.fleet.node(key).session != beat.session {
            return;
        }
        let warm: Vec<ModelKey> = beat.warm.iter().filter_map(|name| self.models.key(name)).collect();
        let now = self.now;
        if !self.fleet.node(key).is_here() {
            self.fleet.came_back(key);
            self.fleet.node_mut(key).heard_at = now;
            self.restand(key);
            self.room_on(key);
            // While it was away and idle, nothing was due.
            self.arm_node(key);
        }
        if self.fleet.node_mut(key).heard(beat, &warm, now) {
            self.fleet.touch(key);
        }
        self.tell_earnings(key);
    }

    /// With a sign of life, and not with each job: its owner wants to know, and nobody waits.
    fn tell_earnings(&mut self, key: NodeKey) {
        let id = self.fleet.node(key).id().clone();
        if id == NodeId::local() {
            return;
        }
        for environment in Environment::ALL {
            if !self.fleet.node(key).works_in(environment) {
                continue;
            }
            let account = Account { environment, owner: Owner::Node(id.clone()) };
            let balance = self.ledger.statement(&account).balance;
            let told = &mut self.fleet.node_mut(key).earned[environment as usize];
            if told.replace(balance) != Some(balance) {
                self.mail_node(id.clone(), NodeMessage::Earnings(environment, balance));
            }
        }
    }

    /// A node serves something else than it did: it goes to the lanes that it may take work from now.
    pub(super) fn on_offers(&mut self, offers: &Offers) {
        let Some(key) = self.fleet.find(&offers.node) else { return };
        if self.fleet.node(key).session != offers.session {
            return;
        }
        let models = self.servings(&offers.models);
        self.leave_lanes(key);
        // Jobs that waited for it, with the models that it had, may have to do without.
        self.wake_picky(key);
        if let Some(equipment) = &offers.equipment {
            self.fleet.equip(key, equipment);
        }
        self.fleet.offer(key, models);
        self.restand(key);
        self.room_on(key);
        // A model that it hasn't shown yet has a test due.
        self.arm_node(key);
    }

    pub(super) fn on_node_wish(&mut self, wish: &NodeWish) {
        let Some(key) = self.fleet.find(&wish.node) else { return };
        if self.fleet.node(key).session != wish.session {
            return;
        }
        let now = self.now;
        let record = &mut self.fleet.node_mut(key).record;
        match wish.wish {
            Wish::Pause => record.pause(Party::Owner, now),
            Wish::Resume => record.resume(Party::Owner),
            Wish::Drain => record.drain(Party::Owner, now),
        }
        self.keep_node(key);
        self.restand(key);
        self.room_on(key);
    }
}
