//! One look at a server: whether it is well, and which models it has.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};

use super::connect::{ConnectError, Connection, Presents, request};
use super::list::{self, LIST_BYTES_MAX, Listed};
use super::server::Server;

/// For a whole look.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Why a server doesn't serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection to it broke: {0}")]
    Broke(#[from] hyper::Error),
    /// It took too long.
    #[error("it doesn't answer within {} s", LOOK_MAX.as_secs())]
    TimedOut,
    /// It says so itself.
    #[error("it says that it isn't ready (status {0})")]
    NotReady(u16),
    /// It wants a key, or another.
    #[error(
        "it doesn't take our key, or wants one (status {0}): name the variable that has it with --upstream-key-env"
    )]
    Key(u16),
    /// What should be a list of models is none.
    #[error("it doesn't list its models at {path}: {problem}; check the URL")]
    NoList {
        /// Where.
        path: String,
        /// What came instead.
        problem: String,
    },
}

impl Trouble {
    /// Whether a second look would find the same.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Trouble::Connect(ConnectError::TimedOut) | Trouble::TimedOut | Trouble::Broke(_) => false,
            Trouble::Connect(_) | Trouble::NotReady(_) | Trouble::Key(_) | Trouble::NoList { .. } => true,
        }
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The list of models: that it answers says that it is well.
    List,
    /// Its own word on its health before that: it was down, or there is reason to doubt.
    Health,
}

/// Looks. `None` is a server that is well and has no list.
pub(super) async fn look(server: &Server, at: Look) -> Result<Option<Vec<Listed>>, Trouble> {
    tokio::time::timeout(LOOK_MAX, look_patiently(server, at)).await.unwrap_or(Err(Trouble::TimedOut))
}

async fn look_patiently(server: &Server, at: Look) -> Result<Option<Vec<Listed>>, Trouble> {
    if at == Look::Health {
        // Where models are listed before they are loaded (llama.cpp), only this tells; others (Ollama) don't have it.
        // Without the key, and seldom: for who has it, some gateways (LiteLLM) try every model that they have.
        let path = server.url().path_beside("/health");
        let (status, _) = answer_to(server, &path, Presents::Nothing).await?;
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            return Err(Trouble::NotReady(status.as_u16()));
        }
    }
    let path = server.url().path_of("/models");
    let (status, body) = answer_to(server, &path, Presents::Key).await?;
    let no_list = |problem: String| Trouble::NoList { path: path.clone(), problem };
    match status {
        StatusCode::OK => list::parse(&body).map(Some).map_err(|error| no_list(error.to_string())),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Trouble::Key(status.as_u16())),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(None),
        status if status.is_server_error() => Err(Trouble::NotReady(status.as_u16())),
        status => Err(no_list(format!("status {}", status.as_u16()))),
    }
}

async fn answer_to(
    server: &Server,
    path: &str,
    presents: Presents,
) -> Result<(StatusCode, Vec<u8>), Trouble> {
    let mut connection = Connection::open(server).await?;
    let request = request(server, Method::GET, path, presents, Vec::new());
    let request =
        request.map_err(|error| Trouble::NoList { path: path.to_owned(), problem: error.to_string() })?;
    let response = connection.send(request).await?;
    let status = response.status();
    Ok((status, beginning(response, LIST_BYTES_MAX).await?))
}

/// A body, or as much of it as `bytes_max`.
pub(super) async fn beginning(response: Response<Incoming>, bytes_max: usize) -> hyper::Result<Vec<u8>> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < bytes_max
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.truncate(bytes_max);
    Ok(bytes)
}
