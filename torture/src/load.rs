//! Load on a box: threads of clients and an operator, each doing one thing after another until the box is gone.
//!
//! Acknowledgements are 202s, results, cancels and deposits. Whoever reads the one that was chosen kills the box at
//! once, with what the others have in flight.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::choices::Choices;
use crate::client::{Client, Kept, Keyed, Told, Unanswered};
use crate::finding::{Finding, Kind};
use crate::http::{Connection, Request};
use crate::process::{Operator, Running};
use crate::recording::Counters;

/// The path of jobs by name.
pub const JOBS: &str = "/v1/jobs";
/// The path of sync jobs.
pub const CHAT: &str = "/v1/chat/completions";
/// Credits of one token of a prompt, and of an answer, in the rig's price list.
pub const PRICES: (i64, i64) = (1, 2);
const NAMESPACES: [&str; 3] = ["default", "alpha", "beta"];

/// When load ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// The box is killed at the so many-th acknowledgement.
    Killed(u64),
    /// So many acknowledgements came.
    Acknowledged(u64),
    /// The box dies by itself, or this long has passed.
    Dead(Duration),
}

/// How a load ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// From the acknowledgement's last byte to the signal.
    pub after_us: u64,
    /// Requests that had no answer then.
    pub in_flight: u64,
    /// Acknowledgements in all.
    pub acknowledged: u64,
    /// What the first client was told that lost its connection though nobody had killed the box.
    pub broken: Option<String>,
}

impl Ended {
    /// What it is for a box that wasn't killed meanwhile, and didn't end by itself.
    pub fn finding(&self) -> Option<Finding> {
        let broken = self.broken.as_ref()?;
        Some(Kind::Wrong.says(format!("a client lost its connection to a box that lives: {broken}")))
    }
}

/// What the threads share.
struct Shared<'a> {
    client: &'a Client,
    counters: &'a Counters,
    address: SocketAddr,
    pid: Pid,
    until: Until,
    begun: Instant,
    acknowledged: AtomicU64,
    in_flight: AtomicI64,
    /// Whether the signal is on its way: from then on connections may break.
    killing: AtomicBool,
    /// Microseconds and requests, once the kill was done; the first is at least 1 then.
    killed: (AtomicU64, AtomicU64),
    broken: Mutex<Option<String>>,
}

/// Loads a box with so many threads.
pub fn run(
    running: &Running,
    client: &Client,
    counters: &Counters,
    threads: usize,
    until: Until,
    choices: &mut Choices,
) -> Ended {
    let shared = Shared {
        client,
        counters,
        address: running.address,
        pid: running.pid(),
        until,
        begun: Instant::now(),
        acknowledged: AtomicU64::new(0),
        in_flight: AtomicI64::new(0),
        killing: AtomicBool::new(false),
        killed: (AtomicU64::new(0), AtomicU64::new(0)),
        broken: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (shared, seed) = (&shared, choices.number());
            let operator = running.operator();
            scope.spawn(move || {
                let worked = Connection::open(shared.address).and_then(|connection| {
                    let choices = Choices::new(seed);
                    Worker { shared, choices, connection, operator: operator? }.run()
                });
                if let Err(error) = worked {
                    shared.broke(&error);
                }
            });
        }
    });
    Ended {
        after_us: shared.killed.0.load(Ordering::SeqCst),
        in_flight: shared.killed.1.load(Ordering::SeqCst),
        acknowledged: shared.acknowledged.load(Ordering::SeqCst),
        broken: shared.broken.into_inner().unwrap_or_else(PoisonError::into_inner),
    }
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        match self.until {
            Until::Killed(_) => self.killed.0.load(Ordering::SeqCst) > 0,
            Until::Acknowledged(number) => self.acknowledged.load(Ordering::SeqCst) >= number,
            Until::Dead(patience) => self.begun.elapsed() >= patience,
        }
    }

    /// Notes what a client whose connection broke was told, unless the box was being killed.
    fn broke(&self, error: &io::Error) {
        if !self.killing.load(Ordering::SeqCst) {
            let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            broken.get_or_insert_with(|| error.to_string());
        }
    }

    /// Counts an acknowledgement that was read just now; the chosen one kills.
    fn acknowledged(&self, read: Instant) {
        let number = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        if matches!(self.until, Until::Killed(chosen) if chosen == number) {
            self.killing.store(true, Ordering::SeqCst);
            let _ = kill_process(self.pid, Signal::KILL);
            let after = read.elapsed().as_micros() as u64;
            let in_flight = u64::try_from(self.in_flight.load(Ordering::SeqCst)).unwrap_or(0);
            self.killed.1.store(in_flight, Ordering::SeqCst);
            self.killed.0.store(after.max(1), Ordering::SeqCst);
        }
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    choices: Choices,
    connection: Connection,
    operator: Operator,
}

