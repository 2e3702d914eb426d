//! What the node decides: which assignments it takes, what becomes of those it holds, and what is said to the box. Knows
//! no socket: messages come in as values and are taken out one by one.

mod ending;
mod taking;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::taking::{Decline, assignment_of, output_bytes_max};
use super::bells::Bells;
use super::configuration::Configurations;
use super::hold::{Assigned, Cause, Ended, Hold, Kept, Next, Phase};
use super::offer::{Offered, Says};
use super::report::{self, Done};
use super::results::{Record, Results};
use crate::budget::Budget;
use crate::coordinator::event::{Environment, ErrorClass, JobError, Status, Wish};
use crate::ids::{ModelName, ReservationId};
use crate::node::{Answer, Bytes, Slot, SlotAnswer, SlotResult};
use crate::output::Output;
use crate::runtime::Attempts;
use crate::wire::to_agent::{Assign, Resume, Verdict};
use crate::wire::to_box::{self, DeclineCause};
use crate::wire::{
    CloseCode, FromAgent, HOLDS_MAX, Identity, OUTBOX_MESSAGES_MAX, PublicKey, REASON_BYTES_MAX, Refusal,
};

/// Bytes of requests and outputs that the agent holds at most.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// How long a box that is connected may take to settle a result before it goes to the disk. Boxes usually take a
/// hundredth of that; without a connection it goes there at once.
const SETTLE_PATIENCE: Duration = Duration::from_millis(100);

/// Whether the node takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It does.
    Working,
    /// Its owner wants a pause.
    Paused,
    /// It finishes what it has and leaves.
    Draining,
}

/// Whether the box listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// There is no connection, or the box hasn't said what becomes of what is held.
    Closed,
    /// The box was told what is held, and hasn't answered.
    Listed(Vec<ReservationId>),
    /// It is.
    Open,
}

/// The node's side of its work.
pub(super) struct Desk {
    identity: Arc<Identity>,
    box_key: PublicKey,
    environments: Vec<Environment>,
    offered: Offered,
    /// What the box takes.
    takes: Says,
    attempts: Attempts,
    answers: mpsc::UnboundedSender<SlotAnswer>,
    holds: HashMap<ReservationId, Hold>,
    /// Attempts that run, by model.
    running: BTreeMap<ModelName, u32>,
    memory: Arc<Budget>,
    bells: Arc<Bells>,
    mode: Mode,
    line: Line,
    /// Messages that wait for nothing but the socket: at most a few for each hold.
    queue: VecDeque<FromAgent>,
    results: Results,
    /// Results that go to the disk then, unless they are settled; at most one for each hold.
    unkept: VecDeque<(Instant, ReservationId)>,
    pub(super) configurations: Configurations,
    pub(super) tally: Done,
}

/// Who the node is and whom it works for.
pub(super) struct Parties {
    pub(super) identity: Arc<Identity>,
    pub(super) box_key: PublicKey,
    pub(super) environments: Vec<Environment>,
}

impl Desk {
    /// A desk with nothing on it. Runtimes answer through `answers`, which come back by [`Desk::on_answer`].
    pub(super) fn new(
        parties: Parties,
        offered: Offered,
        attempts: Attempts,
        answers: mpsc::UnboundedSender<SlotAnswer>,
        results: Results,
        configurations: Configurations,
    ) -> Self {
        let Parties { identity, box_key, environments } = parties;
        Self {
            identity,
            box_key,
            environments,
            offered,
            takes: Says::Text,
            attempts,
            answers,
            holds: HashMap::new(),
            running: BTreeMap::new(),
            memory: Arc::new(Budget::new(HELD_BYTES_MAX)),
            bells: Arc::default(),
            mode: Mode::Working,
            line: Line::Closed,
            queue: VecDeque::new(),
            results,
            unkept: VecDeque::new(),
            configurations,
            tally: Done::default(),
        }
    }

    /// Takes up results of an earlier run of the agent.
    pub(super) fn take_up(&mut self, records: Vec<Record>) {
        for record in records {
            let reservation = record.hold.reservation;
            let bytes = record.chunks.iter().map(|chunk| chunk.text.len() as u64).sum();
            let bell = self.bells.bell(reservation);
            let hold = self.memory.take(bytes).and_then(|share| Hold::of_record(record, bell, share));
            match hold {
                Some(hold) => drop(self.holds.insert(reservation, hold)),
                None => {
                    tracing::warn!(%reservation, "a result that was kept is too large to be told of, and goes");
                    self.results.forget(reservation);
                }
            }
        }
    }

