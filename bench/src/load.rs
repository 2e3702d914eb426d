//! The load: clients that send the same request again and again for a while, and time each answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::Result;
use crate::client::Connection;
use crate::stats::Times;

/// Answers timed in one slice at most, over all its clients.
const ANSWERS_MAX: usize = 4_000_000;
/// The share of a slice that warms up first and isn't counted.
const WARM_UP_SHARE: f64 = 0.2;

/// What is sent where, by how many, for how long.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) request: Arc<[u8]>,
    pub(crate) clients: usize,
    pub(crate) duration: Duration,
}

/// Answers by status.
pub(crate) type Statuses = BTreeMap<u16, u64>;

/// What a slice of load measured.
pub(crate) struct Slice {
    pub(crate) times: Times,
    pub(crate) statuses: Statuses,
    pub(crate) body_bytes: usize,
}

#[derive(Default)]
struct Sample {
    nanos: Vec<u64>,
    statuses: Statuses,
    body_bytes: usize,
}

/// A current-thread runtime, as every part of the bench uses.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl Load {
    /// Runs the clients on this thread.
    pub(crate) fn run(&self) -> Result<Slice> {
        let sample = runtime()?.block_on(self.sample())?;
        let Sample { mut nanos, statuses, body_bytes } = sample;
        let counted = self.duration.mul_f64(1.0 - WARM_UP_SHARE);
        Ok(Slice { times: Times::of(&mut nanos, counted), statuses, body_bytes })
    }

    async fn sample(&self) -> Result<Sample> {
        let begin = Instant::now() + self.duration.mul_f64(WARM_UP_SHARE);
        let end = Instant::now() + self.duration;
        let answers_max = ANSWERS_MAX / self.clients;
        let mut tasks = Vec::new();
        for _ in 0..self.clients {
            let connection = Connection::open(self.address).await?;
            let request = Arc::clone(&self.request);
            tasks.push(tokio::spawn(one_client(connection, request, begin, end, answers_max)));
        }
        let mut all = Sample::default();
        for task in tasks {
            let sample = task.await??;
            all.nanos.extend(sample.nanos);
            all.body_bytes = sample.body_bytes;
            sample
                .statuses
                .into_iter()
                .for_each(|(status, count)| *all.statuses.entry(status).or_default() += count);
        }
        Ok(all)
    }
}

async fn one_client(
    mut connection: Connection,
    request: Arc<[u8]>,
    begin: Instant,
    end: Instant,
    answers_max: usize,
) -> std::io::Result<Sample> {
    let mut sample = Sample::default();
    let mut sent = Instant::now();
    while sent < end && sample.nanos.len() < answers_max {
        let answer = connection.exchange(&request).await?;
        let now = Instant::now();
        if sent >= begin {
            sample.nanos.push((now - sent).as_nanos() as u64);
            *sample.statuses.entry(answer.status).or_default() += 1;
            sample.body_bytes = answer.body_bytes;
        }
        sent = now;
    }
    Ok(sample)
}

/// Connections on a thread of their own that send a long prompt again and again, until dropped.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<Statuses>>>,
}

impl Background {
    /// Starts sending. `load.duration` isn't used.
    pub(crate) fn start(load: Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || runtime()?.block_on(send_until(load, told)));
        Self { stop, thread: Some(thread) }
    }

    /// Stops, and says what came back.
    pub(crate) fn stop(mut self) -> Result<Statuses> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().map_err(|_| "the thread that sends long prompts panicked")?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn send_until(load: Load, stop: Arc<AtomicBool>) -> Result<Statuses> {
    let mut tasks = Vec::new();
    for _ in 0..load.clients {
        let (request, stop) = (Arc::clone(&load.request), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut statuses = Statuses::new();
            let mut connection = Connection::open(load.address).await?;
            while !stop.load(Ordering::Relaxed) {
                match connection.exchange(&request).await {
                    Ok(answer) => *statuses.entry(answer.status).or_default() += 1,
                    // A refusal may close the connection. Status 0 stands for no answer.
                    Err(_) => {
                        *statuses.entry(0).or_default() += 1;
                        connection = Connection::open(load.address).await?;
                    }
                }
            }
            Ok::<_, std::io::Error>(statuses)
        }));
    }
    let mut all = Statuses::new();
    for task in tasks {
        task.await??.into_iter().for_each(|(status, count)| *all.entry(status).or_default() += count);
    }
    Ok(all)
}
