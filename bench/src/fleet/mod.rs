//! Many connected agents and one real box: what they cost it, how soon it notices dead ones, and what becomes of them
//! and of its clients when all come back at once. The agents are this process; the box is one of its own.

mod agent;
mod deaths;
mod steady;
mod storm;
mod swarm;

use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::child::Server;
use crate::load::runtime;
use crate::stats::median;
use crate::{CommonArgs, Result, report};
use agent::Order;
use deaths::Detected;
use steady::Steady;
use storm::Storm;
use swarm::Swarm;

/// What the measurement of a fleet takes.
#[derive(Args)]
pub(crate) struct FleetArgs {
    /// Agents that connect; a box's own defaults allow so many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=2_000))]
    agents: u32,
    /// Agents that die, once silently and once not.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    dead: u32,
    /// Seconds over which CPU time is taken, with agents and before.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// The box's `heartbeat_ttl_ms`: without a heartbeat for so long a node is away.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(300..=3_600_000))]
    heartbeat_ttl_ms: u32,
    /// The box's `node_silence_ms`: a connection on which nothing comes for so long is closed.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(300..=3_600_000))]
    silence_ms: u32,
    #[command(flatten)]
    common: CommonArgs,
}

/// How long the box is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// How long it serves clients first, so that what it takes for them isn't counted as the agents'.
const WARM_UP: Duration = Duration::from_secs(3);
/// Open files beside connections of agents.
const FILES_BESIDE_AGENTS: u64 = 128;

/// What was measured.
struct Measured {
    /// The box's resident memory without agents, with all of them, and after all storms.
    memory_bytes: [u64; 3],
    joining: Duration,
    beats: Beats,
    muted: Detected,
    /// From the last silent agent's last sign of life until all those connections were closed.
    closed: Duration,
    left: Detected,
    storms: Vec<Storm>,
}

/// CPU time of the box while agents do nothing but send heartbeats.
struct Beats {
    every: Duration,
    heartbeats: u64,
    seconds: f64,
    /// In that time, and in as much time without agents.
    cpu_s: f64,
    idle_cpu_s: f64,
}

impl Beats {
    fn us_each(&self) -> f64 {
        (self.cpu_s - self.idle_cpu_s) * 1e6 / self.heartbeats as f64
    }

    fn cores(&self) -> f64 {
        self.cpu_s / self.seconds
    }

    fn idle_cores(&self) -> f64 {
        self.idle_cpu_s / self.seconds
    }
}

/// Runs the measurement and reports it.
pub(crate) fn run(args: &FleetArgs) -> Result<()> {
    if args.dead >= args.agents {
        return Err("`--dead` must be fewer than `--agents`".into());
    }
    allow_files(u64::from(args.agents) + FILES_BESIDE_AGENTS)?;
    let binary = args.common.switchbox()?;
    let (ttl, silence) = (args.heartbeat_ttl_ms, args.silence_ms);
    let ping = silence * 2 / 5;
    let config =
        format!("[limits]\nheartbeat_ttl_ms = {ttl}\nnode_silence_ms = {silence}\nnode_ping_ms = {ping}\n");
    let server = Server::configured(&binary, &args.common.data_parent, &config, &["--model", "echo=echo:"])?;
    let measured = runtime()?.block_on(measure(args, &server))?;
    print(args, &measured)?;
    let settings = json!({
        "agents": args.agents, "dead": args.dead, "seconds": args.seconds, "storms": args.common.rounds,
        "heartbeat_ttl_ms": ttl, "silence_ms": silence, "steady_jobs_per_s": steady::rate(),
        "durability": "strict", "data_parent": args.common.data_parent,
    });
    report::write_json(args.common.out.as_deref(), settings, results(args, &measured))?;
    check(&measured)
}

/// Asks for as many open files as there will be.
fn allow_files(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    // The limit as it was is still there if this is refused.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < needed => {
            Err(format!("{needed} open files are needed and {files} allowed: raise `ulimit -n`").into())
        }
        _ => Ok(()),
    }
}

async fn measure(args: &FleetArgs, server: &Server) -> Result<Measured> {
    let admin = Admin::of(server)?;
    let (agents, dead) = (args.agents as usize, args.dead as usize);
    let window = Duration::from_secs(args.seconds.into());
    let (ttl, silence) = (millis(args.heartbeat_ttl_ms), millis(args.silence_ms));
    let steady = Steady::start(server.address());
    tokio::time::sleep(WARM_UP).await;
    steady.stop()?;
    tokio::time::sleep(SETTLE).await;
    let without = server.process().memory_bytes()?;
    let idle_cpu_s = cpu_within(server, window).await?;

    let begun = Instant::now();
    let mut swarm = Swarm::join(agents, server, &admin).await?;
    let joining = begun.elapsed();
    eprintln!("{agents} agents are ready");
    tokio::time::sleep(SETTLE).await;
    let with = server.process().memory_bytes()?;
    let before = swarm.heartbeats();
    let cpu_s = cpu_within(server, window).await?;
    let heartbeats = swarm.heartbeats() - before;
    let every = swarm.heartbeat_every();
    let beats = Beats { every, heartbeats, seconds: window.as_secs_f64(), cpu_s, idle_cpu_s };

    let closed_before = deaths::closed_for_silence(&admin).await?;
    let muted = deaths::detect(&swarm, &admin, 0..dead, Order::Mute, ttl).await?;
    let last = (0..dead).map(|number| swarm.sign_of(number)).max().unwrap_or(begun);
    let closed = deaths::wait_closed(&admin, closed_before + dead as u64, last, silence).await?;
    eprintln!("{dead} silent agents were noticed");
    swarm.redial(0..dead);
    swarm.wait_joined(agents).await?;
    let left = deaths::detect(&swarm, &admin, 0..dead, Order::Leave, ttl).await?;
    swarm.redial(0..dead);
    swarm.wait_joined(agents).await?;
    admin.wait_ready(agents).await?;

    let mut storms = Vec::new();
    for round in 0..args.common.rounds {
        storms.push(storm::storm(&mut swarm, &admin, server.address()).await?);
        eprintln!("storm {} of {} is over", round + 1, args.common.rounds);
    }
    tokio::time::sleep(SETTLE).await;
    let after = server.process().memory_bytes()?;
    Ok(Measured { memory_bytes: [without, with, after], joining, beats, muted, closed, left, storms })
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

/// The box's CPU time within the next while, in seconds.
async fn cpu_within(server: &Server, window: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), server.process().cpu()?);
    tokio::time::sleep(window).await;
    let spent = server.process().cpu()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * window.as_secs_f64() / begun.elapsed().as_secs_f64())
}

