//! Results that the box hasn't settled, on the disk: a restart of the agent tells the box of them again.
//!
//! A result goes to the box at once, and to the disk only if the box is slow to settle it (`session` says when): most are
//! settled sooner than a disk could take them, and one that is lost with the agent and the connection at the same moment
//! costs a rerun, nothing else. Files are written on a thread of their own, whole and synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::coordinator::event::Seen;
use crate::datadir::{DataDirError, ResultFiles};
use crate::ids::ReservationId;
use crate::wire::to_box::{Chunk, Hold};
use crate::wire::verify::{self, Parties};
use crate::wire::{HOLDS_MAX, OutputHasher, PublicKey};

/// Which format a file is of.
const VERSION: u8 = 1;
/// Bytes of a file: an attempt's output, and what JSON adds.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A result with its output, as a file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u8,
    /// For which box.
    box_key: PublicKey,
    /// As `ready` lists it; always with a result.
    pub(super) hold: Hold,
    /// All of the output.
    pub(super) chunks: Vec<Chunk>,
}

impl Record {
    /// Of a hold that has a result.
    pub(super) fn new(box_key: PublicKey, hold: Hold, chunks: Vec<Chunk>) -> Self {
        Self { version: VERSION, box_key, hold, chunks }
    }

    /// Whether it is what this node once signed to that box, whole.
    fn check(&self, parties: &Parties) -> Result<(), &'static str> {
        if self.version != VERSION {
            return Err("it is of another version of the agent");
        }
        if self.box_key != parties.box_key {
            return Err("it was for another box");
        }
        let Some(result) = &self.hold.result else { return Err("it holds no result") };
        if result.statement.reservation != self.hold.reservation {
            return Err("it speaks of another attempt");
        }
        verify::result(result, parties, None, Seen::default())
            .map_err(|_| "its signature isn't this node's")?;
        let mut hasher = OutputHasher::new();
        self.chunks.iter().for_each(|chunk| chunk.add_to(&mut hasher));
        let is_whole = hasher.hash() == result.statement.output_hash
            && u32::try_from(self.chunks.len()) == Ok(self.hold.chunks);
        is_whole.then_some(()).ok_or("its output isn't the one that was signed")
    }
}

fn name_of(reservation: ReservationId) -> String {
    format!("{reservation}.json")
}

/// What is on the disk from before, the newest `HOLDS_MAX` of it. What can't be used is removed, with a word.
///
/// # Errors
/// When the directory can't be read.
pub(super) fn load(files: &ResultFiles, parties: &Parties) -> Result<Vec<Record>, DataDirError> {
    let mut names = files.names()?;
    // Ids grow, and so do their texts.
    names.sort_unstable_by(|one, other| other.cmp(one));
    let mut records = Vec::new();
    for name in names {
        let record = match read(files, &name, parties) {
            Ok(_) if records.len() == HOLDS_MAX => Err("there are too many of them".to_owned()),
            read => read,
        };
        match record {
            Ok(record) => records.push(record),
            Err(problem) => {
                tracing::warn!(file = name, "a result that was kept can't be used, and goes: {problem}");
                files.remove(&name)?;
            }
        }
    }
    Ok(records)
}

fn read(files: &ResultFiles, name: &str, parties: &Parties) -> Result<Record, String> {
    let bytes = files.read(name, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("it is gone")?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if name != name_of(record.hold.reservation) {
        return Err("its name is another attempt's".to_owned());
    }
    record.check(parties)?;
    Ok(record)
}

/// The way to the thread that writes. What it was told to keep and to forget is bounded by what the agent holds.
pub(super) struct Results {
    orders: Sender<Order>,
}

enum Order {
    Keep(Box<Record>),
    Forget(ReservationId),
    /// Everything before is to be on the disk when this is answered.
    Settle(oneshot::Sender<()>),
}

impl Results {
    /// Starts the thread; `known` are on the disk already.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(files: ResultFiles, known: Vec<ReservationId>) -> io::Result<Self> {
        let (orders, incoming) = channel();
        let writer = Writer { files, on_disk: known.into_iter().collect() };
        std::thread::Builder::new().name("results".into()).spawn(move || writer.run(&incoming))?;
        Ok(Self { orders })
    }

    /// To the disk with it.
    pub(super) fn keep(&self, record: Record) {
        self.order(Order::Keep(Box::new(record)));
    }

    /// The box has settled it.
    pub(super) fn forget(&self, reservation: ReservationId) {
        self.order(Order::Forget(reservation));
    }

    /// Ready when everything that was kept is on the disk.
    pub(super) async fn settle(&self) {
        let (done, is_done) = oneshot::channel();
        self.order(Order::Settle(done));
        // A thread that ended writes nothing more.
        let _ = is_done.await;
    }

    fn order(&self, order: Order) {
        // The thread runs as long as this is there.
        let _ = self.orders.send(order);
    }
}

struct Writer {
    files: ResultFiles,
    on_disk: BTreeSet<ReservationId>,
}

impl Writer {
    fn run(mut self, incoming: &Receiver<Order>) {
        // What waits to be written: what is forgotten meanwhile never is.
        let mut waiting: BTreeMap<ReservationId, Box<Record>> = BTreeMap::new();
        let mut settling: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            let next = if waiting.is_empty() { incoming.recv().ok() } else { incoming.try_recv().ok() };
            match next {
                Some(Order::Keep(record)) => drop(waiting.insert(record.hold.reservation, record)),
                Some(Order::Forget(reservation)) => {
                    waiting.remove(&reservation);
                    self.remove(reservation);
                }
                Some(Order::Settle(done)) => settling.push(done),
                None => match waiting.pop_first() {
                    Some((_, record)) => self.write(&record),
                    // Nobody is there any more.
                    None => return,
                },
            }
            if waiting.is_empty() {
                for done in settling.drain(..) {
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let reservation = record.hold.reservation;
        let written = serde_json::to_vec(record).map_err(|error| error.to_string()).and_then(|bytes| {
            self.files.write(&name_of(reservation), &bytes).map_err(|error| error.to_string())
        });
        match written {
            Ok(()) => {
                self.on_disk.insert(reservation);
            }
            Err(error) => {
                tracing::warn!(%reservation, "a result isn't on the disk, and would be lost with this process: {error}");
            }
        }
    }

    fn remove(&mut self, reservation: ReservationId) {
        if !self.on_disk.remove(&reservation) {
            return;
        }
        if let Err(error) = self.files.remove(&name_of(reservation)) {
            tracing::warn!(%reservation, "a result that is settled stays on the disk: {error}");
        }
    }
}
