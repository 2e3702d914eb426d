//! The door with the real queue, driver, committer and outboxes; only the node is played by the test.

use std::sync::mpsc;

use switchbox_storage::{Committer, CommitterOptions, MemoryStore};

use super::*;
use crate::clock::Clock;
use crate::coordinator::effect::End;
use crate::coordinator::event::{Durability, Endpoint, FinishReason, JobSpec, ModelOffer, NodeHello, Status};
use crate::coordinator::limits::Limits;
use crate::coordinator::{Boot, Coordinator};
use crate::driver::{Driver, NodeLink};
use crate::ids::{Namespace, NodeId};
use crate::node::{Bytes, EVENTS_PER_SLOT, NodeMail, Slot, SlotResult, SlotRoom};
use crate::output::{Chunk, Output, Take};

/// A box without io: one model with two slots, whose commits wait for the test's leave.
struct Rig {
    door: Door,
    sender: Sender,
    commits: Arc<Commits>,
    node: Arc<Outbox<NodeMail>>,
    /// One message lets one commit become durable.
    leave: mpsc::Sender<()>,
}

impl Rig {
    fn new(durability: Durability, room: DoorRoom) -> Self {
        Self::with_options(durability, room, CommitterOptions::default())
    }

    fn with_options(durability: Durability, room: DoorRoom, options: CommitterOptions) -> Self {
        let (leave, may_commit) = mpsc::channel::<()>();
        let commits = Arc::new(Commits::default());
        let store = MemoryStore::default();
        let advancing = Arc::clone(&commits);
        let on_durable = move |lsn| {
            // When the test is over nobody waits any more.
            let _ = may_commit.recv();
            advancing.advance(lsn);
        };
        let committer = Committer::start(store.clone(), options, on_durable).expect("a thread");
        commits.hurry_by(committer.hurrier());
        let clock = Clock::start();
        let boot = Boot { epoch: 1, secret: [0; 32], lsn: Lsn(0), at: clock.now() };
        let core = Coordinator::new(boot, Limits::default(), durability);
        let driver = Driver::new(core, clock, committer);
        let gauges = driver.gauges();
        let sender =
            Sender::new(room.clients_max + room.request_events_max + 2 * EVENTS_PER_SLOT + 1, driver);
        let node = Outbox::new();
        let models = vec![ModelOffer::warm("m".into(), 2)];
        let link = NodeLink::Local { outbox: Arc::clone(&node), room: SlotRoom::new(2, sender.clone()) };
        sender.push(Envelope {
            event: Event::NodeConnected(Box::new(NodeHello::local(models))),
            attach: Attach::Node(NodeId::local(), link),
            permit: None,
        });
        let archive = Archive::memory(store);
        let parts = DoorParts {
            sender: sender.clone(),
            commits: Arc::clone(&commits),
            archive,
            driver: gauges,
            room,
        };
        Self { door: Door::new(parts), sender, commits, node, leave }
    }

    fn submit(&self) -> ClientSession {
        let mut session = self.door.open().expect("room");
        session.submit(job()).expect("room");
        session
    }

    async fn assignment(&self) -> (Arc<Output>, Slot) {
        let mail = std::future::poll_fn(|cx| self.node.poll_next(cx, &self.commits)).await;
        match mail {
            NodeMail::Assign { output, slot, .. } => (output, slot),
            NodeMail::Stop(reservation) => panic!("told to stop {reservation}"),
        }
    }

    async fn answer(&self) {
        let (output, slot) = self.assignment().await;
        output.append(0, Chunk::text("hi", 1), 1).expect("room");
        let status = Status::Succeeded(FinishReason::Stop);
        slot.completed(SlotResult {
            status,
            input_tokens: 1,
            cached_tokens: 0,
            output_tokens: 1,
            chunks: 1,
            bytes: Bytes::Any,
        });
    }

    async fn counts(&self) -> crate::coordinator::Counts {
        let mut session = self.door.open().expect("room");
        session.ask(Question::Counts).expect("room");
        match session.next().await {
            ClientMessage::Answer(answer) => match *answer {
                Answer::Counts(counts) => counts,
                other => panic!("{other:?}"),
            },
            _ => panic!("not an answer"),
        }
    }
}

fn job() -> Submission {
    let spec = JobSpec {
        ttl: Span::from_secs(60),
        input_tokens: 1,
        output_tokens_max: 10,
        ..JobSpec::plain(Namespace::default_namespace(), Endpoint::ChatCompletions, "m".into())
    };
    Submission::new(spec, Arc::from(&b"{}"[..]))
}

/// Runs a story on an io thread with the drain and release tasks beside it.
fn on_io(rig: &Rig, story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(rig.sender.clone().drain_parked());
        let commits = Arc::clone(&rig.commits);
        tokio::spawn(async move { commits.release().await });
        story.await;
        assert_eq!(rig.sender.depth(), 0);
    });
}

/// The next message that says more than "accepted".
async fn news(session: &mut ClientSession) -> ClientMessage {
    loop {
        match session.next().await {
            ClientMessage::Accepted { .. } => {}
            message => return message,
        }
    }
}

async fn finished(session: &mut ClientSession) -> Finished {
    loop {
        if let ClientMessage::Finished(finished) = news(session).await {
            return *finished;
        }
    }
}

