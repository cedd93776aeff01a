"""Compares what cpp_gpu_check wrote with the Python runtime: on the same device and precision, and FP32 on the CPU.

    python compare.py BUNDLE FOLDER

Writes FOLDER/compare.json after every part and prints it. A part that fails is an entry in "errors"; the others go on.
"""

from __future__ import annotations

import collections
import itertools
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from inputs import captions, images_of, mixed_texts
from numpy.typing import NDArray

import align_runtime

WARM_UP, THREADS = 5, 4
THREADED_SECONDS, MOST_SECONDS = 3.0, 4.0  # as in cpp_gpu_check.cpp
Rows = NDArray[np.float32]
Calls = dict[str, Callable[[], Rows]]


class Report:
    """What was found, written to a file after every part."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.values: dict[str, Any] = {"errors": {}}

    def part(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self.values["errors"][name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        self._file.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")


def calls_of(model: align_runtime.Model) -> Calls:
    """The calls of cpp_gpu_check under its names."""
    pixels, photos = images_of(32, *model.info.image_size), list(images_of(8, 480, 640))
    return {
        "pixels-1": lambda: model.embed_pixels(pixels[:1]),
        "pixels-8": lambda: model.embed_pixels(pixels[:8]),
        "pixels-32": lambda: model.embed_pixels(pixels),
        "images-8": lambda: model.embed_images(photos),
        "texts-1": lambda: model.embed_texts(captions()[:1]),
        "texts-32": lambda: model.embed_texts(captions()),
        "mixed-texts": lambda: model.embed_texts(mixed_texts()),
    }


def agreement(rows: Rows, expected: Rows) -> dict[str, float | bool]:
    cosines = (rows.astype(np.float64) * expected).sum(1)
    cosines /= np.linalg.norm(rows.astype(np.float64), axis=1) * np.linalg.norm(expected.astype(np.float64), axis=1)
    return {
        "max_abs": float(np.abs(rows - expected).max()),
        "min_cosine": float(cosines.min()),
        "equal_bytes": rows.tobytes() == expected.tobytes(),
    }


def timed(call: Callable[[], Rows], rounds: int) -> dict[str, float]:
    """Milliseconds of at most `rounds` calls."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or (len(times) < rounds and time.perf_counter() - start < MOST_SECONDS):
        one = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - one))
    times.sort()
    ranks = {"median_ms": len(times) // 2, "min_ms": 0, "p90_ms": len(times) * 9 // 10}
    return {name: times[rank] for name, rank in ranks.items()} | {"rounds": len(times)}


def threaded(calls: Calls, expected: dict[str, Rows], duration: float) -> dict[str, Any]:
    """All calls from THREADS threads at once, for `duration` seconds and at least once each, compared with the rows of
    the single thread."""
    names, seen, errors = sorted(expected), [], []
    differing: collections.Counter[str] = collections.Counter()
    lock, start = threading.Lock(), time.perf_counter()

    def client(index: int) -> None:
        try:
            for step in itertools.count(index):
                if step - index >= len(names) and time.perf_counter() - start >= duration:
                    return
                name = names[step % len(names)]
                rows = calls[name]()
                if rows.tobytes() != expected[name].tobytes():
                    with lock:
                        differing[name] += 1
                seen.append((len(rows), float(np.abs(rows - expected[name]).max())))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {
        "threads": THREADS,
        "seconds": time.perf_counter() - start,
        "calls": len(seen),
        "rows": sum(rows for rows, _ in seen),
        "calls_that_differ": dict(sorted(differing.items())),
        "max_abs": max((difference for _, difference in seen), default=0.0),
    }


def compare(report: Report, bundle: str, folder: Path) -> None:
    cpp = json.loads((folder / "cpp.json").read_text(encoding="utf-8"))
    device, precision = cpp["device"], cpp["precision"]
    rounds = max((call["rounds"] for call in cpp.get("calls", {}).values()), default=50)
    written = {
        name: np.fromfile(folder / f"{name}.f32", np.float32).reshape(call["rows"], call["dim"])
        for name, call in cpp.get("calls", {}).items()
    }
    report.values |= {"device": device, "precision": precision, "python_calls": {}, "cpp_against_python": {}}
    report.values |= {"cpp_against_cpu_fp32": {}, "python_against_cpu_fp32": {}}
    own: dict[str, Rows] = {}

    def one(name: str, call: Callable[[], Rows]) -> None:
        start = time.perf_counter()
        own[name] = call()
        first = {"first_ms": 1000 * (time.perf_counter() - start)}
        if name in written:
            report.values["cpp_against_python"][name] = agreement(written[name], own[name])
        report.values["python_calls"][name] = timed(call, rounds) | first

    def same_device() -> None:
        start = time.perf_counter()
        with align_runtime.load(bundle, device=device, precision=precision) as model:
            report.values["python_open_s"] = time.perf_counter() - start
            calls = calls_of(model)
            for name, call in calls.items():
                report.part(f"python {name}", lambda name=name, call=call: one(name, call))
            report.part(
                "python threads",
                lambda: report.values.update(python_threads=threaded(calls, own, THREADED_SECONDS)),
            )

    def cold() -> None:
        with align_runtime.load(bundle, device=device, precision=precision) as model:  # all first runs at once
            report.values["python_cold_threads"] = threaded(calls_of(model), own, 0)

    def on_cpu() -> None:
        file = folder.parent / "cpu-fp32.npz"  # which the next precision uses again
        if not file.exists():
            with align_runtime.load(bundle) as model:
                np.savez(file, **{name: call() for name, call in calls_of(model).items()})
        with np.load(file) as expected:
            for key, found in (("cpp", written), ("python", own)):
                report.values[f"{key}_against_cpu_fp32"] |= {
                    name: agreement(rows, expected[name]) for name, rows in found.items()
                }

    report.part("python on the device", same_device)
    report.part("python on the CPU", on_cpu)
    report.part("python cold threads", cold)


def main() -> int:
    bundle, folder = sys.argv[1], Path(sys.argv[2])
    report = Report(folder / "compare.json")
    report.part("compare", lambda: compare(report, bundle, folder))
    sys.stdout.write(json.dumps(report.values, indent=1) + "\n")
    return 1 if report.values["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
