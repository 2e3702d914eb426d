"""Starts the real binary for a test and tells what its metrics say. Standard library only."""

import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE_S = 120
# A server that has the small model: then it runs there, and the box is only the queue before it.
UPSTREAM = os.environ.get("SWITCHBOX_TEST_UPSTREAM")
# Whether the model is on an agent's machine, and the box only knows it by that.
THROUGH_AGENT = os.environ.get("SWITCHBOX_TEST_THROUGH_AGENT") == "1"
BINARY = os.environ.get("SWITCHBOX_BIN", str(ROOT / "target/release/switchbox"))
# Asked this greedily, the small model tells on and on: as good as endless.
ENDLESS = "Tell me a story about a river."


def model_path():
    return subprocess.check_output([ROOT / "scripts/fetch-model"], text=True).strip()


def served(args):
    """The arguments with the small model's place filled in."""
    if not UPSTREAM:
        return [a.replace("=MODEL", "=" + model_path()) for a in args]
    filled = list(args)
    while "small=MODEL" in filled:
        at = filled.index("small=MODEL")
        filled[at - 1 : at + 1] = ["--upstream", UPSTREAM]
    return filled


def wait_for(what, look):
    """Polls until `look` gives something true; only a hang reaches the deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"gave up waiting for {what}")


class Box:
    """One running box with a key, a data directory and ports of its own."""

    def __init__(self, *args, config="", auth=True):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="switchbox-clients-"))
        self.auth = auth
        self.errors = open(self.dir / "stderr", "w+")
        self.process = subprocess.Popen(
            self._command(args, config), stdout=subprocess.PIPE, stderr=self.errors, stdin=subprocess.DEVNULL, text=True
        )
        line = self._first_line()
        found = re.fullmatch(r"switchbox ready: (http://127\.0\.0\.1:(\d+))\n", line)
        if not found:
            said = self.stderr()
            self.stop()
            raise AssertionError(f"ready line: {line!r}; stderr:\n{said}")
        self.base, self.port = found[1], int(found[2])
        self.key = (self.dir / "data/api.key").read_text().strip() if auth else "none"
        wait_for("readiness", lambda: self.request("GET", "/readyz")[0] == 200)

    def _command(self, args, config):
        command = [BINARY, "serve", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(self.dir / "data"), *args]
        if not self.auth:
            command.append("--no-auth")
        if config:
            (self.dir / "switchbox.toml").write_text(config)
            command += ["--config", str(self.dir / "switchbox.toml")]
        return command

    def _first_line(self):
        line = []
        reader = threading.Thread(target=lambda: line.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(PATIENCE_S)
        return line[0] if line else ""

    def stderr(self):
        return (self.dir / "stderr").read_text()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def request(self, method, path, body=None, headers=None):
        """One request without any SDK: (status, headers in lower case, raw body)."""
        channel = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        sent = {"authorization": f"Bearer {self.key}"} if self.auth else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent["content-type"] = "application/json"
        sent.update(headers or {})
        channel.request(method, path, body, sent)
        answer = channel.getresponse()
        raw = answer.read()
        channel.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, raw

    def admin(self, method, path, body=None):
        address = (self.dir / "data/admin.addr").read_text().strip().removeprefix("http://")
        token = (self.dir / "data/admin.token").read_text().strip()
        channel = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        sent = {"authorization": f"Bearer {token}"}
        if body is not None:
            sent["content-type"] = "application/json"
        channel.request(method, path, body and json.dumps(body), sent)
        answer = channel.getresponse()
        text = answer.read().decode()
        channel.close()
        assert answer.status == 200, f"{path}: {answer.status} {text}"
        return text

    def join_string(self):
        """What a machine of the operator's own joins with."""
        return json.loads(self.admin("POST", "/admin/invites/new", {"trust": "own"}))["join"]

    def metric(self, name, label=""):
        """The sum over the samples of that name whose labels contain `label`."""
        total = 0.0
        for line in self.admin("GET", "/metrics").splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.split("{")[0] == name and label in sample:
                total += float(value)
        return total

    def wait_metric(self, name, label, value):
        wait_for(f"{name} {label} {value}", lambda: self.metric(name, label) >= value)

    def wait_idle(self):
        names = ["switchbox_jobs", "switchbox_reservations", "switchbox_holds", "switchbox_output_bytes_held"]
        wait_for("everything held to be given back", lambda: not any(self.metric(name) for name in names))


class Agent:
    """One running agent of a box, with the models of `args`."""

    def __init__(self, box, *args):
        self.errors = open(box.dir / "agent.stderr", "w+")
        command = [BINARY, "agent", "--join", box.join_string(), "--data-dir", str(box.dir / "agent"), *args]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.errors, stdin=subprocess.DEVNULL)
        try:
            wait_for("the agent's models to be offered", lambda: self._models(box))
            # Each is tested before it is given any work.
            tested = lambda: box.metric("switchbox_test_jobs_passed_total") >= len(self._models(box))
            wait_for("the agent's models to pass their tests", tested)
        except BaseException:
            self.stop()
            raise

    def _models(self, box):
        assert self.process.poll() is None, pathlib.Path(self.errors.name).read_text()
        return json.loads(box.request("GET", "/v1/models")[2])["data"]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()


class BoxCase(unittest.TestCase):
    """A test case whose tests share one box; `args` and `config` say which."""

    args = []
    config = ""
    auth = True

    agent = None

    @classmethod
    def setUpClass(cls):
        through_agent = THROUGH_AGENT and "small=MODEL" in cls.args
        args = ["--nodes-only"] if through_agent else served(cls.args)
        cls.box = Box(*args, config=cls.config, auth=cls.auth)
        if through_agent:
            try:
                cls.agent = Agent(cls.box, *served(cls.args))
            except BaseException:
                cls.box.stop()
                raise

    @classmethod
    def tearDownClass(cls):
        if cls.agent:
            cls.agent.stop()
        cls.box.stop()

    def tearDown(self):
        """Whatever a test did, nothing of it stays behind."""
        self.box.wait_idle()
