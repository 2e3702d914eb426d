//! The one task of an agent: keeps a connection to the box, moves messages between it and the desk, and minds the time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::AgentError;
use super::backoff::{Backoff, SETTLED_AFTER};
use super::control::{Ask, Reply};
use super::desk::{Desk, Mode};
use super::dial::{Caller, Dialled, closing, dial};
use super::link::{Ended, Inbound, Link};
use super::offer::{Offered, Says};
use crate::datadir::AgentDir;
use crate::node::{Answer, SlotAnswer};
use crate::wire::version::JSON_CHUNKS;
use crate::wire::{CloseCode, PING_INTERVAL_MS, Refusal, SILENCE_MAX_MS};
use status::Heard;

mod messages;
mod status;

/// Messages that are read before something is written.
const READS_IN_A_ROW: u32 = 64;
/// How long a box may take to say that nothing is left, once nothing is.
const DRAINED_PATIENCE: Duration = Duration::from_secs(2);
/// How long results of attempts that were cut may take to be settled.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);
/// How long an attempt may run while no box listens: as long as a box waits for one.
const ATTEMPT_MAX: Duration = Duration::from_secs(1_800);
/// Heartbeats within the time that a box waits for one.
const HEARTBEATS_PER_TTL: u32 = 3;
/// The shortest interval of heartbeats that is kept to.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

/// What somebody wants of the agent.
#[derive(Debug)]
pub(super) enum Command {
    /// Finish what runs, within the deadline, and end.
    Leave,
    /// What the node offers may have changed.
    Offer(Box<Offered>),
    /// The owner asks for something.
    Asked(Ask, oneshot::Sender<Reply>),
}

/// Where the connection is.
enum State {
    /// The next call is due then.
    Waiting(Instant),
    /// Somebody is being called.
    Dialling(Pin<Box<dyn Future<Output = Result<Dialled, Ended>> + Send>>),
    /// There is one.
    Open(Box<Open>),
}

/// An open connection.
struct Open {
    link: Link,
    /// When anything came last.
    heard_at: Instant,
    pinged: bool,
    /// Since when it works, and the heartbeats that are due.
    working: Option<Working>,
    reads_in_a_row: u32,
}

struct Working {
    since: Instant,
    heartbeat_every: Duration,
    heartbeat_at: Instant,
}

/// How far leaving is.
struct Leaving {
    /// What then still runs is cut.
    cut_at: Instant,
    /// Then the agent ends, whatever is left.
    end_at: Instant,
    /// Since when nothing is left.
    empty_since: Option<Instant>,
}

/// What happened.
#[expect(clippy::large_enum_variant, reason = "one at a time is in memory, and moved at once")]
enum Happening {
    Dialled(Result<Dialled, Ended>),
    Heard(Inbound),
    Lost(Ended),
    Answer(SlotAnswer),
    Command(Command),
    TimeUp,
}

/// Whether the agent goes on.
enum Flow {
    On,
    Ends(Result<(), AgentError>),
}

/// What an agent is made of.
pub(super) struct Parts {
    pub(super) dir: AgentDir,
    pub(super) caller: Caller,
    pub(super) desk: Desk,
    pub(super) answers: mpsc::UnboundedReceiver<SlotAnswer>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) drain_deadline: Duration,
    pub(super) announce: Box<dyn FnMut(&str) + Send>,
}

/// An agent at work.
pub(super) struct Session {
    dir: AgentDir,
    caller: Arc<Caller>,
    desk: Desk,
    state: State,
    answers: mpsc::UnboundedReceiver<SlotAnswer>,
    commands: mpsc::Receiver<Command>,
    backoff: Backoff,
    timer: Pin<Box<Sleep>>,
    drain_deadline: Duration,
    leaving: Option<Leaving>,
    /// What the box said of the node, and why there was no connection.
    heard: Heard,
    /// Until the box has welcomed the node.
    announce: Option<Announce>,
}

/// Says once that the node serves.
type Announce = Box<dyn FnMut(&str) + Send>;

