"""Texts of many clients on a real Triton server, with batches and without, beside the runtime alone.

    PYTHONPATH=tests python -m benchmarks.measure_triton BUNDLE [--clients 64] [--seconds 20] [--rounds 3]

Each client of the server is a task that sends one text after the other over gRPC; all of them share this process, and
the cores with the server. Rounds of the kinds alternate. Every row is compared with that of the runtime. At the end,
the server is told to stop while all clients send: a request is answered or refused; one that is neither is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tritonclient.grpc.aio as aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

import align_runtime
from align_exporter.builtin_samples import captions
from align_serving.triton.command import main as write_repository
from benchmarks.result_files import conditions, write_result
from support.triton_server import TritonServer, running

KINDS = {"batched": (), "unbatched": ("--max-batch", "1", "--queue-delay", "0")}
REFUSALS = ("failed to connect", "has no available versions", "Server is stopping")
TOLERANCE = 1e-5  # of a row in a batch with others


class Load:
    """Clients of one server, and what became of their requests."""

    def __init__(self, texts: list[str], rows: NDArray[np.float32]) -> None:
        self.texts, self.rows = texts, rows
        self.latencies: list[float] = []
        self.outcomes: Counter[str] = Counter()

    async def run(self, address: str, clients: int, seconds: float, stop: TritonServer | None = None) -> None:
        """Sends for `seconds`; `stop` is told to end after half of them, and clients send on."""
        end = time.perf_counter() + seconds
        async with aio.InferenceServerClient(address) as client:
            tasks = [asyncio.create_task(self._client(client, number, end)) for number in range(clients)]
            if stop is not None:
                await asyncio.sleep(seconds / 2)
                stop.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*tasks)

    async def _client(self, client: Any, number: int, end: float) -> None:
        while time.perf_counter() < end:
            index = number % len(self.texts)
            number += 1
            tensor = aio.InferInput("TEXT", [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[self.texts[index].encode()]], dtype=np.object_))
            start = time.perf_counter()
            try:
                answer = await client.infer("align_texts", [tensor], client_timeout=30)
            except InferenceServerException as error:
                refused = any(words in error.message() for words in REFUSALS)
                self.outcomes["refused" if refused else f"lost ({error.message()[:80]})"] += 1
                await asyncio.sleep(0.05)
                continue
            self.latencies.append(time.perf_counter() - start)
            same = np.abs(answer.as_numpy("EMBEDDING")[0] - self.rows[index]).max() < TOLERANCE
            self.outcomes["answered" if same else "wrong row"] += 1


def bare(model: align_runtime.Model, texts: list[str], batch: int, seconds: float) -> float:
    """Texts a second of a loop around the runtime in this process."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        model.embed_texts([texts[(count + index) % len(texts)] for index in range(batch)])
        count += batch
    return count / (time.perf_counter() - start)


def measured(bundle: str, kind: str, options: argparse.Namespace, load: Load, stopped: bool) -> dict[str, Any]:
    """One round against a server of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository"
        if write_repository([bundle, str(folder), "--towers", "text", "--quiet", *KINDS[kind]]):
            raise SystemExit(1)
        with running([folder], Path(temporary) / "log") as server:
            load.latencies, load.outcomes = [], Counter()
            asyncio.run(load.run(server.grpc, options.clients, options.seconds))
            requests = server.metric("nv_inference_request_success", "align_texts")
            found: dict[str, Any] = {
                "kind": kind,
                "per_second": round(len(load.latencies) / options.seconds, 1),
                "percentiles_ms": [round(float(value), 2) for value in np.percentile(load.latencies, (50, 99)) * 1000],
                "outcomes": dict(load.outcomes),
                "rows_per_batch": round(requests / server.metric("nv_inference_exec_count", "align_texts"), 2),
            }
            if stopped:
                load.outcomes = Counter()
                asyncio.run(load.run(server.grpc, options.clients, 4, server))
                found["outcomes_at_shutdown"] = dict(load.outcomes)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--clients", type=int, default=64, help="requests at once (default: 64)")
    parser.add_argument("--seconds", type=float, default=20, help="of a round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind (default: 3)")
    options = parser.parse_args()
    before, rounds, alone = os.getloadavg(), [], {"1": [], "32": []}
    texts = captions()
    with align_runtime.load(options.bundle, towers=("text",)) as model:
        load = Load(texts, model.embed_texts(texts))
        for index in range(options.rounds):
            for batch, found in alone.items():
                found.append(round(bare(model, texts, int(batch), options.seconds / 4), 1))
            for kind in reversed(KINDS) if index % 2 else KINDS:
                rounds.append(measured(options.bundle, kind, options, load, stopped=index == options.rounds - 1))
                print(rounds[-1], flush=True)
    for batch, found in alone.items():
        print(f"runtime alone, batches of {batch}: {median(found):.0f} texts/s")
    write_result(
        "triton",
        conditions(before)
        | {"clients": options.clients, "seconds": options.seconds, "rounds": rounds, "runtime_per_second": alone},
    )


if __name__ == "__main__":
    main()
