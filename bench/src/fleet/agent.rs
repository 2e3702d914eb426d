//! One light agent: the product's handshake with a key of its own, heartbeats as the box tells, and test jobs. All of
//! it is a task; many run on one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use switchbox::coordinator::event::{Environment, FinishReason};
use switchbox::ids::ReservationId;
use switchbox::wire::handshake::AgentSide;
use switchbox::wire::keys::Hex;
use switchbox::wire::statement::{ResultStatement, StatedStatus};
use switchbox::wire::to_agent::Assign;
use switchbox::wire::to_box::{Accepted, Chunk, Completed, Heartbeat, Offer, OfferedModel, Output, Ready};
use switchbox::wire::{
    CloseCode, FromAgent, FromBox, Identity, JoinString, MESSAGE_BYTES_MAX, OutputHasher, PATH, Parsed,
    SUBPROTOCOL, Signed, request_hash,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_websockets::upgrade::Error as Upgrade;
use tokio_websockets::{ClientBuilder, Error, Message};
use zeroize::Zeroizing;

use super::swarm::Board;
use crate::socket::Socket;

/// The model that all agents offer; nobody asks for it.
const MODEL: &str = "far";
/// What an agent answers to a test job.
const ANSWER: &str = "ok";
/// The first wait after a connection that came to nothing; it doubles from there, with up to half of it off.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What an agent is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To work, on a connection that was made since the order was given: it has this number.
    Serve(u64),
    /// To keep its connection, and neither read nor write on it.
    Mute,
    /// To cut its connection.
    Leave,
}

/// A machine with a key of its own.
pub(super) struct Machine {
    pub(super) number: usize,
    identity: Identity,
    join: JoinString,
    address: SocketAddr,
    board: Arc<Board>,
}

/// Why a connection ended.
enum Ended {
    /// There is another order.
    Ordered,
    /// It was refused, or broke: in a word.
    Lost(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Lost(match error {
            Error::Upgrade(Upgrade::DidNotSwitchProtocols(status)) => format!("HTTP {status}"),
            Error::Io(error) => error.kind().to_string(),
            error => error.to_string(),
        })
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Error::Io(error).into()
    }
}

impl Machine {
    pub(super) fn new(number: usize, join: JoinString, address: SocketAddr, board: Arc<Board>) -> Self {
        let mut seed = Zeroizing::new([0; Identity::BYTES]);
        // Any key will do: it guards nothing, and the box's directory is a new one each time.
        seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        Self { number, identity: Identity::of_seed(&seed), join, address, board }
    }

    /// Its name at the box.
    pub(super) fn name(&self) -> String {
        self.identity.public().node().to_string()
    }

    /// Does what it is told, until nobody tells it anything any more.
    pub(super) async fn run(self, mut orders: watch::Receiver<Order>) {
        let mut failures = 0;
        loop {
            let order = *orders.borrow_and_update();
            let wait = match order {
                Order::Mute | Order::Leave => None,
                Order::Serve(_) => match self.serve(&mut orders, &mut failures).await {
                    Ended::Ordered => continue,
                    Ended::Lost(why) => {
                        self.board.refused(why);
                        failures += 1;
                        Some(wait(failures, chance()))
                    }
                },
            };
            let changed = async {
                match wait {
                    Some(wait) => tokio::time::timeout(wait, orders.changed()).await.unwrap_or(Ok(())),
                    None => orders.changed().await,
                }
            };
            if changed.await.is_err() {
                return;
            }
        }
    }

    /// One connection, from the dial to its end.
    async fn serve(&self, orders: &mut watch::Receiver<Order>, failures: &mut u32) -> Ended {
        let mut socket = match self.greet().await {
            Ok(socket) => socket,
            Err(ended) => return ended,
        };
        *failures = 0;
        match self.work(&mut socket, orders).await {
            Ended::Ordered if *orders.borrow() == Order::Mute => {
                // The socket stays open, and nobody looks at it.
                _ = orders.changed().await;
                self.board.left(self.number);
                Ended::Ordered
            }
            ended => {
                self.board.left(self.number);
                ended
            }
        }
    }

