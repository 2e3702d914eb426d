//! Prints what a step of the core costs, by size, and its longest turns.
//!
//! `switchbox-scale` prints everything; `switchbox-scale central` only the sizes that the goals speak of.

use std::io::Write;
use std::process::Command;

use switchbox_scale::cost::{Costs, measure};
use switchbox_scale::stats::{Times, clock_cost, hiccups};
use switchbox_scale::{Size, cost, worst};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut out = std::io::stdout().lock();
    let which: Vec<String> = std::env::args().skip(1).collect();
    let which: Vec<&str> = which.iter().map(String::as_str).collect();
    match which.as_slice() {
        [] => {
            table(&mut out, &axes())?;
            let worst = [("1000000", "expire"), ("1000000", "age"), ("100000", "pause")];
            let fewer = ["avoid", "need", "lane"].map(|group| ("100000", group));
            worst.into_iter().chain(fewer).try_for_each(|(jobs, group)| keep_memory(&["worst", jobs, group]))
        }
        ["worst", ..] if std::env::var_os(PURGE_DELAY).is_none() => keep_memory(&which),
        ["full"] => table(&mut out, &all_sizes()),
        ["central"] => [HUNDREDTH, LARGEST].into_iter().try_for_each(|size| detail(&mut out, size)),
        ["worst", jobs] => worst_turns(&mut out, Size { jobs: jobs.parse()?, ..LARGEST }, ""),
        ["worst", jobs, group] => worst_turns(&mut out, Size { jobs: jobs.parse()?, ..LARGEST }, group),
        ["size", nodes, jobs, lanes, namespaces] => {
            let size = Size {
                nodes: nodes.parse()?,
                jobs: jobs.parse()?,
                lanes: lanes.parse()?,
                namespaces: namespaces.parse()?,
            };
            detail(&mut out, size)
        }
        _ => Err(
            "usage: switchbox-scale [full | central | worst JOBS [GROUP] | size NODES JOBS LANES NAMESPACES]"
                .into(),
        ),
    }
}

/// What tells the allocator after how many milliseconds to give memory back; -1 for never.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Runs with these arguments in a process that gives no memory back: that is decided before a process begins.
fn keep_memory(arguments: &[&str]) -> Result<()> {
    let mut kept = Command::new(std::env::current_exe()?);
    let status = kept.args(arguments).env(PURGE_DELAY, "-1").status()?;
    status.success().then_some(()).ok_or_else(|| format!("measuring {arguments:?} failed: {status}").into())
}

/// A hundredth of its nodes and jobs.
const HUNDREDTH: Size = Size { nodes: 100, jobs: 10_000, ..LARGEST };

/// The size that the goals speak of, a hundredth of it, and every other value of one of its numbers.
fn axes() -> Vec<Size> {
    let nodes = [10, 1_000].map(|nodes| Size { nodes, ..LARGEST });
    let jobs = [1_000, 100_000].map(|jobs| Size { jobs, ..LARGEST });
    let lanes = [1, 500].map(|lanes| Size { lanes, ..LARGEST });
    let small = Size { nodes: 10, jobs: 1_000, lanes: 1, namespaces: 1 };
    let few = [Size { namespaces: 1, ..LARGEST }, small];
    [HUNDREDTH, LARGEST].into_iter().chain(nodes).chain(jobs).chain(lanes).chain(few).collect()
}

fn all_sizes() -> Vec<Size> {
    let mut sizes = Vec::new();
    for (nodes, jobs) in
        [10, 1_000, 10_000].into_iter().flat_map(|n| [1_000, 100_000, 1_000_000].map(|j| (n, j)))
    {
        for (lanes, namespaces) in [1, 50, 500].into_iter().flat_map(|l| [1, 1_000].map(|n| (l, n))) {
            sizes.push(Size { nodes, jobs, lanes, namespaces });
        }
    }
    sizes
}

/// One line for each size.
fn table(out: &mut impl Write, sizes: &[Size]) -> Result<()> {
    writeln!(out, "Medians in ns; a look at the clock, {} ns, is part of each.\n", clock_cost())?;
    writeln!(
        out,
        "| nodes | jobs | lanes | namespaces | end + next placed | end alone | next placed | submit queued \
         | submit placed | accepted | heartbeat | client leaves | B/job |"
    )?;
    writeln!(out, "|{}", "---:|".repeat(13))?;
    for size in sizes {
        let mut costs = measure(*size);
        let Size { nodes, jobs, lanes, namespaces } = size;
        writeln!(
            out,
            "| {nodes} | {jobs} | {lanes} | {namespaces} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            costs.complete_and_place.median(),
            costs.complete.median(),
            costs.placement(),
            costs.submit_queued.median(),
            costs.submit_placed.median(),
            costs.accepted.median(),
            costs.heartbeat.median(),
            costs.leave.median(),
            costs.bytes_per_job,
        )?;
    }
    Ok(())
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
