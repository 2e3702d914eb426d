//! A TCP proxy between an agent and its box, which a test can cut, and stop in one direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Something that bytes go through.
pub struct Proxy {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Both ends of every connection.
    open: Mutex<Vec<TcpStream>>,
    /// What the box says is thrown away.
    mute: AtomicBool,
    /// What the agent says is thrown away.
    deaf: AtomicBool,
}

impl Proxy {
    /// Stands before that address.
    pub fn before(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it has one");
        let (open, mute, deaf) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { target, open, mute, deaf });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serving.serve(stream)));
        Proxy { addr, shared }
    }

    /// Breaks every connection that there is.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing of the box reaches an agent.
    pub fn mute(&self) {
        self.shared.mute.store(true, Ordering::Release);
    }

    /// From now on nothing of an agent reaches the box.
    pub fn deafen(&self) {
        self.shared.deaf.store(true, Ordering::Release);
    }

    /// Everything goes through again; what is open is cut, for something of it is missing.
    pub fn mend(&self) {
        self.cut();
        self.shared.mute.store(false, Ordering::Release);
        self.shared.deaf.store(false, Ordering::Release);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, agent: TcpStream) {
        // A box that is gone is a connection that breaks.
        let Ok(server) = TcpStream::connect(self.target) else { return };
        for stream in [&agent, &server] {
            stream.set_nodelay(true).expect("settable");
            self.open.lock().expect("no panic").push(stream.try_clone().expect("a copy"));
        }
        let copy = |from: &TcpStream, to: &TcpStream, which: fn(&Shared) -> &AtomicBool| {
            let (from, to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
            let shared = Arc::clone(self);
            std::thread::spawn(move || pass(from, to, which(&shared)));
        };
        copy(&agent, &server, |shared| &shared.deaf);
        copy(&server, &agent, |shared| &shared.mute);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_lost: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(500))).expect("settable");
    let mut bytes = [0; 4_096];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) if is_lost.load(Ordering::Acquire) => {}
            Ok(count) if to.write_all(&bytes[..count]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(_) | Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