/// A prompt of some words, the first of which is used once.
fn prompt(number: u64, words: usize) -> String {
    let mut text = format!("p{number}");
    (1..words).for_each(|word| text.push_str(&format!(" w{word}")));
    text
}

/// A chat request's body.
pub fn chat(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
}

/// A request's body for a path.
pub fn body_for(path: &str, model: &str, prompt: &str) -> String {
    let chat = chat(model, prompt);
    if path == JOBS { json!({"endpoint": CHAT, "body": chat}).to_string() } else { chat.to_string() }
}

impl Worker<'_> {
    /// Does one thing after another. A box that is gone answers nobody.
    fn run(&mut self) -> io::Result<()> {
        while !self.shared.is_over() {
            match self.choices.below(100) {
                0..30 => self.job(),
                30..55 => self.sync(),
                55..80 => self.cancelled(),
                _ => self.deposit(),
            }?;
        }
        Ok(())
    }

    /// Does one exchange, in flight meanwhile.
    fn exchange<T>(&mut self, call: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<(T, Instant)> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        let answer = call(self);
        let read = Instant::now();
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer.map(|answer| (answer, read))
    }

    /// Counts what was read, for it may be the one to kill at, and notes it.
    fn told(&self, (id, prompt): (&str, &str), kept: Kept, told: Told, read: Instant) {
        self.shared.acknowledged(read);
        self.shared.client.told(id, prompt, kept, told, self.shared.counters.records());
    }

    /// Notes that this was acknowledged under a key.
    fn keyed(&self, path: &'static str, (key, prompt): (String, &str), model: &'static str, id: &str) {
        let (prompt, id, records) = (prompt.to_owned(), id.to_owned(), self.shared.counters.records());
        self.shared.client.keyed(Keyed { path, key, prompt, model, id, records });
    }

    /// Submits a job by name. None if the box refused it, as it may.
    fn submit(&mut self, model: &'static str, words: usize) -> io::Result<Option<(String, String)>> {
        let number = self.shared.client.number();
        let (prompt, key) = (prompt(number, words), format!("k{number}"));
        let body = body_for(JOBS, model, &prompt);
        self.shared.client.submits();
        let headers = [("idempotency-key", key.as_str())];
        let request = Request { method: "POST", path: JOBS, headers: &headers, body: &body };
        match self.exchange(|worker| worker.connection.call(&request)) {
            Ok((answer, read)) if answer.status == 202 => {
                let id = answer.value()["id"].as_str().unwrap_or_default().to_owned();
                self.told((&id, &prompt), Kept::Yes, Told::Accepted, read);
                self.keyed(JOBS, (key, &prompt), model, &id);
                Ok(Some((id, prompt)))
            }
            Ok(_) => Ok(None),
            Err(error) => {
                let sent = Unanswered::Keyed { path: JOBS, key, prompt, model };
                self.shared.client.unanswered(sent);
                Err(error)
            }
        }
    }

    /// A job by name, and its result.
    fn job(&mut self) -> io::Result<()> {
        let words = 1 + self.choices.below(12);
        let Some((id, prompt)) = self.submit("echo", words)? else { return Ok(()) };
        let path = format!("{JOBS}/{id}?wait=30s");
        let (answer, read) = self.exchange(|worker| worker.connection.send("GET", &path, ""))?;
        if answer.value()["state"] == "succeeded" {
            self.told((&id, &prompt), Kept::Yes, Told::Answered, read);
        }
        Ok(())
    }

    /// A job whose client waits on its connection.
    fn sync(&mut self) -> io::Result<()> {
        let number = self.shared.client.number();
        let key = self.choices.in_thousand(500).then(|| format!("k{number}"));
        let prompt = prompt(number, 1 + self.choices.below(12));
        let body = body_for(CHAT, "echo", &prompt);
        self.shared.client.submits();
        let headers: Vec<(&str, &str)> = key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
        let request = Request { method: "POST", path: CHAT, headers: &headers, body: &body };
        let answer = self.exchange(|worker| worker.connection.call(&request));
        match answer {
            Ok((answer, read)) if answer.status == 200 => {
                let id = answer.job.clone().unwrap_or_default();
                let kept = if key.is_some() { Kept::Yes } else { Kept::No };
                self.told((&id, &prompt), kept, Told::Answered, read);
                if let Some(key) = key {
                    self.keyed(CHAT, (key, &prompt), "echo", &id);
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                let keyed = |key| Unanswered::Keyed { path: CHAT, key, prompt, model: "echo" };
                self.shared.client.unanswered(key.map_or(Unanswered::Unkeyed, keyed));
                Err(error)
            }
        }
    }

    /// A job that waits or is slow, and its cancel.
    fn cancelled(&mut self) -> io::Result<()> {
        let words = 4 + self.choices.below(8);
        let Some((id, prompt)) = self.submit("slow", words)? else { return Ok(()) };
        let path = format!("{JOBS}/{id}");
        self.shared.client.cancels(&id);
        let answer = self.exchange(|worker| worker.connection.send("DELETE", &path, ""));
        let (answer, read) = answer.inspect_err(|_| {
            self.shared.client.unanswered(Unanswered::Cancel(id.clone()));
        })?;
        let told = match answer.value()["state"].as_str() {
            Some("cancelled") => Told::Cancelled,
            Some("cancelling") => Told::Cancelling,
            _ => return Ok(()),
        };
        self.told((&id, &prompt), Kept::Yes, told, read);
        Ok(())
    }

    fn deposit(&mut self) -> io::Result<()> {
        let operation = u128::from(self.shared.client.number()) << 16 | 0xd;
        let namespace = *self.choices.one_of(&NAMESPACES);
        let micro = 1 + self.choices.below(5_000_000) as i64;
        self.shared.client.deposits(operation, namespace, micro);
        let body = deposit_body(operation, namespace, micro);
        let answer = self.exchange(|worker| worker.operator.send("POST", "/admin/deposits", &body));
        let (answer, read) = answer.inspect_err(|_| {
            self.shared.client.unanswered(Unanswered::Deposit(operation));
        })?;
        if answer.status == 200 {
            self.shared.acknowledged(read);
            self.shared.client.deposited(operation, self.shared.counters.records());
        }
        Ok(())
    }
}

/// A deposit's body.
pub fn deposit_body(operation: u128, namespace: &str, micro: i64) -> String {
    let credits = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    json!({"operation": format!("{operation:x}"), "namespace": namespace, "credits": credits}).to_string()
}

/// Sets the rig's prices.
///
/// # Errors
/// When the box can't be asked or refuses.
pub fn set_prices(running: &Running) -> io::Result<()> {
    let million = |credits: i64| (credits * 1_000_000).to_string();
    let body = json!({"input": million(PRICES.0), "output": million(PRICES.1)}).to_string();
    let answer = running.operator()?.send("POST", "/admin/prices", &body)?;
    match answer.status {
        200 => Ok(()),
        _ => Err(io::Error::other(format!("prices were refused: {}", answer.text()))),
    }
}
