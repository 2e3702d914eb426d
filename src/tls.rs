//! The box's own TLS: a certificate that the operator names, or one that the box made itself and agents pin.
//!
//! Says who may listen in, and nothing about who is who: nodes prove that in the protocol. Never logs a key.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, ServerConfig, crypto};
use zeroize::Zeroizing;

use crate::datadir::{DataDir, DataDirError, TlsFiles};
use crate::wire::Hash;
use crate::wire::keys::Hex;

/// Characters of a line of PEM.
const PEM_LINE: usize = 64;
/// What is spoken within.
const ALPN: &[u8] = b"http/1.1";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or isn't what it should be.
    #[error("can't use `{}` as {what}: {problem}; name a PEM file", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key don't go together, or are of a kind that isn't known.
    #[error("the certificate and its key can't be used: {0}; both must be of the same key pair")]
    Pair(rustls::Error),
    /// No certificate could be made.
    #[error("can't make a certificate: {0}; name one with `--tls-cert FILE` and `--tls-key FILE`")]
    Making(rcgen::Error),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// What a listener needs.
#[derive(Clone)]
pub struct ServerTls {
    /// Takes connections.
    pub acceptor: TlsAcceptor,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo, if agents are to know it by that.
    pub pin: Option<Hash>,
}

/// TLS with a certificate of the operator's: whoever connects checks it as his system does.
///
/// # Errors
/// When a file isn't what it should be.
pub fn of_files(certificate: &Path, key: &Path) -> Result<ServerTls, TlsError> {
    let failed = |path: &Path, what, problem: String| TlsError::File { path: path.to_owned(), what, problem };
    let of_chain = |problem| failed(certificate, "a certificate", problem);
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| of_chain(error.to_string()))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| of_chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_chain("no certificate is in it".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| failed(key, "a certificate's key", error.to_string()))?;
    let acceptor = acceptor(chain, secret).map_err(TlsError::Pair)?;
    Ok(ServerTls { acceptor, pin: None })
}

/// TLS with the certificate that the box made itself: at this start, if there is none yet.
///
/// # Errors
/// When the directory's files can't be used, or none can be made.
pub fn self_made(data_dir: &DataDir, listen: IpAddr) -> Result<ServerTls, TlsError> {
    let files = match data_dir.tls_files()? {
        Some(files) => files,
        None => {
            let files = make(listen).map_err(TlsError::Making)?;
            data_dir.keep_tls_files(&files)?;
            tracing::info!(
                certificate = %data_dir.path().join(crate::datadir::TLS_CERTIFICATE).display(),
                "the box made its own TLS certificate: clients have to trust it, agents know it by their join string"
            );
            files
        }
    };
    let unfit = |problem: rustls::Error| TlsError::Pair(problem);
    let not_pem = || unfit(rustls::Error::General("the data directory's isn't PEM".to_owned()));
    let certificate = CertificateDer::from_pem_slice(files.certificate.as_bytes()).map_err(|_| not_pem())?;
    let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).map_err(|_| not_pem())?;
    let pin = pin_of(&certificate).map_err(unfit)?;
    let acceptor = acceptor(vec![certificate], key).map_err(unfit)?;
    Ok(ServerTls { acceptor, pin: Some(pin) })
}

/// What a certificate is known by, whatever its name, dates and issuer.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Result<Hash, rustls::Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    Ok(Hex(Sha256::digest(&key).into()))
}

/// What a certificate in PEM is known by.
pub fn pin_of_pem(certificate: &str) -> Option<Hash> {
    pin_of(&CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?).ok()
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A certificate for every name that this machine is likely to be called by. It has no end: it is known by its key.
fn make(listen: IpAddr) -> Result<TlsFiles, rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = own_address(listen).map(|ip| ip.to_string());
    names.extend(own.into_iter().chain(host_name()));
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "switchbox");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(TlsFiles {
        certificate: pem("CERTIFICATE", certificate.der()),
        key: Zeroizing::new(pem("PRIVATE KEY", &Zeroizing::new(key.serialize_der()))),
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(BASE64_STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// The address under which others of its network see this machine: the one that it listens on, or that of the way out.
/// Nothing is sent.
pub fn own_address(listen: IpAddr) -> Option<IpAddr> {
    if !listen.is_unspecified() {
        return Some(listen);
    }
    // An address of a documentation network: it only chooses a route.
    let (any, out) =
        if listen.is_ipv4() { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(out).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    is_name.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_its_own_is_whole_and_known_by_its_key() {
        let files = make("127.0.0.1".parse().expect("an address")).expect("it can be made");
        let certificate = CertificateDer::from_pem_slice(files.certificate.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).expect("PEM");
        let pin = pin_of(&certificate).expect("a certificate");
        assert_eq!(pin_of_pem(&files.certificate), Some(pin));
        acceptor(vec![certificate], key).expect("they go together");
        let other = make("127.0.0.1".parse().expect("an address")).expect("it can be made");
        assert_ne!(pin_of_pem(&other.certificate), Some(pin));
        let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).expect("PEM");
        let certificate = CertificateDer::from_pem_slice(other.certificate.as_bytes()).expect("PEM");
        assert!(acceptor(vec![certificate], key).is_err(), "of two pairs");
        assert!(files.certificate.lines().all(|line| line.len() <= 64) && files.key.len() < 4_096);
    }
}
