"""Measures the HTTP service on a CPU against plain calls of the runtime; writes ``benchmarks/results/http.json``.

    python -m benchmarks.measure_http [BUNDLE] [--clients 64] [--rounds 3] [--seconds 20]

``wrk``, a Debian package, is the load: each of its connections sends one caption after the other and waits for each
answer. Rounds of all candidates alternate, and their order is reversed from round to round: the runtime in this process
with batches of 64 texts and with single texts in two threads, the service, and the service with batches of one.
While `wrk` runs, every row of a further client is compared with that of a plain call. `wrk` has the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import align_runtime
from align_exporter.builtin_samples import captions
from benchmarks.result_files import ROOT, conditions, write_result

SERVE = "import sys; from align_serving.http.command import main; sys.exit(main(sys.argv[1:]))"
BATCH = 64
# wrk runs this once a thread; `done` runs once, with the whole.
SCRIPT = """
local texts = {%s}
local number = 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
function request()
  number = number + 1
  local body = '{"model":"%s","encoding_format":"base64","input":' .. texts[number %% #texts + 1] .. '}'
  return wrk.format(nil, "/v1/embeddings", nil, body)
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\nRESULT {"calls":%%d,"seconds":%%f,"p50":%%f,"p99":%%f,"failed":%%d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def plain(model: align_runtime.Model, texts: list[str], seconds: float, size: int, threads: int) -> dict[str, Any]:
    """Texts in batches of `size`, by `threads` threads, for `seconds`."""
    end, times = time.perf_counter() + seconds, list[float]()

    def call(number: int) -> None:
        own, at = list[float](), number
        while time.perf_counter() < end:
            start = time.perf_counter()
            model.embed_texts([texts[(at + place) % len(texts)] for place in range(size)])
            own.append(time.perf_counter() - start)
            at += size
        times.extend(own)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(call, range(threads)))
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "calls": len(times) * size, "seconds": time.perf_counter() - start, "p50": p50, "p99": p99, "failed": 0
    }  # fmt: skip


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[str]:
    """The address of a service in a process of its own."""
    command = [sys.executable, "-c", SERVE, str(bundle), "--port", "0", "--drain", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield line.split(" at ")[1].strip().removesuffix("/v1")
        finally:
            process.terminate()
            process.wait(60)


def load(address: str, script: Path, clients: int, seconds: float) -> dict[str, Any]:
    """What `wrk` measures."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), address]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.partition("RESULT ")[2]))


def checked(
    model: align_runtime.Model, address: str, texts: list[str], work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """`work`, while a client compares every row that it gets with that of a plain call."""
    expected, stop, rows = model.embed_texts(texts), threading.Event(), [0, 0]

    def compare() -> None:
        while not stop.wait(0.05):
            number = rows[0] % len(texts)
            body = json.dumps({"model": model.info.name, "input": texts[number]}).encode()
            request = urllib.request.Request(f"{address}/v1/embeddings", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                found = np.array(json.load(answer)["data"][0]["embedding"], np.float32)
            rows[0] += 1
            rows[1] += bool(np.abs(found - expected[number]).max() > 1e-5)

    client = threading.Thread(target=compare)
    client.start()
    result = work()
    stop.set()
    client.join()
    return result | {"compared": rows[0], "wrong": rows[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "build" / "align-tiny")
    parser.add_argument("--clients", type=int, default=64, help="connections (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="of each candidate (default: 3)")
    parser.add_argument("--seconds", type=float, default=20, help="of a round (default: 20)")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is missing; apt-get install wrk")
    before, texts = os.getloadavg(), captions()
    with ExitStack() as stack:
        model = stack.enter_context(align_runtime.load(options.bundle, towers=("text",)))
        model.warmup()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        script = folder / "load.lua"
        script.write_text(SCRIPT % (",".join(f"[==[{json.dumps(text)}]==]" for text in texts), model.info.name))
        addresses = {
            name: stack.enter_context(serving(options.bundle, "--towers", "text", "--text-batch", str(size)))
            for name, size in (("service", BATCH), ("service, batches of one", 1))
        }
        work: dict[str, Callable[[], dict[str, Any]]] = {
            f"plain calls of {BATCH} texts": lambda: plain(model, texts, options.seconds, BATCH, 2),
            "plain calls of one text": lambda: plain(model, texts, options.seconds, 1, 2),
        }
        for name, address in addresses.items():

            def measured(address: str = address) -> dict[str, Any]:
                return checked(model, address, texts, lambda: load(address, script, options.clients, options.seconds))

            work[name] = measured
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in work}
        for index in range(options.rounds):
            for name in reversed(work) if index % 2 else work:
                found = work[name]()
                rounds[name].append(found)
                rate = found["calls"] / found["seconds"]
                print(
                    f"{name:>26}: {rate:8.1f} texts/s, p50 {1e3 * found['p50']:.1f} ms, "
                    f"p99 {1e3 * found['p99']:.1f} ms, {found['failed']} failed, {found.get('wrong', 0)} wrong",
                    flush=True,
                )
        facts = {"model": model.info.name, "precision": model.info.precision, "clients": options.clients}
    write_result("http", conditions(before) | facts | {"round_seconds": options.seconds, "rounds": rounds})
    rates = {name: [one["calls"] / one["seconds"] for one in found] for name, found in rounds.items()}
    for name in rates:
        ratio = median(a / b for a, b in zip(rates["service"], rates[name], strict=True))
        print(f"service / {name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
