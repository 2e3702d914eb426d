"""The official client against a box that serves nothing itself: all it has is a node, which is `agent.py`, and so shares no
code with it."""

import asyncio
import json
import subprocess
import sys

import openai
import test_wire
from box import ROOT, BoxCase, wait_for

AGENT = ROOT / "tests/clients/agent.py"


class OverANode(BoxCase):
    """A box whose models are all on one node."""

    args = ["--nodes-only"]
    config = "[limits]\nbody_bytes_max = 100000\n"
    models = ["echo", "slow=20"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            cls.node = subprocess.Popen([sys.executable, AGENT, cls.box.join_string(), *cls.models])
            cls.client = openai.OpenAI(base_url=cls.box.base + "/v1", api_key=cls.box.key, max_retries=0)
            wait_for("the node to pass its tests", cls.is_ready)
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def is_ready(cls):
        """All models were tested: one test job each."""
        assert cls.node.poll() is None, "the agent ended"
        return cls.box.metric("switchbox_test_jobs_passed_total") >= len(cls.models)

    @classmethod
    def tearDownClass(cls):
        cls.node.kill()
        cls.node.wait()
        super().tearDownClass()


class Answers(OverANode):
    def chat(self, content, **fields):
        messages = [{"role": "user", "content": content}]
        return self.client.chat.completions.create(**{"model": "echo", "messages": messages, **fields})

    def test_whole_and_streamed(self):
        whole = self.chat("one two three")
        self.assertEqual(whole.choices[0].message.content, "one two three")
        self.assertEqual((whole.model, whole.choices[0].finish_reason), ("echo", "stop"))
        self.assertEqual((whole.usage.prompt_tokens, whole.usage.completion_tokens), (3, 3))
        chunks = list(self.chat("one two three", stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, "one two three")
        self.assertEqual(chunks[-1].usage, whole.usage)

    def test_length(self):
        answer = self.chat("one two three", max_tokens=2)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.choices[0].message.content.strip(), "one two")

    def test_completions(self):
        answer = self.client.completions.create(model="echo", prompt="as it is")
        self.assertEqual((answer.object, answer.choices[0].text), ("text_completion", "as it is"))

    def test_the_node_signed_and_is_named(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model="echo", messages=[{"role": "user", "content": "who?"}]
        )
        self.assertRegex(raw.headers["x-switchbox-node"], "^node_[0-9a-f]{32}$")
        self.assertEqual(self.box.metric("switchbox_node_strikes_total"), 0)

    def test_models(self):
        self.assertEqual({model.id for model in self.client.models.list()}, {"echo", "slow"})
        self.assertEqual(self.client.models.retrieve("slow").object, "model")

    def test_unicode_and_long_words(self):
        for content in ["héllo wörld 🙂 日本語", "x" * 70_000, 'quotes " and \\ and \n lines', "\u0000 zero"]:
            self.assertEqual(self.chat(content).choices[0].message.content, content)

    def test_refusals(self):
        with self.assertRaises(openai.NotFoundError):
            self.chat("x", model="nope")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat("x", n=3)
        self.assertEqual(caught.exception.param, "n")

    def test_closing_the_stream_stops_the_work(self):
        before = self.box.metric("switchbox_jobs_finished_total", 'end="cancelled"')
        stream = self.chat(" ".join(["word"] * 500), model="slow", stream=True)
        next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
        stream.close()
        self.box.wait_metric("switchbox_jobs_finished_total", 'end="cancelled"', before + 1)

    def test_many_at_once(self):
        async def ask(client, index):
            stream = await client.chat.completions.create(
                model="slow", stream=True, messages=[{"role": "user", "content": f"I am number {index}"}]
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

        async def all_of_them():
            async with openai.AsyncOpenAI(base_url=self.box.base + "/v1", api_key=self.box.key) as client:
                return await asyncio.gather(*(ask(client, index) for index in range(24)))

        self.assertEqual(asyncio.run(all_of_them()), [f"I am number {index}" for index in range(24)])


class Wire(OverANode, test_wire.Wire):
    """Every byte as it is when the box answers itself; but nobody here knows how long a prompt may be."""

    args, config = OverANode.args, OverANode.config
    rate_limits = [name for name in test_wire.RATE_LIMITS if "tokens" not in name]


class Receipt(OverANode):
    def test_a_node_signed_it(self):
        job = {"endpoint": "/v1/chat/completions", "body": test_wire.HELLO}
        status, _, raw = self.box.request("POST", "/v1/jobs", job)
        self.assertEqual(status, 202, raw)
        path = "/v1/jobs/" + json.loads(raw)["id"]
        wait_for("the answer", lambda: json.loads(self.box.request("GET", path)[2])["state"] == "succeeded")
        status, _, raw = self.box.request("GET", path + "/receipt")
        self.assertEqual(status, 200, raw)
        self.assertTrue(json.loads(raw)["node_signature"])

