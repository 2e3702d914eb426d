//! What can be asked of the core: it looks, and changes nothing but how it stops.

use super::event::Tenant;
use super::spec::Environment;
use crate::ids::{ClientId, JobId, Namespace, NodeId, SubcloudName};

/// A question to the core, answered to `client` by [`super::effect::Answer`].
#[derive(Debug, Clone)]
pub struct Ask {
    /// Where to answer.
    pub client: ClientId,
    /// What is asked.
    pub question: Question,
}

/// What can be asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// Every gauge and counter.
    Counts,
    /// A full recount of everything, compared with the kept counters.
    Invariants,
    /// All nodes with capacity, load, standing and its causes.
    Nodes,
    /// What waits, per model and tier.
    Queue,
    /// Where a job stands: position, estimate, runnable or why not. `None` asks as the operator.
    Job(JobId, Option<Tenant>),
    /// The decisions on one job, with times and reasons.
    Trace(JobId),
    /// The newest dead letters, newest first, at most so many.
    DeadLetters(u32),
    /// Every balance.
    Balances,
    /// The invites that are open.
    Invites,
    /// One node with everything that is kept of it.
    Node(NodeId),
    /// What is settled about every namespace that was ever seen, or about this one.
    Namespaces(Option<Namespace>),
    /// All subclouds; to a namespace, those that it owns in its environment.
    Subclouds(Option<Tenant>),
    /// One subcloud. To a namespace one that it doesn't own is none.
    Subcloud(Environment, SubcloudName, Option<Namespace>),
    /// The templates of blind and test jobs.
    Templates,
    /// The configuration in force in an environment.
    Configuration(Environment),
    /// Take no more work from clients.
    Drain,
    /// As `Drain`, for the server is to stop: once nobody waits on a connection, start nothing more either.
    WindDown,
    /// The server stops: start nothing more, end what is tied to its client's connection (a number of jobs a step,
    /// so it is asked until none is left) and take back what the box's own node runs. All else waits for the next
    /// start, as it would after a crash.
    EndService,
}
