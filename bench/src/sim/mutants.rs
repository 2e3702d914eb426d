//! Plants each bug and looks whether the simulator finds it: a check that nothing can fail proves nothing.

use std::io::Write;

use switchbox::coordinator::mutant::Mutant;

use super::run::{AtFailure, Seeds, quiet_panics, sweep};

/// Plants each of the bugs in turn, and runs seeds until it is found.
///
/// # Errors
/// When one isn't found.
pub fn run_all(seeds: Seeds) -> Result<(), String> {
    quiet_panics();
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let tally = sweep(seeds, Some(mutant), AtFailure::Stop);
        let line = match tally.failures.first() {
            Some(failure) => format!(
                "{mutant:?}: seed {}, {}: {}",
                failure.seed, failure.violation.line, failure.violation.detail
            ),
            None => {
                missed.push(format!("{mutant:?}"));
                format!("{mutant:?}: not found in {} seeds", seeds.count)
            }
        };
        writeln!(std::io::stdout().lock(), "{line}").map_err(|error| error.to_string())?;
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not found: {}", missed.join(", "))) }
}

/// The bug of that name.
///
/// # Errors
/// When there is none.
pub fn named(name: &str) -> Result<Mutant, String> {
    let known = || Mutant::ALL.iter().map(|mutant| format!("{mutant:?}")).collect::<Vec<_>>().join(", ");
    let found = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name).copied();
    found.ok_or_else(|| format!("there is no mutant `{name}`; there are {}", known()))
}
