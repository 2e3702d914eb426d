//! A box whose every message is scripted by the test: the WebSocket and the handshake are real, the rest is said by hand.

use super::{PATIENCE, wait_for};
use switchbox::wire::handshake::{Authenticated, BoxSide};
use switchbox::wire::keys::Hex;
use switchbox::wire::to_agent::{Admitted, Resume, Welcome};
use switchbox::wire::to_box::Ready;
use switchbox::wire::{FromAgent, FromBox, Identity, JoinString, MESSAGE_BYTES_MAX, Parsed, SUBPROTOCOL};

use futures_core::Stream;
use futures_sink::Sink;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc as async_mpsc;
use tokio_websockets::{CloseCode, Message, ServerBuilder, WebSocketStream};
use zeroize::Zeroizing;

/// A box that says what it is told to.
pub struct Peer {
    pub addr: SocketAddr,
    pub identity: Identity,
    calls: mpsc::Receiver<Call>,
}

/// One connection of an agent.
pub struct Call {
    said: mpsc::Receiver<Heard>,
    say: async_mpsc::UnboundedSender<Said>,
}

/// What an agent did.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is in memory, and moved at once")]
pub enum Heard {
    Message(FromAgent),
    /// It closed the connection, with that code where there was one.
    Closed(Option<u16>),
}

enum Said {
    Text(String),
    Close(u16),
}

impl Peer {
    /// Listens on a free port, with the key of that seed.
    pub fn start(seed: u8) -> Peer {
        let (call, calls) = mpsc::channel();
        let (at, address) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(listen(call, at));
        });
        let addr = address.recv_timeout(PATIENCE).expect("it listens");
        Peer { addr, identity: Identity::of_seed(&Zeroizing::new([seed; 32])), calls }
    }

    pub fn join_string(&self) -> String {
        let token = "a-token_of-the-test".parse().expect("a token");
        let url = format!("http://{}", self.addr);
        JoinString { url, box_key: self.identity.public(), tls: None, token }.text()
    }

    /// Waits for an agent to call.
    pub fn call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("an agent calls")
    }

    /// Waits for an agent, lets it in, and hears what it offers and holds.
    pub fn admit(&self) -> (Call, Authenticated, Ready) {
        let call = self.call();
        let authenticated = self.greet(&call);
        call.say(&FromBox::Admitted(Admitted {
            node: authenticated.parties.node_key.node().to_string(),
            session: 1,
        }));
        let FromAgent::Ready(ready) = call.hear() else { panic!("`ready` comes first") };
        (call, authenticated, *ready)
    }

    /// The handshake up to the node's proof.
    pub fn greet(&self, call: &Call) -> Authenticated {
        let FromAgent::Hello(hello) = call.hear() else { panic!("`hello` comes first") };
        let (side, challenge) =
            BoxSide::answer(&self.identity, &hello, Hex([7; 32])).expect("a known version");
        call.say(&FromBox::Challenge(challenge));
        let FromAgent::Authenticate(proof) = call.hear() else { panic!("`authenticate` comes next") };
        side.check(proof).expect("a right signature")
    }

    /// An agent that is let in and welcomed; it must hold nothing.
    pub fn work(&self) -> (Call, Authenticated) {
        let (call, authenticated, ready) = self.admit();
        assert_eq!(ready.holds, []);
        call.welcome(Vec::new());
        (call, authenticated)
    }
}

impl Call {
    pub fn say(&self, message: &FromBox) {
        // An agent that left hears nothing.
        let _ = self.say.send(Said::Text(message.render().expect("short enough")));
    }

    pub fn welcome(&self, holds: Vec<Resume>) {
        let (heartbeat_interval_ms, heartbeat_ttl_ms) = (200, 1_000);
        self.say(&FromBox::Welcome(Welcome { heartbeat_interval_ms, heartbeat_ttl_ms, time_ms: 0, holds }));
    }

    /// Closes with that code.
    pub fn close(&self, code: u16) {
        let _ = self.say.send(Said::Close(code));
    }

