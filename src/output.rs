//! What an attempt has generated: append-only, shared by its writer and its readers (CORE section 3).
//!
//! Writers name the index of a chunk, so a repeat changes nothing. Readers hold cursors and slow nobody
//! down. Closing decides: the closed bit and the count of what was delivered share one atomic, so that
//! "nothing was delivered, it may run again" is exact. Imports only std and `sync`: loom runs this very file.

use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

const CLOSED: u64 = 1 << 63;

/// A piece of an answer: whole UTF-8, and how many generated tokens it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What the text is.
    pub kind: ChunkKind,
    /// The text.
    pub text: std::sync::Arc<str>,
    /// Tokens.
    pub tokens: u32,
}

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// Generated text, and nothing else.
    Text,
    /// A JSON object: what a choice of a streamed answer says beside its `index` and `finish_reason` (`choice` says
    /// more).
    Json,
}

impl Chunk {
    /// Generated text.
    pub fn text(text: impl Into<std::sync::Arc<str>>, tokens: u32) -> Self {
        Self { kind: ChunkKind::Text, text: text.into(), tokens }
    }

    /// A JSON object that `choice::check` takes.
    pub fn json(json: impl Into<std::sync::Arc<str>>, tokens: u32) -> Self {
        Self { kind: ChunkKind::Json, text: json.into(), tokens }
    }
}

/// The output of one attempt.
pub struct Output {
    /// `CLOSED` bit and the largest cursor that an attended client took.
    gate: AtomicU64,
    written: Mutex<Written>,
    bytes_max: u64,
}

#[derive(Default)]
struct Written {
    chunks: Vec<Chunk>,
    /// Chunks written; not their number in `chunks` once the output was closed.
    count: u32,
    bytes: u64,
    tokens: u32,
    first_at_us: u64,
    last_at_us: u64,
    readers: Vec<Waker>,
}

/// Wakers kept before those of readers that left, or wait elsewhere now, are woken to sort themselves out.
const READERS_WAITING_MAX: usize = 64;

/// Why a chunk wasn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The attempt was revoked: stop.
    #[error("the output is closed: the attempt was revoked")]
    Closed,
    /// The attempt used up its share of the output budget.
    #[error("the output is larger than its {bytes_max} bytes")]
    TooLarge {
        /// Its share.
        bytes_max: u64,
    },
    /// A chunk is missing before this one.
    #[error("chunk {index} came where {expected} was expected")]
    Gap {
        /// What came.
        index: u32,
        /// What is next.
        expected: u32,
    },
}

/// What an output holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Chunks written.
    pub chunks: u32,
    /// Tokens written.
    pub tokens: u32,
    /// Bytes of text written.
    pub bytes: u64,
    /// When the first chunk came, in microseconds; 0 while there is none.
    pub first_at_us: u64,
    /// When the last chunk came, in microseconds; 0 while there is none.
    pub last_at_us: u64,
}

/// What closing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Chunks that an attended client took: exact, and final.
    pub delivered: u32,
    /// What had been written.
    pub extent: Extent,
}

