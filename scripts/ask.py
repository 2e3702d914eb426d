"""Asks the box one streamed question, as any OpenAI client would, and shows what matters about the answer.

Standard library only, so that the demo runs wherever Python does. Prints the answer as it comes, then the time to
the first token and the rate; `--job-file` receives the job's id for `switchbox jobs trace`.
"""

import argparse
import http.client
import json
import sys
import time
import urllib.parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the box, as http://IP:PORT")
    parser.add_argument("question")
    parser.add_argument("--model", required=True)
    parser.add_argument("--key-file", required=True)
    parser.add_argument("--job-file")
    parser.add_argument("--max-tokens", type=int, default=160)
    return parser.parse_args()


def connection(base):
    address = urllib.parse.urlsplit(base)
    return http.client.HTTPConnection(address.hostname, address.port, timeout=300)


def wait_until_ready(base):
    """The ready line says that the box listens; /readyz says that it takes work (a model may still load)."""
    for _ in range(600):
        probe = connection(base)
        probe.request("GET", "/readyz")
        if probe.getresponse().status == 200:
            return
        time.sleep(0.1)
    sys.exit("the box did not become ready within a minute")


def ask(args, key):
    body = {
        "model": args.model,
        "messages": [{"role": "user", "content": args.question}],
        "max_tokens": args.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    channel = connection(args.base)
    channel.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = channel.getresponse()
    if response.status != 200:
        sys.exit(f"the box answered {response.status}: {response.read().decode()}")
    return response


def events(response):
    """The JSON of each `data:` line up to [DONE]; comments (keepalives) are skipped."""
    for line in response:
        if not line.startswith(b"data: "):
            continue
        data = line[len(b"data: "):].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            sys.exit(f"\nthe job failed: {event['error']['message']}")
        yield event
    sys.exit("\nthe stream ended without [DONE]")


def main():
    args = arguments()
    with open(args.key_file) as file:
        key = file.read().strip()
    wait_until_ready(args.base)
    asked = time.monotonic()
    response = ask(args, key)
    first, usage = None, None
    for event in events(response):
        usage = event.get("usage") or usage
        text = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        if text and first is None:
            first = time.monotonic()
        print(text, end="", flush=True)
    done = time.monotonic()
    if first is None or usage is None:
        sys.exit("the stream ended without text or without usage")
    tokens = usage["completion_tokens"]
    rate = (tokens - 1) / (done - first) if tokens > 1 else 0.0
    print(f"\n\n{tokens} tokens, {rate:.1f} tokens/s, first token after {(first - asked) * 1000:.0f} ms")
    if args.job_file:
        with open(args.job_file, "w") as file:
            file.write(response.headers["x-switchbox-job-id"] + "\n")


if __name__ == "__main__":
    main()
