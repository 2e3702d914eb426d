//! The verdict on rows: what clients were told up to a moment holds, and the books are right.

use std::collections::BTreeMap;

use switchbox::coordinator::job::{AttemptOutcome, JobRow, JobState};
use switchbox::coordinator::ledger::{Account, Owner, Posting, Step, Subject};
use switchbox::ids::JobId;

use crate::client::{Cancel, Entries, Job, Kept, Told};
use crate::finding::{Finding, Kind};
use crate::rows::Facts;

/// Restarts that cut a job before it is a dead letter.
const CUTS_MAX: u32 = 2;

/// Which acknowledgements count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upto {
    /// All.
    Now,
    /// Those that were read when the recorder had at most so many records.
    Records(u64),
}

impl Upto {
    fn counts(self, records: u64) -> bool {
        match self {
            Upto::Now => true,
            Upto::Records(upto) => records <= upto,
        }
    }
}

/// The charges of each job.
type Charges<'a> = BTreeMap<JobId, Vec<&'a Posting>>;

/// Everything that is wrong.
pub fn judge(facts: &Facts, entries: &Entries, upto: Upto) -> Vec<Finding> {
    let mut wrong = Vec::new();
    for (id, job) in &entries.jobs {
        judge_told(facts, id, job, upto, &mut wrong);
    }
    let mut charges: Charges<'_> = BTreeMap::new();
    for posting in &facts.postings {
        if let (Subject::Job(job), Step::Capture) = (posting.id.subject, posting.id.step) {
            charges.entry(job).or_default().push(posting);
        }
    }
    for (id, row) in &facts.jobs {
        judge_job(facts, &charges, (id, row), entries.jobs.get(id), &mut wrong);
    }
    if facts.jobs.len() as u64 > entries.submissions {
        let text = format!("{} jobs of {} submissions", facts.jobs.len(), entries.submissions);
        wrong.push(Kind::Twice.says(text));
    }
    judge_prompts(facts, &mut wrong);
    judge_deposits(facts, entries, upto, &mut wrong);
    judge_balances(facts, &mut wrong);
    wrong
}

/// What a client was told of a job.
fn judge_told(facts: &Facts, id: &str, job: &Job, upto: Upto, wrong: &mut Vec<Finding>) {
    let told: Vec<Told> =
        job.told.iter().filter(|(_, records)| upto.counts(*records)).map(|(told, _)| *told).collect();
    if told.is_empty() {
        return;
    }
    let Some(row) = facts.jobs.get(id) else {
        return wrong.push(Kind::Lost.says(format!("job {id} is lost: {:?}", job.told)));
    };
    let is = |state: JobState| row.state == state;
    let holds = if told.contains(&Told::Answered) {
        is(JobState::Succeeded)
    } else if told.contains(&Told::Cancelled) {
        is(JobState::Cancelled)
    } else if told.contains(&Told::Cancelling) {
        is(JobState::Cancelled) || row.state.is_live() && row.cancel_requested.is_some()
    } else {
        row.state.is_live()
            || is(JobState::Succeeded)
            || is(JobState::Failed) && row.box_cuts >= CUTS_MAX
            || is(JobState::Cancelled) && job.cancel == Cancel::Asked
    };
    if !holds {
        wrong.push(Kind::Lost.says(format!("job {id}, {:?}: it is {}", job.told, row.state.word())));
    }
}

/// A job in itself: one accepted result at most, its answer, one charge.
fn judge_job(
    facts: &Facts,
    charges: &Charges<'_>,
    (id, row): (&str, &JobRow),
    job: Option<&Job>,
    wrong: &mut Vec<Finding>,
) {
    let succeeded = |attempt: &&_| matches!(attempt, AttemptOutcome::Succeeded);
    let accepted = row.history.iter().map(|attempt| &attempt.outcome).filter(succeeded).count();
    if accepted != usize::from(row.state == JobState::Succeeded) {
        let kind = if accepted > 1 { Kind::Twice } else { Kind::Wrong };
        wrong.push(kind.says(format!("job {id} is {} with {accepted} accepted results", row.state.word())));
    }
    let charges = charges.get(&row.id).map_or(&[][..], Vec::as_slice);
    let payer = Owner::Namespace(row.spec.namespace.clone());
    let paid: i64 =
        charges.iter().flat_map(|p| &p.legs).filter(|(owner, _)| *owner == payer).map(|(_, c)| -c.0).sum();
    if charges.len() > 1 || paid != row.charged.0 {
        let kind = if charges.len() > 1 { Kind::Twice } else { Kind::Wrong };
        let text = format!("job {id}: {} charges of {paid}, its row says {}", charges.len(), row.charged);
        wrong.push(kind.says(text));
    }
    let Some(job) = job.filter(|job| row.state == JobState::Succeeded && !job.prompt.is_empty()) else {
        return;
    };
    let answer = facts.answers.get(id);
    if job.answer == Kept::Yes && answer != Some(&job.prompt) {
        let kind = if answer.is_none() { Kind::Lost } else { Kind::Wrong };
        wrong.push(kind.says(format!("job {id} of `{}` has the answer {answer:?}", job.prompt)));
    }
    let tokens = job.prompt.split(' ').count() as u64;
    let price: u64 = row.prices.first().map_or(0, |price| price.input + price.output);
    if row.charged.0 as u64 != tokens * price / 1_000_000 {
        wrong.push(Kind::Wrong.says(format!("job {id} of {tokens} tokens was charged {}", row.charged)));
    }
}

