//! A light HTTP client: one kept-alive connection, ready-made requests, no more parsing than needed.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes written at once, so that a long body doesn't keep the other clients of this thread waiting.
const PIECE_BYTES: usize = 64 << 10;
/// A head or a line of a chunk's size may be this long.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A connection that is used for one request after another.
pub(crate) struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

/// What came back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body_bytes: usize,
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Renders a POST of JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::with_capacity(16 << 10) })
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream(request, |_| {}).await
    }

    /// Sends a request and gives `each` the pieces of its answer's body as they come.
    pub(crate) async fn stream(&mut self, request: &[u8], each: impl FnMut(&[u8])) -> Result<Answer> {
        for piece in request.chunks(PIECE_BYTES) {
            if self.stream.write_all(piece).await.is_err() {
                // Refused before the body was read: the answer says why.
                break;
            }
        }
        let (status, framing) = self.read_head().await?;
        let body_bytes = match framing {
            Framing::Length(length) => self.read_length(length, each).await?,
            Framing::Chunked => self.read_chunks(each).await?,
        };
        Ok(Answer { status, body_bytes })
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads up to and including `end`; what is before it stays at the front, its length is returned.
    async fn read_until(&mut self, end: &[u8]) -> Result<usize> {
        let mut looked = 0;
        loop {
            let fresh = self.input[looked..].windows(end.len()).position(|window| window == end);
            if let Some(position) = fresh {
                return Ok(looked + position);
            }
            looked = self.input.len().saturating_sub(end.len() - 1);
            if looked > LINE_BYTES_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "an endless head"));
            }
            self.fill().await?;
        }
    }

    async fn read_head(&mut self) -> Result<(u16, Framing)> {
        let length = self.read_until(b"\r\n\r\n").await?;
        let parsed = std::str::from_utf8(&self.input[..length]).ok().and_then(parse_head);
        self.input.advance(length + 4);
        parsed.ok_or_else(|| Error::new(ErrorKind::InvalidData, "not an HTTP answer"))
    }

    async fn read_length(&mut self, length: usize, mut each: impl FnMut(&[u8])) -> Result<usize> {
        let mut left = length;
        loop {
            let piece = left.min(self.input.len());
            each(&self.input[..piece]);
            self.input.advance(piece);
            left -= piece;
            if left == 0 {
                return Ok(length);
            }
            self.fill().await?;
        }
    }

    async fn read_chunks(&mut self, mut each: impl FnMut(&[u8])) -> Result<usize> {
        let mut total = 0;
        loop {
            let line = self.read_until(b"\r\n").await?;
            let size = std::str::from_utf8(&self.input[..line]).ok();
            let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
            let size = size.ok_or_else(|| Error::new(ErrorKind::InvalidData, "not a chunk's size"))?;
            self.input.advance(line + 2);
            while self.input.len() < size + 2 {
                self.fill().await?;
            }
            each(&self.input[..size]);
            self.input.advance(size + 2);
            if size == 0 {
                return Ok(total);
            }
            total += size;
        }
    }
}

/// The status, and how long the body is.
fn parse_head(head: &str) -> Option<(u16, Framing)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut framing = Framing::Length(0);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        }
    }
    Some((status, framing))
}

/// Cuts a stream of server-sent events into the data of each.
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
}

impl Events {
    /// Takes a piece of the stream and gives `each` the data lines that it completes.
    pub(crate) fn feed(&mut self, piece: &[u8], mut each: impl FnMut(&str)) {
        for byte in piece {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            if let Some(data) =
                std::str::from_utf8(&self.line).ok().and_then(|line| line.strip_prefix("data:"))
            {
                each(data.trim());
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_stream_is_cut() {
        let stream = b"data: {\"a\":1}\r\n\r\n: keepalive\n\ndata: [DONE]\n\n";
        for cut in 0..stream.len() {
            let (mut events, mut data) = (Events::default(), Vec::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                events.feed(piece, |event| data.push(event.to_owned()));
            }
            assert_eq!(data, ["{\"a\":1}", "[DONE]"], "cut at {cut}");
        }
    }

    #[test]
    fn heads_give_status_and_length() {
        let (status, framing) = parse_head("HTTP/1.1 200 OK\r\nContent-Length: 12").expect("a head");
        assert!(status == 200 && matches!(framing, Framing::Length(12)));
        let (status, framing) =
            parse_head("HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked").expect("a head");
        assert!(status == 503 && matches!(framing, Framing::Chunked));
        assert!(parse_head("nonsense").is_none());
    }
}
