//! What the box says, one message at a time.

use std::time::{Duration, Instant};

use super::{Flow, HEARTBEAT_MIN, HEARTBEATS_PER_TTL, Session, State, Working};
use crate::agent::AgentError;
use crate::agent::configuration::Applied;
use crate::agent::desk::Mode;
use crate::wire::to_agent::{SnapshotText, Welcome};
use crate::wire::{CloseCode, FromAgent, FromBox, Refusal};

impl Session {
    /// Does what a message wants done; a refusal ends the connection.
    pub(super) fn on_message(&mut self, message: FromBox) -> Result<Flow, Refusal> {
        match message {
            FromBox::Assign(assign) => self.desk.on_assign(*assign),
            FromBox::Stop(stop) => self.desk.on_stop(stop.reservation),
            FromBox::ResultAccepted(settled) => {
                self.desk.on_settled(settled.reservation);
            }
            FromBox::ResultUnknown(settled) => {
                if self.desk.on_settled(settled.reservation) {
                    tracing::info!(reservation = %settled.reservation, "nobody waited for this result any more");
                }
            }
            FromBox::ResultRefused(refused) => {
                self.desk.tally.refused += 1;
                tracing::error!(reservation = %refused.reservation, "the box refused a result: {}", refused.reason);
                self.desk.on_settled(refused.reservation);
            }
            FromBox::Welcome(welcome) => self.on_welcome(&welcome)?,
            FromBox::Standing(standing) => self.heard.on_standing(standing),
            FromBox::Earnings(earnings) => self.heard.on_earnings(&earnings),
            FromBox::Configuration(named) => {
                if let Some(request) = self.desk.configurations.on_named(&named) {
                    self.desk.say(FromAgent::SnapshotRequest(request));
                }
            }
            FromBox::Snapshot(snapshot) => self.on_snapshot(&snapshot),
            FromBox::Drained(_) if self.desk.mode() == Mode::Draining => {
                tracing::info!("the node drained: nothing is left");
                return Ok(Flow::Ends(Ok(())));
            }
            FromBox::Drained(_) => {}
            FromBox::Banned(_) => {
                let refusal = Refusal::new(CloseCode::Banned, "the operator banned it: ask the operator why");
                return Ok(Flow::Ends(Err(AgentError::Refused(refusal))));
            }
            FromBox::Challenge(_) | FromBox::Admitted(_) => {
                return Err(Refusal::new(CloseCode::OutOfOrder, "a message of the handshake came after it"));
            }
            // The link keeps what it says.
            FromBox::Goodbye(_) => {}
        }
        Ok(Flow::On)
    }

    fn on_welcome(&mut self, welcome: &Welcome) -> Result<(), Refusal> {
        self.desk.on_welcome(&welcome.holds)?;
        let State::Open(open) = &mut self.state else { return Ok(()) };
        let now = Instant::now();
        let heartbeat_every = Duration::from_millis(welcome.heartbeat_interval_ms).max(HEARTBEAT_MIN);
        open.working = Some(Working { since: now, heartbeat_every, heartbeat_at: now });
        tracing::info!(holds = welcome.holds.len(), "connected: ready for work");
        if let Some(mut announce) = self.announce.take() {
            let node = self.caller.identity.public().node();
            announce(&format!("switchbox agent ready: {node} at {}", self.caller.joined.url));
        }
        Ok(())
    }

    /// The box may wait for heartbeats less long than it did when it welcomed the node.
    fn keep_to_heartbeats(&mut self) {
        let (State::Open(open), Some(ttl)) = (&mut self.state, self.desk.configurations.heartbeat_ttl())
        else {
            return;
        };
        if let Some(working) = &mut open.working {
            working.heartbeat_every = (ttl / HEARTBEATS_PER_TTL).max(HEARTBEAT_MIN);
            working.heartbeat_at = Instant::now().min(working.heartbeat_at);
        }
    }

    fn on_snapshot(&mut self, snapshot: &SnapshotText) {
        let box_key = self.caller.joined.box_key;
        let (environment, version) = (snapshot.environment.word(), snapshot.version);
        match self.desk.configurations.on_snapshot(snapshot, box_key, &self.dir) {
            Ok(Applied::InForce) => {
                tracing::info!(environment, version, "a new configuration is in force");
                self.keep_to_heartbeats();
            }
            Ok(Applied::Ignored(reason)) => {
                tracing::warn!(environment, version, "the box's configuration isn't used: {reason}");
            }
            Err(error) => tracing::warn!(environment, version, "the box's configuration isn't used: {error}"),
        }
    }
}
