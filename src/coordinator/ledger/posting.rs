//! Postings: changes that sum to zero, within one environment, each with an id that repeats are known by.
//! Values only.

use super::super::event::Environment;
use super::{FEE_WHOLE_PPM, Owner, Split};
use crate::credits::Credits;
use crate::ids::{JobId, OperationId};
use crate::time::Time;

/// What a posting is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A job.
    Job(JobId),
    /// Something that an operator did.
    Operation(OperationId),
}

/// Which step of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A job's cost was taken from its hold.
    Capture,
    /// A namespace got credits.
    Deposit,
    /// An operator set something right.
    Adjust,
    /// A node's earnings went to its owner's namespace.
    Transfer,
}

/// There is at most one posting of an id; of an operation's within a day, for then its id may be used again. So
/// what a posting is kept under for ever is its id with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PostingId {
    /// What it is about.
    pub subject: Subject,
    /// Which step.
    pub step: Step,
}

/// A change of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// What repeats are known by.
    pub id: PostingId,
    /// In which world: every leg is there.
    pub environment: Environment,
    /// When.
    pub at: Time,
    /// Changes that sum to zero, each of another account.
    pub legs: Vec<(Owner, Credits)>,
    /// An operator's reason; empty where none is needed.
    pub note: String,
}

impl Posting {
    pub(super) fn is_same_but_for_time(&self, other: &Posting) -> bool {
        let content = |posting: &Posting| (posting.id, posting.environment);
        content(self) == content(other) && self.legs == other.legs && self.note == other.note
    }
}

/// A job's cost, from its payer to its node and the fee; a share of nothing has no leg.
pub(super) fn capture_legs(payer: &Owner, cost: Credits, split: Split<'_>) -> Vec<(Owner, Credits)> {
    let fee = match split.node {
        Some(_) => part_of(cost, split.fee_ppm),
        None => cost,
    };
    let mut legs = Vec::with_capacity(3);
    legs.push((payer.clone(), Credits(-cost.0)));
    if let Some(node) = split.node.filter(|_| fee < cost) {
        legs.push((Owner::Node(node.clone()), Credits(cost.0 - fee.0)));
    }
    if fee > Credits::ZERO {
        legs.push((Owner::Fee, fee));
    }
    legs
}

/// So many millionths of an amount that isn't below zero, rounded down.
fn part_of(amount: Credits, ppm: u32) -> Credits {
    let part = i128::from(amount.0) * i128::from(ppm.min(FEE_WHOLE_PPM)) / i128::from(FEE_WHOLE_PPM);
    Credits(i64::try_from(part).expect("a part is no more than the whole"))
}
