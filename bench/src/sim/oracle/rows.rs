//! What a row may say, given what was there before it: states, credits, and the record of a node.
//!
//! It judges rows only; what messages and assignments may say is judged beside it.

use std::collections::BTreeMap;

use switchbox::coordinator::effect::{CancelCause, Effect, End, Row};
use switchbox::coordinator::event::Origin;
use switchbox::coordinator::job::{JobRow, JobState};
use switchbox::coordinator::ledger::{
    Account, Balance, Owner, Posting, PostingId, Step as LedgerStep, Subject,
};
use switchbox::ids::JobId;

use super::book::JobFacts;
use super::charge::{Ending, LastWord, charge, worst_case};
use super::judge::Line;
use super::{Note, Oracle, Step};

/// The changes of state that one step may show; a step may make several changes and shows only the last.
fn may_show(before: Option<JobState>, after: JobState) -> bool {
    use JobState::{Cancelled, Expired, Failed, Queued, Reserved, Running, Succeeded};
    match before {
        None => matches!(after, Queued | Reserved),
        Some(Queued) => matches!(after, Queued | Reserved | Failed | Cancelled | Expired),
        Some(Reserved) => true,
        Some(Running) => {
            matches!(after, Queued | Reserved | Running | Succeeded | Failed | Cancelled | Expired)
        }
        Some(Succeeded | Failed | Cancelled | Expired) => false,
    }
}

impl Oracle {
    /// Rows of a step have no order among themselves: postings are looked at first, for others rest on them.
    pub(super) fn on_rows(&mut self, step: &Step<'_>) {
        let rows = || {
            step.effects
                .iter()
                .filter_map(|effect| if let Effect::Row(row) = effect { Some(row) } else { None })
        };
        for row in rows() {
            if let Row::Posting(posting) = row {
                self.on_posting_row(posting);
            }
        }
        for row in rows() {
            match row {
                Row::Posting(_) => {}
                Row::Job(job) => self.on_job_row(step, job),
                Row::Node(node) => self.on_node_row(step, node),
                Row::JobForgotten(job) => {
                    self.check_forgotten(step, *job);
                    self.book.apply(row);
                }
                Row::AnswerForgotten(job) => {
                    self.check_answer_forgotten(*job);
                    self.book.apply(row);
                }
                Row::DeadLetterForgotten(job) => {
                    self.check_letter_forgotten(step, *job);
                    self.book.apply(row);
                }
                Row::Configuration(snapshot) => {
                    self.check_version(step, snapshot);
                    self.book.apply(row);
                }
                _ => self.book.apply(row),
            }
        }
        rows().for_each(|row| self.check_balance(row));
    }

    fn check_balance(&mut self, row: &Row) {
        let Row::Balance(Balance { account, .. }) = row else { return };
        let of = |sums: &BTreeMap<Account, i64>| sums.get(account).copied().unwrap_or(0);
        let (folded, kept) = (of(&self.book.folded), of(&self.book.kept_sums));
        let balance = self.balance(account);
        self.judge.check(Line::BalanceIsKept, balance == folded + kept, || {
            format!("{account:?} is {balance}, with {kept} in postings and {folded} folded")
        });
        let (balance, sum) = (self.balance(account), self.book.sums.get(account).copied().unwrap_or(0));
        self.judge.check(Line::BalanceIsPostings, sum == balance, || {
            format!("{account:?} is {balance}, its postings add up to {sum}")
        });
    }

