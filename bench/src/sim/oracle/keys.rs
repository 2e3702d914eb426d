//! Idempotency keys: one job for a key, while it lives or once it succeeded, also across crashes (SPEC 9 and 10).

use switchbox::coordinator::effect::{Effect, RefusalKind, Reply};
use switchbox::coordinator::event::Origin;
use switchbox::ids::JobId;

use super::book::JobFacts;
use super::judge::Line;
use super::{Oracle, Step};

impl Oracle {
    /// A new job may take a key only if no other job stands for it.
    pub(super) fn check_new_key(&mut self, job: JobId, facts: &JobFacts) {
        let (Some(keyed), Origin::Client) = (*facts.spec.key, &facts.origin) else { return };
        let rivals = self.book.keys.get(&keyed.key).into_iter().flatten().filter(|other| **other != job);
        let standing = |other: &&JobId| {
            let state = self.book.jobs[other].state;
            state.is_live() || state == switchbox::coordinator::job::JobState::Succeeded
        };
        let rival = rivals.copied().rfind(|other| standing(&other));
        let line = match rival {
            Some(rival) if rival.epoch < job.epoch => Line::KeyOutlivesCrash,
            _ => Line::KeyOneJob,
        };
        self.judge
            .check(line, rival.is_none(), || format!("{job} was made although {rival:?} stands for its key"));
    }

    /// What a keyed submit is answered with.
    pub(super) fn check_submit(&mut self, step: &Step<'_>, key_job: Option<JobId>) {
        let Some((client, spec)) = &step.note.submit else { return };
        let refused = step.effects.iter().find_map(|effect| match effect {
            Effect::ToClient { client: to, reply: Reply::Refused(refusal), .. } if to == client => {
                Some(refusal)
            }
            _ => None,
        });
        if let Some(refusal) = refused {
            let kind = format!("{:?}", refusal.kind);
            self.coverage.count("refusal", kind.split('(').next().unwrap_or(&kind));
            if let Some(after) = refusal.retry_after {
                self.judge.check(Line::OneLastWord, (1_000_000..=60_000_000).contains(&after.0), || {
                    format!("retry after {after:?}")
                });
            }
        }
        let (Some(keyed), Some(job)) = (*spec.key, key_job) else { return };
        let known = &self.book.jobs[&job].spec;
        let same = known.key.is_some_and(|k| k.body == keyed.body) && known.endpoint == spec.endpoint;
        if same {
            let line = if job.epoch < self.epoch { Line::KeyOutlivesCrash } else { Line::KeyOneJob };
            self.judge.tested(line);
            self.check_attached(step, *client, job);
        } else {
            let conflict = refused.is_some_and(|refusal| refusal.kind != RefusalKind::KeysFull);
            self.judge.check(Line::KeyConflicts, conflict, || {
                format!("{client:?} came with {job}'s key and another body, and got {refused:?}")
            });
        }
    }

    fn check_attached(&mut self, step: &Step<'_>, client: switchbox::ids::ClientId, job: JobId) {
        let accepted = step.effects.iter().find_map(|effect| match effect {
            Effect::ToClient { client: to, reply: Reply::Accepted { job, .. }, .. } if *to == client => {
                Some(*job)
            }
            _ => None,
        });
        self.judge.check(Line::KeyOneJob, accepted.is_none_or(|accepted| accepted == job), || {
            format!("{client:?} came with {job}'s key and was given {accepted:?}")
        });
    }
}
