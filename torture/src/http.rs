//! A blocking HTTP client: one kept-alive connection, no more parsing than needed.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any answer of a healthy box takes, a job's wait included.
const PATIENCE: Duration = Duration::from_secs(90);

/// A connection that is used for one request after another.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// The job that the box says it was.
    pub job: Option<String>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path with its query.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// JSON, or nothing.
    pub body: &'a str,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), address })
    }

    /// Sends a request and reads its answer to the end.
    ///
    /// # Errors
    /// When the connection ends first, or what comes is no answer.
    pub fn call(&mut self, request: &Request<'_>) -> Result<Answer> {
        let Request { method, path, headers, body } = request;
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in *headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.get_mut().write_all(text.as_bytes())?;
        self.read()
    }

    /// As [`Connection::call`], for who has only a path and a body.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        self.call(&Request { method, path, headers: &[], body })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn read(&mut self) -> Result<Answer> {
        let wrong = || Error::new(ErrorKind::InvalidData, "not an HTTP answer");
        let status =
            self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
        let mut answer = Answer { status, body: Vec::new(), job: None };
        let mut length = Some(0);
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse().map_err(|_| wrong())?),
                "transfer-encoding" => length = None,
                "x-switchbox-job-id" => answer.job = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        match length {
            Some(length) => self.piece(length, &mut answer.body)?,
            None => loop {
                let size = usize::from_str_radix(&self.line()?, 16).map_err(|_| wrong())?;
                self.piece(size, &mut answer.body)?;
                self.line()?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(answer)
    }

    fn piece(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let before = body.len();
        body.resize(before + length, 0);
        self.stream.read_exact(&mut body[before..])
    }
}
