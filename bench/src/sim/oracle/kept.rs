//! What is kept of jobs that have ended: whose goes when there is too much.

use std::collections::BTreeMap;

use switchbox::coordinator::effect::{Effect, Row};
use switchbox::coordinator::event::Storing;
use switchbox::coordinator::job::{JobRow, JobState};
use switchbox::ids::{JobId, Namespace};
use switchbox::time::Time;

use super::book::JobFacts;
use super::judge::Line;
use super::{Oracle, Step};

/// Bytes that are counted for a finished job.
pub(super) fn bytes_of(row: &JobRow) -> u64 {
    let answered = row.state == JobState::Succeeded && !is_unnamed(row.origin.is_system(), row);
    let answer =
        if answered { u64::from(row.usage.output_tokens) * u64::from(row.spec.bytes_per_token) } else { 0 };
    row.body.as_ref().map_or(0, |body| body.len() as u64) + answer
}

fn is_unnamed(system: bool, row: &JobRow) -> bool {
    system || row.spec.is_tied_to_client()
}

/// What one namespace keeps.
#[derive(Default)]
struct Pile {
    things: u64,
    bytes: u64,
    oldest: Option<(Time, JobId)>,
}

impl Oracle {
    fn is_of_no_name(facts: &JobFacts) -> bool {
        facts.origin.is_system() || facts.spec.is_tied_to_client() && facts.state != JobState::Failed
    }

    /// Whether a key still stands for it.
    fn has_key(&self, job: JobId, facts: &JobFacts) -> bool {
        let stands = |key| self.book.standing_keys.get(&key) == Some(&job);
        facts.state == JobState::Succeeded && facts.spec.key.is_some_and(|keyed| stands(keyed.key))
    }

    /// What each namespace keeps, of jobs that `counts`.
    fn piles(&self, counts: impl Fn(JobId, &JobFacts) -> bool) -> BTreeMap<Namespace, Pile> {
        let mut piles: BTreeMap<Namespace, Pile> = BTreeMap::new();
        for job in &self.book.kept {
            let facts = &self.book.jobs[job];
            if counts(*job, facts) {
                let pile = piles.entry(facts.spec.namespace.clone()).or_default();
                pile.things += 1;
                pile.bytes += facts.kept_bytes;
                let age = (facts.ended_at.unwrap_or_default(), *job);
                pile.oldest = pile.oldest.map_or(Some(age), |oldest| Some(oldest.min(age)));
            }
        }
        piles
    }

    /// A client looks a job's answer up. Says whether it is there; it must be, unless somebody had it already.
    pub(crate) fn reads_answer(&mut self, job: JobId) -> bool {
        let there = self.book.answers.get(&job).copied();
        let forbids = self.book.jobs.get(&job).is_some_and(|facts| facts.spec.storing == Storing::Forbidden);
        let had = forbids && self.told.taken.contains(&job);
        let gone = !self.book.kept.contains(&job);
        if forbids {
            self.coverage.count("answers not to be stored", if there.is_some() { "read" } else { "gone" });
        }
        self.judge.check(Line::AnswerUntilTaken, there.is_some() || had || gone, || {
            format!("the answer of {job} is gone, and nobody had it")
        });
        there.is_some()
    }

    pub(super) fn check_answer_forgotten(&mut self, job: JobId) {
        let forbids = self.book.answers.get(&job).is_none_or(|storing| *storing == Storing::Forbidden);
        let had = self.told.taken.contains(&job);
        self.judge.check(Line::AnswerUntilTaken, forbids && had, || {
            format!("the answer of {job} is forgotten: taken {had}, not to be stored {forbids}")
        });
    }

    /// What a client took and isn't to be stored is forgotten in the same step.
    pub(super) fn check_taken(&mut self, step: &Step<'_>) {
        let Some(job) = step.note.took else { return };
        let left = self.book.answers.get(&job) == Some(&Storing::Forbidden);
        self.judge.check(Line::AnswerUntilTaken, !left, || format!("{job}'s answer was taken, and stays"));
    }

    pub(super) fn check_forgotten(&mut self, step: &Step<'_>, job: JobId) {
        let Some(facts) = self.book.jobs.get(&job).cloned() else { return };
        let ended_at = facts.ended_at.unwrap_or_default();
        let old = step.now.since(ended_at) > self.limits.finished_age_max;
        let unnamed = Self::is_of_no_name(&facts);
        let piles = match unnamed {
            true => self.piles(|_, facts| Self::is_of_no_name(facts)),
            false => self.piles(|job, facts| !Self::is_of_no_name(facts) && !self.has_key(job, facts)),
        };
        let (things, bytes) =
            piles.values().fold((0, 0), |(things, bytes), pile| (things + pile.things, bytes + pile.bytes));
        let own = piles.get(&facts.spec.namespace);
        let is_oldest = own.is_some_and(|own| own.oldest == Some((ended_at, job)));
        let most = |of: fn(&Pile) -> u64| own.map(of) == piles.values().map(of).max();
        let fair = if old {
            true
        } else if unnamed {
            let oldest = piles.values().filter_map(|pile| pile.oldest).min();
            things > self.limits.finished_unnamed_jobs_max as u64 && oldest == Some((ended_at, job))
        } else {
            is_oldest
                && (things > self.limits.finished_jobs_max as u64 && most(|pile| pile.things)
                    || bytes > self.limits.finished_bytes_max && most(|pile| pile.bytes))
        };
        let kept = !self.has_key(job, &facts) && self.book.kept.contains(&job);
        let kind = match (old, unnamed) {
            (true, _) => "old",
            (_, true) => "unnamed",
            _ => "named",
        };
        self.coverage.count("forgotten", kind);
        self.judge.check(Line::ForgottenFairly, kept && fair, || {
            let own = own.map(|own| (own.things, own.bytes, own.oldest));
            format!("{job} is forgotten: unnamed {unnamed}, of {things} and {bytes} bytes, its own {own:?}")
        });
    }

    /// A dead letter goes with its job, or because its namespace has the most of too many.
    pub(super) fn check_letter_forgotten(&mut self, step: &Step<'_>, job: JobId) {
        let Some(facts) = self.book.jobs.get(&job) else { return };
        let goes_too = |effect: &Effect| matches!(effect, Effect::Row(Row::JobForgotten(of)) if *of == job);
        if step.effects.iter().any(goes_too) {
            return;
        }
        let piles = self.piles(|job, _| self.book.dead.contains_key(&job));
        let most = piles.values().map(|pile| pile.things).max().unwrap_or(0);
        let own = piles.get(&facts.spec.namespace).map_or(0, |pile| pile.things);
        let fair = self.book.dead.len() > self.limits.dead_letters_max && own == most;
        self.judge.check(Line::ForgottenFairly, fair, || {
            format!("the letter of {job} is forgotten, of {own} where another has {most}")
        });
    }
}
