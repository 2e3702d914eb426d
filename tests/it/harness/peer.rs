//! A scripted agent: it says what a test lets it say, in the real protocol.

use std::net::SocketAddr;
use std::time::Instant;

use switchbox::coordinator::event::{Environment, FinishReason};
use switchbox::ids::ReservationId;
use switchbox::wire::handshake::AgentSide;
use switchbox::wire::keys::Hex;
use switchbox::wire::statement::{ResultStatement, StatedStatus, StoppedStatement};
use switchbox::wire::to_agent::{Assign, Welcome};
use switchbox::wire::to_box::{
    Accepted, Chunk, Completed, DeclineCause, Declined, Hold, Offer, OfferedModel, Output, Ready, Stopped,
};
use switchbox::wire::{FromAgent, FromBox, Identity, JoinString, OutputHasher, Parsed, Signed, request_hash};
use zeroize::Zeroizing;

use super::PATIENCE;
use super::server::Server;
use super::ws::{Got, PONG, Ws};

/// A machine that may join: its key, and the box that it knows.
pub struct Machine {
    pub identity: Identity,
    pub join: JoinString,
    pub addr: SocketAddr,
    pub offer: Offer,
    pub environments: Vec<Environment>,
}

/// What a node offers: one model.
pub fn offer(model: &str, slots: u32) -> Offer {
    let model = OfferedModel {
        name: model.into(),
        version: None,
        digest: Some(Hex([7; 32])),
        runtime: None,
        slots,
        warm: true,
        load_ms: 0,
    };
    let (kv_tokens, memory_bytes) = (1 << 20, 1 << 30);
    Offer { models: vec![model], slots, kv_tokens, memory_bytes, gpu: None, region: None }
}

/// A new join string of the box, as its operator asks for it.
pub fn invite(server: &Server, more: serde_json::Value) -> JoinString {
    let answer = server.command("/admin/invites/new", &more);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()["join"].as_str().expect("a join string").parse().expect("a join string")
}

impl Machine {
    /// A machine with a key of its own and an invite for the operator's own machines.
    pub fn own(server: &Server, seed: u8, model: &str) -> Machine {
        Machine::invited(server, seed, model, serde_json::json!({}))
    }

    pub fn invited(server: &Server, seed: u8, model: &str, invite_as: serde_json::Value) -> Machine {
        Machine {
            identity: Identity::of_seed(&Zeroizing::new([seed; 32])),
            join: invite(server, invite_as),
            addr: server.addr,
            offer: offer(model, 4),
            environments: vec![Environment::Mainnet],
        }
    }

    /// Its name at the box.
    pub fn name(&self) -> String {
        self.identity.public().node().to_string()
    }

    /// Connects and shakes hands up to `admitted`.
    pub fn dial(&self) -> Peer<'_> {
        let mut peer = Peer { machine: self, ws: Ws::dial(self.addr) };
        let (side, hello) = AgentSide::call(&self.identity, self.join.box_key, Hex([9; 32]));
        peer.say(&FromAgent::Hello(hello));
        let FromBox::Challenge(challenge) = peer.hear() else { panic!("no challenge") };
        let (_, proof) = side
            .answer(&self.identity, &challenge, &self.environments, Some(&self.join.token))
            .expect("the box proves itself");
        peer.say(&FromAgent::Authenticate(proof));
        peer
    }

    /// Connects, joins with those holds and hears what becomes of them.
    pub fn join_holding(&self, holds: Vec<Hold>) -> (Peer<'_>, Welcome) {
        let mut peer = self.dial();
        let FromBox::Admitted(admitted) = peer.hear() else { panic!("not admitted") };
        assert_eq!(admitted.node, self.name());
        let ready = Ready { offer: self.offer.clone(), configurations: Vec::new(), holds };
        peer.say(&FromAgent::Ready(Box::new(ready)));
        let FromBox::Welcome(welcome) = peer.hear() else { panic!("not welcome") };
        (peer, welcome)
    }

    /// Connects and joins, holding nothing.
    pub fn join(&self) -> Peer<'_> {
        self.join_holding(Vec::new()).0
    }

    /// Connects, joins and passes the test job that the box sends first.
    pub fn ready(&self) -> Peer<'_> {
        let mut peer = self.join();
        let test = peer.assigned();
        peer.answer(&test, &["hel", "lo"]);
        while !matches!(peer.hear(), FromBox::Standing(standing) if standing.standing.takes_work()) {}
        peer
    }
}

/// A connection of a machine's.
pub struct Peer<'m> {
    pub machine: &'m Machine,
    pub ws: Ws,
}

