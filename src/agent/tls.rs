//! Whom the agent's TLS trusts: exactly the certificate that the join string pinned, or, without a pin, what the machine
//! trusts.
//!
//! A pinned certificate may have any name, dates and issuer: its key is what was agreed on. That the peer holds that key is
//! proven by the handshake's signature, which is checked like any other.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::wire::Hash;

/// What a TLS connection to the box is checked by.
///
/// # Errors
/// In words for the agent's owner.
pub(super) fn client_config(pin: Option<Hash>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    let config = match pin {
        Some(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
            .with_no_client_auth(),
        None => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "this machine has no certificates to check others by: install its package `ca-certificates`, or \
                    name a file of them in SSL_CERT_FILE"
                .to_owned(),
        );
    }
    Ok(roots)
}

/// Takes one certificate, known by its key.
#[derive(Debug)]
struct Pinned {
    /// SHA-256 of its SubjectPublicKeyInfo (DER).
    pin: Hash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let hash: [u8; 32] = Sha256::digest(&key).into();
        if hash == self.pin.0 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// Of its own making, for `switchbox test`, and over since long ago.
    const CERTIFICATE: &str = "\
        MIIBiDCCAS2gAwIBAgIURgkemOgKSneQV/eaJwNUXAYOG0swCgYIKoZIzj0EAwIwGTEXMBUGA1UEAwwOc3dpdGNoYm94IHRlc3Qw\
        HhcNMjYxMTI4MjMxNjEwWhcNMjYxMTI5MjMxNjEwWjAZMRcwFQYDVQQDDA5zd2l0Y2hib3ggdGVzdDBZMBMGByqGSM49AgEGCCqG\
        SM49AwEHA0IABH9jBCj5PTlCoKdpRWg26qOfoco5H1RbXMHNuYNitjgdSsuPavVfUW9xqwPsYwFsZxjefAT+jlbXn72rjVs4Fpmj\
        UzBRMB0GA1UdDgQWBBR53/87/Y13X3Wrdzq84qvcKl85ITAfBgNVHSMEGDAWgBR53/87/Y13X3Wrdzq84qvcKl85ITAPBgNVHRMB\
        Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCZYAGOgtFeck6H1WIveCD8Nw5ZQGI5vuYxCICcd4r8XwIhAI6w4Gn6T4rEdBS4\
        KtBduskN5fd0wOw/Ssd2ndB/+loN";
    /// Its key: for this test alone.
    const KEY: &str = "\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg1/ieZh1WQ/LcgXewEdUrVPkKt7N7zZY3qURB/N6plR+hRANCAAR/\
        YwQo+T05QqCnaUVoNuqjn6HKOR9UW1zBzbmDYrY4HUrLj2r1X1FvcasD7GMBbGcY3nwE/o5W15+9q41bOBaZ";
    const FINGERPRINT: &str = "7d1ebfb70d30c9df894661e55893febdb7ed35049dbb5497de84f8d5730c0b5b";

    fn acceptor() -> TlsAcceptor {
        let der = |text: &str| BASE64.decode(text).expect("base64");
        let key = PrivateKeyDer::try_from(der(KEY)).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![der(CERTIFICATE).into()], key).expect("a pair");
        TlsAcceptor::from(Arc::new(config))
    }

    async fn connects(pin: &str) -> bool {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move { acceptor().accept(far).await.map(drop) });
        let config = client_config(Some(pin.parse().expect("a fingerprint"))).expect("a configuration");
        let name = ServerName::try_from("10.1.2.3").expect("a name");
        TlsConnector::from(config).connect(name, near).await.is_ok()
    }

    #[tokio::test]
    async fn exactly_the_pinned_certificate_is_taken_whatever_its_name_and_dates() {
        assert!(connects(FINGERPRINT).await);
        assert!(!connects(&"ab".repeat(32)).await);
    }
}
