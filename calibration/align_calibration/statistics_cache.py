"""A folder of statistics: a calibration that was killed goes on where it was, and one that was done is not done again.

A file is called by its `statistics_key` and holds what was measured on the samples. What an observer makes of it is not
kept: that is a cheap function of a histogram, so one file serves all observers. It holds no samples and no weights.

Layout, little-endian: sha256 of the key and of all that follows (32 bytes), runs done (int64), extremes (float32),
counts (int64). Their sizes follow from what is measured: nothing that a file says decides how much is read, and nothing
in it is executed. Files are renamed into place, so that there is the last state or the one before, whenever a process
is killed.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from align_calibration.statistics import Statistics

SAVE_SECONDS = 15.0  # between two writes, of some 14 MB in the published sizes: what a kill may cost
ENTRIES = 8  # newest files that are kept
SUFFIX = ".statistics"
OURS = re.compile(r"(?:\.[0-9a-f]{64}\.[0-9]+|[0-9a-f]{64})\.statistics")  # being written, and written
DIGEST_BYTES, RUNS_BYTES = 32, 8


class StatisticsCache:
    """Statistics in `folder`, which is created when the first are written.

    Whatever goes wrong with a file is told to `warn`, one line each, and costs a measurement, never a result.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn

    def load(self, key: str, empty: Statistics) -> Statistics:
        """What is kept for `key`; `empty`, whose sizes it has to have, where nothing is or where it is damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                content = file.read(_size(empty) + 1)
            os.utime(path)  # used: not the next to be dropped
        except FileNotFoundError:
            return empty
        except OSError as error:
            self._warn(f"{path} cannot be read ({error.strerror}); the samples are measured anew")
            return empty
        found = _unpacked(key, content, empty)
        if found is None:
            self._warn(f"{path} is damaged or was not written for this; the samples are measured anew")
        return found or empty

    def save(self, key: str, statistics: Statistics) -> bool:
        """Writes `statistics`, and drops what is older than the newest `ENTRIES` files; says whether it could."""
        part = self.folder / f".{key}.{os.getpid()}{SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(_packed(key, statistics))
            part.replace(self._path(key))
            self._drop_old()
        except OSError as error:
            self._warn(f"{self.folder} cannot be written ({error.strerror}); a killed calibration will start anew")
            with suppress(OSError):  # as much as a full disk took
                part.unlink()
            return False
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _drop_old(self) -> None:
        """Files of killed writers among them: another that is being written is too new. Other files stay."""
        dated = []
        for path in [path for path in self.folder.iterdir() if OURS.fullmatch(path.name)]:
            try:
                dated.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:  # by another process, which drops too
                continue
        for _, path in sorted(dated)[:-ENTRIES]:
            path.unlink(missing_ok=True)


class Recording:
    """Statistics that grow run by run, and are written into a cache now and then.

    They are written between two runs only: an interrupt in the midst of one would leave half of it in the counts.
    """

    def __init__(self, statistics: Statistics, cache: StatisticsCache | None, key: str) -> None:
        self.statistics = statistics
        self._cache, self._key = cache, key
        self._saved, self._written = time.monotonic(), statistics.done

    def advance(self) -> None:
        """One more run is in the statistics."""
        self.statistics.done += 1
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.finish()

    def finish(self) -> None:
        """Writes what is not written yet. A cache that cannot be written is given up."""
        if self._cache is None or self.statistics.done == self._written:
            return
        if not self._cache.save(self._key, self.statistics):
            self._cache = None
        self._saved, self._written = time.monotonic(), self.statistics.done


def _size(statistics: Statistics) -> int:
    return DIGEST_BYTES + RUNS_BYTES + statistics.extremes.nbytes + statistics.counts.nbytes


def _packed(key: str, statistics: Statistics) -> bytes:
    content = b"".join(
        (
            np.int64(statistics.done).astype("<i8").tobytes(),
            statistics.extremes.astype("<f4").tobytes(),
            statistics.counts.astype("<i8").tobytes(),
        )
    )
    return _digest(key, content) + content


def _unpacked(key: str, content: bytes, sizes: Statistics) -> Statistics | None:
    """None where `content` is not what `_packed` makes for `key` of statistics like `sizes`."""
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
