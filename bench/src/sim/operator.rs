//! What is done to the world from outside, as events: operators, questions, cancels, troubles of nodes.
//!
//! It turns actions into events and knows nothing of what comes of them.

use std::sync::Arc;

use switchbox::coordinator::command::{Amount, Command, NodeSettings, Operation};
use switchbox::coordinator::event::{
    Ask, Cancel, Completion, Endpoint, Environment, Event, Feedback, Mode, NodeWish, Question, Requeue,
    Tenant, Tier,
};
use switchbox::coordinator::integrity::{Expect, Note, Opinion, Template};
use switchbox::coordinator::ledger::{Owner, PriceRule};
use switchbox::coordinator::standing::Trust;
use switchbox::credits::{Credits, Price};
use switchbox::ids::{JobId, Namespace, NodeId, OperationId, ReservationId, Session};
use switchbox::time::Span;

use super::action::{Action, Canceller, Change, Joins, Trouble};
use super::attempt::honest_digest;
use super::generate::START;
use super::nodes::Says;
use super::rng::{Rng, mix};
use super::scene::{Kind, MODELS, NAMESPACES, body, model, namespace};
use super::world::{Happening, Power, World};

/// Where an operation's number begins that isn't one of the scene's own.
const OPERATIONS: u128 = 1 << 40;

/// What the integrity account has in each environment: enough for the checks of most runs, and too little for some.
const INTEGRITY_CREDITS: i64 = 20_000;

/// Templates of each model.
const TEMPLATES: u64 = 2;

