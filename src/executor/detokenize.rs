//! Bytes of tokens to text, as they come: never half a character, never a stop string. Pure.

/// Collects bytes and gives out whole characters.
#[derive(Debug, Default)]
pub struct Detokenizer {
    /// The beginning of a character: at most 3 bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Appends to `out` the characters that `bytes` completes. What can no longer become a character is
    /// U+FFFD; a beginning that still can is held back.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(text) => {
                    out.push_str(text);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    // Valid: that is what `valid_up_to` says.
                    out.push_str(&String::from_utf8_lossy(&self.pending[done..valid]));
                    done = valid;
                    let Some(invalid) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    done += invalid;
                }
            }
        }
        self.pending.drain(..done);
    }

    /// Appends to `out` what is still held: a beginning without an end is U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

/// What a piece of text came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// No stop string so far; this much can be given out.
    Clear(String),
    /// A stop string was found; this is the text before it.
    Stopped(String),
}

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

impl StopMatcher {
    /// Looks for any of `stops`; empty ones are ignored.
    pub fn new(stops: Vec<String>) -> StopMatcher {
        StopMatcher { stops: stops.into_iter().filter(|s| !s.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next piece. Holds back the longest end of the text that begins a stop string.
    pub fn push(&mut self, piece: &str) -> Scan {
        self.held.push_str(piece);
        // The one that is complete first, however the text was cut into pieces.
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at)));
        if let Some((_, at)) = found.min() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Scan::Stopped(text);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - keep);
        Scan::Clear(std::mem::replace(&mut self.held, held))
    }

    /// Gives out what is held: no stop string will complete any more.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest proper beginning of `stop` that `text` ends with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    (1..=longest).rev().find(|n| text.as_bytes().ends_with(&stop.as_bytes()[..*n])).map_or(0, |n| {
        // A match of bytes that begins inside a character of `text` cannot be one of `stop`.
        if text.is_char_boundary(text.len() - n) { n } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&[u8]]) -> Vec<String> {
        let mut detokenizer = Detokenizer::default();
        let mut texts: Vec<String> = Vec::new();
        for bytes in pieces {
            let mut out = String::new();
            detokenizer.push(bytes, &mut out);
            texts.push(out);
        }
        let mut out = String::new();
        detokenizer.finish(&mut out);
        texts.push(out);
        texts
    }

    #[test]
    fn characters_come_whole() {
        let rocket = "🚀".as_bytes();
        let cases: [(&[&[u8]], &[&str]); 8] = [
            (&[b"abc"], &["abc", ""]),
            (&[&rocket[..1], &rocket[1..3], &rocket[3..]], &["", "", "🚀", ""]),
            (&[&rocket[..2]], &["", "\u{fffd}"]),
            (&[b"a\xff", b"b"], &["a\u{fffd}", "b", ""]),
            (&[b"\xe2\x82", b"x"], &["", "\u{fffd}x", ""]),
            (&[b"\xe2", b"\x82", b"\xac!"], &["", "", "€!", ""]),
            (&[b"\x80\x80"], &["\u{fffd}\u{fffd}", ""]),
            (&[b"ok\xf0\x9f", b"\x98\x80\xc3"], &["ok", "😀", "\u{fffd}"]),
        ];
        for (pieces, expected) in cases {
            assert_eq!(run(pieces), expected, "{pieces:?}");
        }
    }

    /// Feeds `text` char by char and in whole; returns what was given out and whether it stopped.
    fn scan(stops: &[&str], text: &str, chars_per_piece: usize) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(chars_per_piece) {
            match matcher.push(&piece.iter().collect::<String>()) {
                Scan::Clear(text) => out.push_str(&text),
                Scan::Stopped(text) => return (out + &text, true),
            }
            let shown = out.clone();
            assert!(stops.iter().all(|s| s.is_empty() || !shown.contains(s)), "{stops:?} in {shown:?}");
        }
        (out + &matcher.finish(), false)
    }

    #[test]
    fn stop_strings_never_come_out() {
        let cases: [(&[&str], &str, &str, bool); 9] = [
            (&[], "anything", "anything", false),
            (&[""], "anything", "anything", false),
            (&["END"], "so be it END of it", "so be it ", true),
            (&["END"], "EN EN", "EN EN", false),
            (&["aab"], "aaab!", "a", true),
            (&["\n\n", "###"], "one\n##\n\ntwo", "one\n##", true),
            (&["bc", "abcd"], "xabcd", "xa", true),
            (&["é!"], "caf\u{e9}?\u{e9}!", "caf\u{e9}?", true),
            (&["日本"], "日日本", "日", true),
        ];
        for (stops, text, expected, stopped) in cases {
            for size in [1, 2, 3, 100] {
                let (out, did_stop) = scan(stops, text, size);
                assert_eq!((out.as_str(), did_stop), (expected, stopped), "{stops:?} {text:?} {size}");
            }
        }
    }
}
