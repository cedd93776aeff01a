"""Cached statistics: an interrupted calibration resumes, and a finished one is not measured again.

A file is named after its `statistics_key` and holds what was measured on the samples: no samples, no weights, and not
the result of an observer, which is a cheap function of a histogram. So one file serves all observers.

Layout, little-endian: sha256 of the key and of all that follows (32 bytes), completed runs (int64), extremes (float32),
counts (int64). The sizes follow from what is measured: the content of a file never decides how much is read, and
nothing in it is executed. Files are renamed into place, so that a process killed at any time leaves the last state or
the one before.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from platform import machine
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

import align_calibration
from align_calibration.package_hash import package_hash
from align_calibration.run_instrumented import Batch

FORMAT = 1  # of the file, and of the order in which runs fill the arrays
SAVE_SECONDS = 15.0  # between two writes of some 14 MB in the published sizes: the work that a kill may lose
MAX_ENTRIES = 8  # the most recently used files are kept
SUFFIX = ".statistics"
ENTRY_NAME = re.compile(r"(?:\.[0-9a-f]{64}\.[0-9]+|[0-9a-f]{64})\.statistics")  # while it is written, and after
DIGEST_BYTES, RUNS_BYTES = 32, 8


@dataclass
class Statistics:
    """Extremes and counts of a graph's tensors, filled run by run of the graph.

    Attributes:
        done: completed runs of the graph.
        extremes: float32 (samples, 2, tensors): lowest and highest value of every tensor for every sample.
        counts: int64 (tensors, bins): how many values fell into each bin.
    """

    done: int
    extremes: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, samples: int, tensors: int, bins: int) -> Statistics:
        """The state before the first run."""
        extremes = np.zeros((samples, 2, tensors), dtype=np.float32)
        return cls(0, extremes, np.zeros((tensors, bins), dtype=np.int64))


def statistics_key(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], parameters: Mapping[str, float]
) -> str:
    """Hash of everything that the statistics of `tensors` depend on, as 64 hexadecimal digits.

    The sha256 of the graph with its weights, the names of the tensors, the samples in order, the parameters of the
    measurement, the architecture, the versions of ONNX Runtime and NumPy, since others round differently, and this
    package itself.
    Processors of one architecture are not distinguished.
    """
    digest = hashlib.sha256()
    tools = f"{machine()} onnxruntime {onnxruntime.__version__} numpy {np.__version__} source {_own_hash()}"
    for text in (f"format {FORMAT}", tools, repr(sorted(parameters.items())), repr(list(tensors))):
        _add(digest, text.encode())
    _add(digest, ir.to_proto(model).SerializeToString(deterministic=True))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):  # the graph holds only the name of its file
            _add(digest, value.const_value.tobytes())
    for batch in batches:
        for name, array in sorted(batch.items()):
            _add(digest, f"{name} {array.dtype.str} {array.shape}".encode())
            _add(digest, array.tobytes())
    return digest.hexdigest()


@cache
def _own_hash() -> str:
    return package_hash([align_calibration])


class StatisticsCache:
    """Statistics in `folder`, which is created with the first file.

    A file that cannot be read or written is reported with `warn`, one line each; the result is the same, only measured
    again.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn

    def load(self, key: str, empty: Statistics) -> Statistics:
        """Returns what is stored for `key`, with the shapes of `empty`; `empty` where there is no usable file."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                content = file.read(_size(empty) + 1)
            os.utime(path)  # marks it as used, so that it is not the next to be deleted
        except FileNotFoundError:
            return empty
        except OSError as error:
            self._warn(f"cannot read {path} ({error.strerror}); the samples are measured again")
            return empty
        found = _unpack(key, content, empty)
        if found is None:
            self._warn(f"{path} is damaged or belongs to another calibration; the samples are measured again")
        return found or empty

    def save(self, key: str, statistics: Statistics) -> bool:
        """Writes `statistics` and deletes all but the newest `MAX_ENTRIES` files; returns whether it succeeded."""
        part = self.folder / f".{key}.{os.getpid()}{SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(_pack(key, statistics))
            part.replace(self._path(key))
            self._delete_old()
        except OSError as error:
            self._warn(
                f"cannot write {self.folder} ({error.strerror}); the calibration continues, but cannot be resumed: "
                "free space there or pass another folder with --calibration-cache"
            )
            with suppress(OSError):  # what fitted onto a full disk
                part.unlink()
            return False
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _delete_old(self) -> None:
        """Deletes old entries, parts left by killed processes included: a part being written is newer than those."""
        dated = []
        for path in [path for path in self.folder.iterdir() if ENTRY_NAME.fullmatch(path.name)]:
            try:
                dated.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:  # deleted by another process
                continue
        for _, path in sorted(dated)[:-MAX_ENTRIES]:
            path.unlink(missing_ok=True)


class Recording:
    """Statistics that grow run by run and are written to a cache every `SAVE_SECONDS`.

    They are written between two runs only: an interrupt during a run would leave half of it in the counts.
    """

    def __init__(self, statistics: Statistics, cache: StatisticsCache | None, key: str) -> None:
        self.statistics = statistics
        self._cache, self._key = cache, key
        self._saved, self._written = time.monotonic(), statistics.done

    def advance(self) -> None:
        """Counts one more completed run."""
        self.statistics.done += 1
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the runs that are not written yet. After a failed write the cache is not used any more."""
        if self._cache is None or self.statistics.done == self._written:
            return
        if not self._cache.save(self._key, self.statistics):
            self._cache = None
        self._saved, self._written = time.monotonic(), self.statistics.done


def _add(digest: Any, content: bytes) -> None:
    """Adds the length first, so that different lists of contents never give the same bytes."""
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)


def _size(statistics: Statistics) -> int:
    return DIGEST_BYTES + RUNS_BYTES + statistics.extremes.nbytes + statistics.counts.nbytes


def _pack(key: str, statistics: Statistics) -> bytes:
    content = b"".join(
        (
            np.int64(statistics.done).astype("<i8").tobytes(),
            statistics.extremes.astype("<f4").tobytes(),
            statistics.counts.astype("<i8").tobytes(),
        )
    )
    return _digest(key, content) + content


def _unpack(key: str, content: bytes, sizes: Statistics) -> Statistics | None:
    """Returns None where `content` is not what `_pack` makes for `key` of statistics with the shapes of `sizes`."""
    digest, rest = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    extremes, counts = sizes.extremes, sizes.counts
    if len(content) != _size(sizes) or digest != _digest(key, rest):
        return None
    end = RUNS_BYTES + extremes.nbytes
    return Statistics(
        int(np.frombuffer(rest[:RUNS_BYTES], "<i8")[0]),
        np.frombuffer(rest[RUNS_BYTES:end], "<f4").reshape(extremes.shape).astype(np.float32),
        np.frombuffer(rest[end:], "<i8").reshape(counts.shape).astype(np.int64),
    )


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()
