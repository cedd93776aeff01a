"""Measures many clients at once on the CPU in the published sizes; writes ``benchmarks/results/clients.json``.

    python -m benchmarks.measure_clients [--clients 32] [--limit 2] [--rounds 8] [--seconds 4]

Each client embeds one caption after the other and waits for each answer. Calls run in a pool of threads, first come,
first served: one thread per client, or as many as the limit says. Rounds without and with the limit alternate; the
order is reversed from round to round. The queue has to be a fair one: with `threading.Semaphore`, a client that has
just finished passes those that wait, and the median looks ten times better while the others starve.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import align_runtime
from align_exporter.builtin_samples import captions
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.result_files import conditions, write_result


def latencies(model: align_runtime.Model, clients: int, seconds: float, limit: int) -> list[float]:
    """Seconds from request to answer, of every call of all clients, waiting in the queue included."""
    texts, found, end = captions(), list[float](), time.perf_counter() + seconds

    def client(number: int) -> None:
        own = []
        while time.perf_counter() < end:
            start = time.perf_counter()
            pool.submit(model.embed_texts, [texts[(number + len(own)) % len(texts)]]).result()
            own.append(time.perf_counter() - start)
        found.extend(own)

    with ThreadPoolExecutor(limit) as pool:
        threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32, help="threads that call at once (default: 32)")
    parser.add_argument("--limit", type=int, default=2, help="calls that run at once (default: 2)")
    parser.add_argument("--rounds", type=int, default=8, help="of each candidate (default: 8)")
    parser.add_argument("--seconds", type=float, default=4, help="of a round (default: 4)")
    options = parser.parse_args()
    load = os.getloadavg()
    limits = {"unlimited": options.clients, "limited": options.limit}
    rounds: dict[str, list[list[float]]] = {name: [] for name in limits}
    with align_runtime.load(prepare(FOLDER).bundle.folder, towers=("text",)) as model:
        model.warmup()
        for index in range(options.rounds):
            for name in reversed(limits) if index % 2 else limits:
                found = latencies(model, options.clients, options.seconds, limits[name])
                rounds[name].append([round(value, 4) for value in found])
                print(f"{name:>10}: median {1000 * median(found):7.1f} ms, {len(found)} calls", flush=True)
    write_result(
        "clients",
        conditions(load)
        | {"clients": options.clients, "limit": options.limit, "round_seconds": options.seconds, "latencies": rounds},
    )


if __name__ == "__main__":
    main()
