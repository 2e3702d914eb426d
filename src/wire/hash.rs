//! What signatures say of a request and of an output: SHA-256 in a documented order.

use sha2::{Digest, Sha256};

use super::keys::Hex;
use crate::coordinator::event::Endpoint;
use crate::output::{Chunk, ChunkKind};

/// A SHA-256.
pub type Hash = Hex<32>;

/// Around a chunk that is JSON. It occurs in no UTF-8, so no text looks like one.
const FENCE: [u8; 1] = [0xff];

/// The hash of a request: its endpoint's path, a zero byte, the client's raw body.
pub fn request_hash(endpoint: Endpoint, body: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update(endpoint.path().as_bytes());
    sha.update([0]);
    sha.update(body);
    Hex(sha.finalize().into())
}

/// The hash of bytes as they are.
pub fn plain_hash(bytes: &[u8]) -> Hash {
    Hex(Sha256::digest(bytes).into())
}

/// The hash of an output, made of its chunks in the order of their index. How text was cut into chunks doesn't show.
#[derive(Debug, Clone, Default)]
pub struct OutputHasher(Sha256);

impl OutputHasher {
    /// Of an output without chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next chunk is generated text.
    pub fn text(&mut self, text: &str) {
        self.0.update(text.as_bytes());
    }

    /// The next chunk is a JSON object as the runtime wrote it.
    pub fn json(&mut self, json: &str) {
        self.0.update(FENCE);
        self.0.update(json.as_bytes());
        self.0.update(FENCE);
    }

    /// The next chunk, as an output holds it.
    pub fn chunk(&mut self, chunk: &Chunk) {
        match chunk.kind {
            ChunkKind::Text => self.text(&chunk.text),
            ChunkKind::Json => self.json(&chunk.text),
        }
    }

    /// The hash of what came so far.
    pub fn hash(&self) -> Hash {
        Hex(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_text_differently_changes_nothing_and_json_is_never_text() {
        let of = |chunks: &[(&str, bool)]| {
            let mut hasher = OutputHasher::new();
            for (chunk, is_json) in chunks {
                if *is_json { hasher.json(chunk) } else { hasher.text(chunk) }
            }
            hasher.hash()
        };
        assert_eq!(of(&[("Hel", false), ("lo", false)]), of(&[("Hello", false)]));
        assert_eq!(of(&[("Hello", false)]), plain_hash(b"Hello"));
        assert_ne!(of(&[("{}", true)]), of(&[("{}", false)]));
        assert_ne!(of(&[("{}{}", true)]), of(&[("{}", true), ("{}", true)]));
        assert_ne!(of(&[("a", false), ("{}", true)]), of(&[("{}", true), ("a", false)]));
    }

    #[test]
    fn a_request_is_its_endpoint_and_its_body() {
        let chat = request_hash(Endpoint::ChatCompletions, b"{}");
        assert_eq!(chat, plain_hash(b"/v1/chat/completions\0{}"));
        assert_ne!(chat, request_hash(Endpoint::Completions, b"{}"));
    }
}
