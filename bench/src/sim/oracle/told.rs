//! What has really left the box: acknowledgements that every crash must survive, and when they may leave (CORE 2).

use std::collections::{BTreeMap, BTreeSet};

use switchbox::coordinator::effect::{Answer, Effect, End, NodeMessage, RefusalKind, Reply, Row, When};
use switchbox::coordinator::event::{Durability, Environment};
use switchbox::ids::{JobId, Lsn, ReservationId};

use super::judge::Line;
use super::{Oracle, Step};

/// What somebody outside was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Jobs that a client was told are accepted, durably.
    pub(super) accepted: BTreeSet<JobId>,
    /// Ends that a client was told, durably.
    pub(super) ended: BTreeMap<JobId, End>,
    /// Jobs whose whole answer some client took.
    pub(super) taken: BTreeSet<JobId>,
    /// Results that a node was told are kept.
    pub(super) results: BTreeSet<ReservationId>,
    /// The newest configuration that any node heard of.
    pub(super) configurations: BTreeMap<Environment, u64>,
}

/// Something that reached its receiver.
pub(crate) enum Heard<'a> {
    /// A client heard.
    Client(&'a Reply),
    /// A node heard.
    Node(&'a NodeMessage),
}

impl Oracle {
    /// A message that waited for its step has reached its receiver.
    pub(crate) fn heard(&mut self, heard: &Heard<'_>) {
        match heard {
            Heard::Client(Reply::Accepted { job, .. }) => drop(self.told.accepted.insert(*job)),
            Heard::Client(Reply::Finished(finished)) => {
                self.told.ended.insert(finished.job, finished.end.clone());
            }
            Heard::Node(NodeMessage::ResultAccepted(reservation)) => {
                let job = self.issued.get(reservation).and_then(|(_, job)| self.book.jobs.get(job));
                // A failed result is kept too, but its job may go on.
                if job.is_some_and(|facts| !facts.state.is_live()) {
                    self.told.results.insert(*reservation);
                }
            }
            Heard::Node(NodeMessage::Configuration { environment, version, .. }) => {
                let newest = self.told.configurations.entry(*environment).or_default();
                *newest = (*newest).max(*version);
            }
            _ => {}
        }
    }

    /// After a crash: what was told must be in the rows that survived.
    pub(super) fn check_told(&mut self) {
        for job in &self.told.accepted {
            let known = self.book.jobs.contains_key(job);
            self.judge
                .check(Line::AckSurvives, known, || format!("{job} was accepted, and is gone after a crash"));
        }
        for (job, end) in &self.told.ended {
            let kept = self.book.jobs.get(job).and_then(|facts| facts.end.as_ref());
            self.judge.check(Line::AckSurvives, kept == Some(end), || {
                format!("{job} was said to have ended as {end:?}, and after a crash it is {kept:?}")
            });
        }
        for (environment, version) in &self.told.configurations {
            let kept = self.book.configurations.get(environment).map(|snapshot| snapshot.version);
            self.judge.check(Line::AckSurvives, kept >= Some(*version), || {
                format!("nodes heard of version {version} for {environment:?}; after a crash it is {kept:?}")
            });
        }
        for reservation in &self.told.results {
            let job = self.issued.get(reservation).map(|(_, job)| *job);
            let state = job.and_then(|job| self.book.jobs.get(&job)).map(|facts| facts.state);
            self.judge.check(Line::AckSurvives, state.is_some_and(|state| !state.is_live()), || {
                format!(
                    "the result of {reservation} was said to be kept, and after a crash {job:?} is {state:?}"
                )
            });
        }
    }

    pub(super) fn check_messages(&mut self, step: &Step<'_>) {
        let mut answered = 0;
        for effect in step.effects {
            match effect {
                Effect::ToClient { reply, when, .. } => self.check_reply(step, reply, *when),
                Effect::ToNode { message, when, .. } => {
                    answered += u64::from(is_answer(message));
                    self.check_node_message(step, message, *when);
                }
                _ => {}
            }
        }
        if step.note.word == "Completed" {
            let welcome = self.is_welcome(step);
            self.judge.check(
                Line::ResultAnswered,
                answered == 1 || !welcome || self.answered_later(step),
                || format!("the result of {:?} was answered {answered} times", step.note.named),
            );
        }
    }

    /// The box's own node needs no answer, and a banned one gets none.
    fn is_welcome(&self, step: &Step<'_>) -> bool {
        let row = step.note.node.as_ref().and_then(|node| self.book.nodes.get(node));
        step.note.node != Some(switchbox::ids::NodeId::local()) && row.is_some_and(|row| row.banned.is_none())
    }

    /// A failed result is answered when its output is closed.
    fn answered_later(&self, step: &Step<'_>) -> bool {
        step.effects.iter().any(|effect| matches!(effect, Effect::CloseOutput(_)))
    }

    fn check_reply(&mut self, step: &Step<'_>, reply: &Reply, when: When) {
        match reply {
            Reply::Finished(finished) => {
                let tied = self.book.jobs.get(&finished.job).is_some_and(|job| job.spec.is_tied_to_client());
                let rests_on = self.ended_lsn.get(&finished.job).copied().unwrap_or_default();
                let may_go = tied && self.durability == Durability::Relaxed;
                self.waits(when, rests_on, may_go, &format!("the end of {}", finished.job));
            }
            Reply::Accepted { job, .. } => {
                let tied = self.book.jobs.get(job).is_some_and(|job| job.spec.is_tied_to_client());
                let rests_on = self.accepted_lsn.get(job).copied().unwrap_or_default();
                self.waits(when, rests_on, tied, &format!("the acceptance of {job}"));
            }
            Reply::Refused(_) => {}
            Reply::Answer(answer) => {
                if let Answer::Refused(RefusalKind::JobUnknown, _) = **answer {
                    self.coverage.count("refusal", "JobUnknown");
                }
                let own = step.effects.iter().any(is_own_row);
                let rests_on = if own { step.lsn } else { Lsn(0) };
                self.waits(when, rests_on, !own, step.note.word);
            }
        }
    }

    fn check_node_message(&mut self, step: &Step<'_>, message: &NodeMessage, when: When) {
        match message {
            NodeMessage::ResultAccepted(reservation) => {
                self.coverage.count("node messages", "result accepted");
                // A repeat rests on what was decided then, whatever became of its job since.
                let rests_on = self.decided_lsn.get(reservation).copied().unwrap_or_default();
                self.waits(when, rests_on, false, "a result's acceptance");
            }
            NodeMessage::ResultUnknown(_) => self.coverage.count("node messages", "result unknown"),
            NodeMessage::Configuration { .. } => self.coverage.count("node messages", "configuration"),
            NodeMessage::Standing(standing, _) => {
                self.coverage.count("standing", standing.word());
                self.coverage.count("node messages", "standing");
            }
            NodeMessage::Earnings(..) => self.coverage.count("node messages", "earnings"),
            NodeMessage::Drained => self.coverage.count("node messages", "drained"),
            NodeMessage::Banned => self.coverage.count("node messages", "banned"),
        }
        let _ = step;
    }

    fn waits(&mut self, when: When, rests_on: Lsn, may_go: bool, what: &str) {
        let waits = match when {
            When::Durable(lsn) => lsn >= rests_on,
            When::Now => may_go,
        };
        self.judge
            .check(Line::AckWaits, waits, || format!("{what} rests on {rests_on:?}, but leaves {when:?}"));
    }
}

/// Whether this is a row of what was asked for, and not of what else the step happened to do.
fn is_own_row(effect: &Effect) -> bool {
    let Effect::Row(row) = effect else { return false };
    matches!(
        row,
        Row::Posting(_)
            | Row::Node(_)
            | Row::Namespace(_)
            | Row::Paused(_)
            | Row::Resumed(_)
            | Row::Price(_)
            | Row::Template(_)
            | Row::TemplateForgotten(..)
            | Row::Subcloud(_)
            | Row::SubcloudForgotten(..)
            | Row::Configuration(_)
            | Row::Feedback(_)
            | Row::DeadLetter(..)
            | Row::Invite(_)
            | Row::InviteForgotten(_)
    )
}

fn is_answer(message: &NodeMessage) -> bool {
    matches!(message, NodeMessage::ResultAccepted(_) | NodeMessage::ResultUnknown(_))
}
