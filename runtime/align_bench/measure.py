"""Carries a plan out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from align_bench import load_generator
from align_bench.fresh_process import measure_start
from align_bench.machine import describe, load_average
from align_bench.plan import Plan
from align_bench.record import END_TO_END, BenchRecord, Case, Load, Start, Timing
from align_bench.subject import Subject, opened
from align_bench.timing import Effort, sample, warm_up
from align_runtime.backends.runner import COMPUTE
from align_runtime.bundle import Bundle, sha256_of
from align_runtime.console import Progress
from align_runtime.manifest import MANIFEST_NAME


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
            with progress.phase(f"{precision} on {device}: {plan.starts} fresh starts"):
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


def identity(bundle: Bundle) -> dict[str, str]:
    """Name and hash of what was measured."""
    return {"name": bundle.manifest.provenance.name, "manifest_sha256": sha256_of(bundle.folder / MANIFEST_NAME)}


def time_case(subject: Subject, case: Case, effort: Effort) -> Timing:
    """Every stage of `case` by itself, then the whole call; each is run once before its samples."""
    works = subject.stages(case)
    warmup = warm_up(works[END_TO_END], effort.seconds)
    stages: dict[str, tuple[float, ...]] = {}
    for stage, work in works.items():
        work()
        copied = copying(subject, case, effort) if stage == COMPUTE else {}
        stages |= copied or {stage: tuple(sample(work, effort))}
    return Timing(case, stages, warmup.runs, warmup.stable)


def copying(subject: Subject, case: Case, effort: Effort) -> dict[str, tuple[float, ...]]:
    """Seconds of copying to the device, computing and copying back; nothing where the host computes."""
    tensors, tower = subject.tensors(case, subject.inputs(case)), subject.tower(case.tower)
    stages: dict[str, list[float]] = {}

    def run() -> None:
        for stage, seconds in (tower.staged_seconds(tensors) or {}).items():
            stages.setdefault(stage, []).append(seconds)

    if tower.staged_seconds(tensors) is not None:
        sample(run, effort)
    return {stage: tuple(series) for stage, series in stages.items()}


def load_tower(subject: Subject, tower: str, precision: str, device: str, plan: Plan) -> Iterator[Load]:
    """Single inputs of the first size, at first from clients that wait, then at shares of what those achieved."""
    first = next(case for case in plan.cases(precision, device) if case.tower == tower)
    inputs = subject.inputs(replace(first, batch=1))

    def work() -> None:
        subject.embed(tower, inputs)

    work()
    best = 0.0
    for clients in plan.clients:
        latencies, seconds = load_generator.closed_loop(work, clients, plan.load_seconds)
        closed = Load(tower, precision, device, "closed", clients, None, seconds, tuple(latencies))
        best = max(best, closed.throughput)
        yield closed
    for share in plan.rates:
        rate = share * best
        latencies, seconds = load_generator.open_loop(work, rate, plan.load_seconds)
        yield Load(tower, precision, device, "open", 0, rate, seconds, tuple(latencies))
