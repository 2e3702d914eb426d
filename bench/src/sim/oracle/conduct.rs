//! What counts against a node, what ends an exclusion, and what only a command may change: SPEC sections 3 and 5.

use switchbox::coordinator::command::{Command, NodeCommand};
use switchbox::coordinator::effect::{Answer, Effect, Reply, Row};
use switchbox::coordinator::event::Wish;
use switchbox::coordinator::ledger::{Owner, PostingId, Step as LedgerStep, Subject};
use switchbox::coordinator::standing::{Fault, NodeRow, Party};
use switchbox::ids::{NodeId, ReservationId};

use super::judge::Line;
use super::{Note, Oracle, Step};

/// Something that holds of a node's record, with the commands that begin and end it.
type Fact = (&'static str, fn(&NodeRow) -> bool, NodeCommand, NodeCommand);

const FACTS: [Fact; 3] = [
    ("banned", |row| row.banned.is_some(), NodeCommand::Ban, NodeCommand::Unban),
    ("frozen", |row| row.frozen.is_some(), NodeCommand::Freeze, NodeCommand::Unfreeze),
    ("paused", |row| row.paused.contains_key(&Party::Operator), NodeCommand::Pause, NodeCommand::Resume),
];

impl Oracle {
    /// Reservations that a message names and that nothing waits for.
    pub(super) fn dead_named(&self, note: &Note) -> Vec<ReservationId> {
        if !matches!(note.word, "Accepted" | "Declined" | "Completed" | "Stopped") {
            return Vec::new();
        }
        note.named.iter().filter(|reservation| !self.book.live.contains_key(reservation)).copied().collect()
    }

    pub(super) fn faults_of(&self, node: Option<&NodeId>) -> u64 {
        let row = node.and_then(|node| self.book.nodes.get(node));
        row.map_or(0, |row| row.conduct.faults.values().sum())
    }

    /// A message about a reservation that is over counts nothing, unless it was never this node's.
    pub(super) fn check_dead(&mut self, step: &Step<'_>, dead: &[ReservationId], faults_before: u64) {
        for reservation in dead {
            let issued = self.issued.get(reservation);
            let own = issued.is_some_and(|(node, _)| Some(node) == step.note.node.as_ref());
            let earlier = reservation.epoch < self.epoch;
            self.coverage.count(
                "dead reservations",
                match (earlier, own, issued.is_some()) {
                    (true, ..) => "of an earlier epoch",
                    (false, true, _) => "its own, late or repeated",
                    (false, false, true) => "another node's",
                    (false, false, false) => "never issued",
                },
            );
            if own || (earlier && issued.is_none()) {
                let faults = self.faults_of(step.note.node.as_ref());
                let row = step.note.node.as_ref().and_then(|node| self.book.nodes.get(node));
                self.judge.check(Line::HonestNotStruck, faults == faults_before, || {
                    let all = row.map(|row| &row.conduct.faults);
                    format!(
                        "{:?} was struck for {reservation} in epoch {}: {faults_before} faults became {all:?}",
                        step.note.node, self.epoch
                    )
                });
            }
        }
    }

    pub(super) fn on_node_row(&mut self, step: &Step<'_>, row: &NodeRow) {
        let before = self.book.nodes.get(&row.node).cloned();
        if let Some(before) = &before {
            self.check_faults(step, before, row);
            self.check_exclusion(step, before, row);
            self.check_flips(step, before, row);
        }
        if let Some(exclusion) = &row.exclusion
            && before.as_ref().and_then(|b| b.exclusion.as_ref()) != Some(exclusion)
        {
            self.fleet.void_since.set(&row.node, step.lsn, exclusion.order.since);
            self.coverage.count("conduct", "excluded");
        }
        let lied = self.wrong.contains(&row.node);
        self.judge.check(Line::HonestNotBlamed, lied || row.quality.lies == 0, || {
            format!("{} is said to have given {} wrong answers", row.node, row.quality.lies)
        });
        let before = before.map_or(0, |before| before.quality.lies);
        self.coverage.add("conduct", "proven lies", u64::from(row.quality.lies.saturating_sub(before)));
        self.book.apply(&Row::Node(Box::new(row.clone())));
    }

    fn check_faults(&mut self, step: &Step<'_>, before: &NodeRow, row: &NodeRow) {
        let count = |of: &NodeRow, fault| of.conduct.faults.get(&fault).copied().unwrap_or(0);
        for fault in Fault::ALL {
            if count(row, fault) > count(before, fault) {
                self.coverage.count("fault", &format!("{fault:?}"));
                let just = self.is_just(step.note, &row.node, fault);
                self.judge.check(Line::HonestNotStruck, just, || {
                    format!(
                        "{} was struck with {fault:?} on {} {:?}",
                        row.node, step.note.word, step.note.named
                    )
                });
            }
        }
    }

    /// Whether this event can be such a fault of that node.
    fn is_just(&self, note: &Note, node: &NodeId, fault: Fault) -> bool {
        let own_word = note.node.as_ref() == Some(node);
        let issued_to = |reservation: &ReservationId| self.issued.get(reservation).map(|(node, _)| node);
        // A failure is counted when its output is closed, which is an event of its own.
        let closed = note.revoked.as_ref().filter(|reservation| issued_to(reservation) == Some(node));
        match fault {
            Fault::BadSignature => own_word && note.word == "BadSignature",
            Fault::UnissuedReservation => {
                let unissued = |r: &ReservationId| r.epoch == self.epoch && issued_to(r).is_none();
                own_word
                    && (note.named.iter().any(unissued)
                        || note.results.iter().any(|r| unissued(&r.reservation)))
            }
            Fault::ForeignReservation => {
                let foreign = |r: &ReservationId| issued_to(r).is_some_and(|owner| owner != node);
                own_word
                    && (note.named.iter().any(foreign)
                        || note.results.iter().any(|r| foreign(&r.reservation)))
            }
            Fault::AttemptFailed | Fault::FailedCheck => {
                let spoken = closed.is_some_and(|reservation| self.spoken.contains(reservation));
                spoken || own_word && !note.results.is_empty()
            }
            Fault::TimedOut => {
                let silent = closed.is_some_and(|reservation| !self.spoken.contains(reservation));
                silent || matches!(note.word, "Tick" | "Progress")
            }
            Fault::Died => {
                let lost = own_word && matches!(note.word, "NodeConnected" | "Stopped");
                lost || closed.is_some() || matches!(note.word, "Tick" | "NodeGone")
            }
            Fault::FailedTest => true,
        }
    }

    fn check_exclusion(&mut self, step: &Step<'_>, before: &NodeRow, row: &NodeRow) {
        let pardoned = matches!(
            &step.note.command,
            Some((_, Command::Node(node, NodeCommand::Reinstate | NodeCommand::Unban))) if *node == row.node
        );
        if pardoned {
            self.fleet.reinstated.set(&row.node, step.lsn, step.now);
        }
        let Some(excluded) = before.exclusion.as_ref().filter(|e| step.now < e.until) else { return };
        let lasts = row.exclusion.as_ref().is_some_and(|e| e.until >= excluded.until);
        self.judge.check(Line::CooldownKept, lasts || pardoned, || {
            format!(
                "{} was excluded until {:?}; after {} it is {:?}",
                row.node, excluded.until, step.note.word, row.exclusion
            )
        });
    }

    fn check_flips(&mut self, step: &Step<'_>, before: &NodeRow, row: &NodeRow) {
        let commanded = |command: NodeCommand| matches!(&step.note.command, Some((None, Command::Node(node, c))) if *node == row.node && *c == command);
        for (word, holds, begins, ends) in FACTS {
            let (was, is) = (holds(before), holds(row));
            if was != is {
                self.judge.check(Line::CommandTaken, commanded(if is { begins } else { ends }), || {
                    format!("{}: {word} became {is} on {}", row.node, step.note.word)
                });
            }
        }
        if before.banned.is_some() && row.banned.is_none() {
            self.fleet.void_since.set(&row.node, step.lsn, step.now);
        }
        let owner = |of: &NodeRow| of.paused.contains_key(&Party::Owner);
        if owner(before) != owner(row) {
            let wish = if owner(row) { Wish::Pause } else { Wish::Resume };
            self.judge.check(Line::CommandTaken, step.note.wish == Some(wish), || {
                format!("{}: its owner's pause became {} on {}", row.node, owner(row), step.note.word)
            });
        }
    }

    /// A command that was answered with `Done` shows in the rows.
    pub(super) fn check_command(&mut self, step: &Step<'_>) {
        let Some((_, command)) = &step.note.command else { return };
        let done = |effect: &Effect| {
            let Effect::ToClient { reply: Reply::Answer(answer), .. } = effect else { return false };
            matches!(**answer, Answer::Done | Answer::Paused { .. })
        };
        if !step.effects.iter().any(done) {
            self.coverage.count("commands", "rejected");
            return;
        }
        self.coverage.count("commands", "done");
        let shows = self.shows(command);
        self.judge
            .check(Line::CommandTaken, shows, || format!("{command:?} was answered as done, and isn't"));
    }

    fn shows(&self, command: &Command) -> bool {
        match command {
            Command::Node(node, what) => {
                let row = self.book.nodes.get(node);
                let fact = FACTS.iter().find(|(_, _, begins, ends)| begins == what || ends == what);
                fact.is_none_or(|(_, holds, begins, _)| row.is_some_and(|row| holds(row) == (begins == what)))
            }
            Command::Pause(scope) => self.book.paused.contains(scope),
            Command::Resume(scope) => !self.book.paused.contains(scope),
            Command::PutNamespace(settings) => {
                self.book.namespaces.get(&settings.namespace) == Some(settings)
            }
            Command::AdmitNode(settings) => {
                self.book.nodes.get(&settings.node).is_some_and(|row| row.trust == settings.trust)
            }
            Command::Deposit(amount, namespace) => {
                let id =
                    PostingId { subject: Subject::Operation(amount.operation), step: LedgerStep::Deposit };
                let leg = (Owner::Namespace(namespace.clone()), amount.credits);
                self.book.postings.get(&id).is_some_and(|posting| posting.legs.contains(&leg))
            }
            _ => true,
        }
    }
}
