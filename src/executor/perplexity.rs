//! How well a model predicts a text, measured as llama.cpp's `perplexity` does, for comparison with it.

use super::engine::Numerics;
use super::forward::{Forward, Rows, Wanted};
use super::model::Model;

/// Rows of one forward pass; bounds the logits held at once.
const PASS_ROWS: usize = 64;

/// The value after some chunks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    /// Chunks scored.
    pub chunks: usize,
    /// Tokens scored.
    pub tokens: usize,
    /// `exp` of the mean negative log likelihood of all tokens scored.
    pub perplexity: f64,
}

impl Model {
    /// The running perplexity of `tokens` after each whole chunk of `context` tokens. Each chunk starts from
    /// nothing; only the tokens in its second half are scored (positions `context / 2 + 1` on), so that all
    /// have some context before them. Where the file asks for BOS, it replaces each chunk's first token.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn perplexity(
        &self,
        tokens: &[u32],
        context: usize,
        numerics: Numerics,
        threads: usize,
    ) -> std::io::Result<Vec<Running>> {
        let mut forward = Forward::new(numerics.arithmetic(), threads)?;
        let (mut sum, mut scored) = (0.0, 0);
        let mut running = Vec::new();
        for (n, chunk) in tokens.chunks_exact(context).enumerate() {
            let mut chunk = chunk.to_vec();
            if let Some(bos) = self.tokenizer().with_bos(Vec::new()).first() {
                chunk[0] = *bos;
            }
            let (loss, count) = self.score(&mut forward, &chunk);
            sum += loss;
            scored += count;
            let perplexity = (sum / scored as f64).exp();
            running.push(Running { chunks: n + 1, tokens: scored, perplexity });
        }
        Ok(running)
    }

    /// Sum of `-ln p(token)` over the second half of a chunk, and how many tokens that are.
    fn score(&self, forward: &mut Forward, chunk: &[u32]) -> (f64, usize) {
        let (vocab, first) = (self.shape().vocab, chunk.len() / 2);
        let mut kv = self.kv_cache();
        let (mut sum, mut count) = (0.0, 0);
        // The last token predicts nothing here.
        for pass in chunk[..chunk.len() - 1].chunks(PASS_ROWS) {
            let start = kv.len();
            let wanted = if start + pass.len() > first { Wanted::All } else { Wanted::None };
            let logits = forward.run(self, &mut [Rows { tokens: pass, kv: &mut kv, wanted }]);
            for (n, row) in logits.chunks_exact(vocab).enumerate().filter(|(n, _)| start + n >= first) {
                sum += loss(row, chunk[start + n + 1]);
                count += 1;
            }
        }
        (sum, count)
    }
}

/// `-ln softmax(logits)[token]`, in f64.
fn loss(logits: &[f32], token: u32) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - max).exp()).sum();
    sum.ln() + max - f64::from(logits[token as usize])
}
