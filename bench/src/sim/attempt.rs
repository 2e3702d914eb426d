//! How a node runs an attempt: as its kind would, with a fixed answer to each body. It never sees the core.

use switchbox::coordinator::effect::Assignment;
use switchbox::coordinator::event::{
    Completion, Endpoint, ErrorClass, FinishReason, JobError, Mode, Seen, Status, Stopped, Tier,
};
use switchbox::coordinator::integrity::{Expect, OutputDigest, Template};
use switchbox::ids::{ModelName, ReservationId};
use switchbox::time::{Span, Time};

use super::nodes::Says;
use super::rng::{Rng, bytes32, mix};
use super::scene::{Kind, body, model};
use super::world::{Happening, TOKEN_BYTES, World};

/// What becomes of an attempt, as its node plans it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// An answer.
    Succeed,
    /// An answer with a wrong digest.
    WrongDigest,
    /// An answer that claims more than there was.
    Inflate,
    /// An answer that contradicts itself.
    Contradict,
    /// An error, after so many chunks.
    Fail(ErrorClass, u32),
    /// It is refused.
    Decline,
    /// Nothing is ever heard of it.
    Silent,
    /// It begins, and so many chunks later nothing more is heard.
    Stall(u32),
}

/// An attempt that a node has.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) assignment: Assignment,
    plan: Plan,
    began: bool,
    ignores_stop: bool,
    pub(crate) tokens: u32,
    pub(crate) chunks: u32,
    total: u32,
}

/// Chunks of a whole answer, at most.
const CHUNKS: u32 = 4;

/// The answer's length is the body's affair, so that two honest nodes agree.
fn answer_tokens(assignment: &Assignment) -> u32 {
    1 + (fingerprint(&assignment.model, &assignment.body) % u64::from(assignment.output_tokens_max.max(1)))
        as u32
}