    fn on_job_row(&mut self, step: &Step<'_>, row: &JobRow) {
        let before = self.book.jobs.get(&row.id).cloned();
        self.book.apply(&Row::Job(Box::new(row.clone())));
        let after = self.book.jobs[&row.id].clone();
        if let Some(tenant) = &step.note.cancels
            && (row.cancel_requested.is_some() || matches!(row.progress.end, Some(End::Cancelled(_))))
        {
            let own = row.spec.namespace == tenant.namespace && row.spec.environment == tenant.environment;
            self.judge.check(Line::OwnOnly, own, || format!("{tenant:?} cancelled {}", row.id));
        }
        let state = before.as_ref().map(|facts| facts.state);
        let ran_on = state == Some(JobState::Running) && after.state == JobState::Reserved;
        let moved = before.as_ref().map(|b| &b.reservation) != Some(&after.reservation);
        let same_end = state == Some(after.state) && state.is_some_and(|s| !s.is_live());
        self.judge.check(
            Line::Transition,
            (may_show(state, after.state) && (!ran_on || moved))
                || (same_end && is_unchanged(&before, &after)),
            || format!("{}: {state:?} became {:?} on {}", row.id, after.state, step.note.word),
        );
        self.cover_transition(state, after.state);
        let hold_fits = after.state.is_live() || after.hold == 0;
        self.judge.check(Line::HoldWhileLive, hold_fits, || {
            format!("{} is {} and holds {}", row.id, after.state.word(), after.hold)
        });
        match before {
            None => self.on_new_job(step, row.id, &after),
            Some(ref before) if before.state.is_live() && !after.state.is_live() => {}
            Some(_) => {}
        }
        if let Some(attempt) = row.history.last() {
            self.decided_lsn.entry(attempt.reservation).or_insert(step.lsn);
        }
        let ends = state.is_none_or(JobState::is_live) && !after.state.is_live();
        if ends {
            self.ended_lsn.insert(row.id, step.lsn);
            self.on_job_end(step, row, before.as_ref(), &after);
        }
        if after.state == JobState::Running && state == Some(JobState::Reserved) {
            self.check_begun(step.note, row.id, &after);
        }
    }

    fn cover_transition(&mut self, before: Option<JobState>, after: JobState) {
        let word = before.map_or("new", JobState::word);
        if before != Some(after) {
            self.coverage.count("transition", &format!("{word} -> {}", after.word()));
        }
    }

    fn on_new_job(&mut self, step: &Step<'_>, job: JobId, facts: &JobFacts) {
        self.accepted_lsn.insert(job, step.lsn);
        self.coverage.count(
            "origin",
            match facts.origin {
                Origin::Client => "client",
                Origin::Requeued { .. } => "requeued",
                Origin::Test { .. } => "test",
                Origin::Blind { .. } => "blind",
                Origin::Validation { .. } => "validation",
            },
        );
        self.check_new_key(job, facts);
        let worst = worst_case(facts);
        self.judge.check(Line::HoldIsWorstCase, facts.hold == worst, || {
            format!("{job} holds {}, its worst case is {worst}", facts.hold)
        });
        let Owner::Namespace(namespace) = facts.payer().owner else { return };
        let Some(settings) = self.book.namespaces.get(&namespace) else { return };
        let Some(line) = settings.credit[facts.spec.environment as usize] else { return };
        let account = facts.payer();
        let (balance, held) = (self.balance(&account), self.book.held.get(&account).copied().unwrap_or(0));
        self.judge.check(Line::NoOverspend, facts.hold == 0 || balance - held + line.0 >= 0, || {
            format!("{account:?} has {balance} and a line of {}, but holds {held} with {job}", line.0)
        });
    }

    fn balance(&self, account: &Account) -> i64 {
        self.book.balances.get(account).copied().unwrap_or(0)
    }

