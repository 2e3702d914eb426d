//! Where the box listens: for clients and agents, with TLS or without, and for its operator.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::ServeError;
use crate::api::Listener;
use crate::config::{AdminListen, Config, Transport};
use crate::datadir::DataDir;
use crate::tls;
use crate::wire::Hash;

/// The listener of clients and agents.
pub(super) struct Front {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    scheme: &'static str,
    /// What agents know the box's own certificate by.
    pub(super) pin: Option<Hash>,
}

impl Front {
    /// Begins to listen.
    pub(super) async fn open(config: &Config, data_dir: &DataDir) -> Result<Self, ServeError> {
        let tls = match &config.http.transport {
            Transport::Plain => None,
            Transport::SelfMade => Some(tls::self_made(data_dir, config.http.listen.ip())?),
            Transport::Files { certificate, key } => Some(tls::of_files(certificate, key)?),
        };
        let listener = bind_tcp(config.http.listen, "http.listen")?;
        let address = address_of(&listener)?;
        let beyond_loopback = !address.ip().to_canonical().is_loopback();
        if tls.is_none() && beyond_loopback {
            tracing::warn!(%address, "listening beyond loopback without TLS: keys, prompts and answers can be read on the way");
        }
        Ok(match tls {
            None => Self { listener: Listener::Tcp(listener), address, scheme: "http", pin: None },
            Some(tls) => {
                let listener = Listener::Tls(listener, tls.acceptor);
                Self { listener, address, scheme: "https", pin: tls.pin }
            }
        })
    }

    /// Its URL as it listens.
    pub(super) fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Its URL as other machines can use it; `None` if that can't be known.
    pub(super) fn url(&self) -> Option<String> {
        let ip: IpAddr = tls::own_address(self.address.ip())?;
        Some(format!("{}://{}", self.scheme, SocketAddr::new(ip, self.address.port())))
    }
}

/// Connections that the system takes before the box does, if it takes so many: a whole fleet may dial at once, and who
/// finds no room only tries again after a second, and then after two.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_tcp(address: SocketAddr, key: &'static str) -> Result<TcpListener, ServeError> {
    listen(address).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there: stop it, or choose another port (0 takes a free one)"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one of its own",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
            _ => "choose another address",
        };
        ServeError::Listen { address: address.to_string(), key, error, remedy }
    })
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|error| ServeError::System { what: "a listener's address", error })
}

/// Begins to listen for the operator; where, as it is published.
pub(super) async fn bind_admin(listen: &AdminListen) -> Result<(Listener, String), ServeError> {
    match listen {
        AdminListen::Tcp(address) => {
            let listener = bind_tcp(*address, "admin.listen")?;
            let address = format!("http://{}", address_of(&listener)?);
            Ok((Listener::Tcp(listener), address))
        }
        AdminListen::Unix(path) => {
            let listener = bind_unix(path.clone())?;
            Ok((Listener::Unix(listener), format!("unix:{}", path.display())))
        }
    }
}

/// Binds a socket that only its owner may use. One that a killed process left is removed first; the data
/// directory's lock has shown that no other box of this directory lives.
fn bind_unix(path: PathBuf) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let refused = |error| ServeError::Listen {
        address: path.display().to_string(),
        key: "admin.listen",
        error,
        remedy: "choose a path in a directory that you may write to",
    };
    let stale = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket());
    if stale && std::os::unix::net::UnixStream::connect(&path).is_err() {
        std::fs::remove_file(&path).map_err(refused)?;
    }
    let listener = UnixListener::bind(&path).map_err(refused)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(refused)?;
    Ok(listener)
}