impl World<'_> {
    /// What is settled before anything else.
    pub(crate) fn settle_scene(&mut self) {
        for settings in self.scene.namespaces.clone() {
            self.operate(Command::PutNamespace(settings));
        }
        for number in 0..NAMESPACES {
            for environment in Environment::ALL {
                let operation = OperationId((number * 2) as u128 + environment as u128);
                let credits = Credits(8_000 + number as i64 * 100);
                self.operate(Command::Deposit(Amount { operation, environment, credits }, namespace(number)));
            }
        }
        for environment in Environment::ALL {
            let operation = OperationId((NAMESPACES * 2) as u128 + environment as u128);
            let amount = Amount { operation, environment, credits: Credits(INTEGRITY_CREDITS) };
            self.operate(Command::Adjust(amount, Owner::Integrity, "checks".into()));
        }
        for index in 0..self.scene.nodes.len() {
            self.admit(index, self.scene.nodes[index].trust);
        }
        for subcloud in self.scene.subclouds.clone() {
            self.operate(Command::PutSubcloud(Box::new(subcloud)));
        }
        self.place_members();
        for index in 0..MODELS.len() {
            (0..TEMPLATES).for_each(|number| self.operate(template(index, number)));
        }
    }

    fn admit(&mut self, index: usize, trust: Trust) {
        let scene = &self.scene.nodes[index];
        if scene.kind == Kind::Local {
            return;
        }
        // By the operator's own machines the others are measured, so a lie of theirs would be held against those.
        let trust = if scene.kind == Kind::Lying { trust.min(Trust::Approved) } else { trust };
        let settings = NodeSettings {
            node: scene.id.clone(),
            trust,
            environments: scene.admitted.clone(),
            owner: scene.owner.clone(),
        };
        self.operate(Command::AdmitNode(settings));
    }

    fn place_members(&mut self) {
        let mut rng = Rng::new(self.scene.seed, 5);
        for subcloud in &self.scene.subclouds {
            for node in &self.scene.nodes {
                let mainnet = subcloud.environment == Environment::Mainnet;
                if rng.chance(if mainnet { 20 } else { 30 }) && node.kind != Kind::Local {
                    self.operate(Command::JoinSubcloud(
                        subcloud.environment,
                        subcloud.name.clone(),
                        node.id.clone(),
                    ));
                }
            }
        }
    }

    fn operate(&mut self, command: Command) {
        self.operate_as(None, command);
    }

    pub(super) fn operate_as(&mut self, by: Option<Namespace>, command: Command) {
        let client = self.new_client();
        self.step(Event::Operate(Box::new(Operation { client, by, command })));
    }

    /// Does one action of the list.
    pub(crate) fn act(&mut self, index: usize) {
        let actions = self.actions;
        match &actions[index].1 {
            Action::Submit(plan) => self.submit(plan),
            Action::Cancel { back, by } => self.cancel(*back, *by),
            Action::Feedback { back } => self.feed_back(*back),
            Action::Requeue { pick } => self.requeue(*pick),
            Action::Operate(change) => self.change(change),
            Action::Ask(choice) => self.ask(*choice),
            Action::Node(node, trouble) => self.trouble(*node, *trouble),
            Action::Crash { keep, down } => self.crash(*keep, *down),
            Action::Shutdown { deadline, down } => self.shut_down(*deadline, *down),
            Action::StoreStalls { span, room } => self.store_stalls(*span, *room),
        }
    }

    fn recent(&self, back: usize) -> Option<(JobId, Tenant)> {
        self.jobs.iter().rev().nth(back).cloned()
    }

    fn cancel(&mut self, back: usize, by: Canceller) {
        let Some((job, owner)) = self.recent(back) else { return };
        let tenant = match by {
            Canceller::Client => Some(owner),
            Canceller::Operator => None,
            // Another namespace, or the same one with a key of the other environment.
            Canceller::Stranger if back.is_multiple_of(2) => {
                Some(Tenant { namespace: Namespace::named("stranger"), ..owner })
            }
            Canceller::Stranger => Some(Tenant { environment: other_than(owner.environment), ..owner }),
        };
        let client = self.new_client();
        self.step(Event::Cancel(Cancel { client, tenant, job }));
    }

    fn feed_back(&mut self, back: usize) {
        let Some((job, Tenant { namespace, .. })) = self.recent(back) else { return };
        let client = self.new_client();
        let note = Note::new("as asked").expect("it is short");
        self.step(Event::Feedback(Feedback { client, namespace, job, opinion: Opinion::Flag, note }));
    }

    fn requeue(&mut self, pick: u64) {
        let dead: Vec<JobId> = self.oracle.book.dead.keys().copied().collect();
        if dead.is_empty() || self.power == Power::Off {
            return;
        }
        let job = dead[(pick % dead.len() as u64) as usize];
        let Some(row) = self.store.job(job).cloned() else { return };
        let client = self.new_client();
        self.oracle.coverage.count("world", "dead letters requeued");
        self.step(Event::Requeue(Requeue { client, row: Box::new(row) }));
    }

    fn ask(&mut self, choice: u64) {
        let client = self.new_client();
        let job = self.recent((choice >> 8) as usize % 40);
        let question = match (choice % 9, job) {
            (0, _) => Question::Counts,
            (1, _) => Question::Invariants,
            (2, _) => Question::Nodes,
            (3, _) => Question::Queue,
            (4, _) => Question::DeadLetters(10),
            (5, _) => Question::Balances,
            (6, Some((job, tenant))) => Question::Job(job, Some(tenant)),
            (7, Some((job, _))) => Question::Trace(job),
            (_, Some((job, _))) => Question::Job(job, None),
            (_, None) => Question::Counts,
        };
        self.step(Event::Ask(Ask { client, question }));
    }

    fn change(&mut self, change: &Change) {
        let environment_of = |number: u64| Environment::ALL[(number % 2) as usize];
        match *change {
            Change::Pause(ref scope) => self.operate(Command::Pause(scope.clone())),
            Change::Resume(ref scope) => self.operate(Command::Resume(scope.clone())),
            Change::Node(node, command) => {
                self.operate(Command::Node(self.scene.nodes[node].id.clone(), command))
            }
            Change::Admit(node, choice) => {
                let trust = [Trust::Own, Trust::Approved, Trust::Open][(choice % 3) as usize];
                self.admit(node, trust);
            }
            Change::Deposit { operation, namespace: number, environment, credits } => {
                let amount = amount(operation, environment, credits);
                self.operate(Command::Deposit(amount, namespace(number)));
            }
            Change::Adjust { operation, namespace: number, credits } => {
                let amount = amount(operation, environment_of(operation), credits);
                self.operate(Command::Adjust(
                    amount,
                    Owner::Namespace(namespace(number)),
                    "to set it right".into(),
                ));
            }
            Change::Transfer { operation, node, credits } => {
                let amount = amount(operation, environment_of(operation), credits);
                self.operate(Command::Transfer(amount, self.scene.nodes[node].id.clone()));
            }
            Change::Price(choice) => self.change_price(choice),
            Change::Namespace(number, choice) => self.change_namespace(number, choice),
            Change::Member { subcloud, node, joins } => self.change_member(subcloud, node, joins),
            Change::Subcloud(index, joins) => self.change_subcloud(index, joins),
            Change::Template(index, Joins::In) => self.operate(template(index, TEMPLATES - 1)),
            Change::Template(index, Joins::Out) => {
                self.operate(Command::DropTemplate(model(index), template_name(index, TEMPLATES - 1)));
            }
            Change::Configure(choice) => self.configure(choice),
        }
    }

    fn change_price(&mut self, choice: u64) {
        let mut rng = Rng::new(choice, 6);
        let price = Price {
            input: rng.range(1, 4) * 500_000,
            cached_input: rng.range(0, 2) * 250_000,
            output: rng.range(1, 5) * 1_000_000,
        };
        let rule = PriceRule {
            environment: rng.chance(50).then(|| Environment::ALL[rng.below(2) as usize]),
            model: rng.chance(50).then(|| model(rng.below(MODELS.len() as u64) as usize)),
            tier: rng.chance(30).then_some(Tier::Realtime),
            from: self.now + rng.ms(0, 2_000),
            price,
        };
        self.operate(Command::PutPrice(rule));
    }

    fn change_namespace(&mut self, number: usize, choice: u64) {
        let mut settings = self.scene.namespaces[number].clone();
        let mut rng = Rng::new(choice, 7);
        settings.weight = rng.below(10) as u32;
        settings.credit[0] = rng.chance(50).then(|| Credits(rng.below(2_000) as i64 - 10));
        self.operate(Command::PutNamespace(settings));
    }

    fn change_member(&mut self, subcloud: usize, node: usize, joins: Joins) {
        let scene = &self.scene.subclouds[subcloud];
        let (name, node) = (scene.name.clone(), self.scene.nodes[node].id.clone());
        let environment = scene.environment;
        let owner = scene.owners.first().cloned();
        let by = if self.rng.chance(50) { owner } else { None };
        let by = if self.rng.chance(20) { Some(namespace(NAMESPACES - 1)) } else { by };
        self.operate_as(
            by,
            match joins {
                Joins::In => Command::JoinSubcloud(environment, name, node),
                Joins::Out => Command::LeaveSubcloud(environment, name, node),
            },
        );
    }

    fn change_subcloud(&mut self, index: usize, joins: Joins) {
        let subcloud = self.scene.subclouds[index].clone();
        self.operate(match joins {
            Joins::In => Command::PutSubcloud(Box::new(subcloud)),
            Joins::Out => Command::DropSubcloud(subcloud.environment, subcloud.name),
        });
    }

    fn trouble(&mut self, index: usize, trouble: Trouble) {
        let node = &self.nodes[index];
        let id = node.id.clone();
        match trouble {
            Trouble::Cut { away, noticed } => self.cut(index, away, noticed),
            Trouble::Dies(away) => self.dies(index, away),
            Trouble::Wishes(wish) => {
                let Some(session) = node.session else { return };
                self.step(Event::NodeWish(NodeWish { node: id, session: Session(session), wish }));
            }
            Trouble::Repeats => self.repeat(index),
            Trouble::SignsWrongly => self.say(index, Says::BadSignature),
            Trouble::NamesForeign => self.name(index, self.foreign(index)),
            Trouble::Invents => {
                let counter = (1 << 39) + self.rng.below(1_000);
                self.name(index, Some(ReservationId { epoch: self.epoch, counter }));
            }
            Trouble::HandsBack => self.hand_back(index),
            Trouble::Changes(choice) => self.change_offers(index, choice),
        }
    }

    /// The node says its last results again: accepted ones, and such as nothing waits for.
    fn repeat(&mut self, index: usize) {
        let again: Vec<Completion> = self.nodes[index].said.iter().rev().take(3).cloned().collect();
        for result in again {
            self.oracle.coverage.count("world", "results repeated");
            self.say(index, Says::Completed(result));
        }
    }

    fn name(&mut self, index: usize, reservation: Option<ReservationId>) {
        let (Some(reservation), Some(mut result)) = (reservation, self.nodes[index].said.last().cloned())
        else {
            return;
        };
        result.reservation = reservation;
        self.say(index, Says::Completed(result));
    }

    fn change_offers(&mut self, index: usize, choice: u64) {
        let node = &mut self.nodes[index];
        // Until it has said so, the box counts on what it offered before.
        let mut offers = node.offers.clone();
        for (number, offer) in offers.iter_mut().enumerate() {
            if mix(choice ^ number as u64).is_multiple_of(2) {
                offer.slots = 1 + (choice % 3) as u32;
            }
        }
        node.next_offers = Some(offers);
        let away = node.rng.ms(10, 100);
        self.cut(index, away, Span::from_ms(5));
    }

    /// Ends every pause, so that everything can wind down.
    pub(crate) fn resume_all(&mut self) {
        let paused: Vec<_> = self.oracle.book.paused.iter().cloned().collect();
        paused.into_iter().for_each(|scope| self.operate(Command::Resume(scope)));
    }

    /// The box takes no more work.
    pub(crate) fn refuses_work(&mut self) {
        self.ask_to_stop(Question::Drain);
        let last = self.actions.iter().rev().find_map(|(_, action)| match action {
            Action::Submit(plan) => Some(plan.clone()),
            _ => None,
        });
        if let Some(plan) = last {
            self.submit(&plan);
            self.clients.keys().next_back().copied().into_iter().for_each(|client| self.leave(client));
        }
    }

    /// The server asks how far the core is with stopping.
    pub(crate) fn ask_to_stop(&mut self, question: Question) {
        let client = self.new_client();
        self.step(Event::Ask(Ask { client, question }));
    }

    /// The operator cancels what is left: the system's own jobs may wait longer than anybody looks.
    pub(crate) fn end_all(&mut self) {
        let live = self.oracle.book.jobs.iter().filter(|(_, job)| job.state.is_live());
        let live: Vec<JobId> = live.map(|(id, _)| *id).collect();
        for job in live {
            let client = self.new_client();
            self.step(Event::Cancel(Cancel { client, tenant: None, job }));
        }
        self.schedule(Span::from_ms(500), Happening::EndAll);
    }
}