/// Polls once, with everything that is due elsewhere done first.
async fn is_pending(session: &mut ClientSession) -> bool {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    std::future::poll_fn(|cx| Poll::Ready(session.poll_next(cx).is_pending())).await
}

#[test]
fn a_strict_answer_waits_for_its_commit() {
    let rig = Rig::new(Durability::Strict, DoorRoom::default());
    on_io(&rig, async {
        let mut session = rig.submit();
        let ClientMessage::Opened(mut opened) = news(&mut session).await else { panic!("not opened") };
        rig.answer().await;
        assert!(is_pending(&mut session).await, "nothing was committed yet");
        assert!(rig.door.gauges().durable_lsn < rig.door.gauges().last_lsn);
        // However the committer grouped the steps, each commit needs its leave.
        rig.leave.send(()).expect("the committer lives");
        rig.leave.send(()).expect("the committer lives");
        let finished = finished(&mut session).await;
        assert_eq!((finished.end, finished.chunks), (End::Succeeded(FinishReason::Stop), 1));
        assert!(matches!(opened.reader.try_take(), Some(Take::Chunk(_))));
        session.served();
        assert_eq!(rig.counts().await.clients, 0);
    });
}

#[test]
fn waiting_for_an_acceptance_makes_it_urgent() {
    let options = CommitterOptions { lazy_delay: std::time::Duration::from_secs(3_600) };
    let rig = Rig::with_options(Durability::Strict, DoorRoom::default(), options);
    on_io(&rig, async {
        let mut session = rig.submit();
        let ClientMessage::Accepted { lsn, .. } = session.next().await else { panic!("not accepted") };
        rig.leave.send(()).expect("the committer lives");
        // Would be an hour.
        session.committed(lsn).await;
        assert!(rig.door.gauges().durable_lsn >= lsn);
        drop(session);
    });
}

#[test]
fn a_relaxed_answer_does_not_wait() {
    let rig = Rig::new(Durability::Relaxed, DoorRoom::default());
    on_io(&rig, async {
        let mut session = rig.submit();
        rig.answer().await;
        assert_eq!(finished(&mut session).await.end, End::Succeeded(FinishReason::Stop));
        assert_eq!(rig.door.gauges().durable_lsn, Lsn(0));
        session.served();
    });
}

#[test]
fn a_session_that_is_dropped_takes_its_job_along() {
    let rig = Rig::new(Durability::Strict, DoorRoom::default());
    on_io(&rig, async {
        // The node hasn't looked: the assignment is taken back.
        drop(rig.submit());
        let counts = rig.counts().await;
        assert_eq!((counts.cancelled, counts.reservations, counts.holds), (1, 0, 0));
        // The node has it: it is told.
        let session = rig.submit();
        let (output, slot) = rig.assignment().await;
        drop(session);
        assert!(output.append(0, Chunk::text("late", 1), 1).is_err(), "closed");
        let mail = std::future::poll_fn(|cx| rig.node.poll_next(cx, &rig.commits)).await;
        assert!(matches!(mail, NodeMail::Stop(id) if id == slot.reservation()));
        slot.stopped(0, 0);
        let counts = rig.counts().await;
        assert_eq!((counts.cancelled, counts.slots_taken, counts.output_bytes_held), (2, 0, 0));
        assert_eq!(rig.door.gauges().outputs, 0);
    });
}

#[test]
fn a_result_from_another_thread_is_stepped_on_the_io_thread() {
    let rig = Rig::new(Durability::Relaxed, DoorRoom::default());
    on_io(&rig, async {
        for _ in 0..50 {
            let mut session = rig.submit();
            let (_, slot) = rig.assignment().await;
            let elsewhere = std::thread::spawn(move || {
                slot.accepted();
                let status = Status::Succeeded(FinishReason::Length);
                slot.completed(SlotResult {
                    status,
                    input_tokens: 1,
                    cached_tokens: 0,
                    output_tokens: 0,
                    chunks: 0,
                    bytes: Bytes::Any,
                });
            });
            assert_eq!(finished(&mut session).await.end, End::Succeeded(FinishReason::Length));
            elsewhere.join().expect("no panic");
            session.served();
        }
        assert_eq!(rig.counts().await.succeeded, 50);
    });
}

#[test]
fn a_slot_that_is_dropped_is_a_failed_attempt() {
    let rig = Rig::new(Durability::Relaxed, DoorRoom::default());
    on_io(&rig, async {
        let session = rig.submit();
        drop(rig.assignment().await);
        let counts = rig.counts().await;
        assert_eq!((counts.attempts_failed, counts.jobs_queued, counts.slots_taken), (1, 1, 0));
        drop(session);
        assert_eq!(rig.counts().await.live(), 0);
    });
}

#[test]
fn only_new_work_is_refused_for_lack_of_room() {
    let rig = Rig::new(Durability::Relaxed, DoorRoom { clients_max: 2, request_events_max: 1 });
    on_io(&rig, async {
        let sessions = [rig.submit(), rig.submit()];
        let refusal = rig.door.open().err().expect("as many are open as there is room for");
        assert_eq!(refusal.kind, RefusalKind::RingFull);
        assert!(refusal.retry_after.is_some());
        drop(sessions);
        assert_eq!(rig.counts().await.clients, 0);
        assert_eq!(rig.door.gauges().refused, 1);
    });
}
