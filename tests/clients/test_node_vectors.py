"""docs/node-protocol-vectors.json against docs/node-protocol.md, as another language would read them."""

import json
import pathlib
import unittest

import node_protocol as protocol

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "docs/node-protocol-vectors.json"


class Vectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.vectors = json.loads(VECTORS.read_text())
        cls.keys = {who: protocol.Key(bytes.fromhex(key["seed"])) for who, key in cls.vectors["keys"].items()}

    def test_keys(self):
        for who, key in self.vectors["keys"].items():
            self.assertEqual(self.keys[who].public.hex(), key["public"])
        self.assertEqual(protocol.node_name(self.keys["node"].public), self.vectors["keys"]["node"]["name"])

    def layout_of(self, vector):
        box, node = self.keys["box"].public, self.keys["node"].public
        stated = vector["of"]
        nonces = [bytes.fromhex(stated[name]) for name in ("challenge", "nonce")] if "nonce" in stated else []
        match vector["layout"]:
            case "box":
                return protocol.box_layout(nonces[1], nonces[0], node)
            case "node":
                said = (stated["environments"], stated.get("invite"))
                return protocol.node_layout(stated["version"], box, *nonces, node, *said)
            case "result":
                return protocol.result_layout(box, node, stated)
            case "stopped":
                return protocol.stopped_layout(box, node, stated)
            case "snapshot":
                return protocol.snapshot_layout(stated["environment"], stated["version"], stated["text"])

    def test_signed_layouts(self):
        tags = set()
        for vector in self.vectors["signed"]:
            with self.subTest(vector["layout"], of=vector["of"]):
                data = self.layout_of(vector)
                self.assertEqual(data.hex(), vector["bytes"])
                signer = self.keys[vector["by"]]
                self.assertEqual(signer.sign(data).hex(), vector["signature"])
                self.assertTrue(protocol.is_signed(signer.public, data, bytes.fromhex(vector["signature"])))
                self.assertFalse(protocol.is_signed(signer.public, data + b"\0", bytes.fromhex(vector["signature"])))
                tags.add(vector["layout"])
        self.assertEqual(tags, {"box", "node", "result", "stopped", "snapshot"})

    def test_hashes(self):
        for vector in self.vectors["request_hashes"]:
            self.assertEqual(protocol.request_hash(vector["endpoint"], vector["body"]).hex(), vector["hash"])
        for vector in self.vectors["output_hashes"]:
            self.assertEqual(protocol.output_hash(vector["chunks"]).hex(), vector["hash"])

    def test_receipts(self):
        box_key = self.keys["box"].public
        for receipt in self.vectors["receipts"]:
            protocol.check_receipt(receipt, box_key)
            with self.assertRaises(ValueError):
                protocol.check_receipt({**receipt, "ended_at_ms": receipt["ended_at_ms"] + 1}, box_key)
            with self.assertRaises(ValueError):
                protocol.check_receipt(receipt, self.keys["node"].public)

    def test_join_strings(self):
        for vector in self.vectors["join_strings"]:
            text = vector.pop("text")
            self.assertEqual(protocol.parse_join(text), vector)
            self.assertEqual(protocol.join_text(**vector), text)


if __name__ == "__main__":
    unittest.main()
