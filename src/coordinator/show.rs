//! What operators, and owners of subclouds, are shown: nodes, namespaces, subclouds.

use super::Coordinator;
use super::command::NamespaceSettings;
use super::effect::{Answer, NamespaceView, NodeCapacity, NodeView, Rejection, ServedModel, SubcloudView};
use super::event::{Environment, Tenant};
use super::fleet::{Node, Serving};
use super::ledger::{Account, CreditLine, Owner, Statement};
use super::standing::Standing;
use super::subcloud::{Refused, Subcloud};
use crate::credits::Credits;
use crate::ids::{Namespace, NodeId, SubcloudName};

impl Coordinator {
    pub(super) fn node_views(&self) -> Vec<NodeView> {
        self.fleet.nodes().map(|(_, node)| self.node_view(node)).collect()
    }

    pub(super) fn node_named_view(&self, name: &NodeId) -> Answer {
        match self.fleet.find(name) {
            Some(key) => Answer::Node(Box::new(self.node_view(self.fleet.node(key)))),
            None => Answer::Rejected(Rejection::NodeUnknown),
        }
    }

    fn node_view(&self, node: &Node) -> NodeView {
        let record = &node.record;
        let standing = record.standing(self.now);
        let untested_box = node.is_local() && node.is_here() && standing == Standing::Untested;
        let owner = Owner::Node(node.id().clone());
        let earned =
            |environment| self.ledger.statement(&Account { environment, owner: owner.clone() }).balance;
        NodeView {
            row: record.row().clone(),
            // The box's own node needs no test job.
            standing: if untested_box { Standing::Ready } else { standing },
            connected_at: node.is_here().then_some(node.connected_at),
            away_since: record.away_since(),
            wants: node.wants.clone(),
            models: node.models.iter().map(|serving| self.served(node, serving)).collect(),
            capacity: NodeCapacity {
                slots: node.slots,
                taken: node.taken,
                kv_tokens: node.kv_tokens,
                kv_taken: node.kv_taken,
                memory_bytes: node.memory_bytes,
                gpu: node.gpu.clone(),
                region: node.region.clone(),
            },
            reliability: record.reliability(self.now, &self.limits.penalties),
            earnings: Environment::ALL.map(earned),
        }
    }

    fn served(&self, node: &Node, serving: &Serving) -> ServedModel {
        let model = self.models[serving.model].clone();
        ServedModel {
            version: serving.version.clone(),
            digest: serving.digest,
            slots: serving.slots,
            taken: serving.taken,
            warmth: serving.warmth,
            standing: node.standing_for(serving, &model, self.now),
            model,
        }
    }

    /// Every namespace that was ever seen, or that one, seen or not.
    pub(super) fn namespace_views(&self, which: Option<&Namespace>) -> Vec<NamespaceView> {
        match which {
            Some(namespace) => vec![self.namespace_view(namespace)],
            None => {
                let names = self.namespaces.keys().map(|key| self.namespaces.name(key));
                names.map(|name| self.namespace_view(name)).collect()
            }
        }
    }

    fn namespace_view(&self, namespace: &Namespace) -> NamespaceView {
        let statement = |environment: Environment| -> Statement {
            self.ledger.statement(&Account { environment, owner: Owner::Namespace(namespace.clone()) })
        };
        let statements = Environment::ALL.map(statement);
        let line = |statement: Statement| match statement.line {
            CreditLine::Limit(limit) => Some(limit),
            CreditLine::Unlimited => None,
        };
        let limits = &self.limits;
        let settings = match self.namespaces.find(namespace) {
            Some(key) => {
                let settings = self.namespaces.settings(key);
                NamespaceSettings {
                    namespace: namespace.clone(),
                    weight: self.backlog.weight(key),
                    trust: settings.trust,
                    credit: statements.map(line),
                    unrunnable: settings.unrunnable,
                    queue_jobs_max: settings.queue_jobs_max,
                }
            }
            None => NamespaceSettings {
                namespace: namespace.clone(),
                weight: 1,
                trust: limits.trust,
                credit: [limits.credit; 2],
                unrunnable: limits.unrunnable,
                queue_jobs_max: limits.namespace_queue_jobs_max,
            },
        };
        let waiting = self.namespaces.find(namespace).map_or(0, |key| self.namespaces.waiting(key));
        let account = |statement: Statement| -> (Credits, Credits) { (statement.balance, statement.held) };
        NamespaceView { settings, waiting, accounts: statements.map(account) }
    }

    /// All subclouds; to a namespace, those that it owns in its environment.
    pub(super) fn subclouds_of(&self, whose: Option<&Tenant>) -> Vec<Subcloud> {
        let is_shown = |subcloud: &&Subcloud| {
            whose.is_none_or(|tenant| {
                subcloud.environment == tenant.environment && subcloud.owners.contains(&tenant.namespace)
            })
        };
        self.subclouds.iter().filter(is_shown).cloned().collect()
    }

    pub(super) fn subcloud_named(
        &self,
        environment: Environment,
        name: &SubcloudName,
        whose: Option<&Namespace>,
    ) -> Answer {
        let is_shown =
            |subcloud: &&Subcloud| whose.is_none_or(|namespace| subcloud.owners.contains(namespace));
        match self.subclouds.named(environment, name).filter(is_shown) {
            Some(subcloud) => {
                let unmet = |node: &NodeId| {
                    let facts = self.fleet.find(node).map(|key| self.fleet.node(key).facts());
                    facts.and_then(|facts| subcloud.policy.met_by(&facts).err())
                };
                let members = subcloud.nodes.iter().map(|node| (node.clone(), unmet(node))).collect();
                Answer::Subcloud(Box::new(SubcloudView { subcloud: subcloud.clone(), members }))
            }
            None => Answer::Rejected(Rejection::Subcloud(Refused::Unknown)),
        }
    }
}