    /// Dials and shakes hands, up to the answer to `ready`.
    async fn greet(&self) -> Result<Working, Ended> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let uri = format!("ws://{}{PATH}", self.address).parse().map_err(|_| lost("its URL"))?;
        let protocol = "sec-websocket-protocol".parse().map_err(|_| lost("a header"))?;
        let word = SUBPROTOCOL.parse().map_err(|_| lost("a header"))?;
        let builder = ClientBuilder::from_uri(uri).add_header(protocol, word)?;
        let (socket, _) = builder.connect_on(stream).await?;
        let mut link = Link(Socket(socket));
        let (side, hello) = AgentSide::call(&self.identity, self.join.box_key, Hex(random()));
        link.say(&FromAgent::Hello(hello)).await?;
        let FromBox::Challenge(challenge) = link.hear().await? else { return Err(lost("no challenge")) };
        let environments = [Environment::Mainnet];
        let (_, proof) = side
            .answer(&self.identity, &challenge, &environments, Some(&self.join.token))
            .map_err(|refusal| lost(refusal.code.word()))?;
        link.say(&FromAgent::Authenticate(proof)).await?;
        let FromBox::Admitted(_) = link.hear().await? else { return Err(lost("not admitted")) };
        let ready = Ready { offer: offer(), configurations: Vec::new(), holds: Vec::new() };
        link.say(&FromAgent::Ready(Box::new(ready))).await?;
        let FromBox::Welcome(welcome) = link.hear().await? else { return Err(lost("not welcome")) };
        let every = Duration::from_millis(welcome.heartbeat_interval_ms);
        self.board.joined(self.number, every);
        Ok(Working { link, every })
    }

    /// Works until it is told otherwise, or the connection ends.
    async fn work(&self, working: &mut Working, orders: &mut watch::Receiver<Order>) -> Ended {
        let Working { link, every } = working;
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + *every, *every);
        loop {
            tokio::select! {
                biased;
                _ = orders.changed() => return Ended::Ordered,
                _ = beat.tick() => {
                    let heartbeat = Heartbeat { warm: vec![], running: 0 };
                    if let Err(ended) = link.say(&FromAgent::Heartbeat(heartbeat)).await {
                        return ended;
                    }
                    self.board.beat(self.number);
                }
                heard = link.hear() => {
                    let done = match heard {
                        Ok(FromBox::Assign(assign)) => self.answer(link, &assign).await,
                        Ok(_) => Ok(()),
                        Err(ended) => Err(ended),
                    };
                    if let Err(ended) = done {
                        return ended;
                    }
                }
            }
        }
    }

    /// Answers a job: only test jobs come, for nobody asks for this model.
    async fn answer(&self, link: &mut Link, assign: &Assign) -> Result<(), Ended> {
        let reservation = assign.reservation;
        link.say(&FromAgent::Accepted(Accepted { reservation })).await?;
        link.say(&FromAgent::Output(output(reservation))).await?;
        let Signed { statement, signature } =
            Signed::sign(statement(assign), &self.identity, self.join.box_key);
        link.say(&FromAgent::Completed(Box::new(Completed { chunks: 1, statement, signature }))).await
    }
}

/// A connection on which the box has welcomed the node.
struct Working {
    link: Link,
    every: Duration,
}

/// A connection, as messages of the protocol.
struct Link(Socket);

impl Link {
    async fn say(&mut self, message: &FromAgent) -> Result<(), Ended> {
        let text = message.render().map_err(|error| lost(&error.to_string()))?;
        Ok(self.0.send(Message::text(text)).await?)
    }

    /// The next message. Safe to drop in between.
    async fn hear(&mut self) -> Result<FromBox, Ended> {
        loop {
            let Some(message) = self.0.next().await.transpose()? else { return Err(lost("it broke")) };
            if let Some((code, _)) = message.as_close() {
                let code = u16::from(code);
                return Err(lost(CloseCode::of(code).map_or("an unknown code", CloseCode::word)));
            }
            let Some(text) = message.as_text() else { continue };
            match FromBox::parse(text, MESSAGE_BYTES_MAX) {
                Ok(Parsed::Known(message)) => return Ok(message),
                Ok(Parsed::Ignored(_)) => {}
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
    }
}

fn lost(why: &str) -> Ended {
    Ended::Lost(why.to_owned())
}

fn offer() -> Offer {
    let model = OfferedModel {
        name: MODEL.into(),
        version: None,
        digest: Some(Hex([7; 32])),
        runtime: None,
        slots: 1,
        warm: true,
        load_ms: 0,
    };
    let (kv_tokens, memory_bytes) = (1 << 20, 1 << 30);
    Offer { models: vec![model], slots: 1, kv_tokens, memory_bytes, gpu: None, region: None }
}

fn output(reservation: ReservationId) -> Output {
    let chunk = Chunk { kind: Default::default(), text: ANSWER.into(), tokens: 1 };
    Output { reservation, index: 0, chunks: vec![chunk] }
}

fn statement(assign: &Assign) -> ResultStatement {
    let mut hasher = OutputHasher::new();
    hasher.text(ANSWER);
    ResultStatement {
        environment: assign.environment,
        job: assign.job,
        reservation: assign.reservation,
        model: assign.model.clone(),
        model_digest: Some(Hex([7; 32])),
        model_index: assign.model_index,
        request_hash: request_hash(assign.endpoint, &assign.body.0),
        output_hash: hasher.hash(),
        input_tokens: assign.input_tokens,
        cached_tokens: 0,
        output_tokens: 1,
        status: StatedStatus::Succeeded { finish_reason: FinishReason::Stop },
    }
}

/// How long to wait after so many failures in a row, `chance` of 0 to `u64::MAX` being what is random in it.
fn wait(failures: u32, chance: u64) -> Duration {
    let doubled = WAIT_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(WAIT_MAX);
    doubled - doubled.mul_f64(chance as f64 / u64::MAX as f64 / 2.0)
}

fn chance() -> u64 {
    u64::from_le_bytes(random())
}

/// Random bytes; without any the measurement goes on.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_up_to_half_off() {
        let seconds = |failures, chance| wait(failures, chance).as_secs_f64();
        assert_eq!([1, 2, 3, 7, 99].map(|failures| seconds(failures, 0)), [1.0, 2.0, 4.0, 60.0, 60.0]);
        assert_eq!([1, 2, 99].map(|failures| seconds(failures, u64::MAX)), [0.5, 1.0, 30.0]);
    }

    #[test]
    fn machines_have_keys_of_their_own() {
        let board = Arc::new(Board::new(2));
        let box_key = Identity::of_seed(&Zeroizing::new([9; 32])).public();
        let join = JoinString {
            url: "http://127.0.0.1:1".to_owned(),
            box_key,
            tls: None,
            token: "t".parse().expect("a token"),
        };
        let name = |number| {
            Machine::new(number, join.clone(), ([127, 0, 0, 1], 1).into(), Arc::clone(&board)).name()
        };
        assert_ne!(name(0), name(1));
        assert_eq!(name(1), name(1));
    }
}