    /// Attempts that run.
    pub(super) fn running(&self) -> u32 {
        self.running.values().sum()
    }

    /// Results that the box hasn't settled.
    pub(super) fn unsettled(&self) -> usize {
        self.holds.values().filter(|hold| matches!(hold.phase, Phase::Ended(_))).count()
    }

    /// What runs, for the owner.
    pub(super) fn shown_running(&self) -> Vec<report::Running> {
        let runs = |hold: &&Hold| !matches!(hold.phase, Phase::Ended(_));
        let shown = |hold: &Hold| report::Running {
            job: hold.assigned.job.to_string(),
            model: hold.assigned.model.to_string(),
            environment: hold.assigned.environment.word().to_owned(),
            seconds: hold.since.elapsed().as_secs(),
            output_tokens: hold.output.extent().tokens,
        };
        self.holds.values().filter(runs).map(shown).collect()
    }

    /// What is offered, for the owner.
    pub(super) fn shown_models(&self) -> Vec<report::Model> {
        let shown = |model: &to_box::OfferedModel| report::Model {
            name: model.name.to_string(),
            digest: model.digest.map(|digest| digest.to_string()),
            slots: model.slots,
            running: self.running.get(&model.name).copied().unwrap_or(0),
        };
        self.offered.models().map(shown).collect()
    }

    /// Whether anything is held.
    pub(super) fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Whether the node takes work.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// What the node offers may have changed: what it has no more is offered no more, and what runs goes on.
    pub(super) fn offer(&mut self, offered: Offered) {
        if offered != self.offered {
            self.offered = offered;
            self.say(FromAgent::Offer(self.offered.offer()));
        }
    }

    /// What the node says once a box that takes this has let it in. Until the box has answered, nothing else is said.
    pub(super) fn ready(&mut self, takes: Says) -> FromAgent {
        self.disconnected();
        self.takes = takes;
        self.configurations.connected();
        let holds: Vec<to_box::Hold> = self.holds.values().take(HOLDS_MAX).map(Hold::listed).collect();
        self.line = Line::Listed(holds.iter().map(|hold| hold.reservation).collect());
        let configurations = self.configurations.held();
        FromAgent::Ready(Box::new(to_box::Ready { offer: self.offered.offer(), configurations, holds }))
    }

    /// The connection is gone, and with it what was about to be said.
    pub(super) fn disconnected(&mut self) {
        self.line = Line::Closed;
        self.queue.clear();
        self.bells.silence();
        self.keep_all();
    }

    /// When the next result goes to the disk, if none is settled before.
    pub(super) fn keep_at(&self) -> Option<Instant> {
        self.unkept.front().map(|(at, _)| *at)
    }

    /// Sends results to the disk that the box is slow to settle.
    pub(super) fn keep_due(&mut self, now: Instant) {
        while let Some((_, reservation)) = self.unkept.pop_front_if(|(at, _)| *at <= now) {
            if let Some(record) =
                self.holds.get_mut(&reservation).and_then(|hold| hold.take_to_keep(self.box_key))
            {
                self.results.keep(record);
            }
        }
    }

    fn keep_all(&mut self) {
        self.unkept.clear();
        let box_key = self.box_key;
        let records = self.holds.values_mut().filter_map(|hold| hold.take_to_keep(box_key));
        records.for_each(|record| self.results.keep(record));
    }

    /// Ready when every result that isn't settled is on the disk.
    pub(super) async fn settle(&mut self) {
        self.keep_all();
        self.results.settle().await;
    }