impl Peer<'_> {
    pub fn say(&mut self, message: &FromAgent) {
        self.ws.text(&message.render().expect("a message")).expect("the box reads");
    }

    /// What comes next; pings are answered, which go on for ever.
    #[track_caller]
    pub fn receive(&mut self) -> Got {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ws.receive() {
                Got::Ping if Instant::now() > deadline => panic!("gave up waiting for a message"),
                Got::Ping => self.ws.frame(true, PONG, b"").expect("the box reads"),
                got => return got,
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub fn hear(&mut self) -> FromBox {
        match self.receive() {
            Got::Text(text) => match FromBox::parse(&text, usize::MAX).expect("a message") {
                Parsed::Known(message) => message,
                Parsed::Ignored(kind) => panic!("the box says `{kind}`, which nobody knows"),
            },
            got => panic!("no message, but {got:?}"),
        }
    }

    /// The next assignment; what else comes before it is skipped.
    #[track_caller]
    pub fn assigned(&mut self) -> Assign {
        loop {
            if let FromBox::Assign(assign) = self.hear() {
                return *assign;
            }
        }
    }

    /// The next assignment of a job that speaks of that. The box repeats some jobs on other nodes, to see whether they
    /// answer the same: those are declined.
    #[track_caller]
    pub fn assigned_about(&mut self, text: &str) -> Assign {
        loop {
            let assign = self.assigned();
            if String::from_utf8_lossy(&assign.body.0).contains(text) {
                return assign;
            }
            let (reservation, cause) = (assign.reservation, DeclineCause::Busy);
            self.say(&FromAgent::Declined(Declined {
                reservation,
                cause,
                reason: "not asked for".to_owned(),
            }));
        }
    }

    /// How the box closes the connection, and what it says before: goodbye and close frame agree.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let mut said = None;
        loop {
            match self.receive() {
                Got::Text(text) => {
                    if let Ok(Parsed::Known(FromBox::Goodbye(goodbye))) = FromBox::parse(&text, usize::MAX) {
                        said = Some(goodbye);
                    }
                }
                Got::Close(code, reason) => {
                    if let Some(said) = said {
                        assert_eq!(said.code, code, "goodbye and close frame differ");
                        assert!(said.reason.starts_with(&reason), "{} / {reason}", said.reason);
                        return (code, said.reason);
                    }
                    return (code, reason);
                }
                Got::Pong | Got::Ping => {}
                Got::End => panic!("the connection ended without a close frame"),
            }
        }
    }

    pub fn accept(&mut self, assign: &Assign) {
        self.say(&FromAgent::Accepted(Accepted { reservation: assign.reservation }));
    }

    pub fn output(&mut self, reservation: ReservationId, index: u32, texts: &[&str]) {
        self.say(&FromAgent::Output(Output { reservation, index, chunks: chunks(texts) }));
    }

    /// Sends that as the whole output, and its signed result.
    pub fn answer(&mut self, assign: &Assign, texts: &[&str]) {
        self.accept(assign);
        self.output(assign.reservation, 0, texts);
        let statement = statement(assign, self.machine, texts);
        self.complete(statement, texts.len() as u32);
    }

    /// Signs a statement and sends it as a result.
    pub fn complete(&mut self, statement: ResultStatement, chunks: u32) {
        let signed = Signed::sign(statement, &self.machine.identity, self.machine.join.box_key);
        self.complete_as_signed(signed, chunks);
    }

    pub fn complete_as_signed(&mut self, signed: Signed<ResultStatement>, chunks: u32) {
        let Signed { statement, signature } = signed;
        self.say(&FromAgent::Completed(Box::new(Completed { chunks, statement, signature })));
    }

    pub fn stopped(&mut self, assign: &Assign, output_tokens: u32) {
        let statement = StoppedStatement {
            environment: assign.environment,
            job: assign.job,
            reservation: assign.reservation,
            input_tokens: assign.input_tokens,
            output_tokens,
        };
        let signed: Stopped = Signed::sign(statement, &self.machine.identity, self.machine.join.box_key);
        self.say(&FromAgent::Stopped(signed));
    }
}

pub fn chunks(texts: &[&str]) -> Vec<Chunk> {
    let chunk = |text: &&str| Chunk { kind: Default::default(), text: (*text).into(), tokens: 1 };
    texts.iter().map(chunk).collect()
}

/// What an honest node states of an assignment that it answered with those texts.
pub fn statement(assign: &Assign, machine: &Machine, texts: &[&str]) -> ResultStatement {
    let mut hasher = OutputHasher::new();
    texts.iter().for_each(|text| hasher.text(text));
    let offered = machine.offer.models.iter().find(|model| model.name == assign.model);
    ResultStatement {
        environment: assign.environment,
        job: assign.job,
        reservation: assign.reservation,
        model: assign.model.clone(),
        model_digest: offered.and_then(|model| model.digest),
        model_index: assign.model_index,
        request_hash: request_hash(assign.endpoint, &assign.body.0),
        output_hash: hasher.hash(),
        input_tokens: assign.input_tokens,
        cached_tokens: 0,
        output_tokens: texts.len() as u32,
        status: StatedStatus::Succeeded { finish_reason: FinishReason::Stop },
    }
}
