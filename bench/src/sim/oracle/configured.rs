//! Configurations: which are taken, that versions only grow, and that nodes are told of the newest (SPEC section 8).

use switchbox::coordinator::command::Command;
use switchbox::coordinator::effect::{Answer, Effect, NodeMessage, Rejection, Reply, Row};
use switchbox::coordinator::event::Environment;
use switchbox::coordinator::snapshot::{Refused, Snapshot};
use switchbox::ids::NodeId;

use super::judge::Line;
use super::{Oracle, Step};

/// What may become of a configuration that somebody sends.
pub(crate) const FATES: [&str; 6] = ["replaced", "the same", "older", "forked", "flawed", "not allowed"];

impl Oracle {
    /// What must become of the configuration that an event brings; asked before its rows are in the book.
    pub(super) fn fate_due(&self, step: &Step<'_>) -> Option<&'static str> {
        let Some((by, Command::Configure(snapshot))) = &step.note.command else { return None };
        let [replaced, same, older, forked, flawed, not_allowed] = FATES;
        if by.is_some() {
            return Some(not_allowed);
        }
        let present = self.book.configurations.get(&snapshot.environment);
        Some(match present {
            Some(present) if snapshot.version < present.version => older,
            Some(present) if snapshot.version == present.version => {
                if snapshot.digest == present.digest {
                    same
                } else {
                    forked
                }
            }
            _ if is_flawed(snapshot) => flawed,
            _ => replaced,
        })
    }

    pub(super) fn check_configured(&mut self, step: &Step<'_>, due: Option<&'static str>) {
        if let (Some(due), Some((_, Command::Configure(snapshot)))) = (due, &step.note.command) {
            let fate = fate(step, snapshot);
            self.coverage.count("configuration", due);
            self.judge.check(Line::ConfigurationJudged, fate == Some(due), || {
                format!(
                    "version {} for {:?} is {due}, but was {fate:?}",
                    snapshot.version, snapshot.environment
                )
            });
        }
        self.check_told_of_newest(step);
        if due == Some(FATES[0]) {
            let nodes: Vec<NodeId> = self.fleet.nodes.keys().cloned().collect();
            let Some((_, Command::Configure(snapshot))) = &step.note.command else { return };
            nodes.iter().for_each(|node| self.must_be_told(step, node, snapshot.environment));
        }
        if let ("NodeConnected", Some(node)) = (step.note.word, step.note.node.clone()) {
            self.check_greeting(step, &node);
        }
    }

    /// Whoever connects is told of what it doesn't have.
    fn check_greeting(&mut self, step: &Step<'_>, node: &NodeId) {
        let Some(known) = self.fleet.nodes.get(node) else { return };
        let has = known.hello.configurations.clone();
        let in_force = self.book.configurations.values();
        let lacking: Vec<Environment> = in_force
            .filter(|snapshot| !has.contains(&(snapshot.environment, snapshot.digest)))
            .map(|snapshot| snapshot.environment)
            .collect();
        for environment in lacking {
            self.coverage.count("node messages", "configuration on connecting");
            self.must_be_told(step, node, environment);
        }
    }

    /// Every message names the newest configuration, and goes to nodes of its environment only.
    fn check_told_of_newest(&mut self, step: &Step<'_>) {
        for effect in step.effects {
            let Effect::ToNode { node, message, .. } = effect else { continue };
            let NodeMessage::Configuration { environment, version, digest } = message else { continue };
            let newest = self.book.configurations.get(environment);
            let is_newest = newest.is_some_and(|s| (s.version, s.digest) == (*version, *digest));
            let registered =
                self.book.nodes.get(node).is_some_and(|row| row.environments.contains(*environment));
            self.judge.check(Line::ConfigurationTold, is_newest && registered, || {
                let newest = newest.map(|snapshot| snapshot.version);
                format!("{node} was told of version {version} for {environment:?}; the newest is {newest:?}")
            });
        }
    }

    /// A node that surely is here, and works there, was told in this step.
    fn must_be_told(&mut self, step: &Step<'_>, node: &NodeId, of: Environment) {
        let (Some(known), Some(row)) = (self.fleet.nodes.get(node), self.book.nodes.get(node)) else {
            return;
        };
        let heard = step.now.since(known.heard_at) < self.limits.heartbeat_timeout;
        let works = row.environments.contains(of) && known.hello.environments.contains(&of);
        if !known.here
            || self.fleet.maybe_away(node)
            || !heard
            || !works
            || row.banned.is_some()
            || *node == NodeId::local()
        {
            return;
        }
        let of_it = |effect: &&Effect| {
            let Effect::ToNode { node: to, message, .. } = effect else { return false };
            to == node
                && matches!(message, NodeMessage::Configuration { environment, .. } if *environment == of)
        };
        let times = step.effects.iter().filter(of_it).count();
        self.judge.check(Line::ConfigurationTold, times == 1, || {
            format!("{node} was told {times} times of the configuration for {of:?} on {}", step.note.word)
        });
    }

    /// A configuration's row: only the operator's command writes one, and versions only grow.
    pub(super) fn check_version(&mut self, step: &Step<'_>, row: &Snapshot) {
        let before = self.book.configurations.get(&row.environment).map(|present| present.version);
        let commanded =
            matches!(&step.note.command, Some((None, Command::Configure(sent))) if **sent == *row);
        let grows = before.is_none_or(|before| row.version > before);
        self.judge.check(Line::ConfigurationGrows, grows && commanded, || {
            format!(
                "version {} came after {before:?} for {:?} on {}",
                row.version, row.environment, step.note.word
            )
        });
    }
}

/// What became of it.
fn fate(step: &Step<'_>, snapshot: &Snapshot) -> Option<&'static str> {
    let [replaced, same, older, forked, flawed, not_allowed] = FATES;
    let written = step.effects.iter().any(
        |effect| matches!(effect, Effect::Row(Row::Configuration(row)) if row.version == snapshot.version),
    );
    let answer = step.effects.iter().find_map(|effect| match effect {
        Effect::ToClient { reply: Reply::Answer(answer), .. } => Some(&**answer),
        _ => None,
    });
    Some(match answer? {
        Answer::Done if written => replaced,
        Answer::Done => same,
        Answer::Rejected(_) if written => return None,
        Answer::Rejected(Rejection::NotAllowed) => not_allowed,
        Answer::Rejected(Rejection::Snapshot(Refused::Older { .. })) => older,
        Answer::Rejected(Rejection::Snapshot(Refused::Forked { .. })) => forked,
        Answer::Rejected(Rejection::Snapshot(Refused::Flawed(_))) => flawed,
        _ => return None,
    })
}

/// Whether it would do harm, as far as any configuration of the simulator does.
fn is_flawed(snapshot: &Snapshot) -> bool {
    let of_models = snapshot.models.values().any(|spec| {
        spec.default_output_tokens == 0
            || spec.default_output_tokens > spec.output_tokens_max
            || spec.fallbacks.iter().any(|fallback| !snapshot.models.contains_key(fallback))
    });
    of_models
        || snapshot.version == 0
        || !(1..=256).contains(&snapshot.signature.len())
        || snapshot.participation.blind_rate_ppm > 1_000_000
        || snapshot.penalties.half_life.0 == 0
        || snapshot.timeouts.accept.0 == 0
}
