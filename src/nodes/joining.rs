//! What a node lists when it connects: which of it goes on, which is decided, and which nobody waits for.
//!
//! All of it is stepped in the event that the session joins with, before anything new is assigned.

use std::future::poll_fn;
use std::sync::Arc;

use super::incoming::Refused;
use super::session::{Begun, SessionTask};
use super::{Ending, handshake};
use crate::coordinator::event::{Completion, Environment, Held, NodeHello, Seen, Verified};
use crate::coordinator::invites::Enrolled;
use crate::coordinator::standing::Trust;
use crate::ids::ReservationId;
use crate::node::attempt::RemoteAttempt;
use crate::node::remote::RemoteMail;
use crate::wire::to_agent::{Resume, Verdict, Welcome};
use crate::wire::to_box::{Hold, Offer, Ready};
use crate::wire::verify;
use crate::wire::{Refusal, StatementError};

/// Heartbeats within one heartbeat's TTL.
const HEARTBEATS_PER_TTL: u64 = 3;

/// What a node listed, as far as it was looked at.
#[derive(Default)]
pub(super) struct Joining {
    running: Vec<Held>,
    results: Vec<Verified<Completion>>,
    listed: Vec<(ReservationId, Listed)>,
    refused: Vec<Refused>,
}

/// What becomes of something listed.
enum Listed {
    /// It runs, or what came of its output isn't whole.
    Running(Option<Arc<RemoteAttempt>>),
    /// Its result was taken, or won't be.
    Taken,
}

/// The answer to a list.
pub(super) struct Welcomed {
    pub(super) message: Welcome,
    /// Results that aren't believed.
    pub(super) refused: Vec<Refused>,
}

impl Joining {
    /// Looks at all that is listed.
    pub(super) async fn of(ready: &Ready, task: &SessionTask) -> Self {
        let mut joining = Self::default();
        for hold in &ready.holds {
            joining.look_at(hold, task).await;
        }
        joining
    }

    async fn look_at(&mut self, hold: &Hold, task: &SessionTask) {
        let attempt = task.remote.attempt(hold.reservation);
        if let Some(attempt) = &attempt {
            // After a restart of the box nobody remembers what was offered then.
            attempt.offered_as(task.digests.get(&hold.model).copied().flatten());
        }
        let Some(signed) = &hold.result else { return self.goes_on(hold, attempt) };
        // The box wants all of the output before it looks at the result.
        if attempt.as_ref().is_some_and(|a| !a.is_revoked() && a.chunks() != hold.chunks) {
            return self.goes_on(hold, attempt);
        }
        let issued = attempt.as_ref().map(|attempt| attempt.issued());
        let seen = match &attempt {
            Some(attempt) => task.seen(attempt).await,
            None => Seen::default(),
        };
        match verify::result(signed, &task.parties, issued.as_ref(), seen) {
            Ok(result) => {
                self.results.push(result);
                self.listed.push((hold.reservation, Listed::Taken));
            }
            Err(error) => {
                self.refuse(hold, attempt.is_some(), error);
            }
        }
    }

    fn goes_on(&mut self, hold: &Hold, attempt: Option<Arc<RemoteAttempt>>) {
        self.running.push(held(hold));
        self.listed.push((hold.reservation, Listed::Running(attempt)));
    }

    fn refuse(&mut self, hold: &Hold, is_live: bool, error: StatementError) {
        // It isn't lost: it has failed, and that is said once the session has joined.
        if is_live {
            self.running.push(held(hold));
        }
        self.refused.push(Refused { reservation: hold.reservation, is_live, error });
        self.listed.push((hold.reservation, Listed::Taken));
    }

    /// Joins, and says what became of everything.
    pub(super) async fn join(
        self,
        task: &mut SessionTask,
        enrolled: Enrolled,
        wanted: &[Environment],
        ready: Ready,
    ) -> Result<Welcomed, Ending> {
        let Self { running, results, listed, refused } = self;
        let ttl = enrolled.heartbeat_ttl.as_ms();
        let hello = hello(task, enrolled, wanted, ready, running, results);
        let permit = task.remote.room().await;
        task.remote.join(hello, permit);
        heard(task).await?;
        let holds = listed.into_iter().map(|(reservation, listed)| {
            let verdict = match listed {
                Listed::Taken => Verdict::Taken,
                Listed::Running(attempt) => verdict_on(task, reservation, attempt),
            };
            Resume { reservation, verdict }
        });
        let message = Welcome {
            holds: holds.collect(),
            heartbeat_interval_ms: (ttl / HEARTBEATS_PER_TTL).max(1),
            heartbeat_ttl_ms: ttl,
            time_ms: wall_clock_ms(),
        };
        Ok(Welcomed { message, refused })
    }
}

fn held(hold: &Hold) -> Held {
    Held { reservation: hold.reservation, model: Arc::clone(&hold.model), kv_tokens: hold.kv_tokens }
}

/// Waits until the core has heard of the session: it is the first that it hears.
async fn heard(task: &SessionTask) -> Result<(), Refusal> {
    match poll_fn(|cx| task.remote.poll_mail(cx)).await {
        RemoteMail::Joined => Ok(()),
        // Nothing else can come first.
        RemoteMail::Assign(_) | RemoteMail::Stop(_) | RemoteMail::Message(_) => Err(handshake::full()),
    }
}

/// What becomes of an attempt that runs, now that the core has looked at it.
fn verdict_on(
    task: &mut SessionTask,
    reservation: ReservationId,
    attempt: Option<Arc<RemoteAttempt>>,
) -> Verdict {
    let Some(attempt) = attempt.filter(|_| task.remote.attempt(reservation).is_some()) else {
        return Verdict::Unknown;
    };
    let verdict = match attempt.is_revoked() {
        true => Verdict::Unknown,
        false => Verdict::Resume { from: attempt.chunks() },
    };
    task.hold(attempt, Begun::Yes);
    verdict
}

fn hello(
    task: &SessionTask,
    enrolled: Enrolled,
    wanted: &[Environment],
    ready: Ready,
    running: Vec<Held>,
    results: Vec<Verified<Completion>>,
) -> NodeHello {
    let Ready { offer, configurations, .. } = ready;
    let models = super::incoming::models_of(&offer);
    let Offer { slots, kv_tokens, memory_bytes, gpu, region, .. } = offer;
    let environments = wanted.iter().copied().filter(|world| enrolled.environments.contains(*world));
    NodeHello {
        node: task.remote.node().clone(),
        session: task.remote.number(),
        trust: Trust::Open,
        environments: environments.collect(),
        models,
        slots,
        kv_tokens,
        memory_bytes,
        gpu: gpu.map(|gpus| gpus.class),
        region: enrolled.region.or(region),
        configurations: configurations
            .into_iter()
            .map(|held| (held.environment, held.digest.into()))
            .collect(),
        running,
        results,
    }
}

fn wall_clock_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
}
