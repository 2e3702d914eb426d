//! Which node may run which job, written from SPEC sections 2, 3 and 8, and from what nodes said of themselves.
//!
//! It shares no code with the core's eligibility: this is the second opinion.

use std::collections::{BTreeMap, BTreeSet};

use switchbox::coordinator::event::{Heartbeat, NodeGone, NodeHello, Offers, Origin};
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::standing::{NodeRow, Trial, Trust};
use switchbox::coordinator::subcloud::{Allowed, Isolation, Subcloud};
use switchbox::ids::{Lsn, NodeId, ReservationId, Session};
use switchbox::time::{Span, Time};

use super::book::{Book, JobFacts};
use super::judge::Line;

/// A tick, and one more for what was due while it ran.
pub(crate) const TICKS: Span = Span::from_ms(20);

/// How much later than due a missed heartbeat may be noticed; no text promises it to the tick.
const SILENCE: Span = Span::from_ms(100);

/// What is known of a node that connected since the box started.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) session: Session,
    pub(crate) here: bool,
    pub(crate) heard_at: Time,
    presence: Surely,
    pub(crate) hello: NodeHello,
    /// Attempts that may take its capacity, as far as messages tell.
    pub(crate) taken: BTreeMap<ReservationId, Time>,
}

/// Whether the box surely takes a node for present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surely {
    Here,
    /// It spoke after its heartbeat was due: only a heartbeat brings a node back that was found missing before.
    Perhaps,
}

/// Everybody who connected.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) nodes: BTreeMap<NodeId, Presence>,
    /// Nodes whose exclusion the operator ended: they owe no test for it.
    pub(crate) reinstated: Marks,
    /// Since when a node's tests are void.
    pub(crate) void_since: Marks,
}

/// Times that rows gave to nodes. A crash takes those back whose rows it took.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeMap<NodeId, Vec<(Lsn, Time)>>);

impl Marks {
    /// The step of that number gave it.
    pub(crate) fn set(&mut self, node: &NodeId, lsn: Lsn, at: Time) {
        self.0.entry(node.clone()).or_default().push((lsn, at));
    }

    fn last(&self, node: &NodeId) -> Option<Time> {
        self.0.get(node)?.last().map(|(_, at)| *at)
    }

    fn lose_after(&mut self, lsn: Lsn) {
        self.0.values_mut().for_each(|marks| marks.retain(|(of, _)| *of <= lsn));
    }
}

impl Fleet {
    /// The box died, and nothing after that step survived.
    pub(crate) fn crashed(&mut self, lsn: Lsn) {
        self.nodes.clear();
        self.reinstated.lose_after(lsn);
        self.void_since.lose_after(lsn);
    }

    /// A node serves something else on the connection that it has.
    pub(crate) fn offers(&mut self, offers: &Offers) {
        if let Some(known) = self.nodes.get_mut(&offers.node).filter(|known| known.session == offers.session)
        {
            known.hello.models.clone_from(&offers.models);
        }
    }

    /// A node joins, if it may.
    pub(crate) fn connected(&mut self, hello: &NodeHello, now: Time, banned: bool) {
        let newer = self.nodes.get(&hello.node).is_none_or(|known| hello.session > known.session);
        if !newer || banned {
            return;
        }
        let taken = hello.running.iter().map(|held| (held.reservation, now)).collect();
        let known = Presence {
            session: hello.session,
            here: true,
            heard_at: now,
            presence: Surely::Here,
            hello: hello.clone(),
            taken,
        };
        self.nodes.insert(hello.node.clone(), known);
    }

    pub(crate) fn gone(&mut self, gone: &NodeGone) {
        if let Some(known) = self.nodes.get_mut(&gone.node)
            && known.session == gone.session
        {
            known.here = false;
        }
    }

