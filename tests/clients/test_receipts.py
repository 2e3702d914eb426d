"""A box's receipts, checked by somebody else's cryptography."""

import json
import unittest

import node_protocol as protocol

from box import BoxCase


class Receipts(BoxCase):
    args = ["--model", "echo=echo:"]

    def test_the_box_signs_what_it_says(self):
        body = {"model": "echo", "messages": [{"role": "user", "content": "signed words"}]}
        job = {"endpoint": "/v1/chat/completions", "body": body}
        status, _, raw = self.box.request("POST", "/v1/jobs", job)
        self.assertEqual(status, 202, raw)
        job = json.loads(raw)["id"]
        _, _, raw = self.box.request("GET", f"/v1/jobs/{job}?wait=60s")
        answer = json.loads(raw)["result"]["choices"][0]["message"]["content"]
        status, _, raw = self.box.request("GET", f"/v1/jobs/{job}/receipt")
        self.assertEqual(status, 200, raw)
        receipt = json.loads(raw)
        box_key = bytes.fromhex((self.box.dir / "data/box.pub").read_text().strip())
        protocol.check_receipt(receipt, box_key)
        self.assertEqual(receipt["stated"]["job"], job)
        self.assertEqual(receipt["stated"]["output_hash"], protocol.output_hash([{"text": answer}]).hex())
        receipt["billed"]["output_tokens"] += 1
        with self.assertRaises(ValueError):
            protocol.check_receipt(receipt, box_key)


if __name__ == "__main__":
    unittest.main()
