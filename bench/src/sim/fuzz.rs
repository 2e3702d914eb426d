//! Feeds a core whatever there is: unknown ids, extreme numbers, huge lists, times backwards. It must not panic, and its
//! books must stay in order. What the driver alone says (closed outputs) it says truly.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use switchbox::coordinator::effect::{Effect, Row};
use switchbox::coordinator::event::{
    Ask, Cancel, ClientGone, Declined, Departure, Durability, Environment, Event, Feedback, Heartbeat,
    NodeGone, NodeWish, Offers, Progress, Requeue, Revoked, Stopped, StoreRoom, Tenant, Verified, Wish,
};
use switchbox::coordinator::integrity::{Note, Opinion};
use switchbox::coordinator::job::JobRow;
use switchbox::coordinator::limits::Limits;
use switchbox::coordinator::snapshot::Participation;
use switchbox::coordinator::standing::Trust;
use switchbox::coordinator::{Boot, Coordinator};
use switchbox::ids::{ClientId, JobId, Lsn, ModelName, Namespace, NodeId, ReservationId, Session};
use switchbox::time::{Span, Time};

use super::generate::START;
use super::operator::node_id;
use super::rng::{Rng, bytes32};
use super::run::{panicked, quiet_panics};
use super::scene::{model, namespace};

/// Events that one core is fed.
const EVENTS_PER_CORE: u64 = 2_000;
/// Events between two full recounts.
const AUDIT_EVENTS: u64 = 64;

/// A core that is fed nonsense.
pub(super) struct Fuzz {
    pub(super) rng: Rng,
    core: Coordinator,
    now: Time,
    clients: u64,
    rows: Vec<JobRow>,
    reservations: Vec<ReservationId>,
    local: Vec<Event>,
}

