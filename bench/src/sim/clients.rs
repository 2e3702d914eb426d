//! Clients: they submit, read as fast as they like, leave, and remember what they heard. They never see the core.

use std::collections::BTreeSet;

use switchbox::coordinator::effect::{AttachOutput, End, Finished, Lookup, OpenOutput, Reply, When};
use switchbox::coordinator::event::{ClientGone, Departure, Durability, Event, Mode, Submission};
use switchbox::coordinator::job::JobState;
use switchbox::ids::{ClientId, JobId, Lsn, ReservationId};
use switchbox::time::Span;

use super::action::{Reader, SubmitPlan};
use super::oracle::{Heard, Line};
use super::scene::{body, has_tokenizer};
use super::world::{Happening, Output, Power, World};

/// What is on its way to a client.
#[derive(Debug)]
pub(crate) enum ClientMail {
    /// A reply of the core.
    Reply(Reply),
    /// A look into the store.
    Lookup(Lookup),
}

/// A request's client.
#[derive(Debug)]
pub(crate) struct ClientState {
    pub(crate) mode: Mode,
    pub(crate) keyed: bool,
    pub(crate) reader: Reader,
    pub(crate) job: Option<JobId>,
    /// Refusals, ends and stored answers that it heard.
    pub(crate) last_words: u32,
    pub(crate) succeeded: bool,
    /// The job whose whole answer it has.
    answered: Option<JobId>,
    /// The output that it reads, with its cursor.
    reads: Option<(ReservationId, u32)>,
    submit_lsn: Lsn,
    took_from: BTreeSet<ReservationId>,
    /// It left, or lost its connection.
    pub(crate) left: bool,
    /// It lost its connection with the box.
    pub(crate) was_cut: bool,
}

impl ClientState {
    fn new(plan: &SubmitPlan) -> Self {
        Self::of(plan.spec.mode, plan.spec.key.is_some(), plan.reader)
    }

    /// Somebody who looked a job up by its name, and has its answer.
    fn of_name(job: JobId) -> Self {
        let reader = Reader::Leaves(GOODBYE);
        Self { job: Some(job), answered: Some(job), last_words: 1, ..Self::of(Mode::Polling, false, reader) }
    }

    fn of(mode: Mode, keyed: bool, reader: Reader) -> Self {
        Self {
            mode,
            keyed,
            reader,
            job: None,
            last_words: 0,
            succeeded: false,
            answered: None,
            reads: None,
            submit_lsn: Lsn(0),
            took_from: BTreeSet::new(),
            left: false,
            was_cut: false,
        }
    }

    /// The box is gone, and the connection with it.
    pub(crate) fn cut(&mut self) {
        (self.left, self.was_cut) = (true, true);
    }
}

/// How long a client takes to leave once it has everything.
const GOODBYE: Span = Span(700);

