//! A sink that sends what it hears, and requests to put it in.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use switchbox::executor::{Flow, IgnoreEos, Outcome, Sampling, SequenceRequest, Sink};

#[derive(Debug)]
pub(crate) enum Heard {
    Started,
    Text(String, u32),
    Finished(Outcome),
}

struct Collector {
    to: Sender<Heard>,
}

impl Sink for Collector {
    fn started(&mut self) {
        let _ = self.to.send(Heard::Started);
    }

    fn text(&mut self, piece: &str, tokens: u32) -> Flow {
        let _ = self.to.send(Heard::Text(piece.to_owned(), tokens));
        Flow::Continue
    }

    fn finished(self: Box<Self>, outcome: Outcome) {
        let _ = self.to.send(Heard::Finished(outcome));
    }
}

/// A greedy request, and where to hear of it.
pub(crate) fn request(id: u64, prompt: Vec<u32>, max_tokens: u32) -> (SequenceRequest, Receiver<Heard>) {
    let (to, heard) = channel();
    let request = SequenceRequest {
        id,
        prompt,
        max_tokens,
        sampling: Sampling::default(),
        stop: Vec::new(),
        ignore_eos: IgnoreEos::No,
        sink: Box::new(Collector { to }),
    };
    (request, heard)
}

/// Everything said until the end, and the end.
pub(crate) fn wait(heard: &Receiver<Heard>) -> (String, Outcome) {
    let mut text = String::new();
    loop {
        match heard.recv_timeout(Duration::from_secs(100)).expect("an end within 100 s") {
            Heard::Started => {}
            Heard::Text(piece, _) => text += &piece,
            Heard::Finished(outcome) => {
                assert!(heard.recv().is_err(), "nothing may follow the end");
                return (text, outcome);
            }
        }
    }
}
