//! Configurations as agents fetch them: rendered once, however many ask.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::session::SessionTask;
use super::socket::Socket;
use crate::coordinator::event::Environment;
use crate::door::Door;
use crate::snapshot_text::fetched;
use crate::wire::to_box::SnapshotRequest;
use crate::wire::{FromBox, Hash};

/// The newest configuration of each environment, as the message that it goes out as.
#[derive(Default)]
pub(super) struct Snapshots {
    mainnet: Mutex<Option<Rendered>>,
    testnet: Mutex<Option<Rendered>>,
}

#[derive(Clone)]
struct Rendered {
    digest: Hash,
    message: Bytes,
}

impl Snapshots {
    /// The message with that configuration. `None` if it isn't the one in force: its node has been told of another, or
    /// will be; or if nobody can be asked now.
    async fn message(&self, door: &Door, request: &SnapshotRequest) -> Option<Bytes> {
        let kept = match request.environment {
            Environment::Mainnet => &self.mainnet,
            Environment::Testnet => &self.testnet,
        };
        // Held while it is made: of all who ask at once, one makes it.
        let mut kept = kept.lock().await;
        if kept.as_ref().is_none_or(|kept| kept.digest != request.digest) {
            let rendered = rendered(door, request.environment).await?;
            *kept = Some(rendered);
        }
        kept.as_ref().filter(|kept| kept.digest == request.digest).map(|kept| kept.message.clone())
    }
}

async fn rendered(door: &Door, environment: Environment) -> Option<Rendered> {
    let snapshot = door.configuration(environment).await?;
    let Some(text) = fetched(&snapshot) else {
        tracing::error!(
            environment = environment.word(),
            version = snapshot.version,
            "the configuration in force isn't what was signed, so no node gets it: apply it again"
        );
        return None;
    };
    match FromBox::Snapshot(text).render() {
        Ok(text) => Some(Rendered { digest: snapshot.digest.into(), message: text.into() }),
        Err(error) => {
            let (environment, version) = (environment.word(), snapshot.version);
            tracing::error!(
                environment,
                version,
                "the configuration in force can't be sent to nodes: {error}"
            );
            None
        }
    }
}

impl SessionTask {
    /// Begins to send a configuration that the node asked for, if it is there.
    pub(super) async fn send_snapshot<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        request: SnapshotRequest,
    ) {
        let nodes = &self.nodes;
        match nodes.snapshots.message(&nodes.parts.door, &request).await {
            Some(message) => {
                nodes.parts.tally.snapshots_sent.add();
                socket.begin(message);
            }
            None => {
                let environment = request.environment.word();
                tracing::debug!(node = %self.remote.node(), environment, "a configuration that was asked for isn't there");
            }
        }
    }
}