impl Output {
    /// An empty output that may grow to `bytes_max` bytes of text.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        let written = Written::default();
        Arc::new(Self { gate: AtomicU64::new(0), written: Mutex::new(written), bytes_max })
    }

    /// Writes chunk `index` at `now_us`; one that is there already is left as it is.
    pub fn append(&self, index: u32, chunk: Chunk, now_us: u64) -> Result<(), AppendError> {
        let readers = {
            let mut written = lock(&self.written);
            if self.gate.load(Ordering::Acquire) & CLOSED != 0 {
                return Err(AppendError::Closed);
            }
            let expected = written.count;
            if index < expected {
                return Ok(());
            }
            if index > expected {
                return Err(AppendError::Gap { index, expected });
            }
            let bytes = written.bytes + chunk.text.len() as u64;
            if bytes > self.bytes_max {
                return Err(AppendError::TooLarge { bytes_max: self.bytes_max });
            }
            written.bytes = bytes;
            written.tokens = written.tokens.saturating_add(chunk.tokens);
            if written.first_at_us == 0 {
                written.first_at_us = now_us;
            }
            written.last_at_us = now_us;
            written.count += 1;
            written.chunks.push(chunk);
            std::mem::take(&mut written.readers)
        };
        readers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Closes the output to its readers. After this nobody takes anything more from it; closing twice finds
    /// the same `delivered` again.
    pub fn close(&self) -> Closing {
        let before = self.gate.fetch_or(CLOSED, Ordering::AcqRel);
        let (extent, readers, unreadable) = {
            let mut written = lock(&self.written);
            let readers = std::mem::take(&mut written.readers);
            // Nobody may take them any more, and their share of the budget is given back.
            (written.extent(), readers, std::mem::take(&mut written.chunks))
        };
        drop(unreadable);
        readers.into_iter().for_each(Waker::wake);
        Closing { delivered: (before & !CLOSED) as u32, extent }
    }

    /// What is there now.
    pub fn extent(&self) -> Extent {
        lock(&self.written).extent()
    }

    /// Whether it was closed: nothing more is taken.
    pub fn is_closed(&self) -> bool {
        self.gate.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Everything that is written and not closed, to be kept: counts as delivered to nobody.
    pub fn written(&self) -> Vec<Chunk> {
        lock(&self.written).chunks.clone()
    }

    /// Chunks from `index` on, of `bytes_max` bytes together but at least one: counts as delivered to nobody. Pending
    /// where there is none yet; then `cx` is woken by the next, or by closing.
    pub fn poll_written_from(&self, index: u32, bytes_max: usize, cx: &Context<'_>) -> Poll<Vec<Chunk>> {
        let mut written = lock(&self.written);
        let there = written.chunks.get(index as usize..).unwrap_or_default();
        let mut bytes = 0;
        let mut fits = |chunk: &&Chunk| {
            let is_first = bytes == 0;
            bytes += chunk.text.len().max(1);
            is_first || bytes <= bytes_max
        };
        let chunks: Vec<Chunk> = there.iter().take_while(&mut fits).cloned().collect();
        if chunks.is_empty() {
            written.wait(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(chunks)
    }

    /// A reader at the beginning. What it takes counts as delivered.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { output: Arc::clone(self), cursor: 0 }
    }

    /// Counts everything before `cursor` as delivered, unless the output was closed first.
    fn deliver(&self, cursor: u32) -> bool {
        let mut gate = self.gate.load(Ordering::Acquire);
        loop {
            if gate & CLOSED != 0 {
                return false;
            }
            let next = gate.max(u64::from(cursor));
            match self.gate.compare_exchange_weak(gate, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => gate = now,
            }
        }
    }
}

impl Written {
    fn wait(&mut self, waker: &Waker) {
        if self.readers.iter().any(|waiting| waiting.will_wake(waker)) {
            return;
        }
        if self.readers.len() >= READERS_WAITING_MAX {
            // Whoever still waits comes back; whoever left doesn't.
            self.readers.drain(..).for_each(Waker::wake);
        }
        self.readers.push(waker.clone());
    }

    fn extent(&self) -> Extent {
        Extent {
            chunks: self.count,
            tokens: self.tokens,
            bytes: self.bytes,
            first_at_us: self.first_at_us,
            last_at_us: self.last_at_us,
        }
    }
}

/// A cursor on an output.
pub struct Reader {
    output: Arc<Output>,
    cursor: u32,
}

/// What a reader got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// The next chunk, which counts as delivered now.
    Chunk(Chunk),
    /// The attempt was revoked: there will be another output, or the job's last word.
    Closed,
}

impl Reader {
    /// The next chunk if it is there.
    pub fn try_take(&mut self) -> Option<Take> {
        let chunk = lock(&self.output.written).chunks.get(self.cursor as usize).cloned();
        match chunk {
            Some(chunk) => Some(self.advance(chunk)),
            None if self.is_closed() => Some(Take::Closed),
            None => None,
        }
    }

    /// Waits for the next chunk.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Take> {
        let chunk = {
            let mut written = lock(&self.output.written);
            match written.chunks.get(self.cursor as usize) {
                Some(chunk) => chunk.clone(),
                // Under the lock: a close that this look misses takes the lock later and finds the waker.
                None if self.is_closed() => return Poll::Ready(Take::Closed),
                None => {
                    written.wait(cx.waker());
                    return Poll::Pending;
                }
            }
        };
        Poll::Ready(self.advance(chunk))
    }

    /// Waits for the next chunk; safe to drop.
    pub async fn take(&mut self) -> Take {
        std::future::poll_fn(|cx| self.poll_take(cx)).await
    }

    /// Chunks taken so far.
    pub fn cursor(&self) -> u32 {
        self.cursor
    }

    fn is_closed(&self) -> bool {
        self.output.gate.load(Ordering::Acquire) & CLOSED != 0
    }

    fn advance(&mut self, chunk: Chunk) -> Take {
        if !self.output.deliver(self.cursor + 1) {
            return Take::Closed;
        }
        self.cursor += 1;
        Take::Chunk(chunk)
    }
}

