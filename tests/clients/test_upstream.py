"""What the box's own executor can't do and a server behind it can: whatever the client says goes there, and what the
server says comes back. Only where there is such a server (`scripts/test release clients-foreign`)."""

import json
import unittest

import openai
from box import UPSTREAM, BoxCase

HELLO = [{"role": "user", "content": "Name a colour."}]


@unittest.skipUnless(UPSTREAM, "there is no server behind the box")
class Passed(BoxCase):
    args = ["--model", "small=MODEL"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=cls.box.base + "/v1", api_key=cls.box.key, max_retries=0)

    def ask(self, **fields):
        fields = {"model": "small", "messages": HELLO, "temperature": 0, "max_tokens": 8, **fields}
        return self.client.chat.completions.create(**fields)

    def test_probabilities(self):
        whole = self.ask(logprobs=True, top_logprobs=2).choices[0]
        tokens = whole.logprobs.content
        self.assertEqual("".join(token.token for token in tokens), whole.message.content)
        self.assertTrue(all(len(token.top_logprobs) == 2 for token in tokens))
        chunks = list(self.ask(logprobs=True, top_logprobs=2, stream=True))
        streamed = [token for c in chunks if c.choices and c.choices[0].logprobs for token in c.choices[0].logprobs.content]
        self.assertEqual([token.token for token in streamed], [token.token for token in tokens])

    def test_a_schema(self):
        schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
        asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        answer = self.ask(response_format=asked, max_tokens=40).choices[0].message.content
        self.assertIn(json.loads(answer)["colour"], ["red", "blue"])

    def test_parameters_that_only_the_server_knows(self):
        answer = self.ask(extra_body={"grammar": 'root ::= "blue"'}).choices[0]
        self.assertEqual((answer.message.content, answer.finish_reason), ("blue", "stop"))

    def test_usage_is_the_servers(self):
        usage = self.ask(max_tokens=4).usage
        self.assertEqual(usage.completion_tokens, 4)
        # The prompt's tokens, not its bytes.
        self.assertLess(usage.prompt_tokens, 60)
        self.assertEqual(self.box.metric("switchbox_upstream_usage_estimated_total"), 0)

    def test_its_refusals_are_in_its_words(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(messages=[{"role": "user", "content": "word " * 9000}])
        self.assertIn("context size", caught.exception.message)

    def test_one_choice(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(n=2)
        self.assertEqual(caught.exception.param, "n")
