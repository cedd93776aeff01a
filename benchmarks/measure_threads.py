"""Measures how threads wait, and how runs share the cores; writes ``benchmarks/results/threads.json``.

    python -m benchmarks.measure_threads [--rounds 31] [--seconds 2] [--folder build/bench]

The graphs for CPUs in the published sizes in ONNX Runtime sessions, all of which are open in one process; rounds
alternate. Alone: one input after the other with all threads, which sleep as soon as they wait, or spin for a
millisecond first. Beside each other: callers that each run one input after the other, with all threads or with one.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from align_bench.interleaved import time_interleaved
from align_runtime.processors import available_cores
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.result_files import conditions, write_result
from benchmarks.sections.threads import ONE_CORE, SLEEPING, SPINNING
from benchmarks.sessions import Inputs, image, session, texts

GRAPHS = (("text", "fp32"), ("text", "int8"), ("vision", "fp32"), ("vision", "int8"))
TOKENS = 12
CALLERS = (2, 4)
REPEATS = 7  # of the callers beside each other


def one_input(tower: str, size: int) -> Inputs:
    return texts(1, TOKENS) if tower == "text" else image(size)


def runs_per_second(run: Any, callers: int, seconds: float) -> float:
    """The rate of `callers` threads that call `run` one time after the other."""
    counts, start = [0] * callers, time.perf_counter()

    def call(number: int) -> None:
        while time.perf_counter() < start + seconds:
            run()
            counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="of single runs (default: 31)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of callers beside each other (default: 2)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load, cores = os.getloadavg(), available_cores()
    bundle = prepare(options.folder).bundle
    size = bundle.manifest.preprocessing.output_size[0]
    alone, beside = [], []
    for tower, precision in GRAPHS:
        file = bundle.path(bundle.graph(tower, precision, "cpu").file)
        sessions = {
            SLEEPING: session(file, cores, spinning=False),
            SPINNING: session(file, cores, spinning=True),
            ONE_CORE: session(file, 1, spinning=False),
        }
        inputs = one_input(tower, size)
        run = {name: partial(one.run, None, inputs) for name, one in sessions.items()}
        expected = run[SLEEPING]()[0]
        assert all(np.array_equal(each()[0], expected) for each in run.values()), "threads change no bit"
        seconds = time_interleaved({name: run[name] for name in (SLEEPING, SPINNING)}, options.rounds)
        alone.append({"graph": f"{tower} {precision}", "seconds": seconds})
        for callers in CALLERS:
            rates: dict[str, list[float]] = {name: [] for name in run}
            for name in islice(cycle([*run, *reversed(run)]), REPEATS * len(run)):
                rates[name].append(runs_per_second(run[name], callers, options.seconds))
            beside.append({"graph": f"{tower} {precision}", "callers": callers, "rates": rates})
        print(alone[-1]["graph"], "measured", flush=True)
    measured = {"tokens": TOKENS, "cores": cores, "alone": alone, "beside": beside}
    write_result("threads", conditions(load) | measured)


if __name__ == "__main__":
    main()