#[cfg(all(test, not(switchbox_loom)))]
mod tests {
    use super::*;

    fn chunk(text: &str) -> Chunk {
        Chunk::text(text, 1)
    }

    #[test]
    fn repeats_change_nothing_and_gaps_are_refused() {
        let output = Output::new(100);
        assert_eq!(output.append(0, chunk("a"), 1), Ok(()));
        assert_eq!(output.append(0, chunk("other"), 2), Ok(()));
        assert_eq!(output.append(2, chunk("c"), 3), Err(AppendError::Gap { index: 2, expected: 1 }));
        let mut reader = output.reader();
        assert_eq!(reader.try_take(), Some(Take::Chunk(chunk("a"))));
        assert_eq!(reader.try_take(), None);
        assert_eq!(output.extent(), Extent { chunks: 1, tokens: 1, bytes: 1, first_at_us: 1, last_at_us: 1 });
    }

    #[test]
    fn what_is_written_can_be_had_from_any_index() {
        let output = Output::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(output.poll_written_from(0, 9, &cx).is_pending());
        for text in ["ab", "", "cd", "efgh"] {
            output.append(output.extent().chunks, chunk(text), 1).expect("room");
        }
        let texts = |index, bytes_max, cx: &mut Context<'_>| {
            let Poll::Ready(chunks) = output.poll_written_from(index, bytes_max, cx) else { return None };
            Some(chunks.iter().map(|chunk| chunk.text.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(texts(0, 100, &mut cx), Some(["ab", "", "cd", "efgh"].map(str::to_owned).to_vec()));
        assert_eq!(texts(0, 5, &mut cx), Some(["ab", "", "cd"].map(str::to_owned).to_vec()));
        assert_eq!(texts(3, 1, &mut cx), Some(vec!["efgh".to_owned()]));
        assert_eq!((texts(4, 9, &mut cx), texts(u32::MAX, 9, &mut cx)), (None, None));
        assert_eq!(output.close().delivered, 0);
    }

    #[test]
    fn closing_counts_what_was_taken_and_ends_reading() {
        let output = Output::new(100);
        for index in 0..3 {
            output.append(index, chunk("x"), 1).expect("room");
        }
        let (mut fast, mut slow) = (output.reader(), output.reader());
        assert!(matches!(slow.try_take(), Some(Take::Chunk(_))));
        assert!(matches!(fast.try_take(), Some(Take::Chunk(_))));
        assert!(matches!(fast.try_take(), Some(Take::Chunk(_))));
        assert_eq!(output.close().delivered, 2);
        assert_eq!(output.close().delivered, 2);
        assert_eq!(fast.try_take(), Some(Take::Closed));
        assert_eq!(slow.try_take(), Some(Take::Closed));
        assert_eq!(output.append(3, chunk("y"), 2), Err(AppendError::Closed));
    }

    #[test]
    fn an_output_keeps_to_its_share() {
        let output = Output::new(3);
        assert_eq!(output.append(0, chunk("abc"), 1), Ok(()));
        assert_eq!(output.append(1, chunk("d"), 1), Err(AppendError::TooLarge { bytes_max: 3 }));
    }
}
