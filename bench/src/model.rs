//! Tokens a second of a model through the real server, and the server's peak memory.
//!
//! Decode's floor is reading the weights once a token, measured here by reading the model's file from memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::child::Server;
use crate::client::{Connection, Events, post};
use crate::load::runtime;
use crate::stats::median;
use crate::{CommonArgs, Result, report};

/// Words of a long prompt: about as many tokens.
const PREFILL_WORDS: usize = 480;
/// Tokens that a decode asks for.
const DECODE_TOKENS_MAX: u32 = 128;
/// Streams at once.
const STREAMS: [usize; 2] = [1, 4];
/// A stream that takes longer has failed.
const STREAM_TIMEOUT: Duration = Duration::from_secs(180);

/// What the model measurement takes.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// The GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// No round begins after so many seconds.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    #[command(flatten)]
    common: CommonArgs,
}

/// What one stream was.
#[derive(Debug, Clone, Copy)]
struct Streamed {
    sent: Instant,
    first: Instant,
    last: Instant,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// Numbers of one kind, by round.
#[derive(Default)]
struct Rounds {
    prefill_rate: Vec<f64>,
    first_token_ms: Vec<f64>,
    prompt_tokens: Vec<f64>,
    decode_rate: Vec<f64>,
    completion_tokens: Vec<f64>,
    decode_over_floor: Vec<f64>,
}

/// Runs the measurement and reports it.
pub(crate) fn run(args: &ModelArgs) -> Result<()> {
    let binary = args.common.switchbox()?;
    let model = args.model.to_str().ok_or("the model's path isn't UTF-8")?;
    let served = format!("bench={model}");
    let streams_max = STREAMS[STREAMS.len() - 1].to_string();
    let arguments = ["--model", &served, "--slots", &streams_max];
    let server = Server::switchbox(&binary, &args.common.data_parent, &arguments)?;
    let weights = std::fs::read(&args.model)?;
    let loaded_bytes = server.process().memory_peak_bytes()?;

    let mut all: [Rounds; STREAMS.len()] = Default::default();
    let mut floors = Vec::new();
    runtime()?.block_on(streams(&server, 1, &short_prompt, DECODE_TOKENS_MAX))?;
    let begin = Instant::now();
    for round in 0..args.common.rounds {
        if round > 0 && begin.elapsed() > Duration::from_secs(args.seconds.into()) {
            break;
        }
        let floor = reads_a_second(&weights);
        floors.push(floor);
        for (count, rounds) in STREAMS.into_iter().zip(&mut all) {
            let seed = round as usize * 1_000 + count * 10;
            rounds.measure(&server, count, seed, floor)?;
        }
        eprintln!("round {} of {} done", round + 1, args.common.rounds);
    }
    let peak_bytes = server.process().memory_peak_bytes()?;
    print(&all, median(floors.iter().copied()), loaded_bytes, peak_bytes)?;
    let settings = json!({ "model": model, "model_bytes": weights.len(), "rounds": floors.len() });
    let results = json!({
        "streams": STREAMS.into_iter().zip(&all).map(|(count, rounds)| rounds.json(count)).collect::<Vec<_>>(),
        "weights_read_per_s": floors,
        "memory_peak_bytes": peak_bytes, "memory_peak_loaded_bytes": loaded_bytes,
    });
    report::write_json(args.common.out.as_deref(), settings, results)
}

impl Rounds {
    fn measure(&mut self, server: &Server, count: usize, seed: usize, floor: f64) -> Result<()> {
        // Prompts differ, so that no cache of earlier ones helps.
        let long = |stream: usize| long_prompt(seed + stream);
        let prefills = runtime()?.block_on(streams(server, count, &long, 1))?;
        let prompt_tokens: u64 = prefills.iter().map(|stream| stream.prompt_tokens).sum();
        let slowest = prefills.iter().map(|stream| stream.first - stream.sent).max().unwrap_or_default();
        self.prefill_rate.push(prompt_tokens as f64 / slowest.as_secs_f64());
        self.first_token_ms.push(slowest.as_secs_f64() * 1e3);
        self.prompt_tokens.push(prompt_tokens as f64 / count as f64);

        let decodes = runtime()?.block_on(streams(server, count, &short_prompt, DECODE_TOKENS_MAX))?;
        // Each stream's first token came with its prefill.
        let tokens: u64 = decodes.iter().map(|stream| stream.completion_tokens.saturating_sub(1)).sum();
        let (first, last) = (decodes.iter().map(|s| s.first).min(), decodes.iter().map(|s| s.last).max());
        let span = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
        let rate = tokens as f64 / span.as_secs_f64();
        self.decode_rate.push(rate);
        self.completion_tokens.push((tokens as f64) / count as f64 + 1.0);
        self.decode_over_floor.push(rate / floor);
        Ok(())
    }

