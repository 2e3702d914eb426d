//! The way into the core for whoever serves clients: a session per request, with room reserved up front.
//!
//! A session that is dropped tells the core that its client left; that is how a disconnect cancels.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use switchbox_storage::Room as StoreRoom;
use tokio::sync::oneshot;

use crate::archive::{Archive, Found, Piece, StoreState, StoredJob, Wanted};
use crate::budget::Full;
use crate::coordinator::command::{Command, Operation};
use crate::coordinator::effect::{Answer, Finished, Refusal, RefusalKind};
use crate::coordinator::event::{
    Ask, Cancel, ClientGone, Departure, Environment, Event, Question, Requeue, Submission, Tenant,
};
use crate::coordinator::job::JobRow;
use crate::coordinator::snapshot::Snapshot;
use crate::driver::{Attach, DriverGauges, Envelope, JOURNAL_BYTES_HIGH};
use crate::endings::Waiter;
use crate::ids::{ClientId, JobId, Lsn, Namespace};
use crate::outbox::{Commits, Outbox};
use crate::output::Reader;
use crate::queue::{Permit, Room};
use crate::sender::Sender;
use crate::time::Span;

/// What a request's outbox carries.
pub enum ClientMail {
    /// Something to hear.
    Message(ClientMessage),
    /// Everything that the answer rests on is durable: look this up in the store.
    Lookup(JobId),
}

/// What a session hears.
pub enum ClientMessage {
    /// Nothing was accepted; nothing else will come.
    Refused(Refusal),
    /// The job waits or runs.
    Accepted {
        /// Its id.
        job: JobId,
        /// The step that accepted it.
        lsn: Lsn,
    },
    /// An attempt began; a reader of an earlier attempt is of no more use.
    Opened(Opened),
    /// The job's last word; nothing else will come.
    Finished(Box<Finished>),
    /// An answer to a question.
    Answer(Box<Answer>),
    /// A job that ended before: what was asked about, or what the same request became. Nothing else will come.
    Stored(Box<StoredJob>),
    /// That piece of what is stored of the job can't be read: the log says why. Nothing else will come.
    Unreadable(JobId, Piece),
    /// As much of what the asker's namespace looked up is still in memory as may be. Nothing else will come.
    ShareFull,
}

/// An attempt that began.
pub struct Opened {
    /// Which, from 1.
    pub attempt: u32,
    /// The step that accepted the job: durable before a strict stream's first byte.
    pub submit_lsn: Lsn,
    /// Its output from the beginning.
    pub reader: Reader,
}

/// How much room the door hands out.
#[derive(Debug, Clone, Copy)]
pub struct DoorRoom {
    /// Requests at once: each holds room for its departure.
    pub clients_max: usize,
    /// Submits, cancels and questions that wait to be stepped.
    pub request_events_max: usize,
}

impl Default for DoorRoom {
    fn default() -> Self {
        Self { clients_max: 16_384, request_events_max: 8_192 }
    }
}

/// What can be seen of the queue and the driver without asking.
#[derive(Debug, Clone, Copy)]
pub struct DoorGauges {
    /// Events pushed and not yet stepped.
    pub queue_depth: u64,
    /// Requests that found no room for their event.
    pub refused: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// Outputs that the driver knows.
    pub outputs: u64,
    /// The core's last step that changed rows.
    pub last_lsn: Lsn,
    /// The last durable step.
    pub durable_lsn: Lsn,
    /// Bytes of stored jobs and answers that were looked up and are held in memory.
    pub stored_bytes: u64,
    /// Requests that wait for a job's end.
    pub waiters: u64,
}

/// Opens sessions. Cheap to clone. For the io thread only.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    sender: Sender,
    commits: Arc<Commits>,
    archive: Archive,
    driver: Arc<DriverGauges>,
    clients: Arc<Room>,
    requests: Arc<Room>,
    next_client: AtomicU64,
    refused: AtomicU64,
}

/// What a door is made of.
pub struct DoorParts {
    /// Into the queue.
    pub sender: Sender,
    /// How far the store is.
    pub commits: Arc<Commits>,
    /// Where finished jobs are looked up.
    pub archive: Archive,
    /// What the driver shows.
    pub driver: Arc<DriverGauges>,
    /// How much room there is.
    pub room: DoorRoom,
}