    pub(crate) fn heard(&mut self, beat: &Heartbeat, now: Time) {
        if let Some(known) = self.nodes.get_mut(&beat.node)
            && known.session == beat.session
        {
            known.heard_at = now;
            known.presence = Surely::Here;
            known.here = true;
        }
    }

    /// Whatever a node says shows that it is there, unless it was found missing before.
    pub(crate) fn spoke(&mut self, node: &NodeId, now: Time, limits: &Limits) {
        if let Some(known) = self.nodes.get_mut(node) {
            if now.since(known.heard_at) >= limits.heartbeat_timeout {
                known.presence = Surely::Perhaps;
            }
            known.heard_at = now;
        }
    }

    /// Whether a node may have been found missing without having been heard of since.
    pub(crate) fn maybe_away(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|known| known.presence == Surely::Perhaps)
    }

    pub(crate) fn takes(&mut self, node: &NodeId, reservation: ReservationId, now: Time) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.taken.insert(reservation, now);
        }
    }

    pub(crate) fn frees(&mut self, reservation: ReservationId) {
        for known in self.nodes.values_mut() {
            known.taken.remove(&reservation);
        }
    }

    /// Whether nothing can be taking a node's capacity.
    fn is_idle(&self, node: &NodeId, now: Time, limits: &Limits) -> bool {
        let longest = limits.attempt_timeout.0 + limits.stop_timeout.0 + limits.away_timeout.0;
        let over = |at: &Time| now.since(*at).0 > longest;
        self.nodes.get(node).is_some_and(|known| known.taken.values().all(over))
    }

    /// Whether a node may take a job now, as far as everything but its load goes; else the promise that it breaks.
    pub(crate) fn may_take(&self, ask: &AskNode<'_>) -> Result<(), (Line, String)> {
        let AskNode { book, node, job, .. } = ask;
        let no = |line: Line, why: &str| Err((line, why.to_owned()));
        let (Some(known), Some(row)) = (self.nodes.get(*node), book.nodes.get(*node)) else {
            return no(Line::StandingKept, "the node never connected");
        };
        self.stands(ask, known, row)?;
        let environment = job.spec.environment;
        if !row.environments.contains(environment) || !known.hello.environments.contains(&environment) {
            return no(Line::EnvironmentKept, "the node isn't registered for the job's environment");
        }
        serves(ask, known)?;
        if let Origin::Test { node: of } = &job.origin {
            return if of == *node { Ok(()) } else { no(Line::ListsKept, "a test job of another node") };
        }
        trusted(ask, row)?;
        fits_lists(node, job)?;
        fits_hardware(known, job)?;
        reaches(ask, known, row)?;
        self.tested(ask)
    }

    fn stands(&self, ask: &AskNode<'_>, known: &Presence, row: &NodeRow) -> Result<(), (Line, String)> {
        let no = |why: &str| Err((Line::StandingKept, why.to_owned()));
        let silent = ask.now.since(known.heard_at) > Span(ask.limits.heartbeat_timeout.0 + SILENCE.0);
        if row.banned.is_some() || row.frozen.is_some() {
            return no("the node is frozen or banned");
        }
        if !row.draining.is_empty() || !row.paused.is_empty() {
            return no("the node is draining or paused");
        }
        if !known.here {
            return no("the node's connection is gone");
        }
        if silent && *ask.node != NodeId::local() {
            return no("the node's heartbeat is overdue");
        }
        match &row.exclusion {
            Some(exclusion) if ask.now < exclusion.until => {
                Err((Line::CooldownKept, format!("the node is excluded until {:?}", exclusion.until)))
            }
            _ => Ok(()),
        }
    }

    fn tested(&self, ask: &AskNode<'_>) -> Result<(), (Line, String)> {
        let void = self.void_since.last(ask.node).unwrap_or_default();
        let spared = self.reinstated.last(ask.node).is_some_and(|at| at >= void);
        let at = ask.book.tested.get(&(ask.node.clone(), ask.job.model.clone())).copied();
        if *ask.node == NodeId::local() || spared || at.is_some_and(|at| at >= void) {
            return Ok(());
        }
        Err((Line::TestedFirst, format!("its last test of the model passed at {at:?}, void since {void:?}")))
    }

    /// Whether a node could take a job without any doubt: its record says that the very model passed its test.
    pub(crate) fn surely_takes(&self, ask: &AskNode<'_>) -> bool {
        let row = ask.book.nodes.get(ask.node);
        let passed = |row: &NodeRow| {
            let trial = row.trials.get(&ask.job.model);
            row.exclusion.is_none() && matches!(trial, Some(Trial::Passed { .. }))
        };
        let proven = *ask.node == NodeId::local() || row.is_some_and(passed);
        // A node that has just missed its heartbeat may or may not be away yet.
        let heard = self.nodes.get(ask.node).is_some_and(|known| {
            let in_time = ask.now.since(known.heard_at) < ask.limits.heartbeat_timeout;
            *ask.node == NodeId::local() || in_time && known.presence == Surely::Here
        });
        heard && proven && self.may_take(ask).is_ok()
    }

    /// A node other than those that failed the job, which has nothing to do and could take it.
    pub(crate) fn idle_other(&self, ask: &AskNode<'_>) -> Option<NodeId> {
        let room = |known: &Presence| {
            known.hello.kv_tokens >= ask.job.tokens_max()
                && known.hello.slots > 0
                && serves_slots(known, ask.job)
        };
        let other = |(node, known): &(&NodeId, &Presence)| {
            *node != ask.node
                && !ask.job.avoids.contains(node)
                && self.is_idle(node, ask.now, ask.limits)
                && room(known)
                && self.surely_takes(&AskNode { node, ..*ask })
        };
        self.nodes.iter().find(other).map(|(node, _)| node.clone())
    }
}

