"""Carries out a plan: fresh starts, timings of every case, latency under load; and estimates how long that takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from align_bench import load_generator
from align_bench.machine import describe, load_average
from align_bench.peers import compare_with_peers
from align_bench.plan import Plan
from align_bench.record import CLOSED, END_TO_END, OPEN, BenchRecord, Case, Load, PeerComparison, Start, Timing
from align_bench.subject import Subject, opened
from align_bench.timing import Effort, sample, timed, warm_up
from align_runtime.backends.runner import COMPUTE
from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError
from align_runtime.progress import Progress

PROCESS_SECONDS = 1.0  # of a fresh start, beside loading: the interpreter, imports, the first calls
# Run in a fresh process, where nothing is imported, loaded or warm.
START_PROGRAM = """
import json, sys, time
start = time.perf_counter()
import align_runtime
imported = time.perf_counter()
bundle, precision, device, threads, streams = json.loads(sys.argv[1])
try:
    model = align_runtime.load(bundle, precision=precision, device=device, threads=threads, streams=streams)
except align_runtime.AlignError as error:
    sys.exit(str(error))
loaded = time.perf_counter()
import numpy as np
image = np.zeros((480, 640, 3), np.uint8)
before_vision = time.perf_counter()
model.embed_images([image])
vision = time.perf_counter()
model.embed_texts(["a photo of a cat"])
text = time.perf_counter()
try:
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, which has no /proc
print(json.dumps({
    "import_seconds": imported - start, "load_seconds": loaded - imported,
    "first_seconds": {"vision": vision - before_vision, "text": text - vision}, "peak_bytes": peak,
}))
"""


def measure(bundle: Bundle, plan: Plan, progress: Progress) -> BenchRecord:
    """Measures everything in `plan`, one loaded variant at a time.

    Raises:
        ConfigurationError, BackendUnavailableError: as `align_runtime.load`.
    """
    timings: list[Timing] = []
    starts: list[Start] = []
    loads: list[Load] = []
    before = load_average()
    for device in plan.devices:
        for precision in plan.variants(bundle, device):
            if plan.starts:
                with progress.phase(f"{precision} on {device}: fresh starts"):
                    for _ in range(plan.starts):
                        starts.append(measure_start(bundle.folder, precision, device, plan.threads, plan.streams))
            with opened(bundle, precision, device, plan.threads, plan.streams) as subject:
                for case in plan.cases(precision, device):
                    with progress.phase(str(case)):
                        timings.append(time_case(subject, case, plan.effort))
                for tower in plan.towers if plan.clients else ():
                    with progress.phase(f"{tower} {precision} on {device}: under load"):
                        loads += load_tower(subject, tower, precision, device, plan)
    return BenchRecord(
        machine=describe(", ".join(plan.devices)),
        load_average=(before, load_average()),
        bundle=identity(bundle),
        settings=plan.to_json(),
        timings=tuple(timings),
        starts=tuple(starts),
        loads=tuple(loads),
    )


def measure_peers(
    bundle: Bundle, plan: Plan, peers: Sequence[str], rounds: int, checkpoint: str | None, progress: Progress
) -> tuple[PeerComparison, ...]:
    """Compares every case of `plan` with `peers`, over `rounds` rounds."""
    comparisons = []
    for device in plan.devices:
        for precision in plan.variants(bundle, device):
            with opened(bundle, precision, device, plan.threads, plan.streams) as subject:
                for case in plan.cases(precision, device):
                    with progress.phase(f"{case} against {', '.join(peers)}"):
                        comparisons.append(compare_with_peers(subject, case, peers, rounds, checkpoint))
    return tuple(comparisons)


def estimate_seconds(bundle: Bundle, plan: Plan, peers: int = 0, rounds: int = 0) -> float:
    """About how long the plan takes, from loading every variant and from one call of every case.

    Peers count as if they were as fast as the bundle; what they prepare (an export, a compilation) does not count.
    """
    total = 0.0
    for device in plan.devices:
        for precision in plan.variants(bundle, device):
            start = time.perf_counter()
            with opened(bundle, precision, device, plan.threads, plan.streams) as subject:
                loaded = time.perf_counter() - start
                for case in plan.cases(precision, device):
                    total += _case_seconds(subject, case, plan.effort, peers, rounds)
            total += (2 if peers else 1) * loaded + plan.starts * (loaded + PROCESS_SECONDS)
            total += len(plan.towers) * (len(plan.clients) + len(plan.rates)) * plan.load_seconds
    return total


def _case_seconds(subject: Subject, case: Case, effort: Effort, peers: int, rounds: int) -> float:
    """Computing and the whole call take about as long as one call; the other stages are short and do not count."""
    inputs = subject.inputs(case)
    call = timed(lambda: subject.embed(case.tower, inputs))
    interleaved = (1 + 2 * rounds) * (1 + peers) * call if peers else 0.0
    return effort.expected_seconds(call) + effort.runs_of(call) * call + interleaved


def identity(bundle: Bundle) -> dict[str, str]:
    """Name of the bundle and sha256 of its manifest."""
    return {"name": bundle.manifest.provenance.name, "manifest_sha256": bundle.manifest_sha256}


def measure_start(bundle: Path, precision: str, device: str, threads: int | None, streams: int | None) -> Start:
    """Starts a process that imports the runtime, loads the bundle and calls each tower once.

    Raises:
        BackendUnavailableError: the process failed; the message holds the last line that it printed.
    """
    source = str(Path(__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-c", START_PROGRAM, json.dumps([str(bundle), precision, device, threads, streams])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        lines = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        raise BackendUnavailableError(f"a fresh process could not load and run the bundle: {lines[-1]}")
    values: dict[str, Any] = json.loads(done.stdout)
    return Start(precision, device, **values)


def time_case(subject: Subject, case: Case, effort: Effort) -> Timing:
    """Samples of every stage of `case` by itself, then of the whole call; each runs once before its samples."""
    works = subject.stages(case)
    warmup = warm_up(works[END_TO_END], effort.seconds)
    stages: dict[str, tuple[float, ...]] = {}
    for stage, work in works.items():
        work()
        copied = copy_stages(subject, case, effort) if stage == COMPUTE else {}
        stages |= copied or {stage: tuple(sample(work, effort))}
    return Timing(case, stages, warmup.runs, warmup.stable)


def copy_stages(subject: Subject, case: Case, effort: Effort) -> dict[str, tuple[float, ...]]:
    """Samples of copying to the device, computing and copying back; empty where the device has no memory of its own."""
    tensors, tower = subject.tensors(case, subject.inputs(case)), subject.tower(case.tower)
    stages: dict[str, list[float]] = {}

    def run() -> None:
        for stage, seconds in (tower.staged_seconds(tensors) or {}).items():
            stages.setdefault(stage, []).append(seconds)

    if tower.staged_seconds(tensors) is not None:
        sample(run, effort)
    return {stage: tuple(series) for stage, series in stages.items()}


def load_tower(subject: Subject, tower: str, precision: str, device: str, plan: Plan) -> Iterator[Load]:
    """Latencies of single inputs of the first size: closed loops, then open ones at shares of their throughput."""
    first = next(case for case in plan.cases(precision, device) if case.tower == tower)
    inputs = subject.inputs(replace(first, batch=1))

    def work() -> None:
        subject.embed(tower, inputs)

    work()
    best = 0.0
    for clients in plan.clients:
        latencies, seconds = load_generator.closed_loop(work, clients, plan.load_seconds)
        closed = Load(tower, precision, device, CLOSED, clients, None, seconds, tuple(latencies))
        best = max(best, closed.throughput)
        yield closed
    for share in plan.rates:
        rate = share * best
        latencies, seconds = load_generator.open_loop(work, rate, plan.load_seconds)
        yield Load(tower, precision, device, OPEN, 0, rate, seconds, tuple(latencies))
