"""The bytes on the wire, without any SDK: the acceptance checklist of OpenAI's clients, point by point."""

import http.client
import json
import re
import socket
import threading

from box import PATIENCE_S, BoxCase

CHAT = "/v1/chat/completions"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello wide world"}]}
RATE_LIMITS = [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]


def events_of(raw):
    """The events of a raw stream, which must consist of `data:` lines and comments, each followed by a blank line."""
    text = raw.decode()
    assert text.endswith("\n\n"), text[-40:]
    return text.removesuffix("\n\n").split("\n\n")


class Wire(BoxCase):
    args = ["--model", "echo=echo:", "--model", "slow=echo:20"]
    config = "[limits]\nbody_bytes_max = 100000\n"
    rate_limits = RATE_LIMITS

    def stream(self, **fields):
        status, headers, raw = self.box.request("POST", CHAT, {**HELLO, "stream": True, **fields})
        self.assertEqual(status, 200, raw)
        return headers, raw

    def chunks(self, raw):
        events = events_of(raw)
        self.assertEqual(events[-1], "data: [DONE]", "exactly, with nothing after it")
        self.assertTrue(all(event.startswith("data: {") for event in events[:-1]), events)
        return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]

    def test_stream_headers(self):
        headers, _ = self.stream()
        self.assertTrue(headers["content-type"].startswith("text/event-stream"))
        self.assertIn("no-cache", headers["cache-control"])
        self.assertEqual(headers["x-accel-buffering"], "no")
        self.assertTrue(headers["x-switchbox-job-id"].startswith("job_"))
        for name in ["x-request-id", "openai-processing-ms", *self.rate_limits]:
            self.assertIn(name, headers)

    def test_stream_is_never_compressed(self):
        body = {**HELLO, "stream": True}
        _, headers, raw = self.box.request("POST", CHAT, body, {"accept-encoding": "gzip, deflate, br"})
        self.assertNotIn("content-encoding", headers)
        self.assertTrue(raw.startswith(b"data: "))

    def test_stream_shape(self):
        _, raw = self.stream()
        self.assertEqual(re.findall(rb"^(?:id|event|retry):", raw, re.M), [])
        self.assertNotIn(b"\r", raw)
        chunks = self.chunks(raw)
        for key in ("id", "created", "model"):
            self.assertEqual(len({chunk[key] for chunk in chunks}), 1, key)
        self.assertEqual({chunk["object"] for chunk in chunks}, {"chat.completion.chunk"})
        self.assertEqual(chunks[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertTrue(all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[1:]))
        self.assertEqual(chunks[-1]["choices"][0]["delta"], {})
        self.assertIn(chunks[-1]["choices"][0]["finish_reason"], ("stop", "length"))
        self.assertTrue(all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1]))
        self.assertTrue(all("usage" not in chunk and len(chunk["choices"]) == 1 for chunk in chunks))
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        self.assertIn("hello wide world", text)

    def test_include_usage(self):
        _, raw = self.stream(stream_options={"include_usage": True})
        chunks = self.chunks(raw)
        self.assertTrue(all(chunk["usage"] is None for chunk in chunks[:-1]))
        self.assertEqual(chunks[-1]["choices"], [])
        usage = chunks[-1]["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])

    def test_completions_stream(self):
        body = {"model": "echo", "prompt": "hello", "stream": True}
        status, _, raw = self.box.request("POST", "/v1/completions", body)
        self.assertEqual(status, 200)
        chunks = self.chunks(raw)
        self.assertEqual({chunk["object"] for chunk in chunks}, {"text_completion"})
        self.assertIn("hello", "".join(chunk["choices"][0]["text"] for chunk in chunks))
        self.assertIn(chunks[-1]["choices"][0]["finish_reason"], ("stop", "length"))

    def test_whole_shape(self):
        status, headers, raw = self.box.request("POST", CHAT, HELLO)
        self.assertEqual(status, 200)
        answer = json.loads(raw)
        self.assertEqual(answer["object"], "chat.completion")
        self.assertLessEqual({"id", "created", "model", "choices", "usage"}, answer.keys())
        choice = answer["choices"][0]
        self.assertLessEqual({"index", "message", "logprobs", "finish_reason"}, choice.keys())
        self.assertLessEqual({"role", "content", "refusal"}, choice["message"].keys())
        self.assertIsNone(choice["message"]["refusal"])
        self.assertIn("cached_tokens", answer["usage"]["prompt_tokens_details"])
        ours = [f"x-switchbox-{name}" for name in ("job-id", "queue-ms", "node", "attempts", "credits")]
        for name in ["x-request-id", "openai-processing-ms", *self.rate_limits, *ours]:
            self.assertIn(name, headers)
        for name in (name for name in self.rate_limits if "-reset-" in name):
            self.assertRegex(headers[name], r"^(\d+h)?(\d+m)?(\d+(\.\d+)?s)?(\d+ms)?$")

    def test_what_clients_send_along_is_no_reason_to_refuse(self):
        extra = {"OpenAI-Organization": "o", "OpenAI-Project": "p", "X-Stainless-Lang": "x", "X-Client-Request-Id": "c"}
        body = {**HELLO, "a_field_of_tomorrow": {"x": 1}, "user": "u", "metadata": {"k": "v"}, "store": False}
        status, _, raw = self.box.request("POST", CHAT, body, extra)
        self.assertEqual(status, 200, raw)

    def test_models(self):
        _, _, raw = self.box.request("GET", "/v1/models")
        listed = json.loads(raw)
        self.assertEqual(listed["object"], "list")
        for model in listed["data"]:
            self.assertLessEqual({"id", "object", "created", "owned_by"}, model.keys())
            status, _, raw = self.box.request("GET", "/v1/models/" + model["id"])
            self.assertEqual((status, json.loads(raw)["id"]), (200, model["id"]))

    def test_every_refusal_has_the_four_keys(self):
        text = {"content-type": "text/plain"}
        cases = [
            (400, "POST", CHAT, b"{", {}),
            (401, "POST", CHAT, HELLO, {"authorization": "Bearer sk-nobody"}),
            (401, "GET", "/v1/models", None, {"authorization": ""}),
            (404, "GET", "/nowhere", None, {}),
            (404, "POST", "/v1/nowhere", HELLO, {}),
            (404, "POST", CHAT, {**HELLO, "model": "nope"}, {}),
            (405, "GET", CHAT, None, {}),
            (413, "POST", CHAT, {**HELLO, "user": "x" * 200_000}, {}),
            (415, "POST", CHAT, b"hello", text),
        ]
        for status, method, path, body, headers in cases:
            with self.subTest(status=status, path=path):
                told, answered, raw = self.box.request(method, path, body, headers)
                self.assertEqual(told, status, raw)
                self.assert_error(answered, raw)

    def assert_error(self, headers, raw):
        self.assertTrue(headers["content-type"].startswith("application/json"))
        self.assertTrue(headers["x-request-id"].startswith("req_"))
        body = json.loads(raw)
        self.assertEqual(set(body), {"error"})
        error = body["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertIsInstance(error["message"], str)
        self.assertIsInstance(error["type"], str)
        for key in ("param", "code"):
            self.assertIsInstance(error[key], (str, type(None)))

    def test_request_ids_differ(self):
        ids = {self.box.request("GET", "/v1/models")[1]["x-request-id"] for _ in range(5)}
        self.assertEqual(len(ids), 5)

    def test_secrets_and_sniffing(self):
        _, headers, _ = self.box.request("POST", CHAT, HELLO)
        self.assertEqual(headers["x-content-type-options"], "nosniff")
        self.assertIn("no-store", headers["cache-control"])

    def test_one_connection_serves_many_requests(self):
        channel = http.client.HTTPConnection("127.0.0.1", self.box.port, timeout=PATIENCE_S)
        headers = {"authorization": f"Bearer {self.box.key}", "content-type": "application/json"}
        sockets = set()
        for stream in (False, True, False):
            channel.request("POST", CHAT, json.dumps({**HELLO, "stream": stream}), headers)
            sockets.add(channel.sock)
            self.assertEqual(channel.getresponse().read()[:1], b"d" if stream else b"{")
        self.assertEqual(len(sockets), 1)
        channel.close()

    def test_expect_continue(self):
        """curl asks before it sends a larger body."""
        body = json.dumps({**HELLO, "user": "x" * 2000}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1:{self.box.port}\r\nauthorization: Bearer {self.box.key}\r\n"
        head += f"content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.box.port), timeout=PATIENCE_S) as channel:
            channel.sendall(head.encode())
            self.assertTrue(channel.recv(1000).startswith(b"HTTP/1.1 100"))
            channel.sendall(body)
            self.assertTrue(channel.recv(1000).startswith(b"HTTP/1.1 200"))


class Keepalive(BoxCase):
    config = """
[limits]
keepalive_delay_ms = 100

[[model]]
name = "slow"
spec = "echo:20"
slots = 1
"""

    def test_comments_only_while_a_stream_waits(self):
        long = [{"role": "user", "content": " ".join(["word"] * 100)}]
        body = {"model": "slow", "messages": long, "stream": True}
        first = threading.Thread(target=lambda: self.box.request("POST", CHAT, body))
        first.start()
        self.box.wait_metric("switchbox_jobs", 'state="running"', 1)
        _, headers, raw = self.box.request("POST", CHAT, {**body, "stream_options": {"include_usage": True}})
        first.join()
        self.assertTrue(headers["content-type"].startswith("text/event-stream"))
        events = events_of(raw)
        self.assertTrue(events[0].startswith(":"), "it waited longer than the delay")
        self.assertTrue(all(event.startswith((":", "data: ")) and "\n" not in event for event in events))
        self.assertEqual(events[-1], "data: [DONE]")
