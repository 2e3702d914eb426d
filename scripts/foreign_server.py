"""llama.cpp's server with a model, on a free port of loopback, until the process is told to stop."""

import signal
import sys
import threading

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"small"}
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_parallel, params.n_ctx = 4, 8192
params.cpuparams.n_threads = 2
# The same request gives the same answer: none of it is left from the one before.
params.cache_prompt, params.cache_ram_mib = False, 0
params.warmup = False

stop = threading.Event()
for told in (signal.SIGTERM, signal.SIGINT):
    signal.signal(told, lambda *_: stop.set())
server = xllamacpp.Server(params)
print(f"foreign server ready: {server.listening_address}", flush=True)
stop.wait()