fn fingerprint(model: &ModelName, body: &[u8]) -> u64 {
    model.bytes().chain(body.iter().copied()).fold(7, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// The digest of the answer that an honest node gives.
pub(crate) fn honest_digest(model: &ModelName, body: &[u8]) -> OutputDigest {
    OutputDigest(bytes32(73, fingerprint(model, body)))
}

fn plan(kind: Kind, rng: &mut Rng) -> Plan {
    let luck = rng.below(100);
    let chunk = rng.below(u64::from(CHUNKS)) as u32;
    match kind {
        Kind::Flaky => match luck {
            0..=11 => Plan::Fail(ErrorClass::Node, chunk),
            12..=21 => Plan::Fail(ErrorClass::Transient, chunk),
            22..=27 => Plan::Fail(ErrorClass::Terminal, chunk),
            28..=33 => Plan::Silent,
            34..=39 => Plan::Stall(0),
            40..=45 => Plan::Stall(1),
            46..=49 => Plan::Decline,
            _ => Plan::Succeed,
        },
        Kind::Lying => match luck {
            0..=29 => Plan::WrongDigest,
            30..=69 => Plan::Inflate,
            70..=77 => Plan::Contradict,
            _ => Plan::Succeed,
        },
        Kind::Declining if luck < 50 => Plan::Decline,
        _ => match luck {
            0 | 1 => Plan::Fail(ErrorClass::Terminal, chunk),
            2 | 3 => Plan::Fail(ErrorClass::Transient, 0),
            _ => Plan::Succeed,
        },
    }
}

impl World<'_> {
    /// An assignment reached the node.
    pub(crate) fn begin(&mut self, index: usize, assignment: Assignment) {
        let node = &mut self.nodes[index];
        let plan = plan(node.kind, &mut node.rng);
        let reservation = assignment.reservation;
        if plan == Plan::Decline {
            return self.say(index, Says::Declined(reservation));
        }
        let total = answer_tokens(&assignment);
        let ignores_stop = node.kind == Kind::Flaky && node.rng.chance(25);
        let cold = !node.warm.contains(&assignment.model);
        let load =
            node.offers.iter().find(|offer| offer.model == assignment.model).map_or(Span(0), |o| o.load);
        let prefill = Span(u64::from(assignment.input_tokens) * 200);
        node.warm.insert(assignment.model.clone());
        let run = Run { assignment, plan, began: false, ignores_stop, tokens: 0, chunks: 0, total };
        node.runs.insert(reservation, run);
        if plan != Plan::Silent {
            let wait = Span(prefill.0 + if cold { load.0 } else { 0 });
            self.say(index, Says::Accepted(reservation));
            self.schedule(wait, Happening::Work(index, reservation));
        }
    }

    /// The next chunk, or the end.
    pub(crate) fn work(&mut self, index: usize, reservation: ReservationId) {
        let pace = self.nodes[index].pace;
        let Some(run) = self.nodes[index].runs.get_mut(&reservation) else { return };
        run.began = true;
        let over = match run.plan {
            Plan::Fail(_, chunk) | Plan::Stall(chunk) => run.chunks >= chunk,
            _ => false,
        };
        if over || run.tokens >= run.total {
            return self.end(index, reservation);
        }
        let step = run.total.div_ceil(CHUNKS).min(run.total - run.tokens);
        run.tokens += step;
        run.chunks += 1;
        let says = Says::Tokens(reservation, run.tokens, run.chunks);
        self.say(index, says);
        self.schedule(Span(pace.0 * u64::from(step)), Happening::Work(index, reservation));
    }

    fn end(&mut self, index: usize, reservation: ReservationId) {
        if matches!(self.nodes[index].runs[&reservation].plan, Plan::Stall(_)) {
            return;
        }
        let run = self.nodes[index].runs.remove(&reservation).expect("it ran");
        let local = self.nodes[index].kind == Kind::Local;
        let result = self.result(index, &run, local);
        let node = &mut self.nodes[index];
        node.unacked.insert(reservation, result.clone());
        node.said.push(result.clone());
        if node.session.is_some() {
            self.say(index, Says::Completed(result));
        }
    }

    fn result(&mut self, index: usize, run: &Run, local: bool) -> Completion {
        let node = &mut self.nodes[index];
        let (input, max) = (run.assignment.input_tokens, run.assignment.output_tokens_max);
        let status = match run.plan {
            Plan::Fail(class, _) => Status::Failed(JobError { class, message: "as planned".to_owned() }),
            _ if run.tokens >= max => Status::Succeeded(FinishReason::Length),
            _ => Status::Succeeded(FinishReason::Stop),
        };
        let honest = honest_digest(&run.assignment.model, &run.assignment.body);
        let digest = match run.plan {
            Plan::WrongDigest => {
                self.oracle.wrong.insert(node.id.clone());
                OutputDigest(bytes32(74, run.assignment.reservation.counter))
            }
            _ => honest,
        };
        let (input_tokens, output_tokens) = match run.plan {
            Plan::Inflate => (input.saturating_mul(3), (run.tokens + 5).min(max)),
            Plan::Contradict => (input, max.saturating_add(1)),
            _ => (input, run.tokens),
        };
        let cached_tokens = if node.rng.chance(30) { node.rng.below(u64::from(input) + 1) as u32 } else { 0 };
        Completion {
            node: node.id.clone(),
            reservation: run.assignment.reservation,
            status,
            input_tokens,
            cached_tokens,
            output_tokens,
            digest: (!local).then_some(digest),
            seen: seen_of(run, self.now),
            proof: None,
        }
    }

    pub(crate) fn told_to_stop(&mut self, index: usize, reservation: ReservationId) {
        let node = &mut self.nodes[index];
        let run = node.runs.get(&reservation);
        if run.is_some_and(|run| run.ignores_stop) || node.unacked.contains_key(&reservation) {
            return;
        }
        let run = node.runs.remove(&reservation);
        let (input_tokens, output_tokens) = match &run {
            Some(run) if run.began => (run.assignment.input_tokens, run.tokens),
            _ => (0, 0),
        };
        let stopped = Stopped { node: node.id.clone(), reservation, input_tokens, output_tokens };
        self.say(index, Says::Stopped(stopped));
    }

    /// The node gives an attempt back that it has begun nothing of.
    pub(crate) fn hand_back(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let idle = |(_, run): &(&ReservationId, &Run)| run.chunks == 0;
        let Some(reservation) = node.runs.iter().find(idle).map(|(id, _)| *id) else { return };
        node.runs.remove(&reservation);
        let stopped = Stopped { node: node.id.clone(), reservation, input_tokens: 0, output_tokens: 0 };
        self.oracle.coverage.count("world", "attempts handed back");
        self.say(index, Says::Stopped(stopped));
    }
}

/// What the box will have seen, where it has no output of its own to look at.
fn seen_of(run: &Run, now: Time) -> Seen {
    Seen {
        chunks: run.chunks,
        bytes: u64::from(run.tokens) * TOKEN_BYTES,
        tokens: Some(run.tokens),
        first_at: (run.chunks > 0).then_some(now),
        last_at: (run.chunks > 0).then_some(now),
    }
}

/// The template of the test jobs where a world has one model only; honest nodes pass.
pub(super) fn test_template() -> Template {
    let body = body(1);
    Template {
        name: "t".into(),
        model: model(0),
        endpoint: Endpoint::ChatCompletions,
        expect: Expect::Digests(vec![honest_digest(&model(0), &body)]),
        body,
        input_tokens: 4,
        output_tokens_max: 4,
        tier: Tier::Standard,
        mode: Mode::Polling,
    }
}
