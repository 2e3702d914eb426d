//! Floors: what the machine can do at best without any logic, in processes of this very binary.

mod commit;
pub(crate) mod sign;
mod two_hops;

use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Result;

/// Which process of which floor this is.
#[derive(Args)]
pub(crate) struct FloorArgs {
    #[arg(value_enum)]
    part: Part,
    /// What is done with an answer on its way.
    #[arg(long, value_enum, default_value_t = Care::None)]
    care: Care,
    /// Where an agent finds its box.
    #[arg(long)]
    to: Option<SocketAddr>,
    /// What a box that commits writes to.
    #[arg(long)]
    file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Gives the body of a request back.
    Echo,
    /// Gives back what an agent says to the body of a request.
    Box,
    /// Says what it is told.
    Agent,
}

/// What is done with an answer on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Care {
    /// Nothing.
    None,
    /// The agent signs it, and the box checks that.
    Sign,
    /// The same, and then the box writes a record to disk before it answers.
    Commit,
}

impl Care {
    /// As an argument.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Care::None => "none",
            Care::Sign => "sign",
            Care::Commit => "commit",
        }
    }
}

/// Serves until standard input ends, which is when the process that measures is gone.
pub(crate) fn serve(args: &FloorArgs) -> Result<()> {
    std::thread::spawn(|| {
        // Whatever it says, its end is what counts.
        _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    crate::load::runtime()?.block_on(async {
        match args.part {
            Part::Echo => {
                let listener = listen().await?;
                announce(&format!("http://{}", listener.local_addr()?))?;
                accept(listener, |body| async { Some(body) }).await
            }
            Part::Box => two_hops::serve_box(args.care, &args.file).await,
            Part::Agent => two_hops::serve_agent(args.care, args.to.ok_or("`--to` names the box")?).await,
        }
    })
}

async fn listen() -> Result<TcpListener> {
    Ok(TcpListener::bind("127.0.0.1:0").await?)
}

fn announce(addresses: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "floor ready: {addresses}")?)
}

/// Answers the body of each request with what `answer` makes of it; where that is nothing, with 502.
async fn accept<H, F>(listener: TcpListener, answer: H) -> Result<()>
where
    H: Fn(Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Option<Bytes>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move {
                let body = request.into_body().collect().await.map(|body| body.to_bytes());
                let answer = answer(body.unwrap_or_default()).await;
                let status = if answer.is_some() { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
                let mut response = Response::new(Full::new(answer.unwrap_or_default()));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            // A client that leaves is no error here.
            _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