/// A question about a node and a job.
#[derive(Clone, Copy)]
pub(crate) struct AskNode<'a> {
    pub(crate) book: &'a Book,
    pub(crate) limits: &'a Limits,
    pub(crate) node: &'a NodeId,
    pub(crate) job: &'a JobFacts,
    pub(crate) now: Time,
}

fn serves_slots(known: &Presence, job: &JobFacts) -> bool {
    known.hello.models.iter().any(|offer| offer.model == job.model && offer.slots > 0)
}

fn serves(ask: &AskNode<'_>, known: &Presence) -> Result<(), (Line, String)> {
    let job = ask.job;
    let version = job.spec.constraints.version.as_ref().filter(|_| job.model_index == 0);
    let serves = known.hello.models.iter().any(|offer| {
        offer.model == job.model && version.is_none_or(|version| offer.version.as_ref() == Some(version))
    });
    if !serves {
        return Err((Line::ModelKept, format!("it doesn't serve {} {version:?}", job.model)));
    }
    let offered = known.hello.models.iter().find(|offer| offer.model == job.model);
    let digest = offered.and_then(|offer| offer.digest);
    match ask.book.configurations.get(&job.spec.environment) {
        Some(in_force) if !in_force.models.is_empty() => {
            let spec = in_force.models.get(&job.model);
            let permits = spec.is_some_and(|spec| digest.is_none_or(|digest| digest == spec.digest));
            let why = || format!("configuration {} doesn't have its file of {}", in_force.version, job.model);
            if permits { Ok(()) } else { Err((Line::ModelKept, why())) }
        }
        _ => Ok(()),
    }
}

fn trusted(ask: &AskNode<'_>, row: &NodeRow) -> Result<(), (Line, String)> {
    if matches!(ask.job.origin, Origin::Blind { .. }) {
        // A blind job is nobody's prompt, and is meant for nodes that aren't the operator's.
        return match row.trust {
            Trust::Own => Err((Line::TrustKept, "a blind job on the operator's own node".to_owned())),
            _ => Ok(()),
        };
    }
    let settled = ask.book.namespaces.get(&ask.job.spec.namespace).map_or(ask.limits.trust, |n| n.trust);
    let least = ask.job.spec.constraints.trust.unwrap_or(settled);
    if row.trust >= least {
        return Ok(());
    }
    Err((Line::TrustKept, format!("{:?} is less than {least:?}", row.trust)))
}

