//! The reader of frames against streams of bytes that were frames once: bent, cut, spliced and repeated, from seeds, and
//! arriving in pieces. `SWITCHBOX_FUZZ_RUNS=1000000 cargo test --release --lib nodes::fuzz` looks at more than an
//! ordinary run.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::{Lost, Received, Socket};
use crate::dice::{Dice, number};
use crate::wire::{CloseCode, HANDSHAKE_BYTES_MAX};

const RUNS: u64 = 20_000;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A peer that sends these bytes in pieces, reads whatever it is told, and is gone then.
struct Peer {
    bytes: Vec<u8>,
    sent: usize,
    dice: Dice,
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.dice.once_in(4) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let left = &this.bytes[this.sent..];
        let piece = (1 + this.dice.roll(left.len())).min(left.len()).min(buf.remaining());
        buf.put_slice(&left[..piece]);
        this.sent += piece;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A frame as a client sends it (RFC 6455, section 5.2), masked.
fn frame(kind: u8, is_last: bool, payload: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![kind | if is_last { 0x80 } else { 0 }];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask: [u8; 4] = std::array::from_fn(|_| dice.roll(256) as u8);
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A text in frames, with signs of life between them.
fn message(text: &str, stream: &mut Vec<u8>, dice: &mut Dice) {
    let mut left = text.as_bytes();
    let mut kind = TEXT;
    loop {
        let (piece, rest) =
            left.split_at(if dice.once_in(2) { left.len() } else { dice.roll(left.len() + 1) });
        let is_last = rest.is_empty();
        stream.extend(frame(kind, is_last, piece, dice));
        if is_last {
            return;
        }
        if dice.once_in(3) {
            let length = dice.roll(126);
            let kind = [PING, PONG][dice.roll(2)];
            stream.extend(frame(kind, true, &b"x".repeat(length), dice));
        }
        (left, kind) = (rest, CONTINUATION);
    }
}

fn texts(dice: &mut Dice) -> Vec<String> {
    const SOME: [&str; 5] = [
        r#"{"type":"hello","version":"1.0","node_key":"00","nonce":"00"}"#,
        r#"{"type":"output","reservation":"res_000000000000000001","index":0,"chunks":[{"text":"é🙂","tokens":1}]}"#,
        r#"{"type":"heartbeat","running":0}"#,
        "",
        "日本語",
    ];
    (0..1 + dice.roll(4)).map(|_| SOME[dice.roll(SOME.len())].repeat([1, 1, 1, 40][dice.roll(4)])).collect()
}

fn bend(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.roll(bytes.len() + 1);
    let end = (at + dice.roll(20)).min(bytes.len());
    match dice.roll(7) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..end, [0xff; 9])),
        3 => {
            let again = bytes[at..end].repeat(1 + dice.roll(100));
            bytes.splice(at..at, again);
        }
        4 => {
            let kind = dice.roll(16) as u8;
            let odd = frame(kind, dice.once_in(2), b"\xc3\x28", dice);
            bytes.splice(at..at, odd);
        }
        5 => {
            let empty = frame(CONTINUATION, false, b"", dice).repeat(dice.roll(2_000));
            bytes.splice(at..at, empty);
        }
        _ if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
        _ => bytes.extend(frame(CLOSE, true, &[3], dice)),
    }
}

/// What the reader made of a stream.
#[derive(Default)]
struct Heard {
    texts: Vec<String>,
    /// Texts that are no messages.
    refused: Vec<CloseCode>,
    /// How it ended, if it wasn't the peer who ended it.
    code: Option<CloseCode>,
}

async fn hear(bytes: Vec<u8>, seed: u64) -> Heard {
    let mut socket = Socket::new(Peer { bytes, sent: 0, dice: Dice(seed) });
    let mut heard = Heard::default();
    loop {
        // Answers to pings go out between.
        match poll_fn(|cx| socket.poll_receive(cx)).await {
            Ok(Received::Text(text)) => {
                assert!(text.len() <= HANDSHAKE_BYTES_MAX, "seed {seed}");
                if let Err(refusal) = super::incoming::parse(text.clone(), HANDSHAKE_BYTES_MAX).await {
                    heard.refused.push(refusal.code);
                }
                heard.texts.extend(String::from_utf8(text.to_vec()));
            }
            Ok(Received::Alive) => {}
            Ok(Received::Closed(..)) | Err(Lost::Gone) => return heard,
            Err(Lost::Wrong(refusal)) => {
                heard.code = Some(refusal.code);
                return heard;
            }
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test);
}

#[test]
fn texts_come_as_they_were_sent_however_they_are_cut() {
    run(async {
        for seed in 0..2_000 {
            let mut dice = Dice(seed);
            let mut texts = texts(&mut dice);
            texts.retain(|text| text.len() <= HANDSHAKE_BYTES_MAX);
            let mut stream = Vec::new();
            texts.iter().for_each(|text| message(text, &mut stream, &mut dice));
            let heard = hear(stream, seed).await;
            assert_eq!((heard.texts, heard.code), (texts, None), "seed {seed}");
        }
    });
}

/// What is no UTF-8 only at its very end, which an empty fragment brings.
#[test]
fn a_character_that_never_ends_is_no_text() {
    run(async {
        let mut dice = Dice(1);
        let mut stream = frame(TEXT, false, b"{\"type\":\"\xe7", &mut dice);
        stream.extend(frame(CONTINUATION, true, b"", &mut dice));
        let heard = hear(stream, 1).await;
        assert_eq!((heard.texts, heard.refused), (vec![], vec![CloseCode::TextInvalid]));
    });
}

#[test]
fn no_bytes_break_the_reader_of_frames() {
    run(async {
        let mut refused = std::collections::BTreeSet::new();
        for seed in 0..number("SWITCHBOX_FUZZ_RUNS", RUNS) {
            let mut dice = Dice(seed);
            let mut stream = Vec::new();
            texts(&mut dice).iter().for_each(|text| message(text, &mut stream, &mut dice));
            for _ in 0..=dice.roll(3) {
                bend(&mut stream, &mut dice);
            }
            refused.extend(hear(stream, seed).await.code);
        }
        use CloseCode::{FrameInvalid, MessageInvalid, TextInvalid, TooLarge};
        let all = [FrameInvalid, MessageInvalid, TextInvalid, TooLarge];
        assert_eq!(refused, std::collections::BTreeSet::from(all), "each way to be wrong, and no other");
    });
}
