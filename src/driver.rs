//! The drain around the core: steps events, publishes effects, hands on what publishing causes (CORE section 1).
//!
//! It has no `.await`, never waits for the disk or for a receiver, and decides nothing: that is the core's.

mod nodes;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use switchbox_storage::{Change, Committer, Group, MemoryStore, Store, Urgency};

use crate::clock::Clock;
use crate::coordinator::Coordinator;
use crate::coordinator::effect::{AttachOutput, Effect, Lookup, Notice, OpenOutput, Reply, Row, When};
use crate::coordinator::event::{Event, Progress, Revoked, StoreRoom};
use crate::coordinator::job::{AttemptOutcome, JobState};
use crate::door::{self, ClientMail, ClientMessage};
use crate::endings::Endings;
use crate::ids::{ClientId, NodeId, ReservationId};
use crate::node::attempt::Attempts;
use crate::node::remote::{RemoteLink, RemoteMail};
use crate::node::{NodeMail, SlotRoom};
use crate::outbox::{Commits, Outbox};
use crate::output::Output;
use crate::persist::{self, RowCodec};
use crate::queue::{Machine, Permit};
use crate::rows::{RowKey, RowValue, changes_of};
use crate::time::Time;

/// An event on its way to the core, with its room and what its sender wants to be reached by.
pub struct Envelope {
    /// What happened.
    pub event: Event,
    /// Whose outbox to know from now on.
    pub attach: Attach,
    /// The room that it takes in the ring.
    pub permit: Option<Permit>,
}

/// An outbox that the driver learns of with an event.
pub enum Attach {
    /// None.
    Nothing,
    /// A client's.
    Client(ClientId, Arc<Outbox<ClientMail>>),
    /// A node's.
    Node(NodeId, NodeLink),
}

/// How to reach a node.
pub enum NodeLink {
    /// One of this process.
    Local {
        /// Its outbox.
        outbox: Arc<Outbox<NodeMail>>,
        /// Room for its answers.
        room: SlotRoom,
    },
    /// One of another machine, by its connection.
    Remote(Arc<RemoteLink>),
}

/// An output in the table.
struct Opened {
    output: Arc<Output>,
    whose: Whose,
}

/// Who writes an output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Local,
    Remote,
}

/// What can be seen of the driver from outside, without asking it.
#[derive(Debug, Default)]
pub struct DriverGauges {
    /// The core's last step that changed rows.
    pub lsn: AtomicU64,
    /// Outputs in the table.
    pub outputs: AtomicU64,
    /// Outboxes in the table.
    pub outboxes: AtomicU64,
    /// About how many bytes of rows wait to be written, as of the last batch.
    pub journal_bytes: AtomicU64,
    /// Whether nothing new starts because the disk is behind: then nothing new is let in either.
    pub store_behind: AtomicBool,
    /// Who waits for jobs to end.
    pub endings: Arc<Endings>,
}

/// Bytes of rows on their way to the disk above which no new work is let in or started; what live jobs still write
/// goes beyond.
pub(crate) const JOURNAL_BYTES_HIGH: u64 = 64 << 20;

/// The core with everything that its effects need. Stepped by whoever owns the drain.
pub struct Driver {
    core: Coordinator,
    clock: Clock,
    committer: Committer<RowKey, RowValue>,
    /// The store behind the committer, where there is a disk.
    store: Option<Store>,
    /// What the core was last told of the room there.
    store_room: StoreRoom,
    /// Bytes that one step may have.
    step_bytes_max: usize,
    clients: HashMap<ClientId, Arc<Outbox<ClientMail>>>,
    nodes: HashMap<NodeId, NodeLink>,
    outputs: HashMap<ReservationId, Opened>,
    /// Attempts that remote nodes have: their outputs are in the table too.
    attempts: Arc<Attempts>,
    gauges: Arc<DriverGauges>,
    /// Events that publishing caused: stepped before the next one from the ring.
    local: VecDeque<Event>,
    effects: Vec<Effect>,
    /// Receivers to wake when the batch is done.
    wake_clients: Vec<Arc<Outbox<ClientMail>>>,
    wake_nodes: Vec<Arc<Outbox<NodeMail>>>,
    wake_sessions: Vec<Arc<RemoteLink>>,
}