impl Door {
    /// A door into a queue whose capacity includes `parts.room`.
    pub fn new(parts: DoorParts) -> Self {
        let shared = Shared {
            sender: parts.sender,
            commits: parts.commits,
            archive: parts.archive,
            driver: parts.driver,
            clients: Room::new(parts.room.clients_max),
            requests: Room::new(parts.room.request_events_max),
            next_client: AtomicU64::new(1),
            refused: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Opens a session for one request, with the room that its departure will need.
    ///
    /// # Errors
    /// When as many requests are open as there is room for.
    pub fn open(&self) -> Result<ClientSession, Refusal> {
        let departure_room = self.shared.take(&self.shared.clients)?;
        let id = ClientId(self.shared.next_client.fetch_add(1, Ordering::Relaxed));
        let shared = Arc::clone(&self.shared);
        Ok(ClientSession {
            shared,
            id,
            outbox: Outbox::new(),
            departure_room: Some(departure_room),
            known: Known::No,
            wanted: Wanted::Answer,
            tenant: None,
            looking: None,
        })
    }

    /// What can be seen without asking.
    pub fn gauges(&self) -> DoorGauges {
        let shared = &self.shared;
        DoorGauges {
            queue_depth: shared.sender.depth() as u64,
            refused: shared.refused.load(Ordering::Relaxed),
            sessions: shared.clients.taken() as u64,
            outputs: shared.driver.outputs.load(Ordering::Relaxed),
            last_lsn: Lsn(shared.driver.lsn.load(Ordering::Relaxed)),
            durable_lsn: shared.commits.durable(),
            stored_bytes: shared.archive.held_bytes(),
            waiters: shared.driver.endings.count(),
        }
    }

    /// Why no new work is let in on its way to the disk; `None` while it is.
    pub fn closed(&self) -> Option<Refusal> {
        self.shared.closed()
    }

    /// What is wrong with making snapshots, if something is. Cheap enough for whoever polls.
    pub fn store_trouble(&self) -> Option<String> {
        self.shared.archive.trouble()
    }

    /// How the store is; `None` for one in memory.
    pub fn store_state(&self) -> Option<StoreState> {
        self.shared.archive.state()
    }

    /// The configuration in force in an environment, once it is durable: what [`crate::snapshot_text::fetched`] makes the
    /// text of that agents fetch. `None` if there is none, or no room to ask.
    pub async fn configuration(&self, environment: Environment) -> Option<Arc<Snapshot>> {
        let mut session = self.open().ok()?;
        session.ask(Question::Configuration(environment)).ok()?;
        let message = session.next().await;
        session.served();
        match message {
            ClientMessage::Answer(answer) => match *answer {
                Answer::Configuration(snapshot) => snapshot,
                _ => None,
            },
            _ => None,
        }
    }

    /// Waits for a job's end. Look at the job after this call.
    pub fn wait_for(&self, job: JobId) -> Waiter {
        self.shared.driver.endings.wait_for(job)
    }
}

impl Shared {
    fn take(&self, room: &Arc<Room>) -> Result<Permit, Refusal> {
        room.take().ok_or_else(|| self.refuse(NO_ROOM))
    }
}

impl Shared {
    /// Why new work is refused where the way to the disk is full.
    fn closed(&self) -> Option<Refusal> {
        // While nothing starts nothing is let in, and between two looks of the driver's the bytes tell.
        let behind = self.driver.store_behind.load(Ordering::Relaxed)
            || self.driver.journal_bytes.load(Ordering::Relaxed) > JOURNAL_BYTES_HIGH;
        let kind = match self.archive.room() {
            StoreRoom::Disk => RefusalKind::DiskReserve,
            StoreRoom::Open if !behind => return None,
            StoreRoom::Rows | StoreRoom::Open => RefusalKind::StoreBehind,
        };
        Some(Refusal { kind, retry_after: Some(STORE_RETRY_AFTER) })
    }

    /// Counts a refusal of the door's own.
    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.refused.fetch_add(1, Ordering::Relaxed);
        refusal
    }
}

/// When a client may try again that came while the way to the disk was full.
const STORE_RETRY_AFTER: Span = Span::from_secs(5);

/// What a client is told that finds no room of the door's.
const NO_ROOM: Refusal = Refusal { kind: RefusalKind::RingFull, retry_after: Some(Span::from_secs(1)) };

/// Whether a refusal is about the way to the disk, which only the door looks at.
fn is_the_doors(kind: RefusalKind) -> bool {
    matches!(kind, RefusalKind::DiskReserve | RefusalKind::StoreBehind)
}

/// Whether the core has heard of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    Yes,
}

/// One request's conversation with the core. Dropping it is leaving.
pub struct ClientSession {
    shared: Arc<Shared>,
    id: ClientId,
    outbox: Arc<Outbox<ClientMail>>,
    departure_room: Option<Permit>,
    known: Known,
    /// What is read of a job that has ended.
    wanted: Wanted,
    /// Who asks; `None` is the operator.
    tenant: Option<Tenant>,
    /// A look-up in the store that is under way.
    looking: Option<(JobId, oneshot::Receiver<Found>)>,
}

impl ClientSession {
    /// Submits a job; at most one a session. Never waits; the core may run on this thread. While the store has no room
    /// for new work, a request with an idempotency key may still be the repeat of one that is there, which is no new
    /// work: it is answered as ever, and anything else refused.
    ///
    /// # Errors
    /// When the event queue, or the store, has no room for new work.
    pub fn submit(&mut self, mut submission: Submission) -> Result<(), Refusal> {
        if let Some(refusal) = self.shared.closed() {
            if submission.spec.key.is_none() {
                return Err(self.shared.refuse(refusal));
            }
            submission.closed = Some(refusal);
        }
        self.tenant = Some(submission.tenant());
        self.push(Event::Submit(self.id, Box::new(submission)))
    }

