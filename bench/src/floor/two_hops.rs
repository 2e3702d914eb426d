//! The floor of two hops: a client, a box over HTTP, an agent over a WebSocket, and back. Both sides write whatever
//! there is at once, and answers come in the order of their questions, so that nothing has to be looked up.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_websockets::{ClientBuilder, Message, ServerBuilder};

use super::sign::{Checks, SIGNATURE_DIGITS, Signs};
use super::{Care, accept, announce, commit, listen};
use crate::Result;
use crate::socket::Socket;

/// Something that goes with the way to the client who waits for an answer.
type WithClient = (Bytes, oneshot::Sender<Bytes>);

/// Serves clients with what an agent says that connects to the second address of the line printed.
pub(super) async fn serve_box(care: Care, file: &Path) -> Result<()> {
    let (clients, agents) = (listen().await?, listen().await?);
    announce(&format!("http://{} ws://{}", clients.local_addr()?, agents.local_addr()?))?;
    let (ask, asked) = mpsc::unbounded_channel();
    let onward = match care {
        Care::None | Care::Sign => Onward::Client,
        Care::Commit => {
            let (commit, mut committed) = commit::committer(file)?;
            tokio::spawn(async move {
                while let Some(group) = committed.recv().await {
                    group.into_iter().for_each(answer);
                }
            });
            Onward::Disk(commit)
        }
    };
    let checks = (care != Care::None).then(Checks::new);
    tokio::spawn(exchange(agents, asked, checks, onward));
    accept(clients, move |body| {
        let (ask, (reply, answer)) = (ask.clone(), oneshot::channel());
        async move {
            ask.send((body, reply)).ok()?;
            answer.await.ok()
        }
    })
    .await
}

/// Where an answer goes that the agent gave.
enum Onward {
    Client,
    Disk(std::sync::mpsc::Sender<WithClient>),
}

fn answer((text, client): WithClient) {
    // A client that left wants no answer.
    _ = client.send(text);
}

/// Takes the first agent, and ends with it: what is asked then gets no answer.
async fn exchange(
    agents: TcpListener,
    mut asked: mpsc::UnboundedReceiver<WithClient>,
    checks: Option<Checks>,
    onward: Onward,
) -> Result<()> {
    let (stream, _) = agents.accept().await?;
    stream.set_nodelay(true)?;
    let (_, socket) = ServerBuilder::new().accept(stream).await?;
    let mut socket = Socket(socket);
    let mut waiting = VecDeque::new();
    poll_fn(|cx| {
        loop {
            poll_ask(&mut socket, &mut asked, &mut waiting, cx)?;
            let Some(message) = ready!(socket.poll_next(cx)).transpose()? else { return Poll::Ready(Ok(())) };
            let said = Bytes::from(message.into_payload());
            let text = match &checks {
                Some(checks) => checks.check(&said).map(|text| said.slice_ref(text)),
                None => Some(said),
            };
            let text = text.ok_or("the floor's agent signed wrongly")?;
            let client = waiting.pop_front().ok_or("the floor's agent answers what nobody asked")?;
            match &onward {
                Onward::Client => answer((text, client)),
                Onward::Disk(commit) => commit.send((text, client))?,
            }
        }
    })
    .await
}

/// Sends what is asked, all that there is.
fn poll_ask(
    socket: &mut Socket,
    asked: &mut mpsc::UnboundedReceiver<WithClient>,
    waiting: &mut VecDeque<oneshot::Sender<Bytes>>,
    cx: &mut Context<'_>,
) -> Result<()> {
    while socket.poll_room(cx)?.is_ready() {
        let Poll::Ready(Some((text, client))) = asked.poll_recv(cx) else { break };
        socket.put(Message::text(text))?;
        waiting.push_back(client);
    }
    // What can't be written now is written when the system has room.
    let _ = socket.poll_flush(cx)?;
    Ok(())
}

/// Says what the box asks.
pub(super) async fn serve_agent(care: Care, to: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let uri = format!("ws://{to}/").parse()?;
    let (socket, _) = ClientBuilder::from_uri(uri).connect_on(stream).await?;
    announce(&format!("http://{to}"))?;
    let mut socket = Socket(socket);
    let signs = (care != Care::None).then(Signs::new);
    poll_fn(|cx| {
        loop {
            let Poll::Ready(message) = socket.poll_next(cx) else {
                // Written once there is nothing more to read.
                let _ = socket.poll_flush(cx)?;
                return Poll::Pending;
            };
            let Some(message) = message.transpose()? else { return Poll::Ready(Ok(())) };
            socket.put(match &signs {
                Some(signs) => Message::text(signed(message.as_payload(), signs)),
                None => Message::text(message.into_payload()),
            })?;
        }
    })
    .await
}

fn signed(text: &[u8], signs: &Signs) -> Vec<u8> {
    let mut signed = Vec::with_capacity(text.len() + SIGNATURE_DIGITS);
    signed.extend_from_slice(text);
    signed.extend_from_slice(&signs.sign(text));
    signed
}