fn fits_lists(node: &NodeId, job: &JobFacts) -> Result<(), (Line, String)> {
    let constraints = &job.spec.constraints;
    let allowed = constraints.allow.is_empty() || constraints.allow.contains(node);
    if allowed && !constraints.deny.contains(node) {
        return Ok(());
    }
    Err((Line::ListsKept, "the job's lists exclude it".to_owned()))
}

fn fits_hardware(known: &Presence, job: &JobFacts) -> Result<(), (Line, String)> {
    let (constraints, hello) = (&job.spec.constraints, &known.hello);
    let gpu = constraints.gpu.is_none() || constraints.gpu == hello.gpu;
    let region = constraints.region.is_none() || constraints.region == hello.region;
    if gpu && region && hello.memory_bytes >= constraints.memory_bytes_min {
        return Ok(());
    }
    Err((Line::HardwareKept, "gpu, memory or region don't fit".to_owned()))
}

fn reaches(ask: &AskNode<'_>, known: &Presence, row: &NodeRow) -> Result<(), (Line, String)> {
    let environment = ask.job.spec.environment;
    let of_environment = || ask.book.subclouds.values().filter(|s| s.environment == environment);
    let Some(name) = &ask.job.spec.constraints.subcloud else {
        let isolated =
            of_environment().any(|s| s.isolate == Isolation::Isolated && s.nodes.contains(ask.node));
        // Blind jobs look for dishonest nodes wherever they are.
        return match isolated && !matches!(ask.job.origin, Origin::Blind { .. }) {
            true => Err((Line::SubcloudKept, "the node left the global pool".to_owned())),
            false => Ok(()),
        };
    };
    let no = |why: &str| Err((Line::SubcloudKept, format!("{name}: {why}")));
    let Some(subcloud) = of_environment().find(|s| s.name == *name) else { return no("there is none") };
    if !subcloud.nodes.contains(ask.node) {
        return no("the node isn't a member");
    }
    if !admits(subcloud, ask.job) {
        return no("the namespace or model isn't admitted");
    }
    if meets_policy(subcloud, known, row) { Ok(()) } else { no("the node doesn't meet the policy") }
}

fn admits(subcloud: &Subcloud, job: &JobFacts) -> bool {
    let namespace = &job.spec.namespace;
    // The system's own jobs go wherever those go that they are made for.
    let allowed = match &subcloud.allowed {
        _ if job.origin.is_system() => true,
        Allowed::Everyone => true,
        Allowed::Only(names) => names.contains(namespace) || subcloud.owners.contains(namespace),
    };
    allowed && subcloud.policy.models.as_ref().is_none_or(|models| models.contains(&job.model))
}

fn meets_policy(subcloud: &Subcloud, known: &Presence, row: &NodeRow) -> bool {
    let (policy, hello) = (&subcloud.policy, &known.hello);
    let in_region = |regions: &BTreeSet<_>| hello.region.as_ref().is_some_and(|r| regions.contains(r));
    row.trust >= policy.trust_min
        && policy.regions.as_ref().is_none_or(in_region)
        && hello.memory_bytes >= policy.memory_min_bytes
        && (policy.gpu.is_none() || policy.gpu == hello.gpu)
}

/// Whether two jobs would take the same room on a node.
pub(crate) fn takes_no_more(job: &JobFacts, than: &JobFacts) -> bool {
    job.model == than.model
        && job.tokens_max() <= than.tokens_max()
        && job.spec.output_tokens_max <= than.spec.output_tokens_max
}
