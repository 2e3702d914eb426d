"""The node protocol's bytes from docs/node-protocol.md alone: layouts, hashes, the join string. None of the box's code."""

import hashlib
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PATH = "/v1/nodes/connect"
SUBPROTOCOL = "switchbox.v1"
VERSION = "1.0"


def sha256(data):
    return hashlib.sha256(data).digest()


def number(value):
    return value.to_bytes(8, "big")


def layout(tag, *fields):
    """A tag, a zero byte, then each field behind its length. Texts are UTF-8, `None` is an empty field."""
    data = tag.encode() + b"\0"
    for field in fields:
        field = b"" if field is None else field.encode() if isinstance(field, str) else field
        data += len(field).to_bytes(4, "big") + field
    return data


def box_layout(nonce, challenge, node_key):
    return layout("switchbox.v1.box", nonce, challenge, node_key)


def node_layout(version, box_key, challenge, nonce, node_key, environments, invite=None):
    token = invite and sha256(invite.encode())
    return layout("switchbox.v1.node", version, box_key, challenge, nonce, node_key, ",".join(environments), token)


def result_layout(box_key, node_key, stated):
    """A node's statement; without a node's key that of a box on a job of its own node."""
    status = stated["status"]
    failed = status["kind"] == "failed"
    return layout(
        "switchbox.v1.result" if node_key else "switchbox.v1.own-result",
        stated["environment"],
        box_key,
        node_key,
        stated["job"],
        stated["reservation"],
        stated["model"],
        bytes.fromhex(stated.get("model_digest") or ""),
        number(stated["model_index"]),
        bytes.fromhex(stated.get("request_hash") or ""),
        bytes.fromhex(stated.get("output_hash") or ""),
        *(number(stated[count]) for count in ("input_tokens", "cached_tokens", "output_tokens")),
        status["kind"],
        status["class"] if failed else status["finish_reason"],
        sha256(status["message"].encode()) if failed else None,
    )


def stopped_layout(box_key, node_key, stated):
    counts = (number(stated[count]) for count in ("input_tokens", "output_tokens"))
    names = (stated["job"], stated["reservation"])
    return layout("switchbox.v1.stopped", stated["environment"], box_key, node_key, *names, *counts)


def snapshot_layout(environment, version, text):
    return layout("switchbox.v1.snapshot", environment, number(version), sha256(text.encode()))


def receipt_layout(signed, node_signature, billed, ended_at_ms):
    counts = ("input_tokens", "cached_tokens", "output_tokens", "microcredits")
    numbers = (number(billed[count]) for count in counts)
    return layout("switchbox.v1.receipt", sha256(signed), node_signature, *numbers, number(ended_at_ms))


def check_receipt(receipt, box_key):
    """Raises unless that box countersigned what a node (or the box itself) signed, and the receipt says the same."""
    node_key = bytes.fromhex(receipt.get("node_key") or "")
    stated = receipt["stated"]
    status = {"kind": "succeeded", "finish_reason": stated["finish_reason"]}
    signed = result_layout(box_key, node_key, {**stated, "status": status})
    node_signature = bytes.fromhex(receipt.get("node_signature") or "")
    countersigned = receipt_layout(signed, node_signature, receipt["billed"], receipt["ended_at_ms"])
    if bytes.fromhex(receipt["signed"]) != signed or bytes.fromhex(receipt["countersigned"]) != countersigned:
        raise ValueError("the receipt says something else than was signed")
    if node_key and not is_signed(node_key, signed, node_signature):
        raise ValueError("the node didn't sign this")
    if not is_signed(box_key, countersigned, bytes.fromhex(receipt["box_signature"])):
        raise ValueError("the box didn't sign this")


def request_hash(endpoint, body):
    return sha256(endpoint.encode() + b"\0" + body.encode())


def output_hash(chunks):
    data = b""
    for chunk in chunks:
        text = chunk["text"].encode()
        data += b"\xff" + text + b"\xff" if chunk.get("kind") == "json" else text
    return sha256(data)


class Key:
    """A private key; `public` is its 32 bytes."""

    def __init__(self, seed):
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, data):
        return self._key.sign(data)


def is_signed(public, data, signature):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def node_name(public):
    return "node_" + public.hex()[:32]


def parse_join(text):
    """The parts of a join string."""
    checked, _, check = text.strip().rpartition(",sum=")
    if not re.fullmatch(r"switchbox-join:1,.*", checked) or sha256(checked.encode()).hex()[:8] != check:
        raise ValueError("the join string isn't whole")
    _, url, *parts = checked.split(",")
    parts = dict(part.split("=", 1) for part in parts)
    return {"url": url, "box": parts["box"], "tls": parts.get("tls"), "token": parts["token"]}


def join_text(url, box, tls, token):
    middle = f",tls={tls}" if tls else ""
    text = f"switchbox-join:1,{url},box={box}{middle},token={token}"
    return f"{text},sum={sha256(text.encode()).hex()[:8]}"
