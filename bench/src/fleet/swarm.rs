//! All agents: what they are told, and what they note down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::agent::{Machine, Order};
use crate::Result;
use crate::admin::Admin;
use crate::child::Server;

/// Agents that join at once at first.
const JOINING_MAX: usize = 100;
/// How long agents may take to be connected: longer than the box waits for those that it lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the agents note down.
pub(super) struct Board(Mutex<Notes>);

struct Notes {
    agents: Vec<Note>,
    heartbeats: u64,
    /// Connections that came to nothing, by why.
    refusals: BTreeMap<String, u64>,
    every: Duration,
}

/// What one agent noted down.
#[derive(Clone, Copy)]
struct Note {
    /// Whether it is connected, and since when.
    joined: Option<Instant>,
    /// When it last said something of itself, or cut its connection.
    sign: Instant,
}

impl Board {
    pub(super) fn new(agents: usize) -> Self {
        let note = Note { joined: None, sign: Instant::now() };
        let (refusals, every) = (BTreeMap::new(), Duration::ZERO);
        Self(Mutex::new(Notes { agents: vec![note; agents], heartbeats: 0, refusals, every }))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The box welcomed an agent, which is to send a heartbeat so often.
    pub(super) fn joined(&self, number: usize, every: Duration) {
        let (mut notes, now) = (self.notes(), Instant::now());
        notes.every = every;
        notes.agents[number] = Note { joined: Some(now), sign: now };
    }

    /// An agent sent a heartbeat.
    pub(super) fn beat(&self, number: usize) {
        let mut notes = self.notes();
        notes.heartbeats += 1;
        notes.agents[number].sign = Instant::now();
    }

    /// An agent isn't connected any more.
    pub(super) fn left(&self, number: usize) {
        self.notes().agents[number] = Note { joined: None, sign: Instant::now() };
    }

    /// An agent's connection came to nothing.
    pub(super) fn refused(&self, why: String) {
        *self.notes().refusals.entry(why).or_default() += 1;
    }
}

/// All agents of a measurement.
pub(super) struct Swarm {
    board: Arc<Board>,
    names: Vec<String>,
    orders: Vec<watch::Sender<Order>>,
    /// Numbers of connections.
    served: u64,
}

impl Swarm {
    /// Has so many agents join, some at a time, and waits until the box gives them work.
    pub(super) async fn join(count: usize, server: &Server, admin: &Admin) -> Result<Self> {
        let board = Arc::new(Board::new(count));
        let mut swarm = Self { board, names: Vec::new(), orders: Vec::new(), served: 0 };
        while swarm.names.len() < count {
            for _ in 0..JOINING_MAX.min(count - swarm.names.len()) {
                let join = admin.invite().await?;
                let number = swarm.names.len();
                let machine = Machine::new(number, join, server.address(), Arc::clone(&swarm.board));
                let (order, orders) = watch::channel(Order::Serve(0));
                swarm.names.push(machine.name());
                swarm.orders.push(order);
                tokio::spawn(machine.run(orders));
            }
            swarm.wait_joined(swarm.names.len()).await?;
        }
        admin.wait_ready(count).await?;
        Ok(swarm)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// An agent's name at the box.
    pub(super) fn name(&self, number: usize) -> &str {
        &self.names[number]
    }

    /// Tells some of them something.
    pub(super) fn tell(&self, numbers: std::ops::Range<usize>, order: Order) {
        for agent in &self.orders[numbers] {
            agent.send_replace(order);
        }
    }

    /// Has some of them dial anew, all at once. Those that are connected cut that connection.
    pub(super) fn redial(&mut self, numbers: std::ops::Range<usize>) {
        self.served += 1;
        for number in numbers.clone() {
            self.board.left(number);
        }
        self.tell(numbers, Order::Serve(self.served));
    }

    /// How many are connected.
    pub(super) fn joined(&self) -> usize {
        self.board.notes().agents.iter().filter(|agent| agent.joined.is_some()).count()
    }

    /// Waits until so many are connected.
    pub(super) async fn wait_joined(&self, count: usize) -> Result<()> {
        let begun = Instant::now();
        while self.joined() < count {
            if begun.elapsed() > PATIENCE {
                let (joined, refusals) = (self.joined(), self.refusals());
                return Err(format!("only {joined} of {count} agents are connected; {refusals:?}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// How long after `since` each was connected that is.
    pub(super) fn joined_after(&self, since: Instant) -> Vec<Duration> {
        let notes = self.board.notes();
        let joined = notes.agents.iter().filter_map(|agent| agent.joined);
        joined.map(|at| at.saturating_duration_since(since)).collect()
    }

    /// When an agent last gave a sign of life.
    pub(super) fn sign_of(&self, number: usize) -> Instant {
        self.board.notes().agents[number].sign
    }

    /// Heartbeats that were sent so far.
    pub(super) fn heartbeats(&self) -> u64 {
        self.board.notes().heartbeats
    }

    /// How often the box wants one.
    pub(super) fn heartbeat_every(&self) -> Duration {
        self.board.notes().every
    }

    /// Connections that came to nothing so far, by why.
    pub(super) fn refusals(&self) -> BTreeMap<String, u64> {
        self.board.notes().refusals.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_note_down_is_counted() {
        let board = Arc::new(Board::new(3));
        let swarm = Swarm { board: Arc::clone(&board), names: Vec::new(), orders: Vec::new(), served: 0 };
        let begun = Instant::now();
        board.joined(0, Duration::from_secs(5));
        board.joined(2, Duration::from_secs(5));
        board.beat(2);
        assert_eq!((swarm.joined(), swarm.heartbeats()), (2, 1));
        assert_eq!(swarm.joined_after(begun).len(), 2);
        assert!(swarm.sign_of(2) >= begun);
        board.left(0);
        board.refused("HTTP 503".to_owned());
        board.refused("HTTP 503".to_owned());
        assert_eq!(swarm.joined(), 1);
        assert_eq!(swarm.refusals()["HTTP 503"], 2);
    }
}
