//! What operators, and owners of subclouds, change.

use super::Coordinator;
use super::command::{Amount, Command, NamespaceSettings, NodeCommand, NodeSettings, Operation, Scope};
use super::effect::{Answer, NodeMessage, Rejection, Row};
use super::event::Environment;
use super::fleet::Serving;
use super::ledger::{Account, Applied, CreditLine, Operation as LedgerOperation, Owner, Posting};
use super::limits::PAUSE_LOOK_MAX;
use super::names::NodeKey;
use super::snapshot::{Applied as SnapshotApplied, Snapshot};
use super::standing::{Environments, NodeRow, Party};
use super::subcloud::{Actor, Subcloud};
use super::{backlog, namespaces};
use crate::ids::{Digest, NodeId, SubcloudName};
use crate::time::Span;

impl Coordinator {
    pub(super) fn on_operate(&mut self, operation: Operation) {
        let Operation { client, by, command } = operation;
        let actor = by.map_or(Actor::Operator, Actor::Namespace);
        let is_subclouds = matches!(
            command,
            Command::PutSubcloud(_)
                | Command::DropSubcloud(..)
                | Command::JoinSubcloud(..)
                | Command::LeaveSubcloud(..)
        );
        let result = if actor == Actor::Operator || is_subclouds {
            self.operate(&actor, command)
        } else {
            Err(Rejection::NotAllowed)
        };
        let answer = result.unwrap_or_else(|rejection| {
            self.counts.rejected += 1;
            Answer::Rejected(rejection)
        });
        self.answer_durable(client, answer);
    }

    fn operate(&mut self, actor: &Actor, command: Command) -> Result<Answer, Rejection> {
        match command {
            Command::AdmitNode(settings) => self.admit_node(settings)?,
            Command::Node(node, command) => self.command_node(&node, command)?,
            Command::Pause(scope) => return self.pause(scope),
            Command::Resume(scope) => self.resume(scope)?,
            Command::PutNamespace(settings) => self.put_namespace(settings)?,
            Command::Deposit(amount, namespace) => {
                let to = namespace;
                self.post(
                    amount,
                    LedgerOperation::Deposit {
                        environment: amount.environment,
                        namespace: to,
                        amount: amount.credits,
                    },
                )?;
            }
            Command::Adjust(amount, owner, note) => self.post(
                amount,
                LedgerOperation::Adjust {
                    environment: amount.environment,
                    owner,
                    amount: amount.credits,
                    note: note.to_string(),
                },
            )?,
            Command::Transfer(amount, node) => self.transfer(amount, node)?,
            Command::PutPrice(rule) => {
                self.prices.set(&rule).map_err(|_| Rejection::PricesFull)?;
                self.keep(Row::Price(rule));
            }
            Command::PutTemplate(template) => {
                self.templates.add((*template).clone()).map_err(Rejection::Template)?;
                self.keep(Row::Template(template));
            }
            Command::DropTemplate(model, name) => {
                if self.templates.remove(&model, &name).is_some() {
                    self.keep(Row::TemplateForgotten(model, name));
                }
            }
            Command::PutSubcloud(subcloud) => self.put_subcloud(actor, *subcloud)?,
            Command::DropSubcloud(environment, name) => self.drop_subcloud(actor, environment, &name)?,
            Command::JoinSubcloud(environment, name, node) => {
                self.join_subcloud(actor, environment, &name, &node)?;
            }
            Command::LeaveSubcloud(environment, name, node) => {
                self.subclouds.remove_node(actor, environment, &name, &node).map_err(Rejection::Subcloud)?;
                self.subcloud_changed(environment, &name, [node]);
            }
            Command::Configure(snapshot) => self.configure(*snapshot)?,
            command @ (Command::Invite(_) | Command::RevokeInvite(_) | Command::Enrol(_)) => {
                return self.on_invites(command);
            }
        }
        Ok(Answer::Done)
    }

    fn node_named(&self, node: &NodeId) -> Result<NodeKey, Rejection> {
        self.fleet.find(node).ok_or(Rejection::NodeUnknown)
    }

    fn admit_node(&mut self, settings: NodeSettings) -> Result<(), Rejection> {
        let environments = settings.environments.iter();
        let set = environments.fold(Environments::NONE, |set, environment| set.with(*environment));
        let key = match self.fleet.find(&settings.node) {
            Some(key) => key,
            None => {
                let row = NodeRow::new(settings.node.clone(), settings.trust, set);
                self.fleet.admit(row, self.now).ok_or(Rejection::NamesFull)?
            }
        };
        let record = &mut self.fleet.node_mut(key).record;
        record.set_trust(settings.trust);
        record.set_environments(set);
        record.set_owner(settings.owner);
        self.keep_node(key);
        self.restand(key);
        self.arm_node(key);
        Ok(())
    }

