"""Time per input over batch, text length, threads, image size and number of inputs; and memory over many texts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from align_bench.machine import describe, load_average
from align_bench.measure import identity
from align_bench.record import MEMORY, SCALING, SCHEMA, Case
from align_bench.subject import Subject, TextMaker, opened
from align_bench.timing import Effort, sample, warm_up
from align_runtime.bundle import Bundle
from align_runtime.console import table
from align_runtime.devices import backend_of
from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind, require
from align_runtime.processors import available_cores
from align_runtime.progress import Progress

BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (4, 8, 16, 32, 64)
IMAGE_SIZES = ("320x240", "640x480", "1280x960", "2560x1920")
NUMBERS = {"vision": (1, 8, 64), "text": (1, 32, 1024, 8192)}
MEMORY_PROBES = 20
FLAT_WITHIN = 32 * 2**20  # bytes that come and go with arenas and the free lists of the interpreter


@dataclass(frozen=True)
class Point:
    """Median milliseconds per input where `axis` has the value `at`."""

    tower: str
    axis: str
    at: str
    milliseconds: float


@dataclass(frozen=True)
class MemoryUse:
    """Resident memory while texts stream through the model.

    Attributes:
        texts: number of texts.
        resident_bytes: measured after each twentieth of the texts.
        seconds: total duration.
    """

    texts: int
    resident_bytes: tuple[int, ...]
    seconds: float

    @property
    def growth(self) -> int:
        """Bytes by which the maximum of the second half exceeds that of the first half."""
        half = len(self.resident_bytes) // 2
        return max(self.resident_bytes[half:]) - max(self.resident_bytes[:half])

    @property
    def flat(self) -> bool:
        """Whether the memory does not grow with the number of texts."""
        return self.growth <= FLAT_WITHIN


def measure_scaling(bundle: Bundle, precision: str, device: str, effort: Effort, progress: Progress) -> list[Point]:
    """Varies one axis at a time; the others stay at batch 8, 12 tokens, 640x480 and all cores."""
    points: list[Point] = []
    limit = bundle.manifest.model.max_length
    with opened(bundle, precision, device) as subject:
        streams = subject.parts.images.tower.streams
        usual = {"vision": Case("vision", precision, device, 8, "640x480", None, streams)}
        usual["text"] = Case("text", precision, device, 8, str(min(12, limit)), None, streams)
        grown = {
            ("vision", "image size"): [_changed(usual["vision"], size=size) for size in IMAGE_SIZES],
            ("text", "length"): [_changed(usual["text"], size=str(size)) for size in LENGTHS if size <= limit],
        }
        for tower, case in usual.items():
            grown[tower, "batch of the graph"] = [_changed(case, batch=batch) for batch in BATCHES]
            grown[tower, "number of inputs"] = [_changed(case, batch=number) for number in NUMBERS[tower]]
        for (tower, axis), cases in grown.items():
            with progress.phase(f"{tower}: {axis}"):
                points += [_point(subject, case, axis, effort) for case in cases]
    for threads in _thread_counts() if backend_of(device).on_cpu else ():
        with progress.phase(f"{threads} threads"), opened(bundle, precision, device, threads, 1) as subject:
            points += [_point(subject, _changed(case, threads=threads), "threads", effort) for case in usual.values()]
    return points


def _changed(case: Case, batch: int = 8, size: str | None = None, threads: int | None = None) -> Case:
    return Case(case.tower, case.precision, case.device, batch, size or case.size, threads, case.streams)


def _point(subject: Subject, case: Case, axis: str, effort: Effort) -> Point:
    inputs = subject.inputs(case)
    if axis == "batch of the graph":
        tensors, tower = subject.tensors(case, inputs), subject.tower(case.tower)
        seconds = _seconds(lambda: tower.run(tensors), effort)
    else:
        seconds = _seconds(lambda: subject.embed(case.tower, inputs), effort)
    at = {"image size": case.size, "length": case.size, "threads": str(case.threads)}.get(axis, str(case.batch))
    return Point(case.tower, axis, at, 1000 * seconds / case.batch)


def _seconds(work: Callable[[], object], effort: Effort) -> float:
    warm_up(work, effort.seconds)
    return median(sample(work, effort))


def _thread_counts() -> list[int]:
    """Powers of two up to all cores, and all cores."""
    cores = available_cores()
    return sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores})


def stream_texts(subject: Subject, texts: int) -> MemoryUse:
    """Embeds `texts` texts of mixed length from a generator, keeps no result, and records the resident memory."""
    maker = TextMaker(subject.bundle)
    limit = subject.bundle.manifest.model.max_length
    samples = [maker.make(1, length, seed)[0] for seed, length in enumerate(range(4, min(24, limit)))]
    probes, done, resident = iter(_probe_places(texts)), 0, list[int]()
    place: int | None = next(probes)
    start = time.perf_counter()
    for part in subject.model.iter_embed_texts(islice(cycle(samples), texts)):
        done += len(part.indices)
        while place is not None and done >= place:
            resident.append(resident_bytes())
            place = next(probes, None)
    return MemoryUse(texts, tuple(resident), time.perf_counter() - start)


def _probe_places(texts: int) -> Iterator[int]:
    for probe in range(1, MEMORY_PROBES + 1):
        yield max(texts * probe // MEMORY_PROBES, 1)


def resident_bytes() -> int:
    """Resident memory of this process, from Linux's /proc.

    Raises:
        OSError: the system has no /proc.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def about(bundle: Bundle, precision: str, device: str) -> dict[str, Any]:
    """What is measured, and on what; to be called before the first run, for the load average."""
    return {
        "machine": describe(device),
        "load_average": load_average(),
        "bundle": identity(bundle),
        "precision": precision,
    }