    /// Says what is to be read of a job that has ended; its row and its answer, if it isn't said.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// Asks a question; the answer comes as a message.
    ///
    /// # Errors
    /// When the event queue has no room for it.
    pub fn ask(&mut self, question: Question) -> Result<(), Refusal> {
        if let Question::Job(_, tenant) = &question {
            self.tenant.clone_from(tenant);
        }
        self.push(Event::Ask(Ask { client: self.id, question }))
    }

    /// Changes something as a namespace, or as the operator (`None`); the answer comes as a message, once the change is
    /// durable.
    ///
    /// # Errors
    /// When the event queue has no room for it.
    pub fn operate(&mut self, by: Option<Namespace>, command: Command) -> Result<(), Refusal> {
        let operation = Operation { client: self.id, by, command };
        self.push(Event::Operate(Box::new(operation)))
    }

    /// Ends a job as the operator; the answer comes as a message.
    ///
    /// # Errors
    /// When the event queue has no room for it.
    pub fn cancel(&mut self, job: JobId) -> Result<(), Refusal> {
        self.push(Event::Cancel(Cancel { client: self.id, tenant: None, job }))
    }

    /// As [`ClientSession::cancel`], as the tenant whose job it must be.
    ///
    /// # Errors
    /// When the event queue has no room for it.
    pub fn cancel_own(&mut self, job: JobId, tenant: Tenant) -> Result<(), Refusal> {
        self.push(Event::Cancel(Cancel { client: self.id, tenant: Some(tenant), job }))
    }

    /// Makes a new job of a dead letter, whose row a question gave; the answer comes as a message.
    ///
    /// # Errors
    /// When the event queue has no room for it.
    pub fn requeue(&mut self, row: Box<JobRow>) -> Result<(), Refusal> {
        self.push(Event::Requeue(Requeue { client: self.id, row }))
    }

    /// The next message.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<ClientMessage> {
        loop {
            if let Some((_, found)) = &mut self.looking {
                let found = ready!(Pin::new(found).poll(cx)).unwrap_or(Found::Unreadable(Piece::Row));
                let Some((job, _)) = self.looking.take() else { continue };
                return Poll::Ready(self.told_of(job, found));
            }
            match ready!(self.outbox.poll_next(cx, &self.shared.commits)) {
                ClientMail::Message(message) => return Poll::Ready(self.told(message)),
                ClientMail::Lookup(job) => {
                    self.looking =
                        Some((job, self.shared.archive.look_up(job, self.wanted, self.tenant.clone())));
                }
            }
        }
    }

    /// The next message; safe to drop.
    pub async fn next(&mut self) -> ClientMessage {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Ready once the step `lsn` is durable, which is made urgent.
    pub fn poll_committed(&mut self, cx: &mut Context<'_>, lsn: Lsn) -> Poll<()> {
        self.shared.commits.poll_urgent(cx, lsn)
    }

    /// Waits until the step `lsn` is durable.
    pub async fn committed(&mut self, lsn: Lsn) {
        std::future::poll_fn(|cx| self.poll_committed(cx, lsn)).await;
    }

    /// Leaves, having had everything. Without this call, leaving is abandoning.
    pub fn served(mut self) {
        self.leave(Departure::Served);
    }

    /// Leaves, having taken the whole answer of that job.
    pub fn took(mut self, job: JobId) {
        self.leave(Departure::Took(job));
    }

    fn push(&mut self, event: Event) -> Result<(), Refusal> {
        let permit = Some(self.shared.take(&self.shared.requests)?);
        let attach = match self.known {
            Known::Yes => Attach::Nothing,
            Known::No => Attach::Client(self.id, Arc::clone(&self.outbox)),
        };
        self.known = Known::Yes;
        self.shared.sender.push(Envelope { event, attach, permit });
        Ok(())
    }

    /// What the core said. It doesn't count refusals that began here.
    fn told(&self, message: ClientMessage) -> ClientMessage {
        match message {
            ClientMessage::Refused(refusal) if is_the_doors(refusal.kind) => {
                ClientMessage::Refused(self.shared.refuse(refusal))
            }
            message => message,
        }
    }

    /// What a look-up found, as a message.
    fn told_of(&self, job: JobId, found: Found) -> ClientMessage {
        match found {
            Found::Job(stored) => ClientMessage::Stored(Box::new(stored)),
            Found::Nothing => {
                let refused = Answer::Refused(RefusalKind::JobUnknown, Question::Trace(job));
                ClientMessage::Answer(Box::new(refused))
            }
            Found::Unreadable(piece) => ClientMessage::Unreadable(job, piece),
            Found::NoRoom(Full::Whole) => ClientMessage::Refused(self.shared.refuse(NO_ROOM)),
            Found::NoRoom(Full::Holder) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                ClientMessage::ShareFull
            }
        }
    }

    fn leave(&mut self, departure: Departure) {
        let Some(permit) = self.departure_room.take() else { return };
        if self.known == Known::Yes {
            let event = Event::ClientGone(ClientGone { client: self.id, departure });
            self.shared.sender.push(Envelope { event, attach: Attach::Nothing, permit: Some(permit) });
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.leave(Departure::Abandoned);
    }
}

#[cfg(test)]
mod tests;