impl Driver {
    /// A driver for a core that has stepped nothing yet.
    pub fn new(core: Coordinator, clock: Clock, committer: Committer<RowKey, RowValue>) -> Self {
        Self {
            core,
            clock,
            committer,
            store: None,
            store_room: StoreRoom::Open,
            step_bytes_max: usize::MAX,
            clients: HashMap::new(),
            nodes: HashMap::new(),
            outputs: HashMap::new(),
            attempts: Arc::default(),
            gauges: Arc::default(),
            local: VecDeque::new(),
            effects: Vec::new(),
            wake_clients: Vec::new(),
            wake_nodes: Vec::new(),
            wake_sessions: Vec::new(),
        }
    }

    /// The committer's and the store's side of acknowledging.
    pub fn committer(
        store: &MemoryStore<RowKey, RowValue>,
        commits: &Arc<Commits>,
    ) -> std::io::Result<Committer<RowKey, RowValue>> {
        let advancing = Arc::clone(commits);
        let committer =
            Committer::start(store.clone(), Default::default(), move |lsn| advancing.advance(lsn))?;
        commits.hurry_by(committer.hurrier());
        Ok(committer)
    }

    /// As [`Driver::committer`], for a store on the disk.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn durable_committer(
        store: &Store,
        commits: &Arc<Commits>,
    ) -> std::io::Result<Committer<RowKey, RowValue>> {
        let advancing = Arc::clone(commits);
        commits.advance(store.durable_lsn());
        let options = Default::default();
        let on_durable = move |lsn| advancing.advance(lsn);
        let committer = Committer::start_durable(store.clone(), RowCodec, options, on_durable)?;
        commits.hurry_by(committer.hurrier());
        Ok(committer)
    }

    /// Rows go to this store: a step may have half the bytes that it takes at once (what rows take is an estimate),
    /// and nothing new starts while it is behind.
    pub fn watch(&mut self, store: Store) {
        self.step_bytes_max = store.step_bytes_max() / 2;
        self.store = Some(store);
    }

    /// Does what recovery wants done, before anything else is stepped.
    pub fn begin(&mut self, mut effects: Vec<Effect>) {
        self.publish(&mut effects);
        self.step_local();
    }

    /// What can be seen from outside.
    pub fn gauges(&self) -> Arc<DriverGauges> {
        Arc::clone(&self.gauges)
    }

    /// What remote nodes have, for their sessions.
    pub fn attempts(&self) -> Arc<Attempts> {
        Arc::clone(&self.attempts)
    }

    /// Tells the core when the way to the disk fills up, and when half of it is free again.
    fn look_at_store(&mut self) {
        let bytes = self.committer.backlog_bytes() as u64;
        let (rows, rows_high) = self.store.as_ref().map_or((0, 1), Store::dirty_bytes);
        let above = |part: u64| bytes > JOURNAL_BYTES_HIGH / part || rows > rows_high / part;
        let room = match self.store_room {
            StoreRoom::Open if above(1) => StoreRoom::Behind,
            StoreRoom::Behind if !above(2) => StoreRoom::Open,
            room => room,
        };
        if room == self.store_room {
            return;
        }
        match room {
            StoreRoom::Behind => {
                tracing::warn!(bytes, "the disk is behind: nothing new starts until it caught up")
            }
            StoreRoom::Open => tracing::info!("the disk caught up: work starts again"),
        }
        self.store_room = room;
        self.gauges.store_behind.store(room == StoreRoom::Behind, Ordering::Relaxed);
        self.step_core(Event::StoreRoom(room));
        self.step_local();
    }

    fn step_local(&mut self) {
        while let Some(event) = self.local.pop_front() {
            self.step_core(event);
        }
    }

    fn step_core(&mut self, event: Event) {
        let gone = match &event {
            Event::ClientGone(gone) => Some(gone.client),
            Event::NodeGone(gone) => {
                self.unlink(gone);
                None
            }
            _ => None,
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.core.step(self.clock.now(), event, &mut effects);
        self.publish(&mut effects);
        self.effects = effects;
        if let Some(client) = gone {
            self.clients.remove(&client);
        }
    }

    /// Does what a step wants done, in its order.
    fn publish(&mut self, effects: &mut Vec<Effect>) {
        let mut changes: Vec<Change<RowKey, RowValue>> = Vec::new();
        let mut urgency = Urgency::Lazy;
        let mut forgotten = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Row(row) => {
                    changes.extend(self.answer_to_keep(&row));
                    self.tell_of_end(&row);
                    changes_of(row, &mut changes);
                }
                Effect::Urgent => urgency = Urgency::Urgent,
                Effect::ToClient { client, reply, when } => self.mail_client(client, mail_of(reply), when),
                Effect::Notice(notice) => tell(notice),
                Effect::Read { client, what, lsn } => {
                    let (Lookup::Job(job) | Lookup::Answer(job)) = what;
                    self.mail_client(client, ClientMail::Lookup(job), When::Durable(lsn));
                }
                Effect::ToNode { node, message, when } => self.tell_node(&node, message, when),
                Effect::Continue { node, assignment } => drop(self.remote_attempt(node, assignment)),
                Effect::Assign { node, assignment, when } => self.assign(&node, assignment, when),
                Effect::Stop { node, reservation } => self.stop(&node, reservation),
                Effect::OpenOutput(open) => self.open_output(open),
                Effect::AttachOutput(attach) => self.attach_output(attach),
                Effect::CloseOutput(reservation) => self.close_output(reservation),
                // Its job's row may come after this, and the answer is kept with that.
                Effect::ForgetOutput(reservation) => forgotten.push(reservation),
                Effect::CheckProgress(reservation) => self.check_progress(reservation),
            }
        }
        for reservation in forgotten {
            let opened = self.outputs.remove(&reservation);
            if opened.is_some_and(|opened| opened.whose == Whose::Remote) {
                self.attempts.remove(reservation);
            }
        }
        self.commit(changes, urgency);
    }

    /// The answer of a job that ends with one and outlives its client's connection: somebody may ask for it later.
    fn answer_to_keep(&self, row: &Row) -> Option<Change<RowKey, RowValue>> {
        let Row::Job(row) = row else { return None };
        let outlives = !row.spec.is_tied_to_client() && !row.origin.is_system();
        if row.state != JobState::Succeeded || !outlives {
            return None;
        }
        let last = row.history.last().filter(|attempt| attempt.outcome == AttemptOutcome::Succeeded)?;
        let output = self.outputs.get(&last.reservation)?;
        Some((RowKey::Answer(row.id), Some(RowValue::Answer(output.output.written().into()))))
    }

    /// Who waits for a job by name looks at it again, once, when it has ended.
    fn tell_of_end(&self, row: &Row) {
        if let Row::Job(row) = row
            && !row.state.is_live()
        {
            self.gauges.endings.ended(row.id);
        }
    }

    fn commit(&mut self, mut changes: Vec<Change<RowKey, RowValue>>, urgency: Urgency) {
        let lsn = self.core.lsn().0;
        if changes.len() > 1 {
            let left_out = persist::fit(&mut changes, self.step_bytes_max);
            if left_out > 0 {
                tracing::warn!(
                    left_out,
                    "too many jobs failed at once: these dead letters can't be requeued"
                );
            }
        }
        if !changes.is_empty() {
            self.committer.append(Group { lsn, at: self.core.now().0, changes }, urgency);
            self.gauges.lsn.store(lsn, Ordering::Relaxed);
        } else if urgency == Urgency::Urgent {
            self.committer.hurry();
        }
    }

    fn mail_client(&mut self, client: ClientId, mail: ClientMail, when: When) {
        // A client that left hears nothing more.
        if let Some(outbox) = self.clients.get(&client) {
            outbox.push(mail, when);
            self.wake_clients.push(Arc::clone(outbox));
        }
    }

    fn open_output(&mut self, open: OpenOutput) {
        let output = Output::new(open.bytes_max);
        for client in open.clients {
            let reader = output.reader();
            let opened = door::Opened { attempt: open.attempt, submit_lsn: open.submit_lsn, reader };
            self.mail_client(client, ClientMail::Message(ClientMessage::Opened(opened)), When::Now);
        }
        self.outputs.insert(open.reservation, Opened { output, whose: Whose::Local });
    }

    fn attach_output(&mut self, attach: AttachOutput) {
        let AttachOutput { reservation, attempt, client, submit_lsn } = attach;
        let Some(opened) = self.outputs.get(&reservation) else { return };
        let opened = door::Opened { attempt, submit_lsn, reader: opened.output.reader() };
        self.mail_client(client, ClientMail::Message(ClientMessage::Opened(opened)), When::Now);
    }

    fn close_output(&mut self, reservation: ReservationId) {
        let closing = self.outputs.get(&reservation).map(|opened| opened.output.close());
        let revoked = match closing {
            Some(closing) => Revoked {
                reservation,
                delivered: closing.delivered,
                written: closing.extent.chunks,
                written_tokens: closing.extent.tokens,
            },
            None => Revoked { reservation, delivered: 0, written: 0, written_tokens: 0 },
        };
        self.local.push_back(Event::Revoked(revoked));
    }

    fn check_progress(&mut self, reservation: ReservationId) {
        let Some(opened) = self.outputs.get(&reservation) else { return };
        let extent = opened.output.extent();
        let last_at = (extent.chunks > 0).then_some(Time(extent.last_at_us));
        self.local.push_back(Event::Progress(Progress { reservation, written: extent.chunks, last_at }));
    }
}