def scaling_json(facts: dict[str, Any], points: Sequence[Point]) -> dict[str, Any]:
    """A result file of kind ``"scaling"``; `facts` are those of `about`."""
    return {"schema": SCHEMA, "kind": SCALING} | facts | {"points": [asdict(point) for point in points]}


def memory_json(facts: dict[str, Any], use: MemoryUse) -> dict[str, Any]:
    """A result file of kind ``"memory"``; `facts` are those of `about`."""
    return {"schema": SCHEMA, "kind": MEMORY} | facts | asdict(use) | {"growth": use.growth, "flat": use.flat}


def points_of(where: str, values: Mapping[str, Any]) -> list[Point]:
    """The points of a result file; errors name `where` it came from.

    Raises:
        ConfigurationError: a point lacks a key, or a value has another type.
    """
    return [
        Point(
            **{key: require(where, point, key, str) for key in ("tower", "axis", "at")},
            milliseconds=require(where, point, "milliseconds", float),
        )
        for point in (of_kind(f"{where}: points", value, dict) for value in require(where, values, "points", list))
    ]


def memory_of(where: str, values: Mapping[str, Any]) -> MemoryUse:
    """The memory of a result file; errors name `where` it came from.

    Raises:
        ConfigurationError: a key is missing, or a value has another type.
    """
    resident = require(where, values, "resident_bytes", list)
    if len(resident) < 2:
        raise ConfigurationError(f"{where}: resident_bytes: expected at least two values, got {len(resident)}")
    return MemoryUse(
        require(where, values, "texts", int),
        tuple(of_kind(f"{where}: resident_bytes", value, int) for value in resident),
        require(where, values, "seconds", float),
    )


def scaling_text(points: Sequence[Point]) -> str:
    """A table."""
    rows = [[point.tower, point.axis, point.at, f"{point.milliseconds:.3f}"] for point in points]
    return "\n".join(table(["tower", "axis", "value", "ms per input"], rows, right=(2, 3)))


def memory_text(use: MemoryUse) -> str:
    """A sentence with a verdict."""
    first, last, growth = (value / 2**20 for value in (use.resident_bytes[0], use.resident_bytes[-1], use.growth))
    return (
        f"{use.texts} texts in {use.seconds:.0f} s: {first:.0f} MiB resident after a twentieth of them, {last:.0f} MiB "
        f"at the end; the second half grew by {growth:.1f} MiB: {'flat' if use.flat else 'NOT FLAT'}"
    )
