//! An HTTP/1.1 client on a plain socket. It can stop reading, send nonsense and hang up, which a proper client can't.

use rustix::net::{self, AddressFamily, SocketType, sockopt};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A read that stays silent for this long is a hang.
const SILENCE: Duration = Duration::from_secs(120);

/// A request that is being put together.
pub struct Request {
    addr: SocketAddr,
    head: String,
    named_host: bool,
    named_type: bool,
    body: Vec<u8>,
}

impl Request {
    pub fn new(addr: SocketAddr, method: &str, path: &str) -> Request {
        let head = format!("{method} {path} HTTP/1.1\r\n");
        Request { addr, head, named_host: false, named_type: false, body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.named_host |= name.eq_ignore_ascii_case("host");
        self.named_type |= name.eq_ignore_ascii_case("content-type");
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Request {
        self.body = body.to_vec();
        self
    }

    /// A JSON body; the empty string is no body.
    pub fn json(self, body: &str) -> Request {
        let typed = if body.is_empty() || self.named_type {
            self
        } else {
            self.header("content-type", "application/json")
        };
        typed.body(body.as_bytes())
    }

    /// Sends and reads the whole answer.
    pub fn send(self) -> Response {
        self.open().finish()
    }

    /// Sends, and leaves the reading to the caller.
    pub fn open(self) -> Connection {
        let connection = Connection::new(self.addr);
        self.open_on(connection)
    }

    /// Like `open`, for a client that reads little (`Connection::narrow`).
    pub fn open_narrow(self) -> Connection {
        let connection = Connection::narrow(self.addr);
        self.open_on(connection)
    }

    fn open_on(mut self, mut connection: Connection) -> Connection {
        if !self.named_host {
            self.head.push_str(&format!("host: {}\r\n", self.addr));
        }
        if !self.body.is_empty() || self.head.starts_with("POST") {
            self.head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        self.head.push_str("\r\n");
        // A refusal may come before the body was read, so a failed write isn't an error: the answer tells.
        let _ = connection.send(self.head.as_bytes()).and_then(|()| connection.send(&self.body));
        connection
    }
}

/// A connection on which a request was sent; dropping it hangs up.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn new(addr: SocketAddr) -> Connection {
        Connection::over(TcpStream::connect(addr).expect("the box listens"))
    }

    /// A connection with a receive buffer of a few kilobytes, so that the box notices soon when nobody reads.
    pub fn narrow(addr: SocketAddr) -> Connection {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("a buffer size can be set");
        net::connect(&socket, &addr).expect("the box listens");
        Connection::over(TcpStream::from(socket))
    }

    fn over(socket: TcpStream) -> Connection {
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
        socket.set_write_timeout(Some(SILENCE)).expect("a timeout can be set");
        socket.set_nodelay(true).expect("nodelay can be set");
        Connection { reader: BufReader::new(socket) }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads `n` raw bytes, whatever they are.
    pub fn read_raw(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.reader.read_exact(&mut bytes).expect("the box sends that much");
        bytes
    }

    /// Reads until the other side closes (or resets) and counts the bytes.
    pub fn read_to_close(&mut self) -> usize {
        let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
        while let Ok(n @ 1..) = self.reader.read(&mut buffer) {
            total += n;
        }
        total
    }

    pub fn finish(self) -> Response {
        let mut answer = self.head();
        let mut body = Vec::new();
        answer.read_to_end(&mut body).expect("a whole body");
        Response { status: answer.status, headers: answer.headers, body }
    }

    /// Reads the status line and the headers; the body is read from what it returns.
    pub fn head(self) -> Answer {
        self.try_head().expect("a response head")
    }

    pub fn try_head(mut self) -> io::Result<Answer> {
        let status_line = read_line(&mut self.reader)?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut self.reader)?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        let framing = Framing::of(&headers, status);
        Ok(Answer { status, headers, reader: self.reader, framing })
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// How the end of a body is known.
enum Framing {
    Length(usize),
    /// Bytes left of the current chunk; `None` after the last one.
    Chunked(Option<usize>),
    Close,
}

impl Framing {
    fn of(headers: &[(String, String)], status: u16) -> Framing {
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        if status == 204 {
            Framing::Length(0)
        } else if value("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
            Framing::Chunked(Some(0))
        } else {
            value("content-length").and_then(|v| v.parse().ok()).map_or(Framing::Close, Framing::Length)
        }
    }
}

/// A response whose body is still to be read (`Read` gives the body without its framing).
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    framing: Framing,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn next_chunk(&mut self) -> io::Result<Option<usize>> {
        let line = read_line(&mut self.reader)?;
        let size =
            usize::from_str_radix(&line, 16).map_err(|_| io::Error::other(format!("chunk: {line:?}")))?;
        if size == 0 {
            read_line(&mut self.reader)?;
            return Ok(None);
        }
        Ok(Some(size))
    }

    fn read_chunked(&mut self, buffer: &mut [u8], left: usize) -> io::Result<usize> {
        let left = match left {
            0 => self.next_chunk()?,
            left => Some(left),
        };
        let Some(left) = left else {
            self.framing = Framing::Chunked(None);
            return Ok(0);
        };
        let n = read_some(&mut self.reader, buffer, left)?;
        if left == n {
            read_line(&mut self.reader)?;
        }
        self.framing = Framing::Chunked(Some(left - n));
        Ok(n)
    }
}

/// Reads at most `left` bytes; an end before them is an error, for the framing promised more.
fn read_some(reader: &mut impl Read, buffer: &mut [u8], left: usize) -> io::Result<usize> {
    let room = buffer.len().min(left);
    match reader.read(&mut buffer[..room])? {
        0 if room > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.framing {
            Framing::Close => self.reader.read(buffer),
            Framing::Chunked(None) | Framing::Length(0) => Ok(0),
            Framing::Chunked(Some(left)) => self.read_chunked(buffer, left),
            Framing::Length(left) => {
                let n = read_some(&mut self.reader, buffer, left)?;
                self.framing = Framing::Length(left - n);
                Ok(n)
            }
        }
    }
}

/// A response that was read to its end.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Checks that it is that refusal; gives its `error` object.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let error = self.error();
        assert_eq!(error["code"], code, "{}", self.text());
        error
    }

    /// The `error` object, after checking what every refusal promises: four keys, a message, a request id.
    pub fn error(&self) -> Value {
        let error = self.value()["error"].clone();
        let mut keys: Vec<_> = error.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default();
        keys.sort();
        assert_eq!(keys, ["code", "message", "param", "type"], "{}", self.text());
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{error}");
        assert!(error["type"].is_string(), "{error}");
        assert!(self.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{:?}", self.headers);
        if matches!(self.status, 429 | 503) {
            let seconds: u32 = self.header("retry-after").and_then(|v| v.parse().ok()).unwrap_or(0);
            assert!((1..=60).contains(&seconds), "retry-after: {:?}", self.headers);
        }
        error
    }
}
