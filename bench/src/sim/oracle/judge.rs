//! The lines of the oracle: each is one promise of the texts, with how often it was put to the test.
//!
//! A line that is never tested proves nothing; its count says so. Nothing here knows what a promise means.

/// Defines the lines with the names that reports show.
macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// One promise.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Line {
            $($(#[$doc])* $name,)*
        }

        impl Line {
            /// All of them.
            pub(crate) const ALL: &'static [Line] = &[$(Line::$name),*];

            /// The name that reports show.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Line::$name => $word,)*
                }
            }
        }
    };
}

lines! {
    /// CORE 4: only the allowed changes of state; what has ended never changes.
    Transition = "a job's state changes only as allowed, and never after its end",
    /// SPEC 10: what was acknowledged survives every crash.
    AckSurvives = "what was acknowledged is there after a crash",
    /// An accepted job ends exactly once, or lives.
    EndsOnce = "an accepted job ended once or is live",
    /// Each client hears exactly one last word.
    OneLastWord = "a client hears exactly one last word",
    /// No connection gets output of two attempts.
    OneOutput = "no connection received output of two attempts",
    /// The answer is whole: the output of the named attempt, open, with as many chunks as said.
    AnswerWhole = "an answer is the whole output of its attempt",
    /// CORE 2: what acknowledges waits for the step that it rests on.
    AckWaits = "an acknowledgement waits for its step",
    /// A step has a new LSN exactly if it wrote rows.
    LsnCounts = "a step that writes has the next lsn, another has none",
    /// Double entry.
    SumZero = "postings sum to zero",
    /// A balance row is what the postings add up to.
    BalanceIsPostings = "a balance is the sum of its postings",
    BalanceIsKept = "a balance is what its kept postings and the folded ones add up to",
    /// An id is posted once.
    PostedOnce = "a ledger step is posted once",
    /// SPEC 6, case by case.
    ChargeRule = "a job is charged what the rules say",
    /// A capture never exceeds its hold.
    ChargeWithinHold = "a charge is within its hold",
    /// What a job says it cost is what was posted for it, with the right split.
    ChargePosted = "what was charged was posted, split between node and fee",
    /// A live job has its hold, a finished one none.
    HoldWhileLive = "a job has its hold exactly while it lives",
    /// The hold is the worst case over the model and its fallbacks.
    HoldIsWorstCase = "a hold is the worst case at the frozen prices",
    /// Limited credit is never overspent.
    NoOverspend = "nobody overspends",
    /// SPEC 8.
    EnvironmentKept = "environments never cross",
    /// SPEC 1.
    TrustKept = "prompts go only to nodes trusted enough",
    /// SPEC 8, `isolate` and policies.
    SubcloudKept = "subclouds never cross",
    /// Allow and deny lists.
    ListsKept = "lists of nodes are kept",
    /// Model and version.
    ModelKept = "a node runs only models and versions that it serves",
    /// GPU, memory, region.
    HardwareKept = "gpu, memory and region are kept",
    /// SPEC 3.
    StandingKept = "no work for nodes that may not have any",
    /// New nodes, new models and excluded nodes are tested first.
    TestedFirst = "a test job passes before the first work",
    /// SPEC 2.
    PauseKept = "nothing paused is placed",
    /// SPEC 2.
    NotAfterTtl = "nothing is dispatched after its ttl",
    /// SPEC 2.
    NotBeforeKept = "nothing is dispatched before its time",
    /// SPEC 2.
    ExpiryOnTime = "an expiry happens within a tick",
    /// CORE 5.
    TierOrder = "a node takes the highest tier's job that it can",
    /// SPEC 2.
    BatchIdleOnly = "batch takes only capacity that no higher job could use",
    /// SPEC 5.
    FailedNodeAvoided = "a node that failed a job gets it only if no other can",
    /// SPEC 5.
    DeliveredNotRerun = "a job with delivered output never runs again",
    /// What really runs on a node never exceeds what it can.
    CapacityKept = "no node really runs more than it can",
    /// SPEC 5.
    HonestNotStruck = "an honest node is never struck",
    HonestNotBlamed = "an answer that is proven wrong is of a node that gave wrong ones",
    /// SPEC 5.
    CooldownKept = "an exclusion lasts until its cooldown is over",
    /// CORE 3.
    ListedHonoured = "a listed result is honoured",
    /// What names a dead reservation changes nothing.
    StaleInert = "a dead reservation changes nothing",
    /// SPEC 5: `accepted` or `unknown`, finally.
    ResultAnswered = "every result is answered",
    /// SPEC 9.
    KeyOneJob = "a key makes one job",
    /// SPEC 9 and 10.
    KeyOutlivesCrash = "a key makes one job across crashes",
    /// SPEC 9.
    KeyConflicts = "a key with another body is refused",
    /// A command does what it says, and nothing else does.
    CommandTaken = "a command is done, and only commands do it",
    /// CORE 6: no more nodes than are compared means that the best one is found.
    BestOfFew = "among few nodes, a job that comes gets the best",
    /// SPEC 8.
    ConfigurationJudged = "a configuration is taken exactly if it is newer and sound",
    /// SPEC 8.
    ConfigurationGrows = "a configuration's version only grows",
    /// SPEC 8.
    ConfigurationTold = "nodes are told of the newest configuration",
    /// SPEC 9: another tenant's job is none.
    OwnOnly = "a tenant cancels only its own jobs",
    /// Retention: `"store": false`.
    AnswerUntilTaken = "an answer that isn't to be stored is there until a client took it, and not after",
    /// Retention: nobody's results are pushed out by who keeps less.
    ForgottenFairly = "what is forgotten is old, or too much of whoever keeps the most",
    /// CORE 1: above the high-water mark nothing starts, nor while the service ends.
    PlacementCloses = "nothing is placed while the disk is behind or the service ends",
    /// SPEC 10: what isn't tied to a connection outlives the process.
    ShutdownKeeps = "a shutdown ends only what is tied to its client",
    /// The bound that the fairness scenario states.
    Fair = "weighted shares are fair",
    /// The bound that the fairness scenario states.
    WaitBounded = "no runnable job waits longer than its bound",
    /// Everything is given back in the end.
    IdleZero = "gauges are zero when everything wound down",
    /// The kept gauges are what the rows say.
    GaugesTrue = "gauges are what the rows say",
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise, or which check of the core's own.
    pub(crate) line: String,
    /// With what values.
    pub(crate) detail: String,
}

/// Counts checks and keeps violations.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    checks: Vec<u64>,
    /// What went wrong, in order; the first counts.
    pub(crate) violations: Vec<Violation>,
}

/// Violations kept of one run; the first says all.
const VIOLATIONS_MAX: usize = 8;

impl Judge {
    /// Puts a line to the test.
    pub(crate) fn check(&mut self, line: Line, holds: bool, detail: impl FnOnce() -> String) {
        self.tested(line);
        if !holds && self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { line: line.word().to_owned(), detail: detail() });
        }
    }

    /// Counts a test that passed.
    pub(crate) fn tested(&mut self, line: Line) {
        if self.checks.is_empty() {
            self.checks = vec![0; Line::ALL.len()];
        }
        self.checks[line as usize] += 1;
    }

    /// Adds a violation of something that isn't a line.
    pub(crate) fn violated(&mut self, what: &str, detail: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { line: what.to_owned(), detail });
        }
    }

    /// Each line's word and how often it was tested.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Line::ALL.iter().map(|line| (line.word(), self.checks.get(*line as usize).copied().unwrap_or(0)))
    }
}
