"""Latency under load: closed loops (clients that wait for their answers) and open loops (arrivals that do not wait).

A closed loop shows what a number of clients get. It hides the latency of a service whose inputs do not wait: while one
answer is late, the next inputs are not sent, and their waiting is never counted (Gil Tene's "coordinated omission").
An open loop counts from the moment at which an input was due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

MAX_CONCURRENT = 256  # calls of an open loop; further arrivals wait in a queue, and their waiting counts


def closed_loop(work: Callable[[], object], clients: int, seconds: float) -> tuple[list[float], float]:
    """Calls `work` from `clients` threads, each without a pause, for `seconds`.

    Returns:
        latencies in seconds, in the order in which the calls ended; and the seconds until the last call ended.

    Raises:
        Exception: the first error of `work`.
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
    """Calls `work` at random moments, `rate` per second on average (a Poisson process), for `seconds`.

    Returns:
        latencies in seconds, in the order of arrival, each from the moment at which the call was due; and the seconds
        until the last call ended.

    Raises:
        Exception: the first error of `work`.
    """
    arrivals = poisson_arrivals(rate, seconds, seed)
    origin = time.perf_counter() + 0.01

    def call(due: float) -> float:
        work()
        return time.perf_counter() - origin - due

    with ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="load") as pool:
        jobs = []
        for due in arrivals:
            time.sleep(max(origin + due - time.perf_counter(), 0))
            jobs.append(pool.submit(call, due))
        latencies = [job.result() for job in jobs]
    return latencies, time.perf_counter() - origin


def poisson_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments within `seconds`, at least one, with exponential distances of the mean 1 / `rate`."""
    random = np.random.default_rng(seed)
    arrivals = [float(random.exponential(1 / rate))]
    while arrivals[-1] < seconds:
        arrivals.append(arrivals[-1] + float(random.exponential(1 / rate)))
    return arrivals[:-1] or arrivals