    /// The box says what becomes of what was listed.
    pub(super) fn on_welcome(&mut self, verdicts: &[Resume]) -> Result<(), Refusal> {
        let out_of_order = |reason: &str| Refusal::new(CloseCode::OutOfOrder, reason);
        let Line::Listed(listed) = std::mem::replace(&mut self.line, Line::Open) else {
            return Err(out_of_order("a second `welcome` came"));
        };
        if !verdicts.iter().map(|verdict| verdict.reservation).eq(listed) {
            return Err(out_of_order("`welcome` answers something else than was listed"));
        }
        for Resume { reservation, verdict } in verdicts {
            let Some(hold) = self.holds.get_mut(reservation) else { continue };
            match verdict {
                Verdict::Resume { from } if !hold.resume(*from) => {
                    return Err(out_of_order("`welcome` resumes an output where there is none"));
                }
                Verdict::Resume { .. } => {}
                Verdict::Taken => hold.taken(),
                Verdict::Unknown => self.drop_unknown(*reservation),
            }
        }
        match self.mode {
            Mode::Working => {}
            Mode::Paused => self.wish(Wish::Pause),
            Mode::Draining => self.wish(Wish::Drain),
        }
        Ok(())
    }

    /// The box waits for nothing of it: what runs is stopped, and says so; a result goes.
    fn drop_unknown(&mut self, reservation: ReservationId) {
        let Some(hold) = self.holds.get(&reservation) else { return };
        if let Phase::Ended(ended) = &hold.phase {
            let stated = &ended.result.statement;
            let (input, output) = (stated.input_tokens, stated.output_tokens);
            self.say_stopped(reservation, input, output);
        } else {
            self.stop(reservation, Cause::Unwanted);
        }
    }

    /// Takes an assignment, or says why not.
    pub(super) fn on_assign(&mut self, assign: Assign) {
        if self.holds.contains_key(&assign.reservation) {
            tracing::warn!(reservation = %assign.reservation, "the box assigned this twice: the second time is ignored");
            return;
        }
        match self.check(&assign) {
            Ok(share) => self.start(assign, share),
            Err(Decline(cause, reason)) => self.decline(assign.reservation, cause, reason),
        }
    }

    fn start(&mut self, assign: Assign, share: crate::budget::Share) {
        let reservation = assign.reservation;
        let Some((model, says)) = self.offered.model(&assign.model) else { return };
        let assigned = Assigned::of(&assign, model.digest);
        let output = Output::new(output_bytes_max(assign.output_tokens_max, says));
        *self.running.entry(assign.model.clone()).or_default() += 1;
        let hold = Hold::new(assigned, Arc::clone(&output), self.bells.bell(reservation), share);
        hold.ring();
        self.holds.insert(reservation, hold);
        let slot = Slot::of_agent(reservation, &output, &self.answers);
        tracing::debug!(job = %assign.job, %reservation, model = %assign.model, "begins");
        self.attempts.start(assignment_of(assign), output, slot);
    }