    fn command_node(&mut self, node: &NodeId, command: NodeCommand) -> Result<(), Rejection> {
        let key = self.node_named(node)?;
        let now = self.now;
        let entry = self.fleet.node_mut(key);
        if entry.is_local() && matches!(command, NodeCommand::Ban | NodeCommand::Freeze | NodeCommand::Drain)
        {
            return Err(Rejection::NodeIsTheBox);
        }
        let record = &mut entry.record;
        match command {
            NodeCommand::Pause => record.pause(Party::Operator, now),
            NodeCommand::Resume => record.resume(Party::Operator),
            NodeCommand::Drain => record.drain(Party::Operator, now),
            NodeCommand::Freeze => record.freeze("the operator suspects it", now),
            NodeCommand::Unfreeze => record.unfreeze(),
            NodeCommand::Ban => record.ban("the operator refuses it", now),
            NodeCommand::Unban => record.unban(),
            NodeCommand::Reinstate => record.reinstate(now),
        }
        match command {
            NodeCommand::Freeze => self.ledger.freeze(node),
            NodeCommand::Unfreeze => self.ledger.thaw(node),
            _ => {}
        }
        self.keep_node(key);
        self.restand(key);
        if command == NodeCommand::Ban {
            self.tell_node(node.clone(), NodeMessage::Banned);
            self.node_away(key);
        }
        self.room_on(key);
        self.arm_node(key);
        Ok(())
    }

    pub(super) fn backlog_scope(&mut self, scope: &Scope) -> Result<backlog::Scope, Rejection> {
        Ok(match scope {
            Scope::Model(model) => {
                backlog::Scope::Model(self.models.intern(model).ok_or(Rejection::NamesFull)?)
            }
            Scope::Namespace(namespace) => {
                backlog::Scope::Namespace(self.namespace_key(namespace).ok_or(Rejection::NamesFull)?)
            }
            Scope::Tier(tier) => backlog::Scope::Tier(*tier),
        })
    }

    fn pause(&mut self, scope: Scope) -> Result<Answer, Rejection> {
        let inner = self.backlog_scope(&scope)?;
        self.backlog.pause(inner, self.now);
        self.paused.insert(scope.clone());
        self.keep(Row::Paused(scope));
        let held = self.backlog.keys().take(PAUSE_LOOK_MAX).filter(|key| {
            let job = &self.jobs[*key];
            match inner {
                backlog::Scope::Model(model) => job.need.model == model,
                backlog::Scope::Namespace(namespace) => job.namespace == namespace,
                backlog::Scope::Tier(tier) => job.row.spec.tier == tier,
            }
        });
        let (mut waiting, mut expiring) = (0, 0);
        for key in held {
            waiting += 1;
            let soon = self.jobs[key].row.expires_at.since(self.now) < Span::from_secs(3_600);
            expiring += u64::from(soon);
        }
        Ok(Answer::Paused { waiting, expiring })
    }

    fn resume(&mut self, scope: Scope) -> Result<(), Rejection> {
        let inner = self.backlog_scope(&scope)?;
        self.backlog.resume(inner, self.now);
        if self.paused.remove(&scope) {
            self.keep(Row::Resumed(scope));
        }
        let lanes: Vec<_> = self.fleet.lanes.iter().map(|(lane, _)| lane).collect();
        for lane in lanes {
            self.placing.wake(lane);
        }
        Ok(())
    }

    fn put_namespace(&mut self, settings: NamespaceSettings) -> Result<(), Rejection> {
        if !namespaces::are_valid(&settings) {
            return Err(Rejection::SettingsInvalid);
        }
        self.settle_namespace(&settings)?;
        self.keep(Row::Namespace(Box::new(settings)));
        Ok(())
    }

    /// Takes over a namespace's settings, each where it decides.
    pub(super) fn settle_namespace(&mut self, settings: &NamespaceSettings) -> Result<(), Rejection> {
        let key = self.namespace_key(&settings.namespace).ok_or(Rejection::NamesFull)?;
        self.namespaces.settle(key, settings);
        self.backlog.set_weight(key, settings.weight);
        for environment in Environment::ALL {
            let owner = Owner::Namespace(settings.namespace.clone());
            let line = settings.credit[environment as usize].map_or(CreditLine::Unlimited, CreditLine::Limit);
            self.ledger.set_line(&Account { environment, owner }, line).map_err(Rejection::Ledger)?;
        }
        Ok(())
    }

    fn transfer(&mut self, amount: Amount, node: NodeId) -> Result<(), Rejection> {
        let key = self.node_named(&node)?;
        let owner = self.fleet.node(key).record.row().owner.clone().ok_or(Rejection::NodeHasNoOwner)?;
        self.post(
            amount,
            LedgerOperation::Transfer {
                environment: amount.environment,
                node,
                namespace: owner,
                amount: amount.credits,
            },
        )
    }

