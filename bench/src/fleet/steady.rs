//! Small jobs for the box's own node at a steady pace, each timed from when it was due: a box that stands still for a
//! while delays all that would have been sent meanwhile, and that shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Connection, post};
use crate::load::runtime;
use crate::stats::Times;
use crate::turns::{BODY_BYTES, chat};

/// Clients that send.
const CLIENTS: u32 = 16;
/// Each sends a job so often, unless the one before takes longer.
const EVERY: Duration = Duration::from_millis(20);
/// Jobs that a client sends at most.
const JOBS_MAX: usize = 1_000_000;

/// Jobs a second that are sent.
pub(super) fn rate() -> f64 {
    f64::from(CLIENTS) / EVERY.as_secs_f64()
}

/// A job that was sent.
#[derive(Debug, Clone, Copy)]
struct Done {
    due: Instant,
    took: Duration,
    status: u16,
}

/// Clients on a thread of their own.
pub(super) struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Done>>>>,
}

/// What came of the jobs.
pub(super) struct Answers(Vec<Done>);

impl Steady {
    /// Begins to send.
    pub(super) fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || runtime()?.block_on(send(address, told)));
        Self { stop, thread: Some(thread) }
    }

    /// Stops, and says what came back.
    pub(super) fn stop(mut self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is taken only here");
        Ok(Answers(thread.join().map_err(|_| "the thread that sends steady jobs panicked")??))
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Answers {
    /// Times of those that were due in that span.
    pub(super) fn times(&self, from: Instant, to: Instant) -> Times {
        let within = self.0.iter().filter(|done| (from..to).contains(&done.due));
        let mut nanos: Vec<u64> = within.map(|done| done.took.as_nanos() as u64).collect();
        Times::of(&mut nanos, to.saturating_duration_since(from))
    }

    /// Jobs that got anything but 200.
    pub(super) fn failed(&self) -> usize {
        self.0.iter().filter(|done| done.status != 200).count()
    }
}

async fn send(address: SocketAddr, stop: Arc<AtomicBool>) -> Result<Vec<Done>> {
    let request: Arc<[u8]> =
        Arc::from(post(address, "/v1/chat/completions", chat(BODY_BYTES, 1_000).as_bytes()));
    let begun = Instant::now();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let connection = Connection::open(address).await?;
        let first = begun + EVERY * client / CLIENTS;
        clients.push(tokio::spawn(one_client(connection, Arc::clone(&request), first, Arc::clone(&stop))));
    }
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await??);
    }
    Ok(all)
}

async fn one_client(
    mut connection: Connection,
    request: Arc<[u8]>,
    first: Instant,
    stop: Arc<AtomicBool>,
) -> std::io::Result<Vec<Done>> {
    let mut all = Vec::new();
    let mut due = first;
    let mut free = first;
    while !stop.load(Ordering::Relaxed) && all.len() < JOBS_MAX {
        tokio::time::sleep_until(due.into()).await;
        // What the timer is late isn't the box's; what the answer before was late is.
        let from = if free > due { due } else { Instant::now() };
        let status = connection.exchange(&request).await?.status;
        free = Instant::now();
        all.push(Done { due, took: free - from, status });
        due += EVERY;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jobs_of_the_span_count() {
        let begun = Instant::now();
        let done = |at_ms, took_us, status| Done {
            due: begun + Duration::from_millis(at_ms),
            took: Duration::from_micros(took_us),
            status,
        };
        let answers =
            Answers(vec![done(0, 10, 200), done(10, 20, 200), done(20, 30, 503), done(30, 40, 200)]);
        let at = |ms| begun + Duration::from_millis(ms);
        let times = answers.times(at(10), at(30));
        assert_eq!((times.p50_us, times.p99_us, times.rate), (20.0, 30.0, 100.0));
        assert_eq!(answers.failed(), 1);
        assert_eq!(answers.times(at(100), at(200)).rate, 0.0);
    }
}