    fn decline(&mut self, reservation: ReservationId, cause: DeclineCause, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX.min(reason.len())));
        self.tally.declined += 1;
        tracing::info!(%reservation, ?cause, reason, "declined");
        self.say(FromAgent::Declined(to_box::Declined { reservation, cause, reason }));
    }

    /// A runtime says something of an attempt.
    pub(super) fn on_answer(&mut self, said: SlotAnswer) {
        let SlotAnswer { reservation, answer } = said;
        let Some(hold) = self.holds.get_mut(&reservation) else { return };
        let phase = match &hold.phase {
            Phase::Running => None,
            Phase::Stopping(cause) => Some(*cause),
            // Each attempt has one result.
            Phase::Ended(_) => return,
        };
        match (answer, phase) {
            (Answer::Accepted, None) => self.say(FromAgent::Accepted(to_box::Accepted { reservation })),
            (Answer::Accepted, Some(_)) => {}
            (Answer::Declined(reason), _) => {
                self.remove(reservation);
                self.decline(reservation, DeclineCause::Other, reason);
            }
            (Answer::Completed(result), None) => self.complete(reservation, result),
            (Answer::Completed(result), Some(Cause::Unwanted)) => {
                self.say_stopped(reservation, result.input_tokens, result.output_tokens);
            }
            // It came to its end just in time.
            (Answer::Completed(result), Some(Cause::Leaving)) => self.complete(reservation, result),
            (Answer::Stopped { input_tokens, output_tokens }, Some(Cause::Leaving)) => {
                let message = "the node that ran the job was stopped".to_owned();
                let status = Status::Failed(JobError { class: ErrorClass::Transient, message });
                let chunks = hold.chunks();
                let cached_tokens = 0;
                self.complete(
                    reservation,
                    SlotResult {
                        status,
                        input_tokens,
                        cached_tokens,
                        output_tokens,
                        chunks,
                        bytes: Bytes::Any,
                    },
                );
            }
            (Answer::Stopped { input_tokens, output_tokens }, _) => {
                self.say_stopped(reservation, input_tokens, output_tokens);
            }
        }
    }

    fn complete(&mut self, reservation: ReservationId, result: SlotResult) {
        let Some(hold) = self.holds.get_mut(&reservation) else { return };
        match &result.status {
            Status::Succeeded(_) => {
                self.tally.succeeded += 1;
                let (input, output) = (result.input_tokens, result.output_tokens);
                tracing::debug!(job = %hold.assigned.job, input_tokens = input, output_tokens = output, "done");
            }
            Status::Failed(error) => {
                self.tally.failed += 1;
                tracing::warn!(job = %hold.assigned.job, class = ?error.class, "failed: {}", error.message);
            }
        }
        hold.complete(result, &self.identity, self.box_key);
        let model = hold.assigned.model.clone();
        self.runs_no_more(&model);
        if self.line == Line::Closed {
            self.keep_all();
        } else {
            self.unkept.push_back((Instant::now() + SETTLE_PATIENCE, reservation));
        }
    }

    fn say_stopped(&mut self, reservation: ReservationId, input_tokens: u32, output_tokens: u32) {
        let Some(hold) = self.remove(reservation) else { return };
        self.tally.stopped += 1;
        tracing::debug!(job = %hold.assigned.job, output_tokens, "stopped");
        let stopped = hold.stopped(input_tokens, output_tokens, &self.identity, self.box_key);
        self.say(FromAgent::Stopped(stopped));
    }

    /// The box has decided on a result: it needn't be kept. `false` if there was none.
    pub(super) fn on_settled(&mut self, reservation: ReservationId) -> bool {
        let is_ended = self.holds.get(&reservation).is_some_and(|hold| matches!(hold.phase, Phase::Ended(_)));
        is_ended && self.remove(reservation).is_some()
    }

    fn remove(&mut self, reservation: ReservationId) -> Option<Hold> {
        let hold = self.holds.remove(&reservation)?;
        match &hold.phase {
            Phase::Ended(Ended { kept: Kept::Yes, .. }) => self.results.forget(reservation),
            Phase::Ended(_) => {}
            Phase::Running | Phase::Stopping(_) => {
                let model = hold.assigned.model.clone();
                self.runs_no_more(&model);
            }
        }
        Some(hold)
    }

    fn runs_no_more(&mut self, model: &ModelName) {
        if let Some(running) = self.running.get_mut(model) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(model);
            }
        }
    }

    /// The sign of life that is due.
    pub(super) fn heartbeat(&mut self) {
        let heartbeat = to_box::Heartbeat { warm: self.offered.warm(), running: self.running() };
        self.say(FromAgent::Heartbeat(heartbeat));
        // A box that had no time for it then may have now.
        let missing: Vec<to_box::SnapshotRequest> = self.configurations.missing().collect();
        missing.into_iter().for_each(|request| self.say(FromAgent::SnapshotRequest(request)));
    }

    /// Says something, if the box listens: what it misses, a reconnect tells it.
    pub(super) fn say(&mut self, message: FromAgent) {
        if self.line == Line::Open {
            self.queue.push_back(message);
        }
    }

    /// Whether more waits for a box that doesn't read than may.
    pub(super) fn is_overfull(&self) -> bool {
        self.queue.len() > OUTBOX_MESSAGES_MAX
    }

    /// The next message that is to be sent; where there is none, `waker` is woken when there may be one.
    pub(super) fn next_message(&mut self, waker: &Waker) -> Option<FromAgent> {
        if self.line != Line::Open {
            return None;
        }
        if let Some(message) = self.queue.pop_front() {
            return Some(message);
        }
        while let Some(reservation) = self.bells.next() {
            let Some(hold) = self.holds.get_mut(&reservation) else { continue };
            match hold.next() {
                Next::Nothing => {}
                Next::Output(output) => return Some(FromAgent::Output(output)),
                Next::Completed(completed) => return Some(FromAgent::Completed(completed)),
            }
        }
        self.bells.listen(waker);
        None
    }
}
