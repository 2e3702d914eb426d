// The box through the official Node client: answers, streams, refusals, retries, cancels.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { Box, modelPath, waitFor } from "./box.mjs";

const QUESTION = [{ role: "user", content: "Write a Python function that reverses a string." }];
const HELLO = [{ role: "user", content: "hello" }];
const LONG = [{ role: "user", content: Array(400).fill("word").join(" ") }];
const CONFIG = `
[limits]
namespace_queue_jobs_max = 1

[[model]]
name = "slow"
spec = "echo:20"
slots = 1
`;

let box, client;
before(async () => {
  box = await Box.start(["--model", `small=${modelPath()}`, "--model", "echo=echo:"], CONFIG);
  client = clientOf();
});
after(() => box?.stop());

function clientOf(options = {}) {
  return new OpenAI({ baseURL: `${box.base}/v1`, apiKey: box.key, maxRetries: 0, ...options });
}

async function refusal(kind, status, code, param, call) {
  const error = await call().then(() => assert.fail("not refused"), (e) => e);
  assert.equal(error.constructor, kind);
  assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
  assert.match(error.requestID, /^req_/);
  return error;
}

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

test("a whole answer", async () => {
  const answer = await client.chat.completions.create({ model: "small", messages: QUESTION, temperature: 0 });
  assert.match(answer.choices[0].message.content, /\[::-1\]/);
  assert.match(answer._request_id, /^req_/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("a stream with usage", async () => {
  const fields = { model: "small", messages: QUESTION, temperature: 0.7, seed: 5, max_tokens: 40 };
  const whole = await client.chat.completions.create(fields);
  const options = { stream: true, stream_options: { include_usage: true } };
  const chunks = await read(await client.chat.completions.create({ ...fields, ...options }));
  const text = chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.deepEqual(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
});

test("the stream helper", async () => {
  const stream = client.chat.completions.stream({ model: "small", messages: QUESTION, temperature: 0 });
  assert.match(await stream.finalContent(), /\[::-1\]/);
});

test("completions", async () => {
  const fields = { model: "small", prompt: "The capital of France is", temperature: 0, max_tokens: 12 };
  const whole = await client.completions.create(fields);
  const chunks = await read(await client.completions.create({ ...fields, stream: true }));
  assert.equal(chunks.map((c) => c.choices[0]?.text ?? "").join(""), whole.choices[0].text);
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names.sort(), ["echo", "slow", "small"]);
  assert.equal((await client.models.retrieve("small")).object, "model");
});

test("refusals by class", async () => {
  const chat = (fields) => () => client.chat.completions.create({ model: "echo", messages: HELLO, ...fields });
  await refusal(OpenAI.BadRequestError, 400, "invalid_value", "temperature", chat({ temperature: 9 }));
  await refusal(OpenAI.NotFoundError, 404, "model_not_found", "model", chat({ model: "nope" }));
  const stranger = clientOf({ apiKey: "sk-nobody" });
  await refusal(OpenAI.AuthenticationError, 401, "invalid_api_key", null, () => stranger.models.list());
});

test("a full queue, and retries that help", async () => {
  const running = await client.chat.completions.create({ model: "slow", messages: LONG, stream: true });
  const waiting = client.chat.completions.create({ model: "slow", messages: HELLO });
  waiting.catch(() => {});
  await waitFor("a queued job", () => box.metric("switchbox_jobs", 'state="queued"'));
  const full = () => client.chat.completions.create({ model: "slow", messages: HELLO });
  const error = await refusal(OpenAI.RateLimitError, 429, "rate_limit_exceeded", null, full);
  const seconds = Number(error.headers.get("retry-after"));
  assert.ok(seconds >= 1 && seconds <= 60, `retry-after ${seconds}`);
  const counts = [];
  const watched = async (url, init) => {
    counts.push(new Headers(init.headers).get("x-stainless-retry-count"));
    if (counts.length === 2) {
      running.controller.abort();
      await waiting;
    }
    return fetch(url, init);
  };
  const answer = await clientOf({ maxRetries: 2, fetch: watched }).chat.completions.create({
    model: "slow",
    messages: HELLO,
  });
  assert.match(answer.choices[0].message.content, /hello/);
  assert.deepEqual(counts, ["0", "1"]);
  await box.waitIdle();
});

test("aborting a stream stops the work", async () => {
  const before = await box.metric("switchbox_executor_cancelled_total", 'phase="decode"');
  const stream = await client.chat.completions.create({
    model: "small",
    messages: [{ role: "user", content: "Tell me a story about a river." }],
    temperature: 0,
    max_tokens: 1500,
    stream: true,
  });
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content) break;
  }
  const cancelled = () => box.metric("switchbox_executor_cancelled_total", 'phase="decode"');
  await waitFor("the cancel", async () => (await cancelled()) > before);
  assert.ok((await box.metric("switchbox_executor_steps_after_cancel_max")) <= 2);
  await box.waitIdle();
});
