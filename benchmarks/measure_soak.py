"""Soaks one model in many threads, with bad inputs among the good ones; writes ``benchmarks/results/soak.json``.

    python -m benchmarks.measure_soak build/align-tiny [--threads 64] [--seconds 600] [--bad 0.05]

Each thread embeds lists of images and texts and compares every row with the row that the model gave for that input
alone before. Meanwhile the main thread forks children that use the model, and loads, uses and closes other models of
the same bundle. At the end the model is closed while all threads still call it. A wrong row, an unexpected error, a
child that hangs, memory that grows or a thread that stays is a fault; with one the exit code is 1.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import align_runtime
from align_exporter.builtin_samples import captions
from align_runtime import ConfigurationError, InputError, Model
from benchmarks.result_files import ROOT, conditions, write_result

LENGTHS = (1, 2, 3, 8)  # of the lists that are embedded
CHILD_SECONDS = 30  # after which a forked child is a fault
JOIN_SECONDS = 60.0  # for a thread to end after the model was closed
# Rows of FP32 graphs alone and in any batch, with one thread and with all, differ by less (tests/runtime).
ROW_TOLERANCE = 2e-6
GROWTH_LIMIT = 1.05  # resident memory, median of the last third of the time over that of the second
WORKED, REFUSED = 0, 3  # exit codes of a forked child


class Soak:
    """One model, its inputs with their expected rows, and what happened so far."""

    def __init__(self, model: Model, bad: float) -> None:
        self.model, self.bad = model, bad
        self.images = _images()
        self.texts: list[Any] = captions()[:64]
        self.rows = {
            "images": np.concatenate([model.embed_images([image]) for image in self.images]),
            "texts": np.concatenate([model.embed_texts([text]) for text in self.texts]),
        }
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.difference = 0.0
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def run_thread(self, seed: int) -> None:
        """Embeds until the model is closed."""
        random = Random(seed)
        while True:
            try:
                self._embed_once(random)
            except ConfigurationError as error:
                if not self.closing.is_set():
                    self.fault(f"refused while open: {error}")
                return
            except Exception as error:  # whatever else comes up is what the soak looks for
                self.fault(f"{type(error).__name__}: {error}")
                return

    def _embed_once(self, random: Random) -> None:
        kind = random.choice(("images", "texts"))
        good, bad = (self.images, BAD_IMAGES) if kind == "images" else (self.texts, BAD_TEXTS)
        chosen = [random.randrange(len(good)) for _ in range(random.choice(LENGTHS))]
        items = [good[index] for index in chosen]
        broken = [place for place in range(len(items)) if random.random() < self.bad]
        for place in broken:
            items[place] = random.choice(bad)
        embed: Callable[..., Any] = self.model.embed_images if kind == "images" else self.model.embed_texts
        if broken and random.random() < 0.5:
            try:
                embed(items)
            except InputError as error:
                self.check(error.index == broken[0], f"index {error.index}, expected {broken[0]}")
            else:
                self.fault(f"{kind}: a bad input was embedded")
            self.count("calls refused")
            return
        if broken:
            part = embed(items, on_error="skip")
            self.check([error.index for error in part.errors] == broken, f"errors {part.errors}, expected {broken}")
            places, rows = list(part.indices), part.embeddings
        else:
            places, rows = list(range(len(items))), embed(items)
        self.compare(kind, [chosen[place] for place in places], rows)
        self.count(f"{kind} embedded", len(places))
        self.count("bad inputs", len(broken))

    def compare(self, kind: str, indices: Sequence[int], rows: NDArray[np.float32]) -> None:
        """Compares `rows` with the expected ones of the inputs `indices`."""
        expected = self.rows[kind][list(indices)]
        if rows.shape != expected.shape:
            self.fault(f"{kind}: shape {rows.shape}, expected {expected.shape}")
        elif rows.size:
            difference = float(np.abs(rows - expected).max())
            with self._lock:
                self.difference = max(self.difference, difference)
            self.check(difference <= ROW_TOLERANCE, f"{kind}: a row differs by {difference:.3g}")

    def check(self, condition: bool, fault: str) -> None:
        if not condition:
            self.fault(fault)

    def fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text[:300])

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def fork(self) -> None:
        """A forked child uses the model: it must work or be refused, never hang."""
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            code = 1
            try:
                rows = self.model.embed_images(self.images[:3])
                code = WORKED if np.abs(rows - self.rows["images"][:3]).max() <= ROW_TOLERANCE else 1
            except align_runtime.AlignError:
                code = REFUSED
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in (WORKED, REFUSED):
            self.fault(f"a forked child ended with {code}{' (hung)' if code == -signal.SIGALRM else ''}")
        self.count("forked children" if code == WORKED else "forked children, refused")

    def load_another(self, bundle: Path) -> None:
        """Loads another model, calls it from four threads and closes it meanwhile."""
        other = Soak(align_runtime.load(bundle, threads=1), self.bad)
        threads = _started(other, 4)
        time.sleep(0.5)
        other.closing.set()
        other.model.close()
        _join(threads, other)
        with self._lock:
            self.faults += [f"another model: {fault}" for fault in other.faults]
        self.count("other models closed under load")


def soak(bundle: Path, threads: int, seconds: float, bad: float) -> dict[str, Any]:
    """Counts, faults, largest difference of a row, memory by second and threads before and after."""
    with align_runtime.load(bundle) as first:  # libraries start threads and caches of their own that stay
        Soak(first, bad).load_another(bundle)
    before = _threads()
    running = Soak(align_runtime.load(bundle), bad)
    started = _started(running, threads)
    memory, start = list[float](), time.monotonic()
    while time.monotonic() - start < seconds:
        time.sleep(1)
        memory.append(_resident_mib())
        running.fork()
        if len(memory) % 5 == 0:
            running.load_another(bundle)
    running.closing.set()
    running.model.close()
    _join(started, running)
    after = _threads()
    running.check(after <= before, f"{after} threads after close(), {before} before load()")
    third = len(memory) // 3
    growth = median(memory[-third:]) / median(memory[third : 2 * third])
    running.check(growth <= GROWTH_LIMIT, f"resident memory grew by a factor of {growth:.3f}")
    return {
        "threads": threads,
        "seconds": seconds,
        "bad_share": bad,
        "counts": dict(running.counts),
        "faults": running.faults,
        "largest_row_difference": running.difference,
        "resident_mib": [round(value, 1) for value in memory],
        "growth": round(growth, 4),
        "threads_before_load": before,
        "threads_after_close": after,
    }


def _images() -> list[Any]:
    """Images in every form that a caller may pass: paths, bytes, PIL images, arrays."""
    paths = sorted(path for path in (ROOT / "reference/align-tiny/demo").iterdir() if path.suffix != ".json")
    decoded = [Image.open(path).convert("RGB") for path in paths]
    arrays = [np.asarray(image) for image in decoded]
    grey = [np.asarray(image.convert("L")) for image in decoded]
    return [*paths, *(path.read_bytes() for path in paths), *decoded, *arrays, *grey]


def _jpeg_cut_off() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    return file.getvalue()[:-200]


BAD_IMAGES = [b"not an image", _jpeg_cut_off(), Path("missing.png"), np.zeros((4, 4)), None, b""]
BAD_TEXTS = [None, b"bytes", "lone \ud800", 7]


def _started(running: Soak, count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=running.run_thread, args=[seed], daemon=True) for seed in range(count)]
    for thread in threads:
        thread.start()
    return threads


def _join(threads: Sequence[threading.Thread], running: Soak) -> None:
    end = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        running.check(not thread.is_alive(), "a thread did not end after close()")


def _threads() -> int:
    """Threads of this process, those of libraries included; ended ones take a moment to disappear."""
    time.sleep(1)
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle with FP32 graphs")
    parser.add_argument("--threads", type=int, default=64, help="that call one model (default: 64)")
    parser.add_argument("--seconds", type=float, default=600, help="default: 600")
    parser.add_argument("--bad", type=float, default=0.05, help="share of bad inputs (default: 0.05)")
    options = parser.parse_args()
    load = os.getloadavg()
    result = soak(options.bundle, options.threads, options.seconds, options.bad)
    write_result("soak", conditions(load) | result)
    for what, number in result["counts"].items():
        print(f"{number:>9,}  {what}")
    print(f"growth {result['growth']}, largest difference of a row {result['largest_row_difference']:.2g}")
    for fault, number in Counter(result["faults"]).most_common(20):
        print(f"FAULT ({number}×) {fault}")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
