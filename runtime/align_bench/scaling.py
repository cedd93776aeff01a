"""How the cost of one input grows with batch, length, threads, image size and number; and memory over many texts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from align_bench.record import Case
from align_bench.subject import Subject, opened
from align_bench.timing import Effort, sample, warm_up
from align_bench.workload import TextMaker
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from align_runtime.scheduling import available_cores

BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (4, 8, 16, 32, 64)
IMAGE_SIZES = ("320x240", "640x480", "1280x960", "2560x1920")
NUMBERS = {"vision": (1, 8, 64), "text": (1, 32, 1024, 8192)}
MEMORY_PROBES = 20
FLAT_WITHIN = 32 * 2**20  # bytes that may come and go: arenas and the interpreter's free lists


@dataclass(frozen=True)
class Point:
    """Milliseconds of one input where `axis` has the value `at`."""

    tower: str
    axis: str
    at: str
    milliseconds: float


@dataclass(frozen=True)
class MemoryUse:
    """Resident memory while texts stream through the model.

    Attributes:
        texts: how many.
        resident_bytes: at even distances, the first after a twentieth of the texts.
        seconds: of everything.
    """

    texts: int
    resident_bytes: tuple[int, ...]
    seconds: float

    @property
    def growth(self) -> int:
        """Bytes by which the largest of the last half exceeds the largest of the first half."""
        half = len(self.resident_bytes) // 2
        return max(self.resident_bytes[half:]) - max(self.resident_bytes[:half])

    @property
    def flat(self) -> bool:
        return self.growth <= FLAT_WITHIN


def measure_scaling(bundle: Bundle, precision: str, device: str, effort: Effort, progress: Progress) -> list[Point]:
    """One axis at a time; everything else is as in a usual call: batch 8, 12 tokens, 640x480, all cores."""
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
    for threads in _thread_counts() if device == "cpu" else ():
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
    """1, 2, 4 … and all cores."""
    cores = available_cores()
    return sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores})


def stream_texts(subject: Subject, texts: int) -> MemoryUse:
    """Embeds `texts` captions of mixed length from a generator, keeps nothing, and watches the resident memory."""
    maker = TextMaker(subject.bundle)
    limit = subject.bundle.manifest.model.max_length
    some = [maker.make(1, length, seed)[0] for seed, length in enumerate(range(4, min(24, limit)))]
    probes, done, resident = iter(_probe_places(texts)), 0, list[int]()
    place: int | None = next(probes)
    start = time.perf_counter()
    for part in subject.model.iter_embed_texts(islice(cycle(some), texts)):
        done += len(part)
        while place is not None and done >= place:
            resident.append(resident_bytes())
            place = next(probes, None)
    return MemoryUse(texts, tuple(resident), time.perf_counter() - start)


def _probe_places(texts: int) -> Iterator[int]:
    for probe in range(1, MEMORY_PROBES + 1):
        yield max(texts * probe // MEMORY_PROBES, 1)


def resident_bytes() -> int:
    """Memory of this process that is resident now, from Linux's /proc.

    Raises:
        OSError: there is none.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
