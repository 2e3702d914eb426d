//! Prints what a step of the core costs, by size, and its longest turns.
//!
//! `switchbox-scale` prints everything; `switchbox-scale central` only the sizes that the goals speak of.

use std::io::Write;

use switchbox_scale::cost::{Costs, measure};
use switchbox_scale::stats::{Times, clock_cost, hiccups};
use switchbox_scale::{Size, cost, worst};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut out = std::io::stdout().lock();
    let which: Vec<String> = std::env::args().skip(1).collect();
    let which: Vec<&str> = which.iter().map(String::as_str).collect();
    match which.as_slice() {
        ["worst", jobs] => worst_turns(&mut out, Size { jobs: jobs.parse()?, ..LARGEST }, ""),
        ["worst", jobs, group] => worst_turns(&mut out, Size { jobs: jobs.parse()?, ..LARGEST }, group),
        ["central"] => central(&mut out),
        ["size", nodes, jobs, lanes, namespaces] => {
            let size = Size {
                nodes: nodes.parse()?,
                jobs: jobs.parse()?,
                lanes: lanes.parse()?,
                namespaces: namespaces.parse()?,
            };
            detail(&mut out, size)
        }
        _ => Err("usage: switchbox-scale [central | size NODES JOBS LANES NAMESPACES]".into()),
    }
}

/// The size that the goals speak of.
const LARGEST: Size = Size { nodes: 10_000, jobs: 1_000_000, lanes: 50, namespaces: 1_000 };

fn worst_turns(out: &mut impl Write, size: Size, only: &str) -> Result<()> {
    writeln!(out, "\n{size:?}, shortest of three, in ns")?;
    for (_, group) in worst::GROUPS.iter().filter(|(name, _)| name.contains(only)) {
        for mut case in worst::measure(*group, size) {
            let (wall, cpu) = (&mut case.wall, &mut case.cpu);
            let (count, median, far, max) = (wall.len(), wall.median(), wall.percentile(0.999), wall.max());
            writeln!(
                out,
                "  {:<52} n {count:>8}  p50 {median:>7}  p99.9 {far:>9}  max {max:>10}  cpu max {:>10}",
                case.name,
                cpu.max()
            )?;
        }
    }
    Ok(())
}

fn central(out: &mut impl Write) -> Result<()> {
    for size in [
        Size { nodes: 100, jobs: 10_000, lanes: 50, namespaces: 1_000 },
        Size { nodes: 10_000, jobs: 1_000_000, lanes: 50, namespaces: 1_000 },
    ] {
        detail(out, size)?;
    }
    Ok(())
}

fn detail(out: &mut impl Write, size: Size) -> Result<()> {
    let mut costs = measure(size);
    let mut quiet = hiccups(cost::length(&costs));
    writeln!(
        out,
        "{size:?}: placement {} ns, at once {} ns, {} B/job, clock {} ns",
        costs.placement(),
        costs.placement_at_once(),
        costs.bytes_per_job,
        clock_cost()
    )?;
    let Costs {
        complete_and_place,
        complete,
        submit_queued,
        submit_placed,
        complete_idle,
        accepted,
        leave,
        heartbeat,
        tick,
        fill,
        ..
    } = &mut costs;
    line(out, "complete, next placed", complete_and_place)?;
    line(out, "complete, others paused", complete)?;
    line(out, "submit, queued", submit_queued)?;
    line(out, "submit, placed at once", submit_placed)?;
    line(out, "complete, nothing waits", complete_idle)?;
    line(out, "accepted", accepted)?;
    line(out, "client leaves", leave)?;
    line(out, "heartbeat", heartbeat)?;
    line(out, "tick", tick)?;
    line(out, "fill", fill)?;
    line(out, "empty loop", &mut quiet)
}

fn line(out: &mut impl Write, what: &str, times: &mut Times) -> Result<()> {
    let (count, median, mean) = (times.len(), times.median(), times.mean());
    let (far, max) = (times.percentile(0.999), times.max());
    writeln!(
        out,
        "  {what:<26} n {count:>8}  p50 {median:>7}  mean {mean:>7}  p99.9 {far:>9}  max {max:>10}"
    )?;
    Ok(())
}
