//! Who is connected to a job: the clients that wait for one, and those that have their answer and read it.

use std::collections::BTreeMap;

use super::index::IdIndex;
use super::slab::Key;
use crate::ids::ClientId;

/// Clients by id.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Those with a live job: a million of them.
    waiting: IdIndex<Key>,
    /// Those that have their answer, with the output budget that it still takes.
    reading: BTreeMap<ClientId, u64>,
}

/// What a client that left had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Had {
    /// A live job.
    Job(Key),
    /// An answer that takes so much of the output budget.
    Answer(u64),
}

impl Clients {
    /// A client waits for a job.
    pub(super) fn wait(&mut self, client: ClientId, job: Key) {
        self.waiting.insert(client, job);
    }

    /// A client's job has ended. Says whether it is still here.
    pub(super) fn answer(&mut self, client: ClientId, unread_bytes: u64) -> bool {
        let was_here = self.waiting.remove(client).is_some();
        if was_here {
            self.reading.insert(client, unread_bytes);
        }
        was_here
    }

    /// A client is gone; `None` if nobody knew it.
    pub(super) fn leave(&mut self, client: ClientId) -> Option<Had> {
        let job = self.waiting.remove(client).map(Had::Job);
        job.or_else(|| self.reading.remove(&client).map(Had::Answer))
    }

    /// The live job that a client waits for.
    pub(super) fn job_of(&self, client: ClientId) -> Option<Key> {
        self.waiting.find(client)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.reading.len()
    }

    /// Output budget that answers still take which nobody has read to the end.
    pub(super) fn unread_bytes(&self) -> u64 {
        self.reading.values().sum()
    }

    /// Every client that waits, with its job, in no order that means anything.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (ClientId, Key)> {
        self.waiting.iter().map(|(id, job)| (ClientId::from(id), job))
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        self.waiting.check()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn a_client_waits_reads_and_leaves_whatever_its_number() {
        let mut jobs = Slab::new();
        let (mut clients, job) = (Clients::default(), jobs.insert(()));
        for client in [0, 1, 1 << 40, u64::MAX].map(ClientId) {
            clients.wait(client, job);
            assert_eq!(clients.job_of(client), Some(job));
            assert_eq!(clients.waiting().collect::<Vec<_>>(), [(client, job)]);
            assert!(clients.answer(client, 5));
            assert!(!clients.answer(client, 6), "it has its answer");
            assert_eq!((clients.len(), clients.unread_bytes()), (1, 5));
            assert_eq!(clients.leave(client), Some(Had::Answer(5)));
            assert_eq!(clients.leave(client), None);
            clients.wait(client, job);
            assert_eq!(clients.leave(client), Some(Had::Job(job)));
        }
        assert_eq!((clients.len(), clients.check()), (0, Vec::new()));
    }
}