    fn post(&mut self, amount: Amount, operation: LedgerOperation) -> Result<(), Rejection> {
        match self.ledger.operate(amount.operation, &operation, self.now).map_err(Rejection::Ledger)? {
            Applied::Posted(posted) => self.keep_posted(Some(posted)),
            Applied::Repeated(_) => self.counts.operations_repeated += 1,
        }
        Ok(())
    }

    /// Keeps what moved; the balances after it are kept as the step ends.
    pub(super) fn keep_posted(&mut self, posted: Option<Posting>) {
        if let Some(posting) = posted {
            self.keep(Row::Posting(posting));
        }
    }

    fn put_subcloud(&mut self, actor: &Actor, subcloud: Subcloud) -> Result<(), Rejection> {
        let (environment, name) = (subcloud.environment, subcloud.name.clone());
        self.subclouds.put(actor, subcloud).map_err(Rejection::Subcloud)?;
        let named = self.subclouds.named(environment, &name);
        let nodes: Vec<NodeId> =
            named.into_iter().flat_map(|subcloud| subcloud.nodes.iter().cloned()).collect();
        self.subcloud_changed(environment, &name, nodes);
        Ok(())
    }

    fn drop_subcloud(
        &mut self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
    ) -> Result<(), Rejection> {
        let gone = self.subclouds.drop(actor, environment, name).map_err(Rejection::Subcloud)?;
        self.keep(Row::SubcloudForgotten(environment, name.clone()));
        self.members_changed(gone.nodes);
        Ok(())
    }

    fn join_subcloud(
        &mut self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
        node: &NodeId,
    ) -> Result<(), Rejection> {
        let row = self.fleet.node(self.node_named(node)?).record.row();
        let may = self.subclouds.may_add(actor, environment, name, row.owner.as_ref());
        may.map_err(Rejection::Subcloud)?;
        let joined = self.subclouds.add_node(actor, environment, name, node, row.environments);
        joined.map_err(Rejection::Subcloud)?;
        self.subcloud_changed(environment, name, [node.clone()]);
        Ok(())
    }

    fn subcloud_changed(
        &mut self,
        environment: Environment,
        name: &SubcloudName,
        nodes: impl IntoIterator<Item = NodeId>,
    ) {
        if let Some(subcloud) = self.subclouds.named(environment, name).cloned() {
            self.keep(Row::Subcloud(Box::new(subcloud)));
        }
        self.members_changed(nodes);
    }

    /// Where these nodes may work has changed.
    fn members_changed(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        for node in nodes {
            if let Some(key) = self.fleet.find(&node) {
                self.restand(key);
            }
        }
    }

    fn configure(&mut self, snapshot: Snapshot) -> Result<(), Rejection> {
        let (environment, version, digest) = (snapshot.environment, snapshot.version, snapshot.digest);
        match self.snapshots.apply(snapshot.clone()).map_err(Rejection::Snapshot)? {
            SnapshotApplied::Same => return Ok(()),
            SnapshotApplied::Replaced => {}
        }
        self.limits.adopt(&snapshot);
        self.keep(Row::Configuration(Box::new(snapshot)));
        let here: Vec<NodeId> = self
            .fleet
            .nodes()
            .filter(|(_, node)| node.is_here() && node.works_in(environment))
            .map(|(_, node)| node.id().clone())
            .collect();
        for node in here {
            self.tell_node(node, NodeMessage::Configuration { environment, version, digest });
        }
        self.permit_models();
        Ok(())
    }

    /// Which models nodes may run has changed.
    fn permit_models(&mut self) {
        let keys: Vec<NodeKey> = self.fleet.nodes().map(|(key, _)| key).collect();
        for key in keys {
            let permitted = |serving: &Serving| {
                let digest = Some(serving.digest).filter(|digest| *digest != Digest::default());
                self.snapshots.permit(&self.models[serving.model], digest)
            };
            let now: Vec<Environments> = self.fleet.node(key).models.iter().map(permitted).collect();
            let servings = &mut self.fleet.node_mut(key).models;
            let changes = servings.iter().zip(&now).any(|(serving, now)| serving.permitted != *now);
            for (serving, now) in servings.iter_mut().zip(now) {
                serving.permitted = now;
            }
            if changes {
                self.restand(key);
                self.room_on(key);
                self.arm_node(key);
            }
        }
    }

    /// Tells a node of the configurations that it doesn't have.
    pub(super) fn offer_configurations(&mut self, key: NodeKey, has: &[(Environment, Digest)]) {
        let node = self.fleet.node(key);
        let lacking = self.snapshots.iter().filter(|snapshot| {
            node.works_in(snapshot.environment) && !has.contains(&(snapshot.environment, snapshot.digest))
        });
        let news: Vec<NodeMessage> = lacking
            .map(|snapshot| NodeMessage::Configuration {
                environment: snapshot.environment,
                version: snapshot.version,
                digest: snapshot.digest,
            })
            .collect();
        let name = node.id().clone();
        for message in news {
            self.tell_node(name.clone(), message);
        }
    }
}
