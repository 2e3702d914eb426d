//! What a phase finds: of which kind, and in words. A control must be found by the kind that its bug causes, and what
//! is wrong with the rig itself is never taken for a find.

use std::fmt;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something that was acknowledged isn't there, or isn't what the client was told.
    Lost,
    /// Something was done, answered or charged twice.
    Twice,
    /// What is there isn't right: sums, states, answers, a replay that gives something else.
    Wrong,
    /// A directory that must open doesn't.
    Unopened,
    /// A box ended by itself, though nothing was done to it.
    Died,
    /// A box went on after a write or sync of its journal or state had failed.
    WentOn,
    /// Damage was refused that must be recovered, or wasn't refused by file and offset.
    Misnamed,
    /// The rig couldn't do what it is for: nothing is said of the product.
    Rig,
}

impl Kind {
    /// A finding of this kind.
    pub fn says(self, text: impl Into<String>) -> Finding {
        Finding { kind: self, text: text.into() }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind.
    pub kind: Kind,
    /// What, for a reader.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}] {}", self.kind, self.text)
    }
}

/// When a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// When all is done.
    Whole,
    /// As soon as this is found: a control.
    Found(Sought),
}

/// What a bug does, and where it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    /// One of these kinds,
    pub kinds: &'static [Kind],
    /// in a trial with this in its name,
    pub trial: &'static str,
    /// and with one of these words (between `|`) in what is found.
    pub words: &'static str,
}

impl End {
    /// Whether this is what a control is looked for by.
    pub fn is_met_by(self, trial: &str, finding: &Finding) -> bool {
        match self {
            End::Whole => false,
            End::Found(Sought { kinds, trial: of, words }) => {
                let says = words.split('|').any(|word| finding.text.contains(word));
                kinds.contains(&finding.kind) && trial.contains(of) && says
            }
        }
    }
}
