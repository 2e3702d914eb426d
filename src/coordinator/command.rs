//! What operators, and owners of subclouds, change. Each command is answered once it is durable.

use std::sync::Arc;

use super::integrity::Template;
use super::ledger::{Owner, PriceRule};
use super::snapshot::Snapshot;
use super::spec::{Environment, Tier};
use super::standing::{Environments, Trust};
use super::subcloud::Subcloud;
use crate::credits::Credits;
use crate::ids::{ClientId, Digest, ModelName, Namespace, NodeId, OperationId, Region, SubcloudName};
use crate::time::Span;

/// A command with who waits for its answer.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Where to answer.
    pub client: ClientId,
    /// Who asks: `None` is the operator, who may do everything; a namespace may change the subclouds it owns.
    pub by: Option<Namespace>,
    /// What.
    pub command: Command,
}

/// What can be changed.
#[derive(Debug, Clone)]
pub enum Command {
    /// Makes a node known, or changes what the operator decides about it.
    AdmitNode(NodeSettings),
    /// Changes a node's standing.
    Node(NodeId, NodeCommand),
    /// Stops placement of what is named; the answer says how many waiting jobs would expire first.
    Pause(Scope),
    /// Lets placement of what is named go on.
    Resume(Scope),
    /// Settings of a namespace.
    PutNamespace(NamespaceSettings),
    /// Credits for a namespace.
    Deposit(Amount, Namespace),
    /// Corrects an account, upwards or downwards.
    Adjust(Amount, Owner, Arc<str>),
    /// A node's earnings to its owner's namespace.
    Transfer(Amount, NodeId),
    /// A price with its date of effect.
    PutPrice(PriceRule),
    /// A blind job's template.
    PutTemplate(Box<Template>),
    /// No more blind jobs of this template.
    DropTemplate(ModelName, Arc<str>),
    /// Makes or replaces a subcloud.
    PutSubcloud(Box<Subcloud>),
    /// Ends a subcloud.
    DropSubcloud(Environment, SubcloudName),
    /// A node becomes a member.
    JoinSubcloud(Environment, SubcloudName, NodeId),
    /// A node is no member any more.
    LeaveSubcloud(Environment, SubcloudName, NodeId),
    /// A new configuration for the nodes of an environment.
    Configure(Box<Snapshot>),
    /// One more node may register.
    Invite(Box<NewInvite>),
    /// An invite, by the digest of its token, is good for nothing any more.
    RevokeInvite(Digest),
    /// A node proved its key and wants in; answered by [`super::effect::Answer::Enrolled`].
    Enrol(Box<Enrolment>),
}

/// An invite to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvite {
    /// SHA-256 of its token.
    pub token: Digest,
    /// How far the node will be trusted.
    pub trust: Trust,
    /// What it will be registered for; not empty.
    pub environments: Environments,
    /// Whose namespace its earnings can go to.
    pub owner: Option<Namespace>,
    /// Where it stands, whatever it says.
    pub region: Option<Region>,
    /// How long it is good for: at most `INVITE_LIFE_MAX`.
    pub life: Span,
}

/// A node whose key is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Whose key.
    pub node: NodeId,
    /// Where it wants to work.
    pub wants: Environments,
    /// The digest of the token that it brought.
    pub invite: Option<Digest>,
}

/// An amount on its way, with the id that makes repeating it a no-op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Chosen by who asks.
    pub operation: OperationId,
    /// In which world.
    pub environment: Environment,
    /// How much.
    pub credits: Credits,
}

/// What the operator decides about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Which node.
    pub node: NodeId,
    /// How far it is trusted.
    pub trust: Trust,
    /// Where it may work.
    pub environments: Vec<Environment>,
    /// Who gets its earnings.
    pub owner: Option<Namespace>,
}

/// What the operator does to a node's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeCommand {
    /// No new work.
    Pause,
    /// New work again, as far as the operator is concerned.
    Resume,
    /// No new work; the node leaves when it is through.
    Drain,
    /// Suspected: running work is revoked, earnings are locked.
    Freeze,
    /// Cleared.
    Unfreeze,
    /// Out.
    Ban,
    /// In again, after a test job.
    Unban,
    /// Ends an exclusion; a test job decides.
    Reinstate,
}

impl NodeCommand {
    /// All.
    pub const ALL: [NodeCommand; 8] = [
        NodeCommand::Pause,
        NodeCommand::Resume,
        NodeCommand::Drain,
        NodeCommand::Freeze,
        NodeCommand::Unfreeze,
        NodeCommand::Ban,
        NodeCommand::Unban,
        NodeCommand::Reinstate,
    ];
}

/// What can be paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A model, in both environments.
    Model(ModelName),
    /// A namespace.
    Namespace(Namespace),
    /// A tier.
    Tier(Tier),
}

/// What is settled about a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSettings {
    /// Which.
    pub namespace: Namespace,
    /// Its share of work within a tier, against the others' weights: 1 to `WEIGHT_MAX`.
    pub weight: u32,
    /// Least trust of nodes for its jobs, where they don't say.
    pub trust: Trust,
    /// How far below zero its balance may go, by environment; `None` is as far as it likes.
    pub credit: [Option<Credits>; 2],
    /// What becomes of jobs that no node could run.
    pub unrunnable: Unrunnable,
    /// Jobs of it that may wait; at most the box's own bound.
    pub queue_jobs_max: u64,
}

/// Largest weight of a namespace.
pub const WEIGHT_MAX: u32 = 1_000;

/// What becomes of jobs that no node could run as things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrunnable {
    /// They wait.
    Accept,
    /// They are refused.
    Refuse,
}
