//! The certificate that a box made itself, and its key. The key is written first: a certificate without one is none.

use zeroize::Zeroizing;

use super::{DataDir, DataDirError, PrivateDir, Published, TLS_CERTIFICATE, TLS_KEY};

/// A certificate with its key, each in PEM.
pub struct TlsFiles {
    /// For whoever is to trust it.
    pub certificate: String,
    /// For nobody else.
    pub key: Zeroizing<String>,
}

impl DataDir {
    /// The certificate that an earlier start made.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>, DataDirError> {
        let key = self.kept(TLS_KEY, |bytes, dir| text_of(bytes, dir, TLS_KEY).map(Zeroizing::new))?;
        let certificate = self.kept(TLS_CERTIFICATE, |bytes, dir| text_of(bytes, dir, TLS_CERTIFICATE))?;
        Ok(key.zip(certificate).map(|(key, certificate)| TlsFiles { certificate, key }))
    }

    /// Keeps one that was made just now.
    pub fn keep_tls_files(&self, files: &TlsFiles) -> Result<(), DataDirError> {
        self.keep(TLS_KEY, files.key.as_bytes())?;
        self.keep(TLS_CERTIFICATE, files.certificate.as_bytes())
    }
}

impl Published {
    /// The certificate that the box made itself, in PEM, if it has one.
    pub fn tls_certificate(&self) -> Result<Option<String>, DataDirError> {
        let bytes = self.0.read(TLS_CERTIFICATE, super::Privacy::Required)?;
        bytes.map(|bytes| text_of(&bytes, &self.0, TLS_CERTIFICATE)).transpose()
    }
}

fn text_of(bytes: &[u8], dir: &PrivateDir, name: &str) -> Result<String, DataDirError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DataDirError::Unfit {
        path: dir.path().join(name),
        problem: "isn't PEM".into(),
        remedy: "put back the file of a backup, or delete it: then the next start makes a certificate, and agents have to \
                 join again"
            .into(),
    })
}