    fn json(&self, count: usize) -> Value {
        let numbers = |rounds: &[f64]| json!({ "median": median(rounds.iter().copied()), "rounds": rounds });
        json!({
            "streams": count,
            "prefill_tokens_per_s": numbers(&self.prefill_rate),
            "first_token_ms": numbers(&self.first_token_ms),
            "prompt_tokens": numbers(&self.prompt_tokens),
            "decode_tokens_per_s": numbers(&self.decode_rate),
            "completion_tokens": numbers(&self.completion_tokens),
            "decode_over_floor": numbers(&self.decode_over_floor),
        })
    }
}

/// Runs so many streams at once, to their ends.
async fn streams(
    server: &Server,
    count: usize,
    prompt: &dyn Fn(usize) -> String,
    tokens_max: u32,
) -> Result<Vec<Streamed>> {
    let mut tasks = Vec::new();
    for index in 0..count {
        let body = json!({
            "model": "bench", "max_tokens": tokens_max, "temperature": 0, "stream": true,
            "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": prompt(index) }],
        });
        let request = post(server.address(), "/v1/chat/completions", body.to_string().as_bytes());
        let connection = Connection::open(server.address()).await?;
        let stream = tokio::time::timeout(STREAM_TIMEOUT, one_stream(connection, request));
        tasks.push(tokio::spawn(stream));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await?.map_err(|_| "a stream took too long")??);
    }
    Ok(all)
}

async fn one_stream(mut connection: Connection, request: Vec<u8>) -> Result<Streamed> {
    let sent = Instant::now();
    let (mut events, mut times, mut usage, mut error) = (Events::default(), None, None, None);
    let answer = connection
        .stream(&request, |piece| {
            let now = Instant::now();
            events.feed(piece, |data| {
                let Ok(event) = serde_json::from_str::<Value>(data) else { return };
                if says_something(&event) {
                    let (first, _) = times.unwrap_or((now, now));
                    times = Some((first, now));
                }
                if event["usage"].is_object() {
                    usage = Some(event["usage"].clone());
                }
                if event["error"].is_object() {
                    error = Some(event["error"].to_string());
                }
            });
        })
        .await?;
    if answer.status != 200 || error.is_some() {
        return Err(format!("a stream ended with status {} and {error:?}", answer.status).into());
    }
    let (first, last) = times.ok_or("a stream without text")?;
    let count = |name: &str| usage.as_ref().and_then(|usage| usage[name].as_u64()).ok_or("no usage");
    Ok(Streamed {
        sent,
        first,
        last,
        prompt_tokens: count("prompt_tokens")?,
        completion_tokens: count("completion_tokens")?,
    })
}

fn says_something(event: &Value) -> bool {
    event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
}

fn short_prompt(stream: usize) -> String {
    format!("Write a long story about a river, a bridge and {} travellers. Tell all of it.", stream + 2)
}

/// Ordinary words in an order that depends on the seed.
fn long_prompt(seed: usize) -> String {
    let words = ["river", "house", "light", "people", "after", "small", "market", "summer", "paper", "green"];
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words[(state >> 33) as usize % words.len()]
    };
    let text: Vec<_> = (0..PREFILL_WORDS).map(|_| next()).collect();
    format!("Continue this list: {}", text.join(" "))
}

/// How often a second all threads together read the weights from memory.
fn reads_a_second(weights: &[u8]) -> f64 {
    const READS: u32 = 5;
    let share = weights.len().div_ceil(report::cores()).max(1);
    let begin = Instant::now();
    for _ in 0..READS {
        std::thread::scope(|scope| {
            for part in weights.chunks(share) {
                scope.spawn(|| std::hint::black_box(sum(part)));
            }
        });
    }
    f64::from(READS) / begin.elapsed().as_secs_f64()
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

fn print(all: &[Rounds; STREAMS.len()], floor: f64, loaded_bytes: u64, peak_bytes: u64) -> Result<()> {
    let heading = [
        "",
        "prompt tokens",
        "prefill tokens/s",
        "first token ms",
        "tokens",
        "decode tokens/s",
        "decode / floor",
    ];
    let mut rows = vec![heading.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    for (count, rounds) in STREAMS.into_iter().zip(all) {
        let middle = |rounds: &[f64]| median(rounds.iter().copied());
        rows.push(vec![
            format!("streams: {count}"),
            format!("{:.0}", middle(&rounds.prompt_tokens)),
            format!("{:.0}", middle(&rounds.prefill_rate)),
            format!("{:.0}", middle(&rounds.first_token_ms)),
            format!("{:.0}", middle(&rounds.completion_tokens)),
            format!("{:.1}", middle(&rounds.decode_rate)),
            format!("{:.2}", middle(&rounds.decode_over_floor)),
        ]);
    }
    let title = "a model through the server, all streams together: medians over rounds";
    report::print_table(title, &rows)?;
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let rows = [
        vec!["floor: reads of the weights a second".to_owned(), format!("{floor:.1}")],
        vec!["peak memory when loaded".to_owned(), mib(loaded_bytes)],
        vec!["peak memory at the end".to_owned(), mib(peak_bytes)],
    ];
    report::print_table("floor and memory", &rows)
}
