"""A node, written from docs/node-protocol.md alone: it answers with the words of the prompt, one by one.

`agent.py JOIN_STRING MODEL[=DELAY_MS]...` joins a box with a new key and works until it is told to go. It keeps attempts
and results over broken connections, as the protocol's section 8 says."""

import asyncio
import json
import os
import random
import ssl
import sys

import websockets
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from node_protocol import (
    PATH, SUBPROTOCOL, VERSION, Key, box_layout, is_signed, node_layout, output_hash, parse_join, request_hash,
    result_layout, sha256, stopped_layout,
)

GIVES_UP = {4006, 4007, 4008, 4009, 4012, 4017}


class Attempt:
    """One assignment: what it has come to, whether or not anybody is connected."""

    def __init__(self, assign):
        self.assign, self.chunks, self.result, self.task = assign, [], None, None

    def hold(self):
        a = self.assign
        held = {"reservation": a["reservation"], "model": a["model"], "chunks": len(self.chunks),
                "kv_tokens": a["input_tokens"] + a["output_tokens_max"]}
        return {**held, "result": self.result} if self.result else held


class Agent:
    def __init__(self, join, models):
        self.join, self.models = join, models
        self.key = Key(os.urandom(32))
        self.public = self.key.public
        self.box, self.attempts, self.socket = bytes.fromhex(join["box"]), {}, None

    async def run(self):
        wait = 1
        while True:
            try:
                await self.connection()
                wait = 1
            except websockets.ConnectionClosed as closed:
                if closed.rcvd and closed.rcvd.code in GIVES_UP:
                    return sys.exit(f"the box closed with {closed.rcvd.code}: {closed.rcvd.reason}")
            except OSError as error:
                print(f"no connection: {error}", file=sys.stderr)
            finally:
                self.socket = None
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, 60)

    async def connection(self):
        url = self.join["url"].rstrip("/").replace("http", "ws", 1) + PATH
        context = ssl.create_default_context() if url.startswith("wss:") else None
        if context and self.join["tls"]:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        limits = {"max_size": 8 << 20, "compression": None, "ping_interval": None}
        async with websockets.connect(url, subprotocols=[SUBPROTOCOL], ssl=context, **limits) as socket:
            if context and self.join["tls"]:
                der = socket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
                spki = x509.load_der_x509_certificate(der).public_key().public_bytes(
                    Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                if sha256(spki).hex() != self.join["tls"]:
                    raise OSError("the certificate isn't the pinned one")
            interval = await self.shake_hands(socket)
            beating = asyncio.create_task(self.beat(interval))
            try:
                async for text in socket:
                    await self.hear(json.loads(text))
            finally:
                beating.cancel()

    async def shake_hands(self, socket):
        async def say(**message):
            await socket.send(json.dumps(message))

        async def hear(kind):
            message = json.loads(await socket.recv())
            if message["type"] != kind:
                raise OSError(f"the box says {message} where `{kind}` is expected")
            return message

        nonce = os.urandom(32)
        await say(type="hello", version=VERSION, node_key=self.public.hex(), nonce=nonce.hex())
        said = await hear("challenge")
        challenge, key = bytes.fromhex(said["challenge"]), bytes.fromhex(said["box_key"])
        proof = box_layout(nonce, challenge, self.public)
        if key != self.box or not is_signed(key, proof, bytes.fromhex(said["signature"])):
            await socket.close(4100, "this isn't the box that I know")
            raise OSError("somebody poses as the box")
        token = self.join["token"]
        proof = node_layout(VERSION, key, challenge, nonce, self.public, ["mainnet"], token)
        await say(type="authenticate", environments=["mainnet"], invite=token, signature=self.key.sign(proof).hex())
        await hear("admitted")
        models = [{"name": name, "slots": 8, "warm": True, "load_ms": 0} for name in self.models]
        offer = {"models": models, "slots": 16, "kv_tokens": 1 << 40, "memory_bytes": 0}
        held = list(self.attempts.values())
        await say(type="ready", offer=offer, holds=[attempt.hold() for attempt in held])
        welcome = await hear("welcome")
        self.socket = socket
        for attempt, told in zip(held, welcome["holds"]):
            if told["verdict"] == "unknown":
                await self.stop(told["reservation"])
            elif told["verdict"] == "resume":
                await self.send_from(attempt, told["from"])
        return welcome["heartbeat_interval_ms"] / 1000

    async def say(self, **message):
        try:
            if self.socket:
                await self.socket.send(json.dumps(message))
        except websockets.ConnectionClosed:
            pass  # what it was about is listed when the next connection begins

    async def beat(self, interval):
        while True:
            await asyncio.sleep(interval)
            await self.say(type="heartbeat", warm=list(self.models), running=len(self.attempts))

    async def hear(self, message):
        reservation = message.get("reservation")
        if message["type"] == "assign":
            attempt = self.attempts[reservation] = Attempt(message)
            attempt.task = asyncio.create_task(self.answer(attempt))
        elif message["type"] == "stop" and reservation in self.attempts:
            if not self.attempts[reservation].result:
                await self.stop(reservation)
        elif message["type"] in ("result_accepted", "result_unknown", "result_refused"):
            self.attempts.pop(reservation, None)

    async def stop(self, reservation):
        attempt = self.attempts.pop(reservation)
        attempt.task.cancel()
        a = attempt.assign
        stated = {name: a[name] for name in ("environment", "job", "reservation", "input_tokens")}
        stated["output_tokens"] = len(attempt.chunks)
        signature = self.key.sign(stopped_layout(self.box, self.public, stated)).hex()
        await self.say(type="stopped", statement=stated, signature=signature)

    async def answer(self, attempt):
        a, body = attempt.assign, json.loads(attempt.assign["body"])
        await self.say(type="accepted", reservation=a["reservation"])
        words = prompt_of(body).split(" ")
        words = [word + " " for word in words[:-1]] + words[-1:]
        for word in words[: a["output_tokens_max"]]:
            await asyncio.sleep(self.models[a["model"]])
            attempt.chunks.append({"text": word, "tokens": 1})
            await self.send_from(attempt, len(attempt.chunks) - 1)
        cut = len(words) > a["output_tokens_max"]
        same = {name: a[name] for name in ("environment", "job", "reservation", "model", "model_index")}
        stated = {
            **same, "request_hash": request_hash(a["endpoint"], a["body"]).hex(),
            "output_hash": output_hash(attempt.chunks).hex(), "input_tokens": len(prompt_of(body).split()),
            "cached_tokens": 0, "output_tokens": len(attempt.chunks),
            "status": {"kind": "succeeded", "finish_reason": "length" if cut else "stop"},
        }
        signature = self.key.sign(result_layout(self.box, self.public, stated)).hex()
        attempt.result = {"statement": stated, "signature": signature}
        await self.say(type="completed", chunks=len(attempt.chunks), **attempt.result)

    async def send_from(self, attempt, index):
        if chunks := attempt.chunks[index:]:
            await self.say(type="output", reservation=attempt.assign["reservation"], index=index, chunks=chunks)
        if attempt.result:
            await self.say(type="completed", chunks=len(attempt.chunks), **attempt.result)


def prompt_of(body):
    if "messages" not in body:
        return body["prompt"]
    content = [m["content"] for m in body["messages"] if m["role"] == "user"][-1]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


if __name__ == "__main__":
    named = [model.partition("=") for model in sys.argv[2:]]
    asyncio.run(Agent(parse_join(sys.argv[1]), {n: float(ms or 0) / 1000 for n, _, ms in named}).run())