    /// What the agent says next, heartbeats left out.
    pub fn hear(&self) -> FromAgent {
        match self.next() {
            Heard::Message(message) => message,
            Heard::Closed(code) => panic!("closed with {code:?}"),
        }
    }

    /// What the agent does next, heartbeats left out.
    pub fn next(&self) -> Heard {
        loop {
            match self.said.recv_timeout(PATIENCE).expect("the agent says something") {
                Heard::Message(FromAgent::Heartbeat(_)) => {}
                heard => return heard,
            }
        }
    }

    /// Waits for a heartbeat.
    pub fn heartbeat(&self) {
        wait_for("a heartbeat", || {
            let heard = self.said.recv_timeout(PATIENCE).expect("the agent says something");
            matches!(heard, Heard::Message(FromAgent::Heartbeat(_))).then_some(())
        });
    }
}

async fn listen(calls: mpsc::Sender<Call>, at: mpsc::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let _ = at.send(listener.local_addr().expect("it has one"));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let calls = calls.clone();
        tokio::spawn(async move {
            let name = "sec-websocket-protocol".parse().expect("a header's name");
            let agreed = SUBPROTOCOL.parse().expect("a header's value");
            let upgrade = ServerBuilder::new().add_header(name, agreed).expect("allowed");
            let Ok((request, ws)) = upgrade.accept(stream).await else { return };
            assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            assert_eq!(request.uri().path(), switchbox::wire::PATH);
            let (heard, said) = mpsc::channel();
            let (say, saying) = async_mpsc::unbounded_channel();
            let _ = calls.send(Call { said, say });
            serve(ws, heard, saying).await;
        });
    }
}

async fn serve(
    mut ws: WebSocketStream<TcpStream>,
    heard: mpsc::Sender<Heard>,
    mut saying: async_mpsc::UnboundedReceiver<Said>,
) {
    loop {
        let turn = std::future::poll_fn(|cx| poll(&mut ws, &mut saying, cx)).await;
        match turn {
            Turn::Say(said) => {
                let message = match said {
                    Said::Text(text) => Message::text(text),
                    Said::Close(code) => Message::close(CloseCode::try_from(code).ok(), ""),
                };
                if Pin::new(&mut ws).start_send(message).is_err() {
                    break;
                }
                let _ = std::future::poll_fn(|cx| Pin::new(&mut ws).poll_flush(cx)).await;
            }
            // The test let go of the connection: it breaks.
            Turn::Cut => return,
            Turn::Ended(code) => {
                let _ = heard.send(Heard::Closed(code));
                return;
            }
            Turn::Heard(text) => {
                let Ok(Parsed::Known(message)) = FromAgent::parse(&text, MESSAGE_BYTES_MAX) else {
                    panic!("not a message: {text}")
                };
                let _ = heard.send(Heard::Message(message));
            }
            Turn::Nothing => {}
        }
    }
}

enum Turn {
    Say(Said),
    Cut,
    Heard(String),
    Ended(Option<u16>),
    Nothing,
}

fn poll(
    ws: &mut WebSocketStream<TcpStream>,
    saying: &mut async_mpsc::UnboundedReceiver<Said>,
    cx: &mut Context<'_>,
) -> Poll<Turn> {
    match saying.poll_recv(cx) {
        Poll::Ready(Some(said)) => return Poll::Ready(Turn::Say(said)),
        Poll::Ready(None) => return Poll::Ready(Turn::Cut),
        Poll::Pending => {}
    }
    Pin::new(ws).poll_next(cx).map(|message| match message {
        Some(Ok(message)) => match (message.as_close(), message.as_text()) {
            (Some((code, _)), _) => Turn::Ended(Some(code.into())),
            (None, Some(text)) => Turn::Heard(text.to_owned()),
            (None, None) => Turn::Nothing,
        },
        Some(Err(_)) | None => Turn::Ended(None),
    })
}
