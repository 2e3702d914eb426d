//! A WebSocket on a plain socket, frame by frame: it can break every rule that a proper client keeps.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A read that stays silent for this long is a hang.
const SILENCE: Duration = Duration::from_secs(120);

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CONTINUATION: u8 = 0;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// What came.
#[derive(Debug, PartialEq)]
pub enum Got {
    Text(String),
    Close(u16, String),
    Ping,
    Pong,
    /// The connection ended without a close frame.
    End,
}

/// One end of a WebSocket. Dropping it hangs up.
pub struct Ws {
    reader: BufReader<TcpStream>,
}

impl Ws {
    /// Connects and upgrades.
    pub fn dial(addr: SocketAddr) -> Ws {
        let mut ws = Ws::open(addr);
        ws.ask(addr);
        ws.upgraded();
        ws
    }

    /// Connects, and hears that the box has the connection.
    pub fn known(addr: SocketAddr) -> Ws {
        let mut ws = Ws::open(addr);
        ws.raw(format!("HEAD /readyz HTTP/1.1\r\nhost: {addr}\r\n\r\n").as_bytes()).expect("the box listens");
        assert!(ws.head().starts_with("HTTP/1.1 200 "));
        ws
    }

    /// Asks for the upgrade.
    pub fn ask(&mut self, addr: SocketAddr) {
        let request = format!(
            "GET /v1/nodes/connect HTTP/1.1\r\nhost: {addr}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: switchbox.v1\r\n\r\n"
        );
        self.raw(request.as_bytes()).expect("the box listens");
    }

    /// The box does what was asked.
    #[track_caller]
    pub fn upgraded(&mut self) {
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("sec-websocket-protocol: switchbox.v1\r\n"), "{head}");
    }

    /// Connects.
    pub fn open(addr: SocketAddr) -> Ws {
        let socket = TcpStream::connect(addr).expect("the box listens");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
        socket.set_write_timeout(Some(SILENCE)).expect("a timeout can be set");
        socket.set_nodelay(true).expect("nodelay can be set");
        Ws { reader: BufReader::new(socket) }
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.reader.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("a head in ASCII")
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// A frame; masked, as a client's must be.
    pub fn frame(&mut self, last: bool, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut bytes = vec![u8::from(last) << 7 | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = [0x5a, 0x0f, 0xa5, 0xf0];
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.raw(&bytes)
    }

    /// A whole text message.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.frame(true, TEXT, text.as_bytes())
    }

    /// The next thing that comes, put together from its fragments.
    pub fn receive(&mut self) -> Got {
        let mut whole = Vec::new();
        loop {
            let Ok((last, opcode, payload)) = self.receive_frame() else { return Got::End };
            match opcode {
                PING => return Got::Ping,
                PONG => return Got::Pong,
                CLOSE if payload.len() < 2 => return Got::Close(1005, String::new()),
                CLOSE => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    return Got::Close(code, String::from_utf8_lossy(&payload[2..]).into_owned());
                }
                _ => whole.extend_from_slice(&payload),
            }
            if last {
                return Got::Text(String::from_utf8(whole).expect("the box sends UTF-8"));
            }
        }
    }

    /// A frame as it comes: whether it is the last, its opcode, what is in it.
    pub fn receive_frame(&mut self) -> io::Result<(bool, u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.reader.read_exact(&mut head)?;
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.reader.read_exact(&mut bytes)?;
                u64::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.reader.read_exact(&mut bytes)?;
                u64::from_be_bytes(bytes)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        self.reader.read_exact(&mut payload)?;
        Ok((head[0] & 0x80 != 0, head[0] & 0x0f, payload))
    }
}