fn other_than(environment: Environment) -> Environment {
    match environment {
        Environment::Mainnet => Environment::Testnet,
        Environment::Testnet => Environment::Mainnet,
    }
}

fn amount(operation: u64, environment: Environment, credits: i64) -> Amount {
    let operation = OperationId(OPERATIONS + u128::from(operation));
    Amount { operation, environment, credits: Credits(credits) }
}

fn template_name(index: usize, number: u64) -> Arc<str> {
    format!("template-{index}-{number}").into()
}

/// A request whose answer is known, for test and blind jobs.
fn template(index: usize, number: u64) -> Command {
    let body = body(900_000 + index as u64 * 10 + number);
    let expect = Expect::Digests(vec![honest_digest(&model(index), &body)]);
    let input_tokens = if index == 3 { body.len() as u32 + 16 } else { 12 };
    Command::PutTemplate(Box::new(Template {
        name: template_name(index, number),
        model: model(index),
        endpoint: Endpoint::ChatCompletions,
        body,
        input_tokens,
        output_tokens_max: 16,
        tier: Tier::Standard,
        mode: Mode::Polling,
        expect,
    }))
}

/// A node of that number.
pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId::named(&format!("node_{index:02}"))
}

/// When a run's actions begin, for messages.
pub(crate) fn since_start(at: switchbox::time::Time) -> u64 {
    at.since(START).as_ms()
}