    fn on_job_end(&mut self, step: &Step<'_>, row: &JobRow, before: Option<&JobFacts>, after: &JobFacts) {
        let reservation = before.and_then(|b| b.reservation.clone());
        let word = match &reservation {
            Some((reservation, node)) => last_word(step.note, *reservation, node),
            None => LastWord::Nothing,
        };
        if after.state == JobState::Succeeded {
            self.judge.check(Line::StaleInert, matches!(word, LastWord::Result(_)), || {
                format!("{} succeeded on {} that isn't its live reservation's", row.id, step.note.word)
            });
        }
        if after.state == JobState::Cancelled {
            let shut = row.progress.end == Some(End::Cancelled(CancelCause::Shutdown));
            let tied = row.spec.is_tied_to_client() && !row.origin.is_system();
            self.judge
                .check(Line::ShutdownKeeps, !shut || tied, || format!("{} ended with the service", row.id));
        }
        let written_tokens = reservation
            .and_then(|(reservation, _)| self.revoked.get(&reservation))
            .map(|(_, tokens)| *tokens);
        let expected = charge(&Ending { before, after, word: &word, written_tokens });
        self.coverage.count("charge", expected.case);
        let capped = |amount: &i64| (*amount).min(before.map_or(i64::MAX, |b| b.hold));
        self.judge.check(
            Line::ChargeRule,
            expected.amounts.iter().any(|a| capped(a) == after.charged),
            || {
                format!(
                    "{} ({}) was charged {}, expected {:?}; {word:?}, written {written_tokens:?}, {:?}",
                    row.id, expected.case, after.charged, expected.amounts, after.prices
                )
            },
        );
        let held = before.map_or(0, |before| before.hold);
        self.judge.check(Line::ChargeWithinHold, after.charged <= held, || {
            format!("{} held {held}, and was charged {}", row.id, after.charged)
        });
        self.check_posted(row.id, after);
    }

    fn check_posted(&mut self, job: JobId, after: &JobFacts) {
        let id = PostingId { subject: Subject::Job(job), step: LedgerStep::Capture };
        let legs = self.book.postings.get(&id).map(|posting| posting.legs.clone()).unwrap_or_default();
        let of = |owner: &Owner| legs.iter().filter(|(o, _)| o == owner).map(|(_, c)| c.0).sum::<i64>();
        let paid = -of(&after.payer().owner);
        let fee = of(&Owner::Fee);
        let cut = i128::from(after.charged) * i128::from(self.limits.fee_ppm) / 1_000_000;
        let earned = after.node.as_ref().map_or(0, |node| of(&Owner::Node(node.clone())));
        let split = i128::from(fee) == cut || earned == 0;
        self.judge.check(Line::ChargePosted, paid == after.charged && fee + earned == paid && split, || {
            format!("{job} was charged {}, and posted {legs:?}", after.charged)
        });
    }

    fn on_posting_row(&mut self, posting: &Posting) {
        let sum: i64 = posting.legs.iter().map(|(_, credits)| credits.0).sum();
        self.judge.check(Line::SumZero, sum == 0, || format!("{posting:?} sums to {sum}"));
        let before = self.book.postings.get(&posting.id);
        self.judge.check(Line::PostedOnce, before.is_none(), || {
            format!("{posting:?} was posted before as {before:?}")
        });
        self.coverage.count(
            "ledger",
            match posting.id.step {
                LedgerStep::Capture => "capture",
                LedgerStep::Deposit => "deposit",
                LedgerStep::Adjust => "adjust",
                LedgerStep::Transfer => "transfer",
            },
        );
        self.book.apply(&Row::Posting(posting.clone()));
    }

    /// Only the node that has the live reservation can make a job run.
    fn check_begun(&mut self, note: &Note, job: JobId, after: &JobFacts) {
        let begun = after.reservation.as_ref().is_some_and(|(reservation, node)| {
            let named = note.named.contains(reservation)
                || note.results.iter().any(|result| result.reservation == *reservation);
            named && note.node.as_ref() == Some(node)
        });
        self.judge.check(Line::StaleInert, begun, || {
            format!("{job} runs, but {} isn't its node's word", note.word)
        });
    }
}

/// What a node said of that reservation in this event.
fn last_word(
    note: &Note,
    reservation: switchbox::ids::ReservationId,
    node: &switchbox::ids::NodeId,
) -> LastWord {
    if note.node.as_ref() != Some(node) {
        return LastWord::Nothing;
    }
    if let Some(result) = note.results.iter().find(|result| result.reservation == reservation) {
        return LastWord::Result(result.clone());
    }
    match &note.stopped {
        Some(stopped) if stopped.reservation == reservation => LastWord::Stopped(stopped.clone()),
        _ => LastWord::Nothing,
    }
}

/// Whether nothing that matters of a finished job changed: its row may be written again, shorter.
fn is_unchanged(before: &Option<JobFacts>, after: &JobFacts) -> bool {
    before.as_ref().is_some_and(|before| before.end == after.end && before.charged == after.charged)
}