fn judge_deposits(facts: &Facts, entries: &Entries, upto: Upto, wrong: &mut Vec<Finding>) {
    let mut found: BTreeMap<u128, Vec<&Posting>> = BTreeMap::new();
    for posting in &facts.postings {
        if let (Subject::Operation(operation), Step::Deposit) = (posting.id.subject, posting.id.step) {
            found.entry(operation.0).or_default().push(posting);
        }
    }
    for (operation, deposit) in &entries.deposits {
        let postings = found.remove(operation).unwrap_or_default();
        let is_told = deposit.told.is_some_and(|records| upto.counts(records));
        if is_told && postings.is_empty() {
            wrong.push(Kind::Lost.says(format!("deposit {operation:x} is lost")));
        }
        if postings.len() > 1 {
            let text = format!("deposit {operation:x} was made {} times", postings.len());
            wrong.push(Kind::Twice.says(text));
        }
        for posting in postings {
            let to =
                |owner: &Owner| matches!(owner, Owner::Namespace(n) if n.to_string() == deposit.namespace);
            let amount: i64 = posting.legs.iter().filter(|(owner, _)| to(owner)).map(|(_, c)| c.0).sum();
            if amount != deposit.micro {
                let text = format!("deposit {operation:x} of {} is {amount}", deposit.micro);
                wrong.push(Kind::Wrong.says(text));
            }
        }
    }
    for operation in found.keys() {
        wrong.push(Kind::Wrong.says(format!("deposit {operation:x} was never made")));
    }
}

/// No prompt is used twice by the rig, so a prompt that was answered by two jobs was run, and charged, twice.
fn judge_prompts(facts: &Facts, wrong: &mut Vec<Finding>) {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, answer) in &facts.answers {
        if let Some(other) = first.insert(answer, id) {
            let text = format!("`{answer}` was answered by job {other} and by job {id}");
            wrong.push(Kind::Twice.says(text));
        }
    }
}

/// Balances are the sums of postings and of what went, and zero in all.
fn judge_balances(facts: &Facts, wrong: &mut Vec<Finding>) {
    let mut sums: BTreeMap<Account, i128> = facts.folded.clone();
    for posting in &facts.postings {
        for (owner, credits) in &posting.legs {
            let account = Account { environment: posting.environment, owner: owner.clone() };
            *sums.entry(account).or_default() += i128::from(credits.0);
        }
    }
    let accounts = sums.keys().chain(facts.balances.keys()).cloned();
    let accounts: std::collections::BTreeSet<Account> = accounts.collect();
    for account in &accounts {
        let of = |map: &BTreeMap<Account, i128>| map.get(account).copied().unwrap_or(0);
        let (balance, sum) = (of(&facts.balances), of(&sums));
        if balance != sum {
            let text = format!("{account:?} has {balance}, its postings, with those that went, sum to {sum}");
            wrong.push(Kind::Wrong.says(text));
        }
    }
    let total: i128 = facts.balances.values().sum();
    if total != 0 {
        wrong.push(Kind::Wrong.says(format!("all balances sum to {total}")));
    }
}

