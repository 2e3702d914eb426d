//! Bugs that the simulator plants to see that it would find them. Without the feature `mutants`, every
//! `mutant!(Name)` is literally `false`.

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// (1) A hold isn't released when its job expires.
    HoldKeptOnExpiry,
    /// (2) A duplicate result captures a second time.
    CapturedTwice,
    /// (3) A message that names a dead reservation is believed.
    StaleReservationAccepted,
    /// (4) A stopping reservation's capacity is free before the node says `Stopped`.
    CapacityFreedEarly,
    /// (5) A freed node takes any tier.
    TierIgnored,
    /// (6) All namespaces weigh the same.
    WeightIgnored,
    /// (7) A node that reconnects is not excluded any more.
    CooldownForgotten,
    /// (8) The node that failed a job gets it again although another could take it.
    FailedNodeRetried,
    /// (9) A requeued job may cross into the other environment.
    EnvironmentIgnoredOnRequeue,
    /// (10) A fallback model may run on nodes that a subcloud isolates.
    IsolateIgnoredForFallback,
    /// (11) A job whose output was delivered runs again.
    DeliveredRequeued,
    /// (12) A job's TTL fires only when its lane moves.
    TtlLateBehindBusyLane,
    /// (13) Idempotency entries don't survive a crash.
    KeyLostInCrash,
    /// (14) A batch job takes a slot that a runnable realtime job could use.
    BatchTakesSlot,
    /// (15) A result that a reconnecting node lists is declared lost.
    ListedResultLost,
    /// (16) A reservation of an earlier epoch counts against its honest node.
    EarlierEpochStruck,
    /// (17) A forgotten job's posting leaves its balances unexplained.
    ForgottenNotFolded,
    /// A reservation is never dropped (for the unit tests of the recount).
    LeakReservation,
    /// A hold is never settled (likewise).
    LeakHold,
    /// Output budget is never given back (likewise).
    LeakOutputBytes,
}

impl Mutant {
    /// The seventeen that the simulator must catch.
    pub const ALL: [Mutant; 17] = [
        Mutant::HoldKeptOnExpiry,
        Mutant::CapturedTwice,
        Mutant::StaleReservationAccepted,
        Mutant::CapacityFreedEarly,
        Mutant::TierIgnored,
        Mutant::WeightIgnored,
        Mutant::CooldownForgotten,
        Mutant::FailedNodeRetried,
        Mutant::EnvironmentIgnoredOnRequeue,
        Mutant::IsolateIgnoredForFallback,
        Mutant::DeliveredRequeued,
        Mutant::TtlLateBehindBusyLane,
        Mutant::KeyLostInCrash,
        Mutant::BatchTakesSlot,
        Mutant::ListedResultLost,
        Mutant::EarlierEpochStruck,
        Mutant::ForgottenNotFolded,
    ];
}

#[cfg(any(test, feature = "mutants"))]
mod planted {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Plants a bug in every core that this thread steps, or none.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.with(|planted| planted.set(mutant));
    }

    /// Whether this bug is planted.
    pub fn is_planted(mutant: Mutant) -> bool {
        PLANTED.with(|planted| planted.get() == Some(mutant))
    }
}

#[cfg(any(test, feature = "mutants"))]
pub use planted::{is_planted, plant};

/// What `mutant!` is outside tests and simulations.
#[cfg(not(any(test, feature = "mutants")))]
pub(in crate::coordinator) const NOT_PLANTED: bool = false;

/// Whether a bug is planted: a constant `false` outside tests and simulations.
#[cfg(any(test, feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        $crate::coordinator::mutant::is_planted($crate::coordinator::mutant::Mutant::$name)
    };
}
#[cfg(not(any(test, feature = "mutants")))]
macro_rules! mutant {
    ($name:ident) => {{
        // Literally `false`, under a name, for the name must exist.
        const _: $crate::coordinator::mutant::Mutant = $crate::coordinator::mutant::Mutant::$name;
        $crate::coordinator::mutant::NOT_PLANTED
    }};
}
pub(in crate::coordinator) use mutant;