impl Session {
    /// One that dials at once.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { dir, caller, desk, answers, commands, drain_deadline, announce } = parts;
        let now = Instant::now();
        Self {
            dir,
            caller: Arc::new(caller),
            desk,
            state: State::Waiting(now),
            answers,
            commands,
            backoff: Backoff::default(),
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            drain_deadline,
            leaving: None,
            heard: Heard::default(),
            announce: Some(announce),
        }
    }

    /// Works until there is nothing more to do.
    pub(super) async fn run(mut self) -> Result<(), AgentError> {
        loop {
            // An echo ends before this comes back for the next: others must get their turn in between.
            tokio::task::consume_budget().await;
            let deadline = self.deadline();
            if self.timer.deadline() != deadline.into() {
                self.timer.as_mut().reset(deadline.into());
            }
            let happening = std::future::poll_fn(|cx| self.poll(cx)).await;
            if let Flow::Ends(outcome) = self.on(happening) {
                return self.end(outcome).await;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if let Poll::Ready(Some(answer)) = self.answers.poll_recv(cx) {
            self.send_output_before(&answer, cx);
            return Poll::Ready(Happening::Answer(answer));
        }
        if let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            return Poll::Ready(Happening::Command(command));
        }
        match &mut self.state {
            State::Waiting(_) => {}
            State::Dialling(dialling) => {
                if let Poll::Ready(dialled) = dialling.as_mut().poll(cx) {
                    return Poll::Ready(Happening::Dialled(dialled));
                }
            }
            State::Open(open) => match open.poll(&mut self.desk, cx) {
                Poll::Ready(Ok(inbound)) => return Poll::Ready(Happening::Heard(inbound)),
                Poll::Ready(Err(ended)) => return Poll::Ready(Happening::Lost(ended)),
                Poll::Pending => {}
            },
        }
        self.timer.as_mut().poll(cx).map(|()| Happening::TimeUp)
    }

    /// The last of the attempts that run is signed once all that there is goes out: the box works at it meanwhile. (Without
    /// this a tenth fewer jobs are done with 16 clients; with one it makes no difference.)
    fn send_output_before(&mut self, said: &SlotAnswer, cx: &mut Context<'_>) {
        if let (Answer::Completed(_), State::Open(open)) = (&said.answer, &mut self.state)
            && self.desk.running() == 1
        {
            // A connection that is gone is found out when it is looked at next.
            let _ = open.write(&mut self.desk, cx);
        }
    }

    fn on(&mut self, happening: Happening) -> Flow {
        let flow = match happening {
            Happening::Dialled(Ok(dialled)) => self.on_dialled(dialled),
            Happening::Dialled(Err(ended)) | Happening::Lost(ended) => self.on_ended(ended),
            Happening::Heard(inbound) => self.on_heard(inbound),
            Happening::Answer(answer) => {
                self.desk.on_answer(answer);
                Flow::On
            }
            Happening::Command(Command::Leave) => {
                self.leave();
                Flow::On
            }
            Happening::Command(Command::Offer(offered)) => {
                self.desk.offer(*offered);
                Flow::On
            }
            Happening::Command(Command::Asked(ask, reply)) => {
                // Who left wants no answer any more.
                let _ = reply.send(self.on_asked(ask));
                Flow::On
            }
            Happening::TimeUp => self.on_time(Instant::now()),
        };
        match flow {
            Flow::On if self.has_left() => Flow::Ends(Ok(())),
            flow => flow,
        }
    }

    fn on_dialled(&mut self, dialled: Dialled) -> Flow {
        let Dialled { mut link, proven, admitted } = dialled;
        let joined = &self.caller.joined;
        if joined.token.is_some() {
            let mut registered = joined.clone();
            if let Err(error) = registered.registered(&self.dir) {
                return Flow::Ends(Err(error.into()));
            }
            self.caller = Arc::new(Caller { joined: registered, ..self.caller.again() });
        }
        tracing::info!(node = admitted.node, session = admitted.session, "the box let this node in");
        let takes = if proven.capabilities.contains(&JSON_CHUNKS) { Says::Json } else { Says::Text };
        let ready = self.desk.ready(takes);
        if let Err(ended) = link.put(&ready) {
            return self.on_ended(ended);
        }
        let heard_at = Instant::now();
        self.state =
            State::Open(Box::new(Open { link, heard_at, pinged: false, working: None, reads_in_a_row: 0 }));
        Flow::On
    }

    /// The connection is gone, or there was none.
    fn on_ended(&mut self, ended: Ended) -> Flow {
        self.desk.disconnected();
        let advice = ended.advice();
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Waiting(Instant::now())) {
            if open.working.as_ref().is_some_and(|working| working.since.elapsed() >= SETTLED_AFTER) {
                self.backoff.reset();
            }
            // What this side ends, it says why.
            if let Some(code) = ended.code {
                tokio::spawn(closing(open.link, code, ended.reason.clone()));
            }
        }
        if ended.code == Some(CloseCode::Drained) {
            tracing::info!("the node drained: {}", ended.reason);
            return Flow::Ends(Ok(()));
        }
        let chance = getrandom::u64().unwrap_or(0);
        let wait = self.backoff.wait(advice, chance);
        match (wait, ended.code) {
            (None, code) => {
                let refusal = Refusal::new(code.unwrap_or(CloseCode::Normal), ended.reason);
                Flow::Ends(Err(AgentError::Refused(refusal)))
            }
            (Some(wait), code) => {
                let code = code.map(CloseCode::word);
                tracing::warn!(
                    code,
                    wait_ms = wait.as_millis() as u64,
                    "no connection to the box: {}",
                    ended.reason
                );
                self.heard.trouble = Some(ended.reason);
                self.state = State::Waiting(Instant::now() + wait);
                Flow::On
            }
        }
    }

    fn on_heard(&mut self, inbound: Inbound) -> Flow {
        if let State::Open(open) = &mut self.state {
            open.heard_at = Instant::now();
            open.pinged = false;
        }
        let Inbound::Message(message) = inbound else { return Flow::On };
        match self.on_message(message) {
            Ok(_) if self.desk.is_overfull() => {
                let reason = "the box doesn't read what it is answered";
                self.on_ended(Refusal::new(CloseCode::TooSlow, reason).into())
            }
            Ok(flow) => flow,
            Err(refusal) => self.on_ended(refusal.into()),
        }
    }

    /// The agent was told to stop: nothing new, and what the box hasn't seen anything of goes back.
    fn leave(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        let cut_at = Instant::now() + self.drain_deadline;
        self.leaving = Some(Leaving { cut_at, end_at: cut_at + SETTLE_PATIENCE, empty_since: None });
        self.desk.set_mode(Mode::Draining);
        self.desk.hand_back();
        tracing::info!(
            running = self.desk.running(),
            "stopping: what the box has seen of goes on, the rest goes back"
        );
    }

    /// Whether leaving is over. Where no box listens, results wait on the disk.
    fn has_left(&mut self) -> bool {
        let is_connected = self.is_working();
        let Some(leaving) = &mut self.leaving else {
            // A drain that its owner asked for has no deadline.
            return self.desk.mode() == Mode::Draining && !is_connected && self.desk.running() == 0;
        };
        if self.desk.running() > 0 || (is_connected && !self.desk.is_empty()) {
            leaving.empty_since = None;
            return false;
        }
        let now = Instant::now();
        let since = *leaving.empty_since.get_or_insert(now);
        !is_connected || now >= since + DRAINED_PATIENCE
    }

    /// Whether the box has welcomed the node on this connection.
    fn is_working(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.working.is_some())
    }

    fn on_time(&mut self, now: Instant) -> Flow {
        self.desk.keep_due(now);
        if let Some(leaving) = &mut self.leaving {
            if now >= leaving.end_at {
                tracing::warn!(
                    "not everything was settled in time: unsettled results are told at the next start"
                );
                return Flow::Ends(Ok(()));
            }
            if now >= leaving.cut_at {
                leaving.cut_at = leaving.end_at;
                self.desk.stop_all();
            }
        }
        match &mut self.state {
            State::Waiting(until) if now >= *until => {
                self.state = State::Dialling(Box::pin(dial(Arc::clone(&self.caller))));
            }
            State::Waiting(_) | State::Dialling(_) => {
                if let Some(since) = now.checked_sub(ATTEMPT_MAX) {
                    self.desk.stop_overdue(since);
                }
            }
            State::Open(_) => return self.mind_connection(now),
        }
        Flow::On
    }

    fn mind_connection(&mut self, now: Instant) -> Flow {
        let State::Open(open) = &mut self.state else { return Flow::On };
        let silent_for = now.saturating_duration_since(open.heard_at);
        if silent_for >= Duration::from_millis(SILENCE_MAX_MS) {
            let reason = "nothing came from the box for too long".to_owned();
            return self.on_ended(Ended { code: None, reason });
        }
        if silent_for >= Duration::from_millis(PING_INTERVAL_MS) && !open.pinged {
            open.pinged = true;
            if let Err(ended) = open.link.ping() {
                return self.on_ended(ended);
            }
        }
        if let Some(working) = &mut open.working
            && now >= working.heartbeat_at
        {
            working.heartbeat_at = now + working.heartbeat_every;
            self.desk.heartbeat();
        }
        Flow::On
    }

    /// When there is something to do even if nothing happens.
    fn deadline(&self) -> Instant {
        let state = match &self.state {
            State::Waiting(until) => *until,
            State::Dialling(_) => Instant::now() + ATTEMPT_MAX,
            State::Open(open) => open.deadline(),
        };
        let leaving = self.leaving.as_ref().map(|leaving| {
            let patience = leaving.empty_since.map(|since| since + DRAINED_PATIENCE);
            leaving.cut_at.min(leaving.end_at).min(patience.unwrap_or(leaving.end_at))
        });
        [leaving, self.desk.keep_at()].into_iter().flatten().fold(state, Instant::min)
    }

    async fn end(mut self, outcome: Result<(), AgentError>) -> Result<(), AgentError> {
        self.desk.settle().await;
        if let State::Open(open) = self.state {
            closing(open.link, CloseCode::Normal, "the agent stops".to_owned()).await;
        }
        outcome
    }
}

impl Open {
    /// Reads what is there, and writes once there is nothing more to read.
    fn poll(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Poll<Result<Inbound, Ended>> {
        if self.reads_in_a_row < READS_IN_A_ROW
            && let Poll::Ready(inbound) = self.link.poll_next(cx)
        {
            self.reads_in_a_row += 1;
            return Poll::Ready(inbound);
        }
        self.reads_in_a_row = 0;
        self.write(desk, cx)?;
        self.link.poll_next(cx)
    }

    fn write(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Result<(), Ended> {
        while self.link.poll_room(cx)?.is_ready() {
            let Some(message) = desk.next_message(cx.waker()) else {
                // What doesn't go out now wakes this task when it can.
                let _: Poll<()> = self.link.poll_flush(cx)?;
                break;
            };
            self.link.put(&message)?;
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let silence = if self.pinged { SILENCE_MAX_MS } else { PING_INTERVAL_MS };
        let silent_at = self.heard_at + Duration::from_millis(silence);
        self.working.as_ref().map_or(silent_at, |working| working.heartbeat_at.min(silent_at))
    }
}