/// What clients knew at a moment, as what holds from the beginning of another recording. What they had sent by the end
/// stays sent: the box may have had it.
pub fn as_of(entries: &Entries, upto: Upto) -> Entries {
    let mut entries = entries.clone();
    for job in entries.jobs.values_mut() {
        job.told.retain(|(_, records)| upto.counts(*records));
        job.told.iter_mut().for_each(|(_, records)| *records = 0);
    }
    // Those of a later start never were: in what follows their ids may be others', for they came in this very second.
    entries.jobs.retain(|_, job| !job.told.is_empty());
    for deposit in entries.deposits.values_mut() {
        deposit.told = deposit.told.filter(|records| upto.counts(*records)).map(|_| 0);
    }
    entries.keyed.retain(|keyed| upto.counts(keyed.records));
    entries.keyed.iter_mut().for_each(|keyed| keyed.records = 0);
    entries.unanswered.clear();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use switchbox::coordinator::event::Environment;
    use switchbox::coordinator::ledger::PostingId;
    use switchbox::credits::Credits;
    use switchbox::ids::{Namespace, OperationId};
    use switchbox::time::Time;

    fn deposit(operation: u128, micro: i64) -> Posting {
        let subject = Subject::Operation(OperationId(operation));
        let to = Owner::Namespace(Namespace::named("alpha"));
        Posting {
            id: PostingId { subject, step: Step::Deposit },
            environment: Environment::Mainnet,
            at: Time(0),
            legs: vec![(Owner::Issuance, Credits(-micro)), (to, Credits(micro))],
            note: String::new(),
        }
    }

    /// Rows with these deposits, and balances that are their sums.
    fn facts(postings: Vec<Posting>) -> Facts {
        let mut facts = Facts { postings, ..Facts::default() };
        for posting in &facts.postings {
            for (owner, credits) in &posting.legs {
                let account = Account { environment: posting.environment, owner: owner.clone() };
                *facts.balances.entry(account).or_default() += i128::from(credits.0);
            }
        }
        facts
    }

    /// A client whose deposit 1 of 5 was acknowledged at record 10, and whose deposit 2 never was.
    fn client() -> Client {
        let client = Client::default();
        client.deposits(1, "alpha", 5);
        client.deposits(2, "alpha", 6);
        client.deposited(1, 10);
        client
    }

    fn check(facts: &Facts, upto: Upto, expected: &[&str]) {
        let wrong = judge(facts, &client().entries(), upto);
        let fits = wrong.iter().zip(expected).all(|(wrong, expected)| wrong.text.contains(expected));
        assert!(wrong.len() == expected.len() && fits, "{wrong:?}, not {expected:?}");
    }

    #[test]
    fn deposits_are_there_once_and_as_they_were() {
        let both = facts(vec![deposit(1, 5), deposit(2, 6)]);
        check(&both, Upto::Now, &[]);
        check(&facts(vec![deposit(1, 5)]), Upto::Now, &[]);
        check(&facts(vec![]), Upto::Now, &["deposit 1 is lost"]);
        check(&facts(vec![]), Upto::Records(9), &[]);
        check(&facts(vec![]), Upto::Records(10), &["deposit 1 is lost"]);
        check(&facts(vec![deposit(1, 5), deposit(1, 5)]), Upto::Now, &["deposit 1 was made 2 times"]);
        check(&facts(vec![deposit(1, 4)]), Upto::Now, &["deposit 1 of 5 is 4"]);
        check(&facts(vec![deposit(1, 5), deposit(3, 5)]), Upto::Now, &["deposit 3 was never made"]);
    }

    #[test]
    fn balances_are_sums_of_postings_and_zero_in_all() {
        let mut wrong = facts(vec![deposit(1, 5)]);
        let account = wrong.balances.keys().next().expect("an account").clone();
        *wrong.balances.entry(account).or_default() += 1;
        check(&wrong, Upto::Now, &["with those that went, sum to", "all balances sum to 1"]);
    }

    #[test]
    fn a_job_that_somebody_was_told_of_is_there() {
        let told = |upto| {
            let client = Client::default();
            client.submits();
            client.told("job_1", "p", Kept::Yes, Told::Accepted, 3);
            judge(&Facts::default(), &client.entries(), upto)
        };
        assert_eq!(told(Upto::Records(2)), Vec::new());
        assert_eq!(told(Upto::Records(3)), [Kind::Lost.says("job job_1 is lost: [(Accepted, 3)]")]);
    }

    #[test]
    fn a_prompt_is_answered_once() {
        let answered = |ids: &[&str]| {
            let answers = ids.iter().map(|id| ((*id).to_owned(), "p7 w1".to_owned())).collect();
            judge(&Facts { answers, ..Facts::default() }, &Client::default().entries(), Upto::Now)
        };
        assert_eq!(answered(&["job_1"]), Vec::new());
        let twice = [Kind::Twice.says("`p7 w1` was answered by job job_1 and by job job_2")];
        assert_eq!(answered(&["job_1", "job_2"]), twice);
    }
}