impl World<'_> {
    /// The id of a new connection.
    pub(crate) fn new_client(&mut self) -> ClientId {
        self.clients_made += 1;
        ClientId(self.clients_made)
    }

    pub(crate) fn submit(&mut self, plan: &SubmitPlan) {
        if self.power == Power::Off {
            return;
        }
        let client = self.new_client();
        self.clients.insert(client, ClientState::new(plan));
        match plan.reader {
            Reader::Leaves(after) => self.schedule(after, Happening::Leave(client)),
            Reader::Slow(pace) => self.schedule(pace, Happening::Read(client)),
            Reader::Prompt => {}
        }
        let submission = Submission::new(plan.spec.clone(), body(plan.body));
        self.step(Event::Submit(client, Box::new(submission)));
    }

    pub(crate) fn client_hears(&mut self, client: ClientId, mail: ClientMail, when: When) {
        let heard_of_store = when != When::Now;
        let Some(state) = self.clients.get_mut(&client) else {
            if let ClientMail::Lookup(Lookup::Job(job)) = &mail {
                self.asker_reads(client, *job);
            }
            if let ClientMail::Reply(Reply::Answer(answer)) = &mail {
                let word = format!("{answer:?}");
                let end = word.find([' ', '(', '{']).unwrap_or(word.len());
                self.oracle.coverage.count("answers", &word[..end]);
            }
            return;
        };
        if state.left {
            return;
        }
        if let (ClientMail::Reply(reply), true) = (&mail, heard_of_store) {
            self.oracle.heard(&Heard::Client(reply));
        }
        match mail {
            ClientMail::Reply(Reply::Accepted { job, .. }) => {
                state.job = Some(job);
                if !state.mode.is_attended() {
                    self.schedule(GOODBYE, Happening::Leave(client));
                }
            }
            ClientMail::Reply(Reply::Refused(_)) => self.last_word(client),
            ClientMail::Reply(Reply::Finished(finished)) => self.client_finishes(client, &finished),
            ClientMail::Lookup(what) => self.client_looks_up(client, &what),
            ClientMail::Reply(Reply::Answer(_)) => {}
        }
    }

    fn last_word(&mut self, client: ClientId) {
        let state = self.clients.get_mut(&client).expect("a client that hears is known");
        state.last_words += 1;
        let words = state.last_words;
        self.oracle
            .judge
            .check(Line::OneLastWord, words == 1, || format!("{client:?} heard {words} last words"));
        self.schedule(GOODBYE, Happening::Leave(client));
    }

    fn client_looks_up(&mut self, client: ClientId, what: &Lookup) {
        let Lookup::Answer(job) = what else { return };
        let state = self.store.job(*job).map(|row| row.state);
        self.oracle.judge.check(Line::KeyOneJob, state == Some(JobState::Succeeded), || {
            format!("{client:?} is to be answered from {job}, which is stored as {state:?}")
        });
        self.oracle.coverage.count("world", "answers from the store");
        if self.oracle.reads_answer(*job) {
            self.clients.get_mut(&client).expect("it is known").answered = Some(*job);
        }
        self.last_word(client);
    }

    /// Somebody who asked about a job that has ended is shown its answer, if there is one, and most take it.
    fn asker_reads(&mut self, client: ClientId, job: JobId) {
        let succeeded = self.store.job(job).is_some_and(|row| row.state == JobState::Succeeded);
        let has_answer = self
            .oracle
            .book
            .jobs
            .get(&job)
            .is_some_and(|facts| !facts.spec.is_tied_to_client() && !facts.origin.is_system());
        if succeeded && has_answer && self.oracle.reads_answer(job) && !client.0.is_multiple_of(4) {
            self.clients.insert(client, ClientState::of_name(job));
            self.schedule(GOODBYE, Happening::Leave(client));
        }
    }

    fn client_finishes(&mut self, client: ClientId, finished: &Finished) {
        let state = &self.clients[&client];
        let attended = state.mode.is_attended();
        if attended && matches!(finished.end, End::Succeeded(_)) {
            let output = state.reads.and_then(|(reservation, _)| self.outputs.get(&reservation));
            let whole = output.is_some_and(|output| {
                !output.closed && output.attempt == finished.attempt && output.chunks >= finished.chunks
            });
            self.oracle.judge.check(Line::AnswerWhole, whole, || {
                format!(
                    "{client:?} is to take {} chunks of attempt {} of {output:?}",
                    finished.chunks, finished.attempt
                )
            });
            self.take(client, finished.chunks);
        }
        let succeeded = matches!(finished.end, End::Succeeded(_));
        let state = self.clients.get_mut(&client).expect("it is known");
        (state.succeeded, state.answered) = (succeeded, (succeeded && attended).then_some(finished.job));
        self.last_word(client);
    }

    pub(crate) fn open_output(&mut self, open: OpenOutput) {
        let model =
            self.oracle.book.live.get(&open.reservation).map(|job| self.oracle.book.jobs[job].model.clone());
        let output = Output {
            attempt: open.attempt,
            tokens: 0,
            chunks: 0,
            first_at: None,
            last_at: None,
            closed: false,
            delivered: 0,
            readers: Vec::new(),
            counted: model.is_none_or(|model| has_tokenizer(&model)),
        };
        self.outputs.insert(open.reservation, output);
        for client in open.clients {
            self.attach_output(AttachOutput {
                reservation: open.reservation,
                attempt: open.attempt,
                client,
                submit_lsn: open.submit_lsn,
            });
        }
    }

    pub(crate) fn attach_output(&mut self, attach: AttachOutput) {
        let Some(state) = self.clients.get_mut(&attach.client) else { return };
        state.reads = Some((attach.reservation, 0));
        state.submit_lsn = attach.submit_lsn;
        if let Some(output) = self.outputs.get_mut(&attach.reservation) {
            output.readers.push(attach.client);
        }
        if !state.left && !matches!(state.reader, Reader::Slow(_)) {
            self.client_takes(attach.client);
        }
    }

    /// A node's tokens have reached the box: up to so many of them, in so many chunks.
    pub(crate) fn write(&mut self, reservation: ReservationId, tokens: u32, chunks: u32) {
        let now = self.now;
        let Some(output) = self.outputs.get_mut(&reservation) else { return };
        if output.closed || tokens <= output.tokens {
            return;
        }
        (output.tokens, output.chunks) = (tokens, chunks);
        output.first_at = output.first_at.or(Some(now));
        output.last_at = Some(now);
        let prompt = |client: &ClientId| !matches!(self.clients[client].reader, Reader::Slow(_));
        let readers: Vec<ClientId> = output.readers.iter().copied().filter(prompt).collect();
        readers.into_iter().for_each(|client| self.client_takes(client));
    }

    pub(crate) fn read(&mut self, client: ClientId) {
        let state = &self.clients[&client];
        if let (Reader::Slow(pace), false) = (state.reader, state.left) {
            self.client_takes(client);
            self.schedule(pace, Happening::Read(client));
        }
    }

    /// A stream's client takes what there is; a strict one nothing before its job is durable.
    fn client_takes(&mut self, client: ClientId) {
        let state = &self.clients[&client];
        let may_begin =
            self.scene.durability == Durability::Relaxed || state.submit_lsn <= self.store.durable;
        if state.mode == Mode::Stream && !state.left && may_begin {
            self.take(client, u32::MAX);
        } else if state.mode == Mode::Stream && !may_begin {
            self.sync();
        }
    }

    fn take(&mut self, client: ClientId, most: u32) {
        let state = self.clients.get_mut(&client).expect("only known clients take");
        let Some((reservation, cursor)) = state.reads else { return };
        let Some(output) = self.outputs.get_mut(&reservation) else { return };
        let upto = output.chunks.min(most);
        if output.closed || upto <= cursor {
            return;
        }
        state.reads = Some((reservation, upto));
        state.took_from.insert(reservation);
        output.delivered = output.delivered.max(upto);
        let attempts = state.took_from.len();
        self.oracle.judge.check(Line::OneOutput, attempts == 1, || {
            format!("{client:?} took output of {attempts} attempts")
        });
    }

    pub(crate) fn leave(&mut self, client: ClientId) {
        let state = self.clients.get_mut(&client).expect("only known clients leave");
        if std::mem::replace(&mut state.left, true) {
            return;
        }
        let has_all = state.last_words > 0 || (!state.mode.is_attended() && state.job.is_some());
        let departure = match state.answered {
            Some(job) => Departure::Took(job),
            None if has_all => Departure::Served,
            None => Departure::Abandoned,
        };
        self.step(Event::ClientGone(ClientGone { client, departure }));
    }

    /// In the end every client that stayed has heard a last word, or that its job is accepted.
    pub(crate) fn check_clients(&mut self) {
        for (id, client) in &self.clients {
            let stayed = client.reader == Reader::Prompt && !client.was_cut;
            let heard = client.last_words == 1 || !client.mode.is_attended() && client.job.is_some();
            let gave_up = self.winding && client.last_words == 0;
            if stayed && !gave_up {
                self.oracle.judge.check(Line::OneLastWord, heard, || {
                    format!(
                        "{id:?} ({:?}, keyed {}) heard {} last words",
                        client.mode, client.keyed, client.last_words
                    )
                });
            }
        }
    }
}
