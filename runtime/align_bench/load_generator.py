"""Latency under load: clients that wait for their answer, and inputs that arrive whether or not anybody waits.

A closed loop shows what a number of clients get. It hides what a service suffers whose inputs do not wait: while one
answer is late, the next inputs are not sent, and their waiting is never counted (Tene's "coordinated omission"). The
open loop counts from the moment at which an input was due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

MAX_WAITING = 256  # inputs under way in an open loop; beyond that they wait in a queue, and that counts too


def closed_loop(work: Callable[[], object], clients: int, seconds: float) -> tuple[list[float], float]:
    """`clients` threads that call `work` again and again.

    Returns:
        latencies in the order of their ends, and the seconds until the last client was done.
    """
    latencies: list[float] = []
    failures: list[BaseException] = []
    lock, gate = threading.Lock(), threading.Barrier(clients + 1)

    def client() -> None:
        gate.wait()
        end = time.perf_counter() + seconds
        try:
            while (start := time.perf_counter()) < end or not latencies:
                work()
                with lock:
                    latencies.append(time.perf_counter() - start)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies, time.perf_counter() - start


def open_loop(work: Callable[[], object], rate: float, seconds: float, seed: int = 0) -> tuple[list[float], float]:
    """Calls of `work` that arrive at random, `rate` per second on average (a Poisson process), for `seconds`.

    Returns:
        latencies in the order of arrival, each from when the call was due, and the seconds until the last was done.
    """
    arrivals = poisson_arrivals(rate, seconds, seed)
    origin = time.perf_counter() + 0.01

    def call(due: float) -> float:
        work()
        return time.perf_counter() - origin - due

    with ThreadPoolExecutor(MAX_WAITING, thread_name_prefix="load") as pool:
        jobs = []
        for due in arrivals:
            time.sleep(max(origin + due - time.perf_counter(), 0))
            jobs.append(pool.submit(call, due))
        latencies = [job.result() for job in jobs]
    return latencies, time.perf_counter() - origin


def poisson_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments within `seconds`, at least one, whose distances are exponential with the mean 1 / `rate`."""
    random = np.random.default_rng(seed)
    arrivals = [float(random.exponential(1 / rate))]
    while arrivals[-1] < seconds:
        arrivals.append(arrivals[-1] + float(random.exponential(1 / rate)))
    return arrivals[:-1] or arrivals
