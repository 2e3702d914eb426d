"""What the official Python client gets when all is well: whole and streamed, chat and completions, models."""

import asyncio

import openai
from box import ENDLESS, UPSTREAM, BoxCase

QUESTION = [{"role": "user", "content": "Write a Python function that reverses a string."}]
OTHERS = ["List the first ten prime numbers.", "What is the capital of France?", "What is 12 + 30?"]


class Answers(BoxCase):
    args = ["--model", "small=MODEL", "--model", "echo=echo:", "--slots", "4"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=cls.box.base + "/v1", api_key=cls.box.key, max_retries=0)

    def test_chat_whole(self):
        answer = self.client.chat.completions.create(model="small", messages=QUESTION, temperature=0, max_tokens=64)
        choice = answer.choices[0]
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model, "small")
        self.assertEqual(choice.message.role, "assistant")
        self.assertIn("[::-1]", choice.message.content)
        self.assertIn(choice.finish_reason, ("stop", "length"))
        usage = answer.usage
        self.assertGreater(usage.prompt_tokens, 10)
        self.assertLessEqual(usage.completion_tokens, 64)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertTrue(answer._request_id.startswith("req_"))

    def test_chat_length(self):
        answer = self.client.chat.completions.create(model="small", messages=QUESTION, temperature=0, max_tokens=3)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 3)

    def test_max_completion_tokens_is_the_newer_name(self):
        answer = self.client.chat.completions.create(
            model="small", messages=QUESTION, temperature=0, max_completion_tokens=3
        )
        self.assertEqual(answer.usage.completion_tokens, 3)

    def test_stop(self):
        answer = self.client.chat.completions.create(
            model="small", messages=QUESTION, temperature=0, max_tokens=64, stop=["return"]
        )
        self.assertNotIn("return", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_chat_streamed_equals_whole(self):
        fields = dict(model="small", messages=QUESTION, temperature=0.7, seed=11, max_tokens=40)
        whole = self.client.chat.completions.create(**fields)
        chunks = list(
            self.client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True})
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-1].usage.prompt_tokens, whole.usage.prompt_tokens)

    def test_stream_helper(self):
        with self.client.chat.completions.stream(model="small", messages=QUESTION, temperature=0) as stream:
            final = stream.get_final_completion()
        self.assertIn("[::-1]", final.choices[0].message.content)

    def test_completions(self):
        fields = dict(model="small", prompt="The capital of France is", temperature=0, max_tokens=12)
        answer = self.client.completions.create(**fields)
        self.assertEqual(answer.object, "text_completion")
        self.assertTrue(answer.choices[0].text)
        chunks = list(self.client.completions.create(**fields, stream=True))
        self.assertEqual("".join(c.choices[0].text for c in chunks if c.choices), answer.choices[0].text)

    def test_models(self):
        names = {model.id for model in self.client.models.list()}
        self.assertEqual(names, {"small", "echo"})
        model = self.client.models.retrieve("small")
        self.assertEqual((model.id, model.object), ("small", "model"))
        self.assertGreater(model.created, 1_600_000_000)
        self.assertTrue(model.owned_by)

    def test_headers_through_the_sdk(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model="echo", messages=[{"role": "user", "content": "hello"}]
        )
        self.assertTrue(raw.headers["x-switchbox-job-id"].startswith("job_"))
        self.assertEqual(raw.headers["x-switchbox-attempts"], "1")
        self.assertIn("hello", raw.parse().choices[0].message.content)

    def test_service_tier_is_echoed(self):
        for asked, told in [("flex", "flex"), ("priority", "priority"), ("auto", "default")]:
            answer = self.client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "x"}], service_tier=asked
            )
            self.assertEqual(answer.service_tier, told)

    def test_conversations_and_content_parts(self):
        answer = self.client.chat.completions.create(
            model="small",
            temperature=0,
            max_tokens=8,
            messages=[
                {"role": "system", "content": "You are terse."},
                {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "Again."},
            ],
        )
        self.assertTrue(answer.choices[0].message.content)


class Cancels(BoxCase):
    args = ["--model", "small=MODEL", "--slots", "2"]

    def test_closing_the_stream_stops_the_work(self):
        client = openai.OpenAI(base_url=self.box.base + "/v1", api_key=self.box.key, max_retries=0)
        stream = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": ENDLESS}],
            temperature=0,
            max_tokens=1500,
            stream=True,
        )
        seen = 0
        for chunk in stream:
            seen += bool(chunk.choices and chunk.choices[0].delta.content)
            if seen == 3:
                break
        stream.close()
        self.box.wait_metric("switchbox_jobs_finished_total", 'end="cancelled"', 1)
        if not UPSTREAM:
            self.box.wait_metric("switchbox_executor_cancelled_total", 'phase="decode"', 1)
            self.assertLessEqual(self.box.metric("switchbox_executor_steps_after_cancel_max"), 2)

    def test_a_timeout_of_the_client_stops_the_work(self):
        client = openai.OpenAI(base_url=self.box.base + "/v1", api_key=self.box.key, max_retries=0, timeout=1)
        before = self.box.metric("switchbox_jobs_finished_total", 'end="cancelled"')
        with self.assertRaises(openai.APITimeoutError):
            client.chat.completions.create(
                model="small", messages=[{"role": "user", "content": ENDLESS}], temperature=0, max_tokens=1800
            )
        self.box.wait_metric("switchbox_jobs_finished_total", 'end="cancelled"', before + 1)


class Concurrency(BoxCase):
    args = ["--model", "small=MODEL", "--slots", "4"]

    def test_four_streams_together_as_alone(self):
        asyncio.run(self.together_as_alone())

    async def together_as_alone(self):
        async with openai.AsyncOpenAI(base_url=self.box.base + "/v1", api_key=self.box.key) as client:
            questions = [QUESTION[0]["content"], *OTHERS]
            alone = [await self.text(client, i, question) for i, question in enumerate(questions)]
            together = await asyncio.gather(*(self.text(client, i, q) for i, q in enumerate(questions)))
            # What a step computes together may round otherwise in another server.
            if not UPSTREAM:
                self.assertEqual(alone, together)
            self.assertTrue(all(alone) and all(together))

    async def text(self, client, seed, question):
        stream = await client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": question}],
            temperature=0.8,
            seed=seed,
            max_tokens=40,
            stream=True,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    def test_a_later_one_speaks_before_the_first_has_finished(self):
        asyncio.run(self.later_before_finished())

    async def later_before_finished(self):
        async with openai.AsyncOpenAI(base_url=self.box.base + "/v1", api_key=self.box.key) as client:
            order = []
            started = asyncio.Event()

            async def run(name, content, max_tokens):
                stream = await client.chat.completions.create(
                    model="small",
                    messages=[{"role": "user", "content": content}],
                    temperature=0,
                    max_tokens=max_tokens,
                    stream=True,
                )
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content and (name, "first") not in order:
                        order.append((name, "first"))
                        started.set()
                order.append((name, "end"))

            first = asyncio.create_task(run("first", ENDLESS, 300))
            await started.wait()
            await asyncio.gather(*(run(f"later {i}", q, 10) for i, q in enumerate(OTHERS)))
            await first
            for i in range(len(OTHERS)):
                self.assertLess(order.index((f"later {i}", "first")), order.index(("first", "end")))
