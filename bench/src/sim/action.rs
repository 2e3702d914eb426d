//! What happens to the world from outside, as a list that a seed makes and that can be replayed in part.
//!
//! An action names what it acts on by number, so that it means something (or nothing) in any sublist.

use switchbox::coordinator::command::{NodeCommand, Scope};
use switchbox::coordinator::event::{Environment, JobSpec, StoreRoom, Wish};
use switchbox::time::Span;

/// Something that somebody does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// A client asks for an inference.
    Submit(Box<SubmitPlan>),
    /// A client or the operator cancels one of the last jobs.
    Cancel {
        /// Which, counted from the newest.
        back: usize,
        /// Who.
        by: Canceller,
    },
    /// A client says what it thinks of one of the last jobs.
    Feedback {
        /// Which, counted from the newest.
        back: usize,
    },
    /// The operator requeues a dead letter, if there is one.
    Requeue {
        /// Chooses it.
        pick: u64,
    },
    /// The operator or a namespace changes something.
    Operate(Change),
    /// Somebody asks.
    Ask(u64),
    /// Something happens to a node.
    Node(usize, Trouble),
    /// The box dies, for so long.
    Crash {
        /// Chooses how much of the log survives.
        keep: u64,
        /// How long it is down.
        down: Span,
    },
    /// The box is told to stop, and does so after that long at most.
    Shutdown {
        /// What it has to finish in.
        deadline: Span,
        /// How long it is down.
        down: Span,
    },
    /// The disk takes long.
    StoreStalls {
        /// So long.
        span: Span,
        /// Whether so much waits for it that the box starts nothing more.
        room: StoreRoom,
    },
}

/// Who cancels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Canceller {
    /// The job's own namespace.
    Client,
    /// The operator.
    Operator,
    /// Another namespace, which may not.
    Stranger,
}

/// A request, and how its client behaves.
#[derive(Debug, Clone)]
pub(crate) struct SubmitPlan {
    /// What is asked for.
    pub(crate) spec: JobSpec,
    /// Determines the body.
    pub(crate) body: u64,
    /// How the answer is read.
    pub(crate) reader: Reader,
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As it comes.
    Prompt,
    /// Looks only now and then.
    Slow(Span),
    /// Is gone after a while.
    Leaves(Span),
}

/// What an operator does.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Pauses something.
    Pause(Scope),
    /// Ends a pause.
    Resume(Scope),
    /// Changes a node's standing.
    Node(usize, NodeCommand),
    /// Admits the node for other environments, or with another trust.
    Admit(usize, u64),
    /// A deposit; the same number is the same operation, and an odd amount may differ from the first.
    Deposit {
        /// Names the operation.
        operation: u64,
        /// Of which namespace.
        namespace: usize,
        /// In which world.
        environment: Environment,
        /// How much.
        credits: i64,
    },
    /// Corrects a namespace's account.
    Adjust {
        /// Names the operation.
        operation: u64,
        /// Of which namespace.
        namespace: usize,
        /// How much.
        credits: i64,
    },
    /// A node's earnings to its owner.
    Transfer {
        /// Names the operation.
        operation: u64,
        /// Which node.
        node: usize,
        /// How much.
        credits: i64,
    },
    /// A new price.
    Price(u64),
    /// A namespace's settings change.
    Namespace(usize, u64),
    /// A node joins or leaves a subcloud.
    Member {
        /// Which subcloud.
        subcloud: usize,
        /// Which node.
        node: usize,
        /// Whether it joins.
        joins: Joins,
    },
    /// A subcloud is made again or ended.
    Subcloud(usize, Joins),
    /// A template comes or goes.
    Template(usize, Joins),
    /// A configuration for nodes: a new one, or one that must be refused.
    Configure(u64),
}

/// In or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joins {
    /// In.
    In,
    /// Out.
    Out,
}

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its connection dies, and comes back after a while.
    Cut {
        /// How long it is away.
        away: Span,
        /// When the box notices; never, if the node is back before.
        noticed: Span,
    },
    /// It dies with everything it ran, and comes back after a while.
    Dies(Span),
    /// Its owner wishes something.
    Wishes(Wish),
    /// It says something again that it said before.
    Repeats,
    /// It signs wrongly.
    SignsWrongly,
    /// It names a reservation that isn't its own.
    NamesForeign,
    /// It names a reservation that was never issued.
    Invents,
    /// It hands back an attempt without output.
    HandsBack,
    /// It offers other models from its next connection on.
    Changes(u64),
}
