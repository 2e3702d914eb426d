"""What the official Python client raises when the box refuses: the class, the code, the param, the request id; and
that its retries help where they can."""

import contextlib
import threading

import openai
from box import THROUGH_AGENT, UPSTREAM, BoxCase

HELLO = [{"role": "user", "content": "hello"}]
LONG = [{"role": "user", "content": " ".join(["word"] * 400)}]


def client(box, **more):
    return openai.OpenAI(base_url=box.base + "/v1", **{"api_key": box.key, "max_retries": 0, **more})


class Refused(BoxCase):
    """Adds the assertion that all refusals share."""

    def refusal(self, kind, status, code, param, call):
        with self.assertRaises(kind) as caught:
            call()
        error = caught.exception
        self.assertIs(type(error), kind)
        self.assertEqual(error.status_code, status)
        self.assertEqual((error.code, error.param), (code, param))
        self.assertTrue(error.type)
        self.assertTrue(error.request_id.startswith("req_"))
        return error


class Classes(Refused):
    args = ["--model", "echo=echo:", "--model", "small=MODEL"]

    def chat(self, **fields):
        return lambda: client(self.box).chat.completions.create(**{"model": "echo", "messages": HELLO, **fields})

    def test_400(self):
        # What only the model's own machine knows, it says in its words.
        there = lambda code, param: ("request_rejected", None) if THROUGH_AGENT else (code, param)
        cases = [
            ({"temperature": 9}, *there("invalid_value", "temperature")),
            ({"n": 3}, "unsupported_value", "n"),
            ({"messages": []}, "invalid_value", "messages"),
            ({"stop": ["a"] * 9}, *there("invalid_value", "stop")),
            ({"model": "small", "messages": [{"role": "user", "content": "word " * 9000}]},
             *(("request_rejected", None) if UPSTREAM else ("context_length_exceeded", "messages"))),
        ]
        for fields, code, param in cases:
            with self.subTest(param=param, code=code):
                self.refusal(openai.BadRequestError, 400, code, param, self.chat(**fields))

    def test_401(self):
        call = client(self.box, api_key="sk-nobody").models.list
        self.refusal(openai.AuthenticationError, 401, "invalid_api_key", None, call)

    def test_404(self):
        self.refusal(openai.NotFoundError, 404, "model_not_found", "model", self.chat(model="nope"))
        call = lambda: client(self.box).models.retrieve("nope")
        self.refusal(openai.NotFoundError, 404, "model_not_found", "model", call)
        with self.assertRaises(openai.NotFoundError) as caught:
            client(self.box).embeddings.create(model="echo", input="x")
        self.assertTrue(caught.exception.request_id.startswith("req_"))


class Hosts(Refused):
    args = ["--model", "echo=echo:"]
    auth = False

    def test_403(self):
        for header, code in [("host", "host_not_allowed"), ("origin", "origin_not_allowed")]:
            call = client(self.box, default_headers={header: "http://evil.example"}).models.list
            self.refusal(openai.PermissionDeniedError, 403, code, None, call)


class Occupied(Refused):
    """A box with one slot; within `occupied`, that slot and the queue are full."""

    config = """
[limits]
namespace_queue_jobs_max = 1

[[model]]
name = "slow"
spec = "echo:20"
slots = 1
"""

    @contextlib.contextmanager
    def occupied(self):
        """Yields a function that makes room again."""
        enough = threading.Event()

        def run():
            with client(self.box).chat.completions.create(model="slow", messages=LONG, stream=True) as stream:
                for _ in stream:
                    if enough.is_set():
                        break

        def wait():
            client(self.box).chat.completions.create(model="slow", messages=HELLO)

        runner, waiter = threading.Thread(target=run), threading.Thread(target=wait)

        def leave():
            enough.set()
            runner.join()
            waiter.join()

        runner.start()
        self.box.wait_metric("switchbox_jobs", 'state="running"', 1)
        waiter.start()
        self.box.wait_metric("switchbox_jobs", 'state="queued"', 1)
        try:
            yield leave
        finally:
            leave()


class NamespaceFull(Occupied):
    def test_429_then_retries_help(self):
        with self.occupied() as leave:
            call = lambda: client(self.box).chat.completions.create(model="slow", messages=HELLO)
            error = self.refusal(openai.RateLimitError, 429, "rate_limit_exceeded", None, call)
            self.assertIn(int(error.response.headers["retry-after"]), range(1, 61))
            self.assertIn("x-ratelimit-remaining-requests", error.response.headers)
            self.assertNotEqual(error.response.headers.get("x-should-retry"), "false")
            self.retry_until_there_is_room(leave)

    def retry_until_there_is_room(self, leave):
        counts = []

        def seen(request):
            counts.append(request.headers["x-stainless-retry-count"])
            if len(counts) == 2:
                leave()  # so that the first retry finds room

        watched = openai.DefaultHttpxClient(event_hooks={"request": [seen]})
        patient = client(self.box, max_retries=2, http_client=watched)
        answer = patient.chat.completions.create(model="slow", messages=HELLO)
        self.assertIn("hello", answer.choices[0].message.content)
        self.assertEqual(counts, ["0", "1"])


class Overloaded(Occupied):
    config = Occupied.config.replace("namespace_queue_jobs_max = 1", "queue_jobs_max = 1")

    def test_503(self):
        with self.occupied():
            call = lambda: client(self.box).chat.completions.create(model="slow", messages=HELLO)
            error = self.refusal(openai.InternalServerError, 503, "server_is_overloaded", None, call)
        self.assertEqual(error.type, "service_unavailable_error")
        self.assertIn(int(error.response.headers["retry-after"]), range(1, 61))


class Draining(Refused):
    args = ["--model", "slow=echo:20"]

    def test_503(self):
        stream = client(self.box).chat.completions.create(model="slow", messages=LONG, stream=True)
        next(iter(stream))
        self.assertIn('"draining":true', self.box.admin("POST", "/admin/drain").replace(" ", ""))
        call = lambda: client(self.box).chat.completions.create(model="slow", messages=HELLO)
        self.refusal(openai.InternalServerError, 503, "server_is_draining", None, call)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        self.assertTrue(text.rstrip().endswith("word"), "what ran was finished")

    def tearDown(self):
        """A drained box may be gone."""