/// Feeds so many events, to a new core each couple of thousand.
///
/// # Errors
/// When a core panicked, or its books were out of order.
pub fn fuzz(events: u64, from: u64) -> Result<(), String> {
    quiet_panics();
    let mut done = 0;
    let mut seed = from;
    while done < events {
        let run = catch_unwind(AssertUnwindSafe(|| Fuzz::new(seed).run()));
        let found = run
            .unwrap_or_else(|panic| panicked(panic.as_ref()).violations.into_iter().next().map(|v| v.detail));
        if let Some(found) = found {
            return Err(format!("fuzz seed {seed}: {found}\n  replay: sim --fuzz 1 --from {seed}"));
        }
        done += EVENTS_PER_CORE;
        seed += 1;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{done} arbitrary events on {} cores: no panic, books in order", seed - from)
        .map_err(|error| error.to_string())
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 40);
        let limits = Limits {
            queue_jobs_max: rng.range(1, 2_000),
            test_timeout: rng.ms(1, 3_000),
            accept_timeout: rng.ms(1, 3_000),
            attempt_timeout: rng.ms(1, 30_000),
            away_timeout: rng.ms(1, 3_000),
            participation: Participation {
                blind_rate_ppm: 200_000,
                check_rate_ppm: 200_000,
                ..Default::default()
            },
            names_max: rng.range(5, 500) as usize,
            trust: Trust::Open,
            ..Limits::default()
        };
        let boot = Boot { epoch: 3, secret: bytes32(8, seed), lsn: Lsn(0), at: START };
        let durability = *rng.pick(&[Durability::Strict, Durability::Relaxed]);
        let core = Coordinator::new(boot, limits, durability);
        Self {
            rng,
            core,
            now: START,
            clients: 0,
            rows: Vec::new(),
            reservations: Vec::new(),
            local: Vec::new(),
        }
    }

    /// What was found, if anything.
    fn run(mut self) -> Option<String> {
        for number in 0..EVENTS_PER_CORE {
            let event = self.event();
            let shown = format!("{event:?}");
            let found =
                self.step(event).or_else(|| number.is_multiple_of(AUDIT_EVENTS).then(|| self.audit())?);
            if let Some(found) = found {
                return Some(format!(
                    "event {number}: {found}; after {}",
                    shown.chars().take(400).collect::<String>()
                ));
            }
        }
        self.audit()
    }

    fn audit(&self) -> Option<String> {
        self.core.audit().violations.into_iter().next()
    }

    fn step(&mut self, event: Event) -> Option<String> {
        let mut next = Some(event);
        while let Some(event) =
            next.take().or_else(|| if self.local.is_empty() { None } else { Some(self.local.remove(0)) })
        {
            let mut effects = Vec::new();
            self.core.step(self.now, event, &mut effects);
            effects.into_iter().for_each(|effect| self.take(effect));
            if let Some(found) = self.core.quick_check().into_iter().next() {
                return Some(found);
            }
        }
        None
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Row(Row::Job(row)) => self.rows.push(*row),
            Effect::Assign { assignment, .. } => self.reservations.push(assignment.reservation),
            Effect::CloseOutput(reservation) => {
                let delivered = self.rng.below(3) as u32;
                self.local.push(Event::Revoked(Revoked {
                    reservation,
                    delivered,
                    written: 3,
                    written_tokens: 3,
                }));
            }
            // The driver answers in the same turn, for the core waits without a timer.
            Effect::CheckProgress(reservation) => {
                let written = self.rng.below(3) as u32;
                let last_at = (written > 0).then(|| self.now - self.rng.ms(0, 90_000));
                self.local.push(Event::Progress(Progress { reservation, written, last_at }));
            }
            _ => {}
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        match self.rng.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX / 2,
            3 => self.rng.draw(),
            _ => self.rng.below(200),
        }
    }

    pub(super) fn small(&mut self) -> u32 {
        self.number().min(u64::from(u32::MAX)) as u32
    }

    pub(super) fn time(&mut self) -> Time {
        match self.rng.below(4) {
            0 => Time(self.number()),
            _ => self.now + self.rng.ms(0, 5_000),
        }
    }

    pub(super) fn span(&mut self) -> Span {
        if self.rng.chance(70) { self.rng.ms(1, 20_000) } else { Span(self.number()) }
    }

    pub(super) fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = *self.rng.pick(&[0, 0, 0, 1, 1, 2, 5, 70, 1_500]);
        (0..count).map(|_| make(self)).collect()
    }

    pub(super) fn node(&mut self) -> NodeId {
        match self.rng.below(12) {
            0 => NodeId::local(),
            1 => NodeId::named(""),
            _ => node_id(self.rng.below(4) as usize),
        }
    }

    pub(super) fn model(&mut self) -> ModelName {
        if self.rng.chance(90) { model(self.rng.below(2) as usize) } else { "?".into() }
    }

    pub(super) fn namespace(&mut self) -> Namespace {
        if self.rng.chance(90) { namespace(self.rng.below(4) as usize) } else { Namespace::named("") }
    }

    pub(super) fn tenant(&mut self) -> Tenant {
        Tenant { namespace: self.namespace(), environment: self.environment() }
    }

    pub(super) fn environment(&mut self) -> Environment {
        *self.rng.pick(&[Environment::Mainnet, Environment::Mainnet, Environment::Testnet])
    }

    pub(super) fn trust(&mut self) -> Trust {
        *self.rng.pick(&[Trust::Open, Trust::Open, Trust::Approved, Trust::Own])
    }

    pub(super) fn client(&mut self) -> ClientId {
        ClientId(self.rng.below(self.clients + 3))
    }

    fn fresh_client(&mut self) -> ClientId {
        self.clients += 1;
        ClientId(self.clients)
    }

    pub(super) fn job(&mut self) -> JobId {
        match self.rows.is_empty() || self.rng.chance(20) {
            true => JobId { epoch: self.rng.below(5) as u32, counter: self.number() & ((1 << 40) - 1) },
            false => self.rows[self.rng.below(self.rows.len() as u64) as usize].id,
        }
    }

    pub(super) fn reservation(&mut self) -> ReservationId {
        match self.reservations.is_empty() || self.rng.chance(15) {
            true => {
                ReservationId { epoch: self.rng.below(5) as u32, counter: self.number() & ((1 << 40) - 1) }
            }
            false => {
                let recent = self.rng.below(self.reservations.len().min(12) as u64) as usize;
                self.reservations[self.reservations.len() - 1 - recent]
            }
        }
    }

    pub(super) fn session(&mut self) -> Session {
        Session(if self.rng.chance(80) { self.rng.below(40) } else { self.number() })
    }

    fn event(&mut self) -> Event {
        self.now = match self.rng.below(40) {
            0 => self.now - self.rng.ms(0, 10_000),
            1 => self.now + Span::from_secs(self.rng.below(100_000)),
            _ => self.now + self.rng.ms(0, 30),
        };
        match self.rng.below(40) {
            0..=9 => Event::Submit(self.fresh_client(), Box::new(self.submission())),
            10 => self.client_gone(),
            11 => self.cancel(),
            12 => Event::Ask(Ask { client: self.client(), question: self.question() }),
            13 => self.feedback(),
            14 => self.requeue(),
            15..=18 => self.operation(),
            19 | 20 => Event::NodeConnected(Box::new(self.hello())),
            21..=25 => Event::Accepted(self.node(), self.reservation()),
            26 => self.declined(),
            27..=30 => Event::Completed(Verified::local(self.completion())),
            31 => self.stopped(),
            _ => self.rarer(),
        }
    }

    fn rarer(&mut self) -> Event {
        match self.rng.below(9) {
            0 => {
                let undelivered = self.list(Self::reservation);
                Event::NodeGone(NodeGone { node: self.node(), session: self.session(), undelivered })
            }
            1 => {
                let warm = self.list(Self::model);
                Event::Heartbeat(Heartbeat { node: self.node(), session: self.session(), warm })
            }
            2 => {
                let wish = *self.rng.pick(&[Wish::Pause, Wish::Resume, Wish::Resume, Wish::Drain]);
                Event::NodeWish(NodeWish { node: self.node(), session: self.session(), wish })
            }
            3 => Event::BadSignature(self.node()),
            4 => {
                let (reservation, written) = (self.reservation(), self.small());
                let last_at = self.rng.chance(50).then(|| self.time());
                Event::Progress(Progress { reservation, written, last_at })
            }
            5 => {
                let models = self.list(Self::offer);
                Event::Offers(Box::new(Offers {
                    node: self.node(),
                    session: self.session(),
                    models,
                    equipment: None,
                }))
            }
            6 => Event::StoreRoom(*self.rng.pick(&[StoreRoom::Open, StoreRoom::Open, StoreRoom::Behind])),
            _ => Event::Tick,
        }
    }

    fn client_gone(&mut self) -> Event {
        let took = Departure::Took(self.job());
        let departure = *self.rng.pick(&[Departure::Served, Departure::Abandoned, took]);
        Event::ClientGone(ClientGone { client: self.client(), departure })
    }

    fn cancel(&mut self) -> Event {
        let tenant = self.rng.chance(50).then(|| self.tenant());
        Event::Cancel(Cancel { client: self.client(), tenant, job: self.job() })
    }

    fn feedback(&mut self) -> Event {
        let note = Note::new(&"x".repeat(*self.rng.pick(&[0, 5, 1_024]))).expect("it is short enough");
        let (client, namespace, job) = (self.client(), self.namespace(), self.job());
        Event::Feedback(Feedback { client, namespace, job, opinion: Opinion::Bad, note })
    }

    fn requeue(&mut self) -> Event {
        if self.rows.is_empty() {
            return Event::Tick;
        }
        let row = self.rows[self.rng.below(self.rows.len() as u64) as usize].clone();
        Event::Requeue(Requeue { client: self.client(), row: Box::new(row) })
    }

    fn declined(&mut self) -> Event {
        let reason = "n".repeat(*self.rng.pick(&[0, 10, 100_000]));
        Event::Declined(Declined { node: self.node(), reservation: self.reservation(), reason })
    }

    fn stopped(&mut self) -> Event {
        let (node, reservation) = (self.node(), self.reservation());
        let (input_tokens, output_tokens) = (self.small(), self.small());
        Event::Stopped(Verified::local(Stopped { node, reservation, input_tokens, output_tokens }))
    }
}