fn per_agent_kib(args: &FleetArgs, measured: &Measured, at: usize) -> f64 {
    let [without, ..] = measured.memory_bytes;
    (measured.memory_bytes[at] as f64 - without as f64) / 1024.0 / f64::from(args.agents)
}

fn print(args: &FleetArgs, measured: &Measured) -> Result<()> {
    let Measured { memory_bytes, joining, beats, muted, closed, left, storms } = measured;
    let line = |what: &str, value: String| vec![what.to_owned(), value];
    let detected = |detected: &Detected| {
        let (quickest, median, slowest) = (detected.quickest_s(), detected.median_s(), detected.slowest_s());
        format!("{quickest:.1} / {median:.1} / {slowest:.1} s")
    };
    let mib = memory_bytes.map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
    let rows = [
        line("memory per agent", format!("{:.1} KiB", per_agent_kib(args, measured, 1))),
        line("memory per agent, after the storms", format!("{:.1} KiB", per_agent_kib(args, measured, 2))),
        line("memory of the box: without, with, after", format!("{} MiB", mib.join(" / "))),
        line("joining by invite, until all are ready", format!("{:.2} s", joining.as_secs_f64())),
        line("a heartbeat is due every", format!("{} ms", beats.every.as_millis())),
        line("heartbeats a second", format!("{:.0}", beats.heartbeats as f64 / beats.seconds)),
        line("CPU per heartbeat", format!("{:.1} us", beats.us_each())),
        line("cores of the box: with, without", format!("{:.4} / {:.4}", beats.cores(), beats.idle_cores())),
        line(
            &format!("{} silent ones are away (ttl {} ms)", args.dead, args.heartbeat_ttl_ms),
            detected(muted),
        ),
        line(
            &format!("and all closed (silence {} ms)", args.silence_ms),
            format!("{:.1} s", closed.as_secs_f64()),
        ),
        line(&format!("{} that left are away", args.dead), detected(left)),
    ];
    let heading = format!("{} agents: quickest / median / slowest where there are three", args.agents);
    report::print_table(&heading, &rows)?;
    let mut rows = vec![report::cells([
        "storm",
        "median s",
        "slowest s",
        "all ready s",
        "refused",
        "jobs p99 us",
        "idle p99 us",
        "p99 / idle",
        "p50 / idle",
        "jobs failed",
    ])];
    for (number, storm) in storms.iter().enumerate() {
        rows.push(vec![
            (number + 1).to_string(),
            format!("{:.2}", storm.median.as_secs_f64()),
            format!("{:.2}", storm.slowest.as_secs_f64()),
            format!("{:.2}", storm.ready.as_secs_f64()),
            format!("{:?}", storm.refusals),
            format!("{:.0}", storm.meanwhile.p99_us),
            format!("{:.0}", storm.idle.p99_us),
            format!("{:.2}", storm.p99_over_idle()),
            format!("{:.2}", storm.meanwhile.p50_us / storm.idle.p50_us),
            storm.failed.to_string(),
        ]);
    }
    let heading = format!(
        "all {} connections cut and dialled at once, while {:.0} jobs a second go to the box's own node",
        args.agents,
        steady::rate()
    );
    report::print_table(&heading, &rows)
}

fn results(args: &FleetArgs, measured: &Measured) -> Value {
    let Measured { memory_bytes, joining, beats, muted, closed, left, storms } = measured;
    let of = |number: fn(&Storm) -> f64| median(storms.iter().map(number));
    json!({
        "memory_bytes": { "without": memory_bytes[0], "with": memory_bytes[1], "after_storms": memory_bytes[2] },
        "memory_per_agent_kib": per_agent_kib(args, measured, 1),
        "memory_per_agent_after_storms_kib": per_agent_kib(args, measured, 2),
        "joining_s": joining.as_secs_f64(),
        "heartbeat": {
            "every_ms": beats.every.as_millis() as u64, "count": beats.heartbeats, "cpu_us_each": beats.us_each(),
            "cores": beats.cores(), "idle_cores": beats.idle_cores(),
        },
        "silent": muted.json(), "silent_all_closed_s": closed.as_secs_f64(), "left": left.json(),
        "storm": {
            "median_s": of(|storm| storm.median.as_secs_f64()),
            "slowest_s": of(|storm| storm.slowest.as_secs_f64()),
            "ready_s": of(|storm| storm.ready.as_secs_f64()),
            "jobs_p99_over_idle": of(Storm::p99_over_idle),
        },
        "storms": storms.iter().map(Storm::json).collect::<Vec<_>>(),
    })
}

/// Agents that don't come back end the measurement before this. What else must not be is that clients suffer.
fn check(measured: &Measured) -> Result<()> {
    let failed: usize = measured.storms.iter().map(|storm| storm.failed).sum();
    if failed > 0 {
        return Err(format!("{failed} jobs of clients failed").into());
    }
    Ok(())
}