impl Machine<Envelope> for Driver {
    fn step(&mut self, envelope: Envelope) {
        let mut joined = None;
        match envelope.attach {
            Attach::Nothing => {}
            Attach::Client(id, outbox) => drop(self.clients.insert(id, outbox)),
            Attach::Node(id, link) => {
                if let NodeLink::Remote(link) = &link {
                    joined = Some(Arc::clone(link));
                }
                self.nodes.insert(id, link);
            }
        }
        drop(envelope.permit);
        if matches!(envelope.event, Event::Tick) {
            self.look_at_store();
        }
        self.step_core(envelope.event);
        if let Some(link) = joined {
            // What the step has for the node comes after the word that it was heard.
            link.offer_first(RemoteMail::Joined);
            self.wake_sessions.push(link);
        }
        self.step_local();
    }

    fn flush(&mut self) {
        self.wake_clients.drain(..).for_each(|outbox| outbox.wake());
        self.wake_nodes.drain(..).for_each(|outbox| outbox.wake());
        self.wake_sessions.drain(..).for_each(|link| link.wake());
        self.gauges.outputs.store(self.outputs.len() as u64, Ordering::Relaxed);
        self.gauges.outboxes.store(self.clients.len() as u64, Ordering::Relaxed);
        self.gauges.journal_bytes.store(self.committer.backlog_bytes() as u64, Ordering::Relaxed);
    }
}

fn mail_of(reply: Reply) -> ClientMail {
    ClientMail::Message(match reply {
        Reply::Refused(refusal) => ClientMessage::Refused(refusal),
        Reply::Accepted { job, lsn, .. } => ClientMessage::Accepted { job, lsn },
        Reply::Finished(finished) => ClientMessage::Finished(finished),
        Reply::Answer(answer) => ClientMessage::Answer(answer),
    })
}
/// What the core has to say to the operator.
fn tell(notice: Notice) {
    match notice {
        Notice::ChecksUnpaid(environment) => tracing::warn!(
            environment = environment.word(),
            "the integrity account has no credit: nodes aren't checked, and new ones stay on probation; deposit some with \
             `switchbox credits deposit --integrity CREDITS`"
        ),
    }
}
